"""Types and attributes of MLIR's generic form."""

import functools
import re
import struct
from typing import Any

from hf_tle_int8.backend.ttir.model import DenseElements
from hf_tle_int8.backend.ttir.scanner import Scanner
from hf_tle_int8.backend.ttir.types import (
    FLOAT_BITS,
    FloatType,
    FunctionType,
    IntegerType,
    OpaqueType,
    PointerType,
    TensorType,
    Type,
)

_TYPE_NAME = re.compile(r"![\w.]+|(?:tensor|vector|memref|tuple)(?=<)|[a-z]\w*")
_EXTENT = re.compile(r"(\d+)x")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"-?(?:0x[0-9A-Fa-f]+|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w.])")
_WORD = re.compile(r"(?:true|false|unit|dense|array)\b")
_SYMBOL = re.compile(r'[#@](?:[\w.$]+|"[^"]*")')
_KEY = re.compile(r'"[^"]*"|[\w.$]+')
_ESCAPE = re.compile(r"\\([0-9A-Fa-f]{2}|.)")


def read_type(scanner: Scanner) -> Type:
    """Read the type that comes next."""
    if scanner.at("("):
        return _read_function_type(scanner)
    name = scanner.require(_TYPE_NAME, "a type")
    text = f"{name}<{scanner.balanced()}>" if scanner.text.startswith("<", scanner.position) else name
    return _type_of(text)


def read_types(scanner: Scanner) -> tuple[Type, ...]:
    """Read ``(type, …)`` or one type."""
    if not scanner.accept("("):
        return (read_type(scanner),)
    types = []
    while not scanner.accept(")"):
        types.append(read_type(scanner))
        scanner.accept(",")
    return tuple(types)


def _read_function_type(scanner: Scanner) -> FunctionType:
    inputs = read_types(scanner)
    scanner.expect("->")
    return FunctionType(inputs, read_types(scanner))


@functools.lru_cache(maxsize=4096)
def _type_of(text: str) -> Type:
    if text in FLOAT_BITS:
        return FloatType(text)
    if text == "index":
        return IntegerType(64)
    if text[0] == "i" and text[1:].isdigit():
        return IntegerType(int(text[1:]))
    name, _, inner = text.removesuffix(">").partition("<")
    if name == "!tt.ptr":
        # The address space, where there is one, follows a comma; on a CPU there is one memory.
        return PointerType(_type_of(re.sub(r",\s*\d+$", "", inner)))
    if name == "tensor":
        shape, position = [], 0
        while (extent := _EXTENT.match(inner, position)) is not None:
            shape.append(int(extent.group(1)))
            position = extent.end()
        element = _type_of(inner[position:])
        if not isinstance(element, TensorType | FunctionType):
            return TensorType(tuple(shape), element)
    return OpaqueType(text)


def read_attribute(scanner: Scanner) -> Any:
    """Read the attribute that comes next as a Python value; see `Operation.attributes`."""
    if scanner.at('"'):
        return unquote(scanner.require(_STRING, "a string"))
    if scanner.accept("["):
        items = []
        while not scanner.accept("]"):
            items.append(read_attribute(scanner))
            scanner.accept(",")
        return items
    if scanner.at("{"):
        return read_dictionary(scanner)
    if (number := scanner.match(_NUMBER)) is not None:
        return _number(number, read_type(scanner) if scanner.accept(":") else IntegerType(64))
    if scanner.at("#") or scanner.at("@"):
        symbol = scanner.require(_SYMBOL, "a symbol").replace('"', "")
        nested = scanner.text.startswith("<", scanner.position)
        return f"{symbol}<{scanner.balanced()}>" if nested else symbol
    word = scanner.match(_WORD)
    if word is None:
        return read_type(scanner)
    if word == "dense":
        return _read_dense(scanner)
    if word == "array":
        return _read_array(scanner)
    return word != "false"


def read_dictionary(scanner: Scanner) -> dict[str, Any]:
    """Read ``{key = attribute, unit_key, …}``."""
    scanner.expect("{")
    entries: dict[str, Any] = {}
    while not scanner.accept("}"):
        key = scanner.require(_KEY, "the name of an attribute").strip('"')
        entries[key] = read_attribute(scanner) if scanner.accept("=") else True
        scanner.accept(",")
    return entries


def unquote(text: str) -> str:
    """The value of an MLIR string literal."""
    escapes = {"n": "\n", "t": "\t"}
    return _ESCAPE.sub(
        lambda found: escapes.get(found[1], chr(int(found[1], 16)) if len(found[1]) == 2 else found[1]), text[1:-1]
    )


def _number(text: str, kind: Type) -> int | float:
    if isinstance(kind, FloatType):
        return float_from_bits(int(text, 16), kind) if text.startswith("0x") else float(text)
    return int(text, 0)


def float_from_bits(bits: int, kind: FloatType) -> float:
    """The value of a float of type ``kind`` from its bits: MLIR prints NaN, infinities and inexact decimals so."""
    if kind.name == "bf16":
        bits, kind = bits << 16, FloatType("f32")
    integer, code = {16: ("<H", "<e"), 32: ("<I", "<f"), 64: ("<Q", "<d")}[kind.bits]
    return struct.unpack(code, struct.pack(integer, bits))[0]


def _read_dense(scanner: Scanner) -> DenseElements:
    body = scanner.balanced()
    scanner.expect(":")
    kind = read_type(scanner)
    if not isinstance(kind, TensorType):
        raise scanner.error(f"a dense constant of type {kind} is not known")
    if body.startswith('"0x'):
        return DenseElements(kind, _from_bytes(bytes.fromhex(body[3:-1]), kind))
    items = [item.strip() for item in re.sub(r"[\[\]\s]", "", body).split(",") if item.strip()]
    return DenseElements(kind, tuple(_element(item, kind) for item in items))


def _element(text: str, kind: TensorType) -> int | float:
    if text in ("true", "false"):
        return int(text == "true")
    return _number(text, kind.element)


def _from_bytes(data: bytes, kind: TensorType) -> tuple[int | float, ...]:
    """Elements that MLIR prints as one hexadecimal string, little endian; a splat is one element."""
    width = max(kind.element.bits, 8) // 8 if not isinstance(kind.element, OpaqueType) else 1
    words = [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]
    if isinstance(kind.element, FloatType):
        return tuple(float_from_bits(word, kind.element) for word in words)
    sign = 1 << (8 * width - 1)
    return tuple((word ^ sign) - sign for word in words)


def _read_array(scanner: Scanner) -> list[int | float]:
    body = scanner.balanced()
    kind, _, items = body.partition(":")
    if not items.strip():
        return []
    element = TensorType((), _type_of(kind.strip()))  # type: ignore[arg-type]
    return [_element(item.strip(), element) for item in items.split(",")]
