"""The documentation as a site: `make docs` writes build/site/index.html. Nothing is fetched to build or to read it."""

import inspect
import sys
from pathlib import Path

from triton.runtime.jit import JITFunction

import hf_tle_int8.kernels.linear
import hf_tle_int8.kernels.pack
import hf_tle_int8.kernels.product
import hf_tle_int8.kernels.quantize
from hf_tle_int8.version import __version__

sys.path.append(str(Path(__file__).parent / "extensions"))

project = "hf_tle_int8"
author = "hf_tle_int8"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "commands", "schemas"]
exclude_patterns = ["extensions", "static"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"hf_tle_int8 {__version__}"
html_show_sphinx = html_show_copyright = False
html_copy_source = False

# `bytes` of a signature, beside properties of that name.
suppress_warnings = ["ref.python"]

myst_heading_anchors = 3

# Docstrings write `name` for what is defined here and ``text`` for all else.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True
autodoc_type_aliases = {"Tensor": "torch.Tensor"}
python_maximum_signature_line_length = 88


def _show_kernels_as_functions() -> None:
    """Let autodoc see the functions that Triton has made kernels of."""
    for name in ("linear", "pack", "product", "quantize"):
        module = getattr(hf_tle_int8.kernels, name)
        for attribute, value in inspect.getmembers(module, lambda value: isinstance(value, JITFunction)):
            if value.fn.__module__ == module.__name__:
                setattr(module, attribute, value.fn)


_show_kernels_as_functions()
