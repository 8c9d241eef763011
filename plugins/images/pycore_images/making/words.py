"""The words of an instruction, as a Dockerfile has them: quotes, backslashes, and variables in their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pycore.errors import UsageError

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(rf"\$(?:(?P<bare>{_NAME})|\{{(?P<name>{_NAME})(?:(?P<when>:[-+])(?P<word>[^}}]*))?\}})")


def split(text: str, variables: Mapping[str, str]) -> list[str]:
    """Words between blanks. Nothing is replaced between single quotes or after a backslash; what a variable is replaced
    by is not looked at any more. Raises UsageError for a quote that is not closed.
    """
    return list(_Splitter(text, variables).words())


class _Splitter:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text, self._variables = text, variables
        self._at = 0

    def words(self) -> Iterator[str]:
        while True:
            self._blanks()
            if self._at >= len(self._text):
                return
            yield self._word()

    def _blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _word(self) -> str:
        parts: list[str] = []
        quote = ""
        while self._at < len(self._text) and (quote or not self._text[self._at].isspace()):
            character = self._text[self._at]
            if character == quote or (not quote and character in "'\""):
                quote = "" if quote else character
                self._at += 1
            else:
                parts.append(self._piece(character, quote))
        if quote:
            raise UsageError(f"{self._text!r} has a quote that is not closed")
        return "".join(parts)

    def _piece(self, character: str, quote: str) -> str:
        """What stands at the place, and beyond it."""
        variable = _VARIABLE.match(self._text, self._at) if character == "$" and quote != "'" else None
        if variable:
            self._at = variable.end()
            return self._value(variable)
        following = self._text[self._at + 1 : self._at + 2]
        if character == "\\" and following and (not quote or (quote == '"' and following in '"$\\')):
            self._at += 2
            return following
        self._at += 1
        return character

    def _value(self, variable: re.Match[str]) -> str:
        value = self._variables.get(variable["bare"] or variable["name"], "")
        match variable["when"]:
            case ":-":
                return value or variable["word"]
            case ":+":
                return variable["word"] if value else ""
            case _:
                return value
