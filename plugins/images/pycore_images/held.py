"""A container's hold on its image: nobody removes what a container is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pycore.errors import NotFound, PycoreError
from pycore.ops import Context, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class HeldImage(Operation):
    """Note in the store that a container uses an image, whose layers are there."""

    step = Step.IMAGE
    store: str
    name: str
    digest: str
    user: str
    """The container's id."""

    def do(self, ctx: Context) -> None:
        from pycore_images.store import Store  # not for the spawner, which loads the operations' modules

        store = Store(Path(self.store))
        store.hold(self.user, [self.digest])
        try:
            root = store.by_digest(self.digest)
            if root is None:
                raise NotFound(f"{self.digest} is not in the store")
            store.check_layers(store.image(root))
        except NotFound as error:
            hint = "somebody has removed it meanwhile: the same command again fetches it anew"
            raise PycoreError(f"image {self.name} is not here any more: {error.message}", hint=hint) from error

    def undo(self, ctx: Context) -> None:
        from pycore_images.store import Store

        Store(Path(self.store)).release(self.user)

    def probe(self, ctx: Context) -> bool | None:
        return (Path(self.store) / "holds" / self.user).exists()

    def explain(self) -> str:
        return f"hold image {self.name} ({self.digest[:19]})"
