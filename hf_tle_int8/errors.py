"""The errors of this package.

Each is also the built-in exception that a caller would expect, and each message holds the value that was found, the
reason why it is refused and the remedy.
"""


class TLEInt8Error(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(TLEInt8Error, ValueError):
    """An option of the configuration is unknown, malformed or contradicts another one."""


class InputValueError(TLEInt8Error, ValueError):
    """A tensor has a wrong shape or holds values that the scheme cannot represent."""


class InputTypeError(TLEInt8Error, TypeError):
    """A tensor has a dtype, or an argument has a type, that is not served."""


class CheckpointError(TLEInt8Error, ValueError):
    """A checkpoint lacks a tensor, or holds one of a wrong shape, dtype or value."""


class UnsupportedSchemeError(TLEInt8Error, ValueError):
    """A checkpoint was quantized by another method or scheme."""


class UnsupportedPlacementError(TLEInt8Error, ValueError):
    """A device, a device map or a distributed layout on which the model cannot run."""


class UnsupportedTrainingError(TLEInt8Error, RuntimeError):
    """Something would train INT8 weights, which have no gradient."""


class AdapterError(TLEInt8Error, ValueError):
    """An adapter that would read int8 codes as weights, or write into them."""
