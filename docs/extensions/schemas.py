"""The directive ``schemas``: those of the operators in ``tle_int8`` that modules register, each in a line."""

import importlib
from typing import ClassVar

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Schemas(SphinxDirective):
    """Takes the names of modules to import first."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        """One block."""
        for module in self.arguments[0].split():
            importlib.import_module(module)
        found = (str(schema) for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("tle_int8::"))
        return [nodes.literal_block(text="\n".join(sorted(found)), language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("schemas", Schemas)
    return {"parallel_read_safe": True}
