"""What two images' makers say differently of running them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycore_images import documents


def differing(old: documents.Image, new: documents.Image) -> dict[str, tuple[Any, Any]]:
    """What differs, by its name in a spec: what the old one says, and the new one. Of tables, each key by itself."""
    before, after = _flat(old), _flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


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
