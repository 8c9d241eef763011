"""Variables of the caller's environment inside the strings of a spec, by Compose's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-?+])(?P<word>[^${}]*))?\}"
    r"|(?P<bad>\{))"
)


class VariableError(ValueError):
    """A reference that cannot be resolved. ``reference`` is how it begins in the text."""

    def __init__(self, message: str, reference: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.reference = reference
        self.hint = hint


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """The text with ``${VAR}`` and its kin replaced, and ``$$`` become ``$``. Raises VariableError.

    ``:-`` and ``-`` give a default, ``:?`` and ``?`` a message, ``:+`` and ``+`` another value where there is
    one; with a colon an empty variable counts as unset (Compose specification, "Interpolation"). A ``$``
    before anything else stays as it is, for the shell in the container. What a variable contains is not
    looked at again.
    """
    return _REFERENCE.sub(lambda match: _value(match, environment), text) if "$" in text else text


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match["dollar"]:
        return "$"
    if match["bad"]:
        raise VariableError(
            "${ does not begin a variable here",
            "${",
            'write "${NAME}" or "${NAME:-default}", and "$${" for a plain "${"',
        )
    name, operator, word = match["name"], match["operator"] or "", match["word"] or ""
    value = environment.get(name)
    if operator.startswith(":"):
        value = value or None
    if operator.endswith("+"):
        return "" if value is None else word
    if value is not None:
        return value
    if operator.endswith("-"):
        return word
    reference = "${" + name
    if operator:
        raise VariableError(f"variable {name} is not set: {word}" if word else f"variable {name} is not set", reference)
    raise VariableError(
        f"variable {name} is not set",
        reference,
        f'give a default with "${{{name}:-value}}", or write "$${{{name}}}" to leave it to the container',
    )
