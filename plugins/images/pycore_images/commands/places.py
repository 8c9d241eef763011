"""Where the verbs of a session find images."""

from __future__ import annotations

from pycore.cli.session import Session

from pycore_images.registered import STORE
from pycore_images.store import Store


def store_of(session: Session) -> Store:
    """The store of the engine's data dir."""
    return Store(session.engine.data_dir / STORE)
