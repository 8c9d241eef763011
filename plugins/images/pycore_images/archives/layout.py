"""Images in an OCI layout (image-spec, image-layout.md), whether a directory or an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pycore.errors import UsageError

from pycore_images import documents, reference
from pycore_images.archives.files import Files, has, read
from pycore_images.archives.found import Found
from pycore_images.archives.source import FileSource
from pycore_images.content import INDEXES, MANIFESTS, MAX_DOCUMENT, Damaged, Descriptor
from pycore_images.store import REF_NAME

INDEX_FILE = "index.json"
LAYOUT_FILE = "oci-layout"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
WHOLE_NAME = "io.containerd.image.name"
"""The annotation under which containerd and Docker keep a name; in the specification's own they keep the tag alone."""


def is_layout(files: Files) -> bool:
    """Whether there is a layout. One that has lost ``oci-layout`` is one as well, as for others who read them."""
    return has(files, INDEX_FILE)


def images(files: Files) -> list[Found]:
    """Every image that its index names; those that are not for running (signatures, charts) are left out.

    Raises Damaged.
    """
    _check_version(files)
    index = documents.parse_index(read(files, INDEX_FILE, MAX_DOCUMENT))
    roots: dict[str, tuple[Descriptor, list[str]]] = {}
    for descriptor in index.manifests:
        if descriptor.media_type in MANIFESTS | INDEXES:
            names = roots.setdefault(descriptor.digest, (descriptor, []))[1]
            names += [name for name in _names(descriptor) if name not in names]
    return [
        Found(FileSource(files, files.name, replace(root, annotations={}, platform=None)), tuple(names))
        for root, names in roots.values()
    ]


def _names(descriptor: Descriptor) -> Iterator[str]:
    """What stands as a name may be a tag alone, of whatever the layout's reader calls the image: that names none."""
    whole, short = descriptor.annotations.get(WHOLE_NAME, ""), descriptor.annotations.get(REF_NAME, "")
    text = whole or (short if ":" in short or "/" in short else "")
    if text:
        try:
            yield str(reference.parse(text))
        except UsageError as error:
            raise Damaged(f"an image in it has a name that is none: {error.message}", hint=error.hint) from error


def _check_version(files: Files) -> None:
    if not has(files, LAYOUT_FILE):
        return
    fields = documents.Fields(documents.read_json(read(files, LAYOUT_FILE, MAX_DOCUMENT), LAYOUT_FILE), LAYOUT_FILE)
    version = fields.text("imageLayoutVersion")
    if not version.startswith("1."):
        raise Damaged(f"{files.name} is a layout of version {version[:20]!r}, which is not read")
