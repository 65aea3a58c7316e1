"""INT8 (W8A8) on CPUs for torch tensors: rows are quantized, weights packed, multiplied exactly in int32 and rescaled.

The Triton kernels themselves are in ``kernels``; ``__version__`` is the release of hf_tle_int8 that they are of.
"""

from .requirement import check
from .version import __version__

check(__version__)

from . import kernels  # noqa: E402 - what imports Triton is imported once it is known to be of use
from .functions import Panels, int8_linear, int_mm, pack, quantize  # noqa: E402

__all__ = ["Panels", "__version__", "int8_linear", "int_mm", "kernels", "pack", "quantize"]
