"""Position and regular expressions: what the parser reads MLIR's text with."""

import re

_BLANK = re.compile(r"(?:[ \t\n]|//[^\n]*)*")
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}
_DELIMITERS = re.compile(r'[(\[{<>}\])]|->|"(?:[^"\\]|\\.)*"')


class TTIRSyntaxError(ValueError):
    """The text is not what this reader knows of MLIR's generic form; says where."""


class Scanner:
    """Text with a position; blanks and comments are skipped before each match."""

    def __init__(self, text: str):
        self.text = text
        self.position = 0

    def skip_blank(self) -> None:
        """Move past blanks and ``//`` comments."""
        self.position = _BLANK.match(self.text, self.position).end()  # type: ignore[union-attr]

    def at(self, token: str) -> bool:
        """Whether ``token`` comes next."""
        self.skip_blank()
        return self.text.startswith(token, self.position)

    def accept(self, token: str) -> bool:
        """Move past ``token`` if it comes next, and say whether it did."""
        if self.at(token):
            self.position += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        """Move past ``token``, or raise `TTIRSyntaxError`."""
        if not self.accept(token):
            raise self.error(f"{token!r} was expected")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Move past what ``pattern`` matches here and return it; None if it does not match."""
        self.skip_blank()
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def require(self, pattern: re.Pattern[str], what: str) -> str:
        """`match`, or raise `TTIRSyntaxError` naming ``what`` was expected."""
        found = self.match(pattern)
        if found is None:
            raise self.error(f"{what} was expected")
        return found

    def balanced(self) -> str:
        """The text between the bracket that comes next and its partner, which is passed; strings count as one."""
        self.skip_blank()
        start = self.position
        stack: list[str] = []
        for found in _DELIMITERS.finditer(self.text, start):
            token = found.group()
            if token in _CLOSING:
                stack.append(_CLOSING[token])
            elif len(token) == 1 and stack and token == stack[-1]:
                stack.pop()
                if not stack:
                    self.position = found.end()
                    return self.text[start + 1 : found.start()]
        raise self.error("a closing bracket was expected")

    def error(self, reason: str) -> TTIRSyntaxError:
        """An error that says where the text goes wrong."""
        line = self.text.count("\n", 0, self.position) + 1
        rest = self.text[self.position : self.position + 60].split("\n")[0]
        return TTIRSyntaxError(f"line {line} of the generic TTIR: {reason} at {rest!r}.")
