"""The name of an image, and what it is in full: ``nginx`` is ``docker.io/library/nginx:latest``.

The rules are Docker's, which everybody who writes a name expects; the grammar is that of the distribution specification
(1.1, Pulling manifests) and of Docker's reference package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NoReturn

from pycore.errors import UsageError

from pycore_images.content import is_digest

DOCKER = "docker.io"
"""The registry that is meant where none is named."""
LATEST = "latest"
"""The tag that is meant where neither a tag nor a digest is named."""

_OFFICIAL = "library/"
"""What Docker Hub puts its own images under; left out when they are named."""
_LONGEST = 255
"""Characters of registry and repository together."""
_MAX_TEXT = 512
"""Of a whole reference: such a name, a tag of 128, a digest."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"[0-9a-f]{64}")
_TRANSPORT = re.compile(r"(?:[a-z][a-z0-9+-]*://|docker:(?=//))")


@dataclass(frozen=True)
class Reference:
    """Which image, and where. As text it is whole: registry, repository, and tag or digest or both."""

    registry: str
    """``docker.io``, ``localhost:5000``."""
    repository: str
    """``library/nginx``."""
    tag: str = ""
    digest: str = ""
    """``sha256:...``: where there is one, it decides, and the tag is for people."""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, or else the tag."""
        return self.digest or self.tag

    @property
    def familiar(self) -> str:
        """As a person would write it: without what goes without saying."""
        names = (self.repository.removeprefix(_OFFICIAL), self.repository)
        meant = (self.registry, self.repository)  # docker.io/localhost/x is not localhost/x
        name = next((name for name in names if _registry_apart(name) == meant), self.name)
        tag = "" if self.tag == LATEST and not self.digest else self.tag
        return _joined(name, tag, self.digest)

    def pinned(self, digest: str) -> Reference:
        """The same name, at one digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return _joined(self.name, self.tag, self.digest)


def parse(text: str) -> Reference:
    """Read a reference as Docker does. Raises UsageError that says what is wrong with it."""
    if len(text) > _MAX_TEXT:
        raise UsageError(f"a name of an image has {_MAX_TEXT} characters at most, this one has {len(text)}")
    name, at, digest = text.partition("@")
    if at:
        _check_digest(text, digest)
    name, tag = _tag_apart(name)
    if tag is not None and not _TAG.fullmatch(tag):
        _wrong(
            text, f"{tag!r} is no tag: letters, digits, '_', '.' and '-', 128 at most" if tag else "the tag is empty"
        )
    registry, repository = _registry_apart(name)
    _check_name(text, registry, repository)
    if tag is None:
        tag = "" if digest else LATEST
    return Reference(registry, repository, tag, digest)


def registry_name(text: str) -> str:
    """The registry that a person means who logs in to it: ``https://index.docker.io/v1/`` is ``docker.io``.

    Raises UsageError where it can be none.
    """
    name = re.sub(r"^https?://", "", text.strip()).partition("/")[0]
    if name in ("", "index.docker.io", "registry-1.docker.io"):
        return DOCKER
    if not _REGISTRY.fullmatch(name):
        raise UsageError(f"{text!r} is no registry", hint="name it by its host and port, as in registry.example:5000")
    return name


def _joined(name: str, tag: str, digest: str) -> str:
    return name + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _tag_apart(name: str) -> tuple[str, str | None]:
    """A colon after the last slash begins a tag; one before it, a port."""
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    return (name, None) if colon < 0 else (name[:colon], name[colon + 1 :])


def _registry_apart(name: str) -> tuple[str, str]:
    """The first part is a registry when it could be no repository: a dot, a port, a capital, ``localhost``."""
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or first.startswith("[") or re.search("[.:A-Z]", first)):
        first, rest = DOCKER, name
    if first in ("index.docker.io", DOCKER):
        first = DOCKER
        rest = rest if "/" in rest else f"{_OFFICIAL}{rest}"
    return first, rest


def _check_name(text: str, registry: str, repository: str) -> None:
    if not text or text[0] in "/:@":
        _wrong(text, "there is no name in it", "write it like nginx or registry.example/team/app:1.2")
    _check_slips(text)
    if not _REGISTRY.fullmatch(registry):
        _wrong(text, f"{registry!r} is no registry")
    for part in repository.removeprefix(_OFFICIAL).split("/"):
        if not _COMPONENT.fullmatch(part):
            _wrong(text, _about_part(part), _in_small_letters(text, repository))
    if len(registry) + 1 + len(repository) > _LONGEST:
        _wrong(text, f"registry and repository together have {_LONGEST} characters at most")
    if _ID.fullmatch(text):
        _wrong(text, "64 hexadecimal digits are no name", f"for an image by its digest write NAME@sha256:{text}")


def _check_slips(text: str) -> None:
    """What people write that cannot be meant so."""
    if text != text.strip() or any(character.isspace() for character in text):
        _wrong(text, "there is a blank in it", f"did you mean {''.join(text.split())!r}?")
    if found := _TRANSPORT.match(text):
        _wrong(text, f"{found.group()!r} does not belong there", f"did you mean {text[found.end() :].lstrip('/')!r}?")


def _about_part(part: str) -> str:
    if not part:
        return "there is nothing between two slashes, or before or after one"
    if part != part.lower():
        return f"{part!r} has capitals, and a repository has none"
    return f"{part!r} is no part of a repository: small letters and digits, with '.', '_', '__' or dashes between them"


def _in_small_letters(text: str, repository: str) -> str | None:
    bare = repository.removeprefix(_OFFICIAL)
    if bare == bare.lower() or not all(_COMPONENT.fullmatch(part) for part in bare.lower().split("/")):
        return None
    return f"did you mean {text.replace(bare, bare.lower())!r}?"


def _check_digest(text: str, digest: str) -> None:
    if is_digest(digest):
        return
    hint = None
    if is_digest(digest.lower()):
        hint = f"did you mean {digest.lower()!r}?"
    elif _TAG.fullmatch(digest):
        hint = "a tag stands after ':', a digest after '@'"
    _wrong(text, "what stands after '@' is no digest: sha256: and 64 hexadecimal digits in small letters", hint)


def _wrong(text: str, reason: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"{text!r} is no name of an image: {reason}", hint=hint)
