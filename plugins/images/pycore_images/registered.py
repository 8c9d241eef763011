"""Images by their names in registries: what a name means here and now, and what brings it here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pycore.errors import NotFound, Problem, PycoreError
from pycore.hookspecs import Found, Host, hookimpl
from pycore.image import Image
from pycore.ops import Context, Operation
from pycore.spec import App, Container, Process, is_path
from pycore.steps import Step

from pycore_images import lock, reference
from pycore_images.held import HeldImage
from pycore_images.reference import Reference
from pycore_images.store import Store

if TYPE_CHECKING:
    from pycore_images import documents
    from pycore_images.content import Source
    from pycore_images.registry.pull import RegistrySource

STORE = "images"
"""The directory of the store in the data dir."""


def store_of(host: Host) -> Store:
    """The store of a data dir."""
    return Store(host.data_dir / STORE)


@dataclass(frozen=True)
class PulledImage(Operation):
    """Fetch an image from its registry, as far as it is not here, and let its name lead to it."""

    step = Step.IMAGE
    store: str
    data_dir: str
    name: str
    """In full, with a tag or a digest."""
    pin: str
    size: int
    """Bytes to be fetched where nothing of it is here."""

    def do(self, ctx: Context) -> None:
        name = reference.parse(self.name)
        store = Store(Path(self.store))
        with _source(name.pinned(self.pin), Path(self.data_dir), ctx.client) as source:
            fetched(store, source, ctx, lambda image: store.tag(str(name), image.root))

    def explain(self) -> str:
        return f"pull {self.name} ({self.pin[:19]}, {self.size / 1e6:.1f} MB)"


def fetched(store: Store, source: Source, ctx: Context, taken: Callable[[documents.Image], None]) -> None:
    """Take an image into the store, with words for whoever waits; ``taken`` names it. Raises PycoreError, OSError."""
    from pycore_images.fetching import fetch
    from pycore_images.words import Words

    words = Words(ctx.tell)
    try:
        fetch(store, source, progress=words.progress, cancel=words.cancel, taken=taken)
    finally:
        words.close()


def runnable(store: Store, name: str, image: documents.Image) -> Image:
    """An image of the store, here or to come, as containers know it."""
    return Image(name, image.digest, image.root.digest, store.layer_paths(image), image.config.run)


def is_complete(store: Store, image: documents.Image) -> bool:
    """Whether all layers of an image are unpacked."""
    return all(store.has_layer(diff_id) for diff_id in image.config.diff_ids)


@hookimpl
def pycore_image(container: Container, host: Host) -> Found | None:
    """Whatever is no path: by the app's lock, else by what is here, else by what its registry says."""
    words = container[Process].image
    if words == "host" or is_path(words):
        return None
    try:
        return _Finding(container, host).found()
    except PycoreError as error:
        host.problems.append(Problem(("image",), error.message, hint=error.hint))
        return None


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Hold what is kept in the store."""
    image = container.image
    if image.digest:
        yield HeldImage(str(store_of(host).root), image.name, image.digest, container.id)


@hookimpl
def pycore_applied(app: App, host: Host) -> None:
    """Write the lock."""
    pins = {each.image.name: each.image.pin for each in app.containers.values() if _is_locked(each.image)}
    if pins or lock.read(app):
        lock.write(app, pins)


@hookimpl
def pycore_leftovers(host: Host, known: Collection[Operation]) -> Iterator[Operation]:
    """Holds of containers that are none any more."""
    users = {operation.user for operation in known if isinstance(operation, HeldImage)}
    store = store_of(host)
    for user, digests in store.holds().items():
        if _is_container(user) and user not in users and not host.look.is_dir(f"{host.data_dir}/containers/{user}"):
            yield HeldImage(str(store.root), "of a container that is gone", min(digests, default=""), user)


def _is_container(user: str) -> bool:
    return len(user) == 12 and not set(user) - set("0123456789abcdef")


def _is_locked(image: Image) -> bool:
    """What its name does not say already, nor a file of this host."""
    return bool(image.pin) and not is_path(image.name) and "@" not in image.name


class _Finding:
    """One name, looked for."""

    def __init__(self, container: Container, host: Host) -> None:
        self.name: Reference = reference.parse(container[Process].image)
        self.policy = container[Process].pull_policy
        self.app, self.host, self.store = container.app, host, store_of(host)

    def found(self) -> Found:
        """Raises PycoreError."""
        locked = lock.read(self.app).get(str(self.name), "")
        pin = self.name.digest or locked
        if self.policy != "always" or pin:
            image = self._here(pin)
            if image and is_complete(self.store, image):
                return Found(self._image(image))
        if self.policy == "never":
            raise NotFound(f"image {self.name.familiar} is not here", hint=f"pycore pull {self.name.familiar}")
        return self._there(pin)

    def _here(self, pin: str) -> documents.Image | None:
        root = self.store.by_digest(pin) if pin else self.store.resolve(str(self.name))
        try:
            return self.store.image(root) if root else None
        except NotFound:
            return None

    def _there(self, pin: str) -> Found:
        from pycore_images.fetching import look

        name = self.name.pinned(pin) if pin else self.name
        with _source(name, self.host.data_dir, self.app.environment) as source:
            image = look(source)
        made = self._image(image)
        complete = is_complete(self.store, image) and self.store.has_blob(image.digest)
        if complete and self.store.resolve(str(self.name)) == image.root:
            return Found(made)  # asked for anew, and still the same
        return Found(made, PulledImage(str(self.store.root), str(self.host.data_dir), made.name, made.pin, image.size))

    def _image(self, image: documents.Image) -> Image:
        return runnable(self.store, str(self.name), image)


def _source(name: Reference, data_dir: Path, environment: Mapping[str, str]) -> RegistrySource:
    from pycore_images.registry.hosts import read_hosts
    from pycore_images.registry.pull import RegistrySource

    return RegistrySource(name, read_hosts(data_dir), environment)
