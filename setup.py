"""All metadata is in setup.cfg; this file lets older installers build the package."""

from setuptools import setup

setup()
