"""What a container may ask, and who is told of what it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Policy(Protocol):
    """Asked on the resolver's thread, for each query: all of it is quick. Containers are given by their ids."""

    def renew(self) -> None:
        """Something has changed on the host, perhaps what is said here."""
        ...

    def binds(self, container: str) -> bool:
        """Whether it says anything of a container at all: of others, nothing more is asked or told."""
        ...

    def may_ask(self, container: str, name: str) -> bool:
        """Whether a container may ask for a name: in small letters, without the final dot.

        It is asked for names of other containers as for all others, and for those under in-addr.arpa and ip6.arpa. Any
        type of record may be wanted: a text that is asked for is a way out, too.
        """
        ...

    def answered(self, container: str, name: str, addresses: Sequence[str], ttl: int) -> None:
        """A container is about to be told that a name has these addresses, for ``ttl`` seconds. There may be none.

        When it returns, the container may use them: the answer is sent then.
        """
        ...
