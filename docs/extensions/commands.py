"""The directive ``commands``: a section for each command of hf-tle-int8, with what its ``--help`` prints."""

import argparse
from collections.abc import Iterator
from typing import ClassVar
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hf_tle_int8.cli.main import build_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """``parser`` and all that are below it, in the order of its help."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


class Commands(SphinxDirective):
    """Takes neither arguments nor content."""

    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        """The sections."""
        sections: list[nodes.Node] = []
        with mock.patch.dict("os.environ", COLUMNS="100", NO_COLOR="1"):
            for parser in parsers(build_parser()):
                section = nodes.section(ids=[parser.prog.replace(" ", "-")], names=[parser.prog])
                section += nodes.title(text=parser.prog)
                section += nodes.literal_block(text=parser.format_help(), language="text")
                self.state.document.note_explicit_target(section)
                sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
