"""An image in a registry, for whoever wants it: from a mirror where one has it, else from the registry itself."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from pycore.errors import PycoreError

from pycore_images.content import Descriptor
from pycore_images.reference import Reference
from pycore_images.registry import errors
from pycore_images.registry.credentials import Credentials
from pycore_images.registry.hosts import Endpoint, Hosts
from pycore_images.registry.patience import USUAL, Cancel, Patience
from pycore_images.registry.repository import Blob, Repository
from pycore_images.registry.session import Session
from pycore_images.registry.transport import READ, Transport

T = TypeVar("T")

_TRIES_OF_MIRRORS = 2
"""There is somebody else to be asked."""


class RegistrySource:
    """A :class:`pycore_images.content.Source`. Nothing is asked of anybody before :meth:`root`.

    ``environment`` is the client's: its credentials and proxies count. ``cancel`` breaks off what waits.
    """

    def __init__(
        self,
        reference: Reference,
        hosts: Hosts,
        environment: Mapping[str, str],
        *,
        patience: Patience = USUAL,
        cancel: Cancel | None = None,
        read: float = READ,
    ) -> None:
        self.reference = reference
        self._environment = environment
        self._cancel, self._read = cancel, read
        *mirrors, itself = hosts.endpoints(reference.registry)
        hasty = replace(patience, tries=min(_TRIES_OF_MIRRORS, patience.tries))
        self._places = [*(self._place(mirror, hasty) for mirror in mirrors), self._place(itself, patience)]
        self._transports = [place.session.transport for place in self._places]
        self._kept: tuple[Descriptor, bytes] | None = None

    at_hand = False

    @property
    def name(self) -> str:
        """The whole reference."""
        return str(self.reference)

    def root(self) -> Descriptor:
        """What the reference leads to: by a HEAD where that will do, which registries do not count."""

        def ask(place: Repository) -> Descriptor:
            found = place.head(self.reference.version)
            if found is None:
                found, _ = self._kept = place.manifest(self.reference.version)
            return found

        return self._anywhere(ask, settle=True)

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config, of the length that its descriptor says. Its digest is left to the caller."""
        if self._kept and self._kept[0] == descriptor:
            return self._kept[1]
        return self._anywhere(lambda place: place.document(descriptor))

    @contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Generator[Blob]:
        """A layer from a place on. What breaks off raises ConnectionError, and is asked for again by the caller."""
        with ExitStack() as stack:
            yield self._anywhere(lambda place: stack.enter_context(place.blob(descriptor, offset)))

    def tags(self) -> list[str]:
        """The tags of the repository."""
        return self._anywhere(lambda place: place.tags())

    def close(self) -> None:
        """Close the connections."""
        for transport in self._transports:
            transport.close()

    def break_off(self) -> None:
        """End what other threads wait for."""
        for transport in self._transports:
            transport.break_off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _place(self, endpoint: Endpoint, patience: Patience) -> Repository:
        name = endpoint.repository(self.reference.repository)
        credentials = Credentials(self._environment)
        session = Session(
            endpoint,
            Transport(self._environment, endpoint.ca, self._read),
            lambda: credentials.get(endpoint.registry, name),
            patience=patience,
            cancel=self._cancel,
        )
        return Repository(session, name)

    def _anywhere(self, ask: Callable[[Repository], T], settle: bool = False) -> T:
        """The answer of the first place that has one. ``settle`` leaves those before it alone from now on."""
        failures: list[PycoreError] = []
        for number, place in enumerate(self._places):
            try:
                found = ask(place)
            except errors.Cancelled:
                raise
            except PycoreError as error:
                failures.append(error)
            else:
                self._places = self._places[number:] if settle else self._places
                return found
        *before, last = failures
        for failure in before:
            last.add_note(f"before that: {failure.message}")
        raise last
