"""Changes to what an image says of itself, in a Dockerfile's words: ``CMD ["nginx"]``, ``ENV A=b``.

What each instruction does to the configuration is what Docker's own builder does (docs.docker.com, Dockerfile
reference); the fields are those of the image specification (config.md) and of Docker.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pycore.errors import UsageError

from pycore_images.making.words import split

Config = dict[str, Any]
"""The table ``config`` of a configuration."""

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_OPTION = re.compile(r"--([a-z-]+)=(\S+)\s*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TIMES = {
    "interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod", "start-interval": "StartInterval",
}  # fmt: skip
_SHELL = ["/bin/sh", "-c"]


def apply(config: Mapping[str, Any], instructions: Sequence[str]) -> Config:
    """The table with changes, one after the other. Raises UsageError."""
    changed: Config = json.loads(json.dumps(config))
    seen: set[str] = set()
    for text in instructions:
        match = _INSTRUCTION.fullmatch(text)
        name = match[1].upper() if match else ""
        if match is None or name not in _INSTRUCTIONS:
            close = difflib.get_close_matches(name, _INSTRUCTIONS, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(_INSTRUCTIONS)}"
            raise UsageError(f"{text!r} is no change to an image", hint=hint)
        words = (match[2] or "").strip()
        if not words:
            raise UsageError(f"{name} needs something after it")
        _INSTRUCTIONS[name](changed, words)
        if name == "ENTRYPOINT" and "CMD" not in seen:
            changed.pop("Cmd", None)  # that was said for another program
        seen.add(name)
    return changed


def _command(field: str) -> Callable[[Config, str], None]:
    def change(config: Config, text: str) -> None:
        config[field] = _list(text) or [*_shell(config), text]

    return change


def _shell(config: Config) -> list[str]:
    return cast("list[str]", config.get("Shell")) or _SHELL


def _list(text: str) -> list[str] | None:
    """A JSON list of texts; None for what is none, which is for a shell then."""
    if not text.startswith("["):
        return None
    try:
        found: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in cast("list[Any]", found)):
        return None
    return cast("list[str]", found)


def _variables(config: Config) -> dict[str, str]:
    pairs = (text.partition("=") for text in cast("list[str]", config.get("Env") or []))
    return {name: value for name, _, value in pairs}


def _pairs(config: Config, text: str, what: str) -> dict[str, str]:
    """``A=b C="d e"``, or as it once was, ``A b``."""
    name, _, rest = text.partition(" ")
    if "=" not in name:
        if not rest:
            raise UsageError(f"{what} {text} has no value", hint=f"write it like {what} {text}=value")
        return {name: " ".join(split(rest, _variables(config)))}
    found: dict[str, str] = {}
    for word in split(text, _variables(config)):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r} in {what} is no pair", hint=f"write it like {what} name=value")
        found[key] = value
    return found


def _env(config: Config, text: str) -> None:
    """A variable that is there already keeps its place."""
    variables = _variables(config) | _pairs(config, text, "ENV")
    config["Env"] = [f"{name}={value}" for name, value in variables.items()]


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(config, text, "LABEL")}


def _expose(config: Config, text: str) -> None:
    ports: dict[str, Any] = {**(config.get("ExposedPorts") or {})}
    for word in split(text, _variables(config)):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 1 <= first <= last <= 65535:
            raise UsageError(f"{word!r} is no port", hint="write it like 80, 53/udp or 8000-8010")
        ports |= {f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    places = _list(text) or split(text, _variables(config))
    if not all(places):
        raise UsageError("VOLUME names a place that is empty")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{place: {} for place in places}}


def _workdir(config: Config, text: str) -> None:
    place = _one(config, text, "WORKDIR")
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", place))


def _user(config: Config, text: str) -> None:
    config["User"] = _one(config, text, "USER")


def _stop_signal(config: Config, text: str) -> None:
    config["StopSignal"] = _one(config, text, "STOPSIGNAL")


def _one(config: Config, text: str, name: str) -> str:
    words = split(text, _variables(config))
    if len(words) != 1 or not words[0]:
        raise UsageError(f"{name} takes one word, not {text!r}")
    return words[0]


def _on_build(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


def _health_check(config: Config, text: str) -> None:
    options: Config = {}
    while match := _OPTION.match(text):
        options |= _health_option(match[1], match[2])
        text = text[match.end() :]
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE" and not rest.strip() and not options:
        config["Healthcheck"] = {"Test": ["NONE"]}
    elif kind.upper() == "CMD" and rest.strip():
        words = _list(rest.strip())
        config["Healthcheck"] = {"Test": ["CMD", *words] if words else ["CMD-SHELL", rest.strip()]} | options
    else:
        raise UsageError(f"HEALTHCHECK {text} is none", hint="write it like HEALTHCHECK --interval=30s CMD test -e /ok")


def _health_option(name: str, value: str) -> Config:
    if name == "retries" and value.isdecimal() and len(value) < 10:
        return {"Retries": int(value)}
    if name not in _TIMES or not re.fullmatch(f"(?:{_DURATION.pattern})+", value):
        raise UsageError(f"--{name}={value} is no option of HEALTHCHECK", hint="--interval=1m30s, --retries=3")
    return {_TIMES[name]: int(sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(value)))}


def _shell_of(config: Config, text: str) -> None:
    words = _list(text)
    if not words:
        raise UsageError("SHELL takes a list", hint='write it like SHELL ["/bin/bash", "-c"]')
    config["Shell"] = words


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _command("Cmd"), "ENTRYPOINT": _command("Entrypoint"), "ENV": _env, "EXPOSE": _expose,
    "HEALTHCHECK": _health_check, "LABEL": _label, "ONBUILD": _on_build, "SHELL": _shell_of,
    "STOPSIGNAL": _stop_signal, "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
