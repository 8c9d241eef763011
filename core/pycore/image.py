"""What a container is made of: an image's files, as layers, and what its maker says of running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass(frozen=True)
class ImageConfig:
    """What an image says of itself (image-spec, config.md): taken where a container's spec says nothing."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    """Places inside whose content is to outlive the writable layer."""
    ports: tuple[str, ...] = ()
    """Ports on which it serves: ``80/tcp``. For people; none is published for it."""
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] | None = None
    """As Docker writes it: ``Test``, and times in nanoseconds."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def program(self, entrypoint: Sequence[str], command: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Entrypoint and command of a container whose spec says these: the image's command was meant for the image's
        entrypoint.
        """
        return (entrypoint, command) if entrypoint else (self.entrypoint, command or self.command)


@dataclass(frozen=True)
class Image:
    """An image that can be run."""

    name: str = ""
    """As the spec has it, in full: ``docker.io/library/nginx:1.27``."""
    digest: str = ""
    """Of its manifest; empty for what is not kept by content: the host's root, a directory."""
    pin: str = ""
    """The digest that the name led to: of an index, where it has the image for several platforms."""
    layers: tuple[str, ...] = ()
    """Directories of the host, the uppermost first, each with what it changes in those below, in overlayfs's words."""
    config: ImageConfig = field(default_factory=ImageConfig)

    def to_json(self) -> dict[str, Any]:
        """As a container's record keeps it."""
        return {**vars(self), "config": dict(vars(self.config))}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Image:
        """The inverse of :meth:`to_json`, from JSON."""
        config = {key: _frozen(value) for key, value in cast(Mapping[str, Any], fields["config"]).items()}
        return cls(fields["name"], fields["digest"], fields["pin"], tuple(fields["layers"]), ImageConfig(**config))


def _frozen(value: Any) -> Any:
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value
