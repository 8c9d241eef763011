"""Who the program becomes, by files of which nothing is trusted."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.ops import Context
from pycore.testing.fake import FakeKernel
from pycore_isolation.ops.user import MAX_ID, BecomeUser, Identity, resolve
from pycore_isolation.user import User, pycore_confine

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
web:x:33:34::/srv:/bin/sh
homeless:x:50:50:::/bin/sh
torn:x:60
letters:x:abc:0::/:/bin/sh
33:x:99:99::/named-33:/bin/sh
"""
GROUP = """\
root:x:0:
web:x:34:
audio:x:29:web,other
video:x:44:other,web
torn:x:61
"""


@pytest.mark.parametrize(
    ("user", "extra", "identity"),
    [
        ("0", [], Identity(0, 0, (), "/root")),
        ("root", [], Identity(0, 0, (), "/root")),
        ("web", [], Identity(33, 34, (29, 44), "/srv")),
        ("33", [], Identity(33, 34, (29, 44), "/srv")),
        ("033", [], Identity(33, 34, (29, 44), "/srv")),
        ("web:0", [], Identity(33, 0, (), "/srv")),
        ("web:audio", ["video", "7"], Identity(33, 29, (44, 7), "/srv")),
        ("web", ["audio"], Identity(33, 34, (29, 44), "/srv")),
        ("homeless", [], Identity(50, 50, (), "/")),
        ("1000", [], Identity(1000, 0, (), "/")),
        ("1000:1000", [], Identity(1000, 1000, (), "/")),
        (str(MAX_ID), [], Identity(MAX_ID, 0, (), "/")),
    ],
)
def test_identity(user: str, extra: list[str], identity: Identity) -> None:
    assert resolve(user, extra, PASSWD, GROUP) == identity


@pytest.mark.parametrize(
    ("user", "extra", "message"),
    [
        ("nobody", [], "no user 'nobody'"),
        ("torn", [], "no user 'torn'"),
        ("letters", [], "no user 'letters'"),
        ("web:staff", [], "no group 'staff'"),
        ("web", ["torn"], "no group 'torn'"),
    ],
)
def test_names_that_are_not_listed(user: str, extra: list[str], message: str) -> None:
    with pytest.raises(PycoreError, match=message):
        resolve(user, extra, PASSWD, GROUP)


_entries = st.lists(
    st.lists(st.one_of(st.sampled_from(["web", "0", "33", "-1", str(1 << 40), "²"]), st.text(max_size=5)), max_size=8),
    max_size=6,
).map(lambda lines: "\n".join(":".join(fields) for fields in lines))


@given(user=st.sampled_from(["web", "33", "web:web", "0:9"]), passwd=_entries, group=_entries)
def test_whatever_an_image_has_for_files(user: str, passwd: str, group: str) -> None:
    try:
        identity = resolve(user, ["web"], passwd, group)
    except PycoreError:
        return
    assert all(0 <= number <= MAX_ID for number in (identity.uid, identity.gid, *identity.groups))


def test_becoming_a_user_says_where_its_home_is(kernel: FakeKernel) -> None:
    kernel.add_file("/etc/passwd", PASSWD)
    kernel.add_file("/etc/group", GROUP)
    context = Context(kernel)
    BecomeUser("web", ()).do(context)
    assert kernel.me.settings["set_user"] == (33, 34, (29, 44))
    assert context.environment["HOME"] == "/srv"


def test_the_spec_knows_better_where_home_is(kernel: FakeKernel) -> None:
    context = Context(kernel, environment={"HOME": "/here"})
    BecomeUser("0", ()).do(context)
    assert context.environment["HOME"] == "/here"


def test_an_image_without_the_files(kernel: FakeKernel) -> None:
    kernel.add_file("/etc/passwd", None)
    kernel.add_file("/etc/group", None)
    BecomeUser("1000:1000", ("5",)).do(Context(kernel))
    assert kernel.me.settings["set_user"] == (1000, 1000, (5,))


@pytest.mark.parametrize("user", ["", ":", "a:b:c", "a b", "-1", "../x", "web:", "4294967295", "web\n"])
def test_what_is_no_user(user: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        User(user=user)


def test_described_for_root_too(make: Any, host: Host) -> None:
    assert list(pycore_confine(make(), host)) == [BecomeUser("0", ())]
