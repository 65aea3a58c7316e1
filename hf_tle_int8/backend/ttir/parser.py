"""Parser of MLIR's generic textual form, as far as TTIR goes.

The grammar is MLIR's (https://mlir.llvm.org/docs/LangRef): every operation is
``%results = "name"(%operands)[^successors] <{properties}> ({regions}) {attributes} : (types) -> types loc(…)``.
"""

import re

from hf_tle_int8.backend.ttir.attributes import read_dictionary, read_type, read_types, unquote
from hf_tle_int8.backend.ttir.model import Block, Location, Module, Operation, Region, Value
from hf_tle_int8.backend.ttir.scanner import Scanner, TTIRSyntaxError

__all__ = ["TTIRSyntaxError", "parse"]

_RESULT = re.compile(r"(%[\w$.-]+)(?::(\d+))?")
_OPERAND = re.compile(r"%[\w$.-]+(?:#\d+)?")
_BLOCK = re.compile(r"\^\w+")
_NAME = re.compile(r'"[^"]+"')
_ALIAS = re.compile(r"^#loc\d* = loc\((.*)\)$", re.MULTILINE)
_ALIAS_NAME = re.compile(r"^(#loc\d*) = ", re.MULTILINE)
_FILE_LINE = re.compile(r'^("(?:[^"\\]|\\.)*"):(\d+):\d+')
_LOCATION = re.compile(r"#loc\d*")
_CALL_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[()]| at ')


def parse(text: str) -> Module:
    """Read a module in generic form, with or without locations.

    Raises:
        TTIRSyntaxError: the text is not in the form that this reader knows.
    """
    return Module(_Parser(text).module())


class _Parser:
    def __init__(self, text: str):
        self.scanner = Scanner(text)
        self.values: dict[str, Value] = {}
        self.aliases = dict(zip(_ALIAS_NAME.findall(text), _ALIAS.findall(text), strict=True))
        self.locations: dict[str, Location] = {}

    def module(self) -> Operation:
        """The one operation of the text, ``builtin.module``."""
        while self.scanner.at("#"):
            end = self.scanner.text.find("\n", self.scanner.position)
            self.scanner.position = len(self.scanner.text) if end < 0 else end
        module = self.operation(None, {})
        if module.name != "builtin.module":
            raise self.scanner.error(f"builtin.module was expected, not {module.name}")
        return module

    def operation(self, parent: Block | None, blocks: dict[str, Block]) -> Operation:
        """The operation that comes next; ``blocks`` are those that a branch may name, by label."""
        scan = self.scanner
        names = self._result_names()
        name = scan.require(_NAME, "the name of an operation")[1:-1]
        operands = self._operands()
        operation = Operation(name, operands, [], {}, [], [], Location(), parent)
        for operand in operands:
            operand.uses.append(operation)
        if scan.accept("["):
            operation.successors = self._successors(blocks)
        if scan.accept("<"):
            operation.attributes = read_dictionary(scan)
            scan.expect(">")
        if scan.accept("("):
            while not scan.accept(")"):
                operation.regions.append(self.region(operation))
                scan.accept(",")
        if scan.at("{"):
            operation.attributes.update(read_dictionary(scan))
        scan.expect(":")
        read_types(scan)
        scan.expect("->")
        types = read_types(scan)
        if len(types) != len(names):
            raise scan.error(f"{name} has {len(types)} result types for {len(names)} results")
        for result_name, kind in zip(names, types, strict=True):
            value = Value(result_name, kind, operation)
            self.values[result_name] = value
            operation.results.append(value)
        operation.location = self._location()
        return operation

    def _result_names(self) -> list[str]:
        names: list[str] = []
        if not self.scanner.at("%"):
            return names
        while True:
            text = self.scanner.require(_RESULT, "a result")
            name, _, count = text.partition(":")
            names += [f"{name}#{index}" for index in range(int(count))] if count else [name]
            if not self.scanner.accept(","):
                break
        self.scanner.expect("=")
        return names

    def _operands(self) -> list[Value]:
        operands = []
        self.scanner.expect("(")
        while not self.scanner.accept(")"):
            name = self.scanner.require(_OPERAND, "an operand")
            if name not in self.values:
                raise self.scanner.error(f"{name} is used before it is defined")
            operands.append(self.values[name])
            self.scanner.accept(",")
        return operands

    def _successors(self, blocks: dict[str, Block]) -> list[Block]:
        found = []
        while not self.scanner.accept("]"):
            label = self.scanner.require(_BLOCK, "a block")
            found.append(blocks.setdefault(label, Block(label)))
            self.scanner.accept(",")
        return found

    def region(self, parent: Operation) -> Region:
        """The region that comes next."""
        scan = self.scanner
        region = Region(parent=parent)
        blocks: dict[str, Block] = {}
        scan.expect("{")
        while not scan.accept("}"):
            if scan.at("^") or not region.blocks:
                label = scan.match(_BLOCK) or ""
                block = blocks.setdefault(label, Block(label))
                block.region = region
                region.blocks.append(block)
                if label:
                    self._block_arguments(block)
                continue
            region.blocks[-1].operations.append(self.operation(region.blocks[-1], blocks))
        missing = [label for label, block in blocks.items() if block.region is None]
        if missing:
            raise scan.error(f"the block {missing[0]} is not in this region")
        return region

    def _block_arguments(self, block: Block) -> None:
        scan = self.scanner
        if scan.accept("("):
            while not scan.accept(")"):
                name = scan.require(_OPERAND, "an argument of a block")
                scan.expect(":")
                value = Value(name, read_type(scan), block)
                self._location()
                self.values[name] = value
                block.arguments.append(value)
                scan.accept(",")
        scan.expect(":")

    def _location(self) -> Location:
        if not self.scanner.accept("loc"):
            return Location()
        return self._resolve(self.scanner.balanced())

    def _resolve(self, text: str) -> Location:
        if text not in self.locations:
            self.locations[text] = Location(self._frames(text.strip()))
        return self.locations[text]

    def _frames(self, text: str) -> tuple[tuple[str, int], ...]:
        """The frames of ``"file":1:2``, ``#loc3``, ``"name"(…)``, ``callsite(… at …)``, ``fused[…]`` or ``unknown``."""
        direct = _FILE_LINE.match(text)
        if direct is not None:
            return ((unquote(direct[1]), int(direct[2])),)
        if text in self.aliases:
            return self._resolve(self.aliases[text]).frames
        if text.startswith("callsite("):
            callee, caller = _split_call(text[len("callsite(") : -1])
            return self._frames(callee) + self._frames(caller)
        parts = _LOCATION.findall(text)
        return next((frames for part in parts if (frames := self._frames(part))), ())


def _split_call(text: str) -> tuple[str, str]:
    """``callee at caller``, where either may be a call site itself."""
    depth = 0
    for part in _CALL_PART.finditer(text):
        depth += {"(": 1, ")": -1}.get(part.group(), 0)
        if part.group() == " at " and depth == 0:
            return text[: part.start()], text[part.end() :]
    raise TTIRSyntaxError(f"callsite({text}) has no caller.")
