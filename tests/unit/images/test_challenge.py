"""WWW-Authenticate, as registries write it and as they should not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore_images.registry.challenge import Challenge, parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="Registry Realm"', [Challenge("basic", {"realm": "Registry Realm"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ("bearer Realm=x , SERVICE = y", [Challenge("bearer", {"realm": "x", "service": "y"})]),
        (r'Basic realm="a \"b\" \\c"', [Challenge("basic", {"realm": r'a "b" \c'})]),
        (
            'Negotiate, Basic realm="x", Bearer realm="y"',
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        ("Basic", [Challenge("basic", {})]),
        ("", []),
        ("=,,=", []),
        ('Basic realm="not closed', [Challenge("basic", {})]),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse([header]) == expected


def test_several_headers() -> None:
    assert [one.scheme for one in parse(["Basic realm=a", "Bearer realm=b"])] == ["basic", "bearer"]


@given(st.lists(st.text() | st.text('Bb =,"\\'), max_size=3))
def test_any_header_is_read(headers: list[str]) -> None:
    parse(headers)


def test_long_ones_take_no_time_that_grows_with_them() -> None:
    parse(['Basic realm="' + "\\" * 1_000_000, "a " * 1_000_000, 'Basic a="' + 'x="' * 1_000_000])
