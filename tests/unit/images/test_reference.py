"""Names of images: what they mean in full, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import UsageError
from pycore_images.reference import Reference, parse, registry_name

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1.27@{DIGEST}", f"docker.io/library/nginx:1.27@{DIGEST}"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("localhost:5000/x:5000", "localhost:5000/x:5000"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("Registry/app", "Registry/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("a__b/c-----d/e.f", "docker.io/a__b/c-----d/e.f:latest"),
    ],
)
def test_means_in_full(text: str, whole: str) -> None:
    assert str(parse(text)) == whole
    assert parse(whole) == parse(text)
    assert parse(parse(text).familiar) == parse(text)


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/nginx:latest", "nginx"),
        ("docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/grafana/grafana:1", "grafana/grafana:1"),
        ("docker.io/library/a/b:1", "library/a/b:1"),
        ("docker.io/localhost/x:1", "docker.io/localhost/x:1"),
        ("ghcr.io/library/nginx:latest", "ghcr.io/library/nginx"),
        (f"nginx:latest@{DIGEST}", f"nginx:latest@{DIGEST}"),
    ],
)
def test_familiar_leaves_out_what_goes_without_saying(text: str, familiar: str) -> None:
    assert parse(text).familiar == familiar


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("", "there is no name", "write it like"),
        (":1", "there is no name", "write it like"),
        ("Nginx", "capitals", "did you mean 'nginx'?"),
        ("ghcr.io/Me/App:V1", "capitals", "did you mean 'ghcr.io/me/app:V1'?"),
        ("nginx:", "the tag is empty", None),
        ("nginx:a/b:", "the tag is empty", None),
        ("nginx:-x", "'-x' is no tag", None),
        ("nginx:" + "a" * 129, "is no tag", None),
        ("nginx@1.27", "is no digest", "a tag stands after ':'"),
        (f"nginx@sha256:{HEX.upper()}", "is no digest", f"did you mean '{DIGEST}'?"),
        (f"nginx@sha512:{HEX}{HEX}", "is no digest", None),
        ("https://ghcr.io/a/b", "'https://' does not belong", "did you mean 'ghcr.io/a/b'?"),
        ("docker://nginx", "does not belong", "did you mean 'nginx'?"),
        ("nginx :1", "a blank", "did you mean 'nginx:1'?"),
        ("nginx\n", "a blank", "did you mean 'nginx'?"),
        ("a//b", "nothing between two slashes", None),
        ("a/b/", "nothing between two slashes", None),
        ("-a", "is no part of a repository", None),
        ("a/../b", "is no part of a repository", None),
        ("exa_mple.com/a", "'exa_mple.com' is no registry", None),
        ("x.y:port/a", "is no registry", None),
        ("a/" * 127 + "a" * 10, "255 characters", None),
        (HEX, "are no name", f"NAME@{DIGEST}"),
        ("a" * 1000, "512 characters at most", None),
    ],
)
def test_says_what_is_wrong(text: str, words: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert words in caught.value.message
    assert (hint or "") in (caught.value.hint or "")
    assert hint is not None or caught.value.hint is None


@given(st.text(max_size=40) | st.text("aA0.:/@_-[]", max_size=30))
def test_any_text_is_a_name_or_is_said_to_be_none(text: str) -> None:
    try:
        reference = parse(text)
    except UsageError:
        return
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference


def test_pinned_keeps_the_tag_for_people() -> None:
    assert parse("nginx:1").pinned(DIGEST) == Reference("docker.io", "library/nginx", "1", DIGEST)
    assert parse("nginx:1").pinned(DIGEST).version == DIGEST


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
    ],
)
def test_registry_that_a_person_means(text: str, name: str) -> None:
    assert registry_name(text) == name


def test_registry_that_is_none() -> None:
    with pytest.raises(UsageError, match="is no registry"):
        registry_name("what is this")
