"""What a word of the command line names among the images that are here: a name, or the beginning of an id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pycore.errors import Conflict, NotFound, UsageError

from pycore_images import reference
from pycore_images.content import Damaged, Descriptor
from pycore_images.keeping import known
from pycore_images.store import Store

ID = 12
"""Characters of a digest that people are shown."""

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


@dataclass(frozen=True)
class Named:
    """An image that is here, as somebody named it."""

    root: Descriptor
    """Its manifest, or an index that has it."""
    name: str = ""
    """In full, where it was named so; empty where it was named by its id."""

    @property
    def shown(self) -> str:
        """For messages."""
        return familiar(self.name) if self.name else short_id(self.root.digest)


def find(store: Store, word: str) -> Named:
    """The image of a name or of the beginning of an id. Raises NotFound, Conflict, UsageError."""
    names = store.references()
    name = _by_name(names, word)
    if name:
        return Named(names[name], name)
    root = _by_id(store, word)
    if root:
        return Named(root)
    raise NotFound(f"there is no image {word!r} here", hint=_close(names, word))


def familiar(name: str) -> str:
    """A name in full as a person writes it, its tag always with it."""
    found = reference.parse(name)
    return found.familiar if found.digest or found.tag != reference.LATEST else f"{found.familiar}:{found.tag}"


def short_id(digest: str) -> str:
    """As people are shown it."""
    return digest.removeprefix("sha256:")[:ID]


def _by_name(names: Mapping[str, Descriptor], word: str) -> str:
    try:
        wanted = reference.parse(word)
    except UsageError:
        if _HEX.fullmatch(word):
            return ""
        raise
    if str(wanted) in names:
        return str(wanted)
    if not wanted.digest:
        return ""
    same = (name for name, root in names.items() if root.digest == wanted.digest)
    return next((name for name in same if reference.parse(name).name == wanted.name), "")


def _by_id(store: Store, word: str) -> Descriptor | None:
    """The id is that of the configuration, as Docker's is; the digests of manifest and index serve as well."""
    form = _HEX.fullmatch(word)
    if not form:
        return None
    roots = {root.digest: root for _, root in known(store)}
    found = [root for root in roots.values() if any(each.startswith(form[1]) for each in _ids(store, root))]
    if len(found) > 1:
        raise Conflict(f"several images have an id that begins with {word}", hint="write more of it")
    return found[0] if found else None


def _ids(store: Store, root: Descriptor) -> Iterator[str]:
    yield root.hex
    try:
        image = store.any_image(root)
    except (NotFound, Damaged):
        return
    yield image.descriptor.hex
    yield image.manifest.config.hex


def _close(names: Mapping[str, Descriptor], word: str) -> str:
    shown = [familiar(name) for name in names]
    close = difflib.get_close_matches(word, shown + [name.rpartition(":")[0] for name in shown], 1, 0.75)
    return f"did you mean {close[0]}?" if close else "`pycore image ls` lists what is here"
