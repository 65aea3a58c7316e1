"""All metadata is in setup.cfg; this file lets older installers build the package, and keeps tests/ out of sdists."""

from setuptools import setup
from setuptools.command.sdist import sdist


class SourceDistribution(sdist):
    """Without the files of tests/ that setuptools adds: those named test, which cannot run alone."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy ``files`` to ``base_dir``."""
        super().make_release_tree(base_dir, [file for file in files if not file.startswith("tests/")])


setup(cmdclass={"sdist": SourceDistribution})
