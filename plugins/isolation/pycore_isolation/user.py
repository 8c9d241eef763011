"""The user that the program runs as: ``user``, ``group_add``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Self

import pydantic
from pycore.hookspecs import Host, hookimpl
from pycore.image import ImageConfig
from pycore.ops import Operation
from pycore.spec import Change, Container, Many, Section, setting

from pycore_isolation.ops.user import MAX_ID, BecomeUser

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\$?"


def _in_range(value: str) -> str:
    for part in value.split(":"):
        if part.isdigit() and int(part) > MAX_ID:
            raise ValueError(f"the highest user or group id is {MAX_ID}")
    return value


UserName = Annotated[
    str, pydantic.StringConstraints(pattern=f"^{_WORD}(:{_WORD})?$"), pydantic.AfterValidator(_in_range)
]
GroupName = Annotated[str, pydantic.StringConstraints(pattern=f"^{_WORD}$"), pydantic.AfterValidator(_in_range)]


class User(Section):
    """``user``, ``group_add``."""

    table = "container.*.isolation"

    user: UserName = setting(
        "0",
        doc='Who the program runs as: "USER" or "USER:GROUP", each a number or a name that the container\'s own '
        "/etc/passwd and /etc/group list. Any user but root has no capabilities.",
        change=Change.RESTART,
        example="1000:1000",
        flags=("-u", "--user"),
        execute=True,
    )
    group_add: Many[GroupName] = setting(
        (),
        doc="Supplementary groups, by number or by name.",
        change=Change.RESTART,
        example=["audio"],
        flags=("--group-add",),
    )

    def with_image(self, config: ImageConfig) -> Self:
        """The image's user; its names are looked up in its own files, like those of the spec. Docker knows ``:GROUP``
        and ``USER:``, too.
        """
        user, _, group = config.user.partition(":")
        return self.left_open(user=f"{user or 0}:{group}" if group else user) if user or group else self

    def into_image(self, config: ImageConfig) -> ImageConfig:
        """Root goes without saying."""
        return replace(config, user=self.user if self.user != "0" else "")


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """``user``, ``group_add``."""
    return [User]


@hookimpl
def pycore_confine(container: Container, host: Host) -> Iterator[Operation]:
    """Become that user; also where it is root, for the groups and for HOME."""
    section = container[User]
    yield BecomeUser(section.user, section.group_add)
