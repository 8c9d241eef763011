"""An image whose content lies in files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pycore.errors import NotFound

from pycore_images.archives.files import Files, read
from pycore_images.content import MAX_DOCUMENT, Damaged, Descriptor, Stream

BLOBS = "blobs/sha256/"
"""Where a layout has its content (image-spec, image-layout.md)."""


@dataclass(frozen=True)
class FileSource:
    """A :class:`pycore_images.content.Source`."""

    files: Files
    name: str
    descriptor: Descriptor
    """Of its manifest or index."""
    documents: Mapping[str, bytes] = field(default_factory=dict[str, bytes], repr=False)
    """Those that lie in no file, by their digest."""
    places: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Names of files that are not called by their digest."""
    at_hand: bool = field(default=True, init=False)

    def root(self) -> Descriptor:
        return self.descriptor

    def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.digest in self.documents:
            return self.documents[descriptor.digest]
        return read(self.files, self._checked(descriptor), MAX_DOCUMENT)

    def blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Stream]:
        return self.files.open(self._checked(descriptor), offset)

    def _checked(self, descriptor: Descriptor) -> str:
        """The file of some content, which is as long as it should be."""
        place = self.places.get(descriptor.digest, f"{BLOBS}{descriptor.hex}")
        try:
            size = self.files.size(place)
        except NotFound as error:
            hint = "an archive can leave out what its maker had elsewhere: images for other platforms, say"
            raise NotFound(f"{self.name} is not whole: {error.message}", hint=hint) from None
        if size != descriptor.size:
            raise Damaged(f"{place} in {self.files.name} has {size} bytes, and should have {descriptor.size}")
        return place
