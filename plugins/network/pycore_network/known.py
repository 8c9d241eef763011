"""Who is in a network under which names and addresses: a file for each container, as long as its process is there.

An operation writes it and takes it away; the resolver reads all of them. One container's file is
``networks/NETWORK/names/ID`` in the run dir.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

DIRECTORY = "names"
"""Of such files, in the directory of a network."""


@dataclass(frozen=True)
class Known:
    """What is known of a container in one of its networks."""

    app: str
    names: tuple[str, ...]
    """What it is called: by itself, as one of several replicas, as a host; each also as ``NAME.APP``."""
    aliases: tuple[str, ...]
    """What it is called besides in this network alone; each also as ``ALIAS.APP``."""
    addresses: tuple[str, ...]
    """In this network, IPv4 and IPv6, without a prefix."""

    def to_text(self) -> str:
        """What the file says."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Known:
        """What a file says. Raises ValueError where that is something else."""
        try:
            found = json.loads(text)
            return cls(
                str(found["app"]), tuple(found["names"]), tuple(found["aliases"]), tuple(map(str, found["addresses"]))
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not what is known of a container: {error!r}") from None


def path_of(network_directory: str, container: str) -> str:
    """The file of a container, given by its id."""
    return f"{network_directory}/{DIRECTORY}/{container}"
