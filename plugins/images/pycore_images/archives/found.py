"""An image that was found in an archive or a layout."""

from __future__ import annotations

from dataclasses import dataclass

from pycore_images.content import Source


@dataclass(frozen=True)
class Found:
    """An image, and what it is called there: references in full, or nothing."""

    source: Source
    names: tuple[str, ...] = ()
