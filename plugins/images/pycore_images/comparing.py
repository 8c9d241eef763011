"""What is different between two images: what their makers say of running them, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycore.linux.layered import Change, changes_between

from pycore_images import documents
from pycore_images.store import Store


def differing(old: documents.Image, new: documents.Image) -> dict[str, tuple[Any, Any]]:
    """What differs, by its name in a spec: what the old one says, and the new one. Of tables, each key by itself."""
    before, after = _flat(old), _flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def in_words(differ: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """For people, a line each."""
    return [f"{what} {_word(old)} -> {_word(new)}" for what, (old, new) in differ.items()]


def _word(value: Any) -> str:
    return "nothing" if value in (None, "", [], {}, ()) else str(value)


def differing_files(store: Store, old: documents.Image, new: documents.Image) -> list[Change]:
    """What became of the files of one in the other; layers that both have are not looked at. Raises NotFound."""
    before, after = ([str(tree) for tree in store.layer_trees(image)] for image in (old, new))
    return changes_between(before, after)


def _flat(image: documents.Image) -> Mapping[str, Any]:
    run = image.config.run
    flat: dict[str, Any] = {
        "entrypoint": list(run.entrypoint),
        "command": list(run.command),
        "user": run.user,
        "working_dir": run.working_dir,
        "volumes": list(run.volumes),
        "ports": list(run.ports),
        "stop_signal": run.stop_signal,
        "healthcheck": run.healthcheck,
        "platform": str(image.config.platform),
    }
    flat |= {f"environment {name}": value for name, value in run.environment.items()}
    return flat | {f"label {name}": value for name, value in run.labels.items()}
