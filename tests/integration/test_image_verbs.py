"""The verbs for images, as a person gives them: what is here, names, removal, registries, logins."""

from __future__ import annotations

import json
import stat
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pycore_images.content import Descriptor
from pycore_images.store import Store
from support.command import Command
from support.kept import keep, keep_index
from support.person import Person
from support.registry import PASSWORD, USER, registry

pytestmark = [pytest.mark.root, pytest.mark.needs("docker-registry")]


@pytest.fixture
def store(pycore: Command) -> Store:
    return Store(pycore.data_dir / "images")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets everybody in."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def named(store: Store, name: str, *layers: str, **config: object) -> Descriptor:
    root = keep(store, *layers, **config)
    store.tag(name, root)
    return root


# -- what is here ----------------------------------------------------------------------------------------


def test_an_empty_store_is_told_and_not_made(pycore: Command, store: Store) -> None:
    assert pycore("image", "ls") == "REPOSITORY  TAG  IMAGE ID  CREATED  SIZE\n"
    assert pycore.json("images") == []
    assert pycore("image", "prune", "-a") == "reclaimed 0\n"
    assert pycore.json("image", "df") == []
    assert {use["kind"]: use["bytes"] for use in pycore.json("df")}["images"] == 0
    assert not store.root.exists()


def test_images_are_listed_as_docker_lists_them(pycore: Command, store: Store) -> None:
    root = named(store, "docker.io/library/shop:latest", "a", "b", Labels={"team": "shop"})
    store.tag("registry.example:5000/team/shop:1.2", root)
    bare = keep(store, "c")
    identity = store.image(root).manifest.config.hex
    lines = [line.split() for line in pycore("images").splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["shop", "latest", identity[:12]],
        ["registry.example:5000/team/shop", "1.2", identity[:12]],
        ["<none>", "<none>", store.image(bare).manifest.config.hex[:12]],
    ]
    assert pycore("images", "-q", "--no-trunc").splitlines()[0] == f"sha256:{identity}"
    assert [row["name"] for row in pycore.json("images", "--filter", "label=team=shop")] == [
        "docker.io/library/shop:latest",
        "registry.example:5000/team/shop:1.2",
    ]
    assert [row["tag"] for row in pycore.json("images", "registry.example:5000/team/*")] == ["1.2"]
    assert [row["digest"] for row in pycore.json("images", "-f", "dangling=true")] == [bare.digest]
    assert root.digest in pycore("images", "--digests")
    assert "dangling" in pycore.fails("images", "-f", "color=red", status=2)


def test_a_damaged_image_is_listed_and_can_be_removed(pycore: Command, store: Store) -> None:
    root = named(store, "docker.io/library/shop:latest", "a")
    named(store, "docker.io/library/other:latest", "b")
    store.blob_path(root.digest).write_bytes(b"{}")
    assert "damaged" in pycore("images")
    assert pycore("rmi", "shop").startswith("untagged: shop:latest\n")
    assert [row["name"] for row in pycore.json("images")] == ["docker.io/library/other:latest"]


def test_all_is_told_of_an_image(pycore: Command, store: Store) -> None:
    root = named(store, "docker.io/library/shop:latest", "a", "b", Cmd=["/bin/shop"], Env=["A=1"])
    for word in ("shop", "docker.io/library/shop:latest", root.digest, root.hex[:8], f"shop@{root.digest}"):
        (told,) = json.loads(pycore("image", "inspect", word))
        assert told["Digest"] == root.digest
    assert told["RepoTags"] == ["shop:latest"]
    assert told["RepoDigests"] == [f"shop@{root.digest}"]
    assert told["Config"] == {"Cmd": ["/bin/shop"], "Env": ["A=1"]}
    assert len(told["RootFS"]["Layers"]) == len(told["Manifest"]["Layers"]) == 2
    assert pycore("image", "history", "shop").splitlines()[1].split("  ")[0] == told["Id"][7:19]
    steps = pycore.json("image", "history", "shop")
    assert [step["created_by"] for step in steps] == ["COPY b /", "COPY a /"]
    assert all(step["size"] > 4000 for step in steps)
    assert "did you mean shop" in pycore.fails("image", "inspect", "shopp")
    assert "capitals" in pycore.fails("image", "inspect", "Shop", status=2)


def test_what_images_share_is_counted_once(pycore: Command, store: Store) -> None:
    named(store, "docker.io/library/one:latest", "shared", "one")
    named(store, "docker.io/library/two:latest", "shared", "two")
    one, two = pycore.json("image", "df")
    assert one["names"] == ["docker.io/library/one:latest"]
    assert 0 < one["shared"] == two["shared"] < one["bytes"]
    images = next(use for use in pycore.json("df") if use["kind"] == "images")
    assert images["total"] == 2
    assert images["active"] == 0
    assert images["bytes"] >= one["bytes"] + two["unique"]
    assert images["reclaimable"] == images["bytes"]


# -- names and removal -----------------------------------------------------------------------------------


def test_an_image_goes_with_its_last_name(pycore: Command, store: Store) -> None:
    root = named(store, "docker.io/library/shop:latest", "a")
    pycore("tag", "shop", "localhost:5000/shop:2")
    assert set(store.references()) == {"docker.io/library/shop:latest", "localhost:5000/shop:2"}
    assert pycore("rmi", "shop") == "untagged: shop:latest\n"
    assert store.has_blob(root.digest)
    out = pycore("rmi", root.hex[:12])
    assert out.startswith("untagged: localhost:5000/shop:2\ndeleted: sha256:")
    assert not any((store.root / "blobs" / "sha256").iterdir())
    assert not any((store.root / "layers").iterdir())
    assert "no image" in pycore.fails("rmi", "shop")


def test_an_id_with_several_names_is_asked_about(pycore: Command, store: Store) -> None:
    root = named(store, "docker.io/library/a:1", "a")
    store.tag("docker.io/library/a:2", root)
    assert "a:1, a:2" in pycore.fails("image", "rm", root.hex)
    pycore("image", "rm", "-f", root.hex)
    assert store.references() == {}


def test_what_is_used_is_not_removed(pycore: Command, store: Store) -> None:
    root = named(store, "docker.io/library/shop:latest", "a")
    store.hold("0123456789ab", [root.digest])
    assert "is used by" in pycore.fails("rmi", "shop")
    pycore("rmi", "-f", "shop")
    assert store.references() == {}
    pycore("image", "prune", "-a")
    assert store.has_blob(root.digest)
    store.release("0123456789ab")
    assert "deleted" in pycore("image", "prune")


def test_prune_takes_what_has_no_name_and_with_all_what_nobody_uses(pycore: Command, store: Store) -> None:
    named(store, "docker.io/library/shop:latest", "a")
    bare = keep(store, "b")
    assert pycore("image", "gc") == "reclaimed 0\n"
    assert bare.digest in pycore("image", "prune", "-f")
    assert "untagged: shop:latest" in pycore("image", "prune", "-a", "-f")
    assert pycore.json("images") == []
    keep(store, "c")
    assert len(pycore.json("image", "gc", "--older-than", "0s")["deleted"]["layers"]) == 1


# -- registries ------------------------------------------------------------------------------------------


def test_an_image_goes_to_a_registry(pycore: Command, store: Store, address: str) -> None:
    root = named(store, f"{address}/team/shop:1", "a", "b")
    out = pycore("push", f"{address}/team/shop:1")
    assert out.startswith(f"pushing to {address}/team/shop\n")
    assert out.count(": pushed\n") == 3  # two layers and what is said of them
    assert out.endswith(f"1: digest: {root.digest} size: {root.size}\n")
    assert "layer already exists" in pycore("push", f"{address}/team/shop:1")
    store.tag(f"{address}/team/other:1", root)
    assert pycore("push", "-q", f"{address}/team/other:1") == f"{address}/team/other:1\n"
    *layers, last = map(json.loads, pycore("push", f"{address}/team/shop:1", "--json").splitlines())
    assert {layer["status"] for layer in layers} >= {"there"}
    assert last == {"name": f"{address}/team/shop:1", "digest": root.digest, "status": "pushed", "size": root.size}


def test_layers_that_a_neighbour_has_are_not_sent_again(pycore: Command, store: Store, address: str) -> None:
    named(store, f"{address}/near/shop:1", "near")
    pycore("push", f"{address}/near/shop:1")
    named(store, f"{address}/near/other:1", "near", "new")
    out = pycore("push", f"{address}/near/other:1")
    assert out.count(": layer already exists\n") == 1
    assert out.count(": pushed\n") == 2  # the other layer, and what is said of the two


def test_all_tags_and_indexes_go_to_a_registry(pycore: Command, store: Store, address: str) -> None:
    index = keep_index(store, keep(store, "a"), keep(store, "b"))
    store.tag(f"{address}/many/shop:1", index)
    named(store, f"{address}/many/shop:2", "c")
    out = pycore("push", "-a", f"{address}/many/shop")
    assert f"1: digest: {index.digest}" in out
    assert "2: digest:" in out
    assert "is pushed to where its name says" in pycore.fails("push", index.hex[:12], status=2)


def test_progress_in_a_terminal_is_bars(pycore: Command, store: Store, address: str) -> None:
    named(store, f"{address}/bars/shop:1", "a")
    me = Person(pycore, "push", f"{address}/bars/shop:1")
    try:
        me.sees("━" * 30)
        assert me.ends() == 0
        me.sees(r"1: digest: sha256:")
    finally:
        me.leave()


def test_a_push_needs_the_layers_as_they_came(pycore: Command, store: Store, address: str) -> None:
    root = named(store, f"{address}/part/shop:1", "a")
    store.blob_path(store.image(root).manifest.layers[0].digest).unlink()
    assert "pull or load the image anew" in pycore.fails("push", f"{address}/part/shop:1")


# -- logins ----------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[str]:
    """A registry that asks who is there."""
    with registry(tmp_path / "registry", login=True) as found:
        yield found


@pytest.fixture
def home(pycore: Command, tmp_path: Path) -> Path:
    pycore.environment |= {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "xdg")}
    return tmp_path / "home"


def test_a_login_is_kept_and_used_and_removed(pycore: Command, closed: str, home: Path, store: Store) -> None:
    named(store, f"{closed}/shop:1", "a")
    assert "pycore login" in pycore.fails("push", f"{closed}/shop:1")
    (home.parent / "secret").write_text(f"{PASSWORD}\n", encoding="utf-8")
    with (home.parent / "secret").open("rb") as secret:
        out = pycore("login", "-u", USER, "--password-stdin", closed, stdin=secret)
    config = home / ".docker" / "config.json"
    assert out == f"login succeeded, kept in {config}\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    pycore("push", f"{closed}/shop:1")
    assert pycore("logout", closed) == f"login removed for {closed}\n"
    assert pycore("logout", closed) == f"not logged in to {closed}\n"
    pycore.fails("push", f"{closed}/shop:1")


def test_a_wrong_login_is_not_kept(pycore: Command, closed: str, home: Path) -> None:
    said = pycore.fails("login", "-u", USER, "-p", "wrong", closed)
    assert "wrong" not in said.replace("wrong password", "")
    assert not home.exists()
    assert "--password-stdin" in pycore.fails("login", closed, status=2)
    assert "--username" in pycore.fails("login", "--password-stdin", closed, status=2)


def test_a_password_is_typed_unseen(pycore: Command, closed: str, home: Path, sit: Callable[..., Person]) -> None:
    me = sit("login", closed)
    me.sees("Username: ")
    me.type(f"{USER}\n")
    me.sees("Password: ")
    assert not me.settings()[3] & termios.ECHO
    me.type(f"{PASSWORD}\n")
    shown = me.sees("login succeeded")
    assert PASSWORD.encode() not in shown.string
    assert me.ends() == 0
    assert me.settings() == me.before


def test_who_gives_up_at_the_password_has_an_echo_again(
    pycore: Command, closed: str, home: Path, sit: Callable[..., Person]
) -> None:
    me = sit("login", "-u", USER, closed)
    me.sees("Password: ")
    me.type("\x03")
    assert me.ends() == 130
    assert me.settings() == me.before


@pytest.fixture
def sit(pycore: Command) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def sit_down(*words: str) -> Person:
        people.append(Person(pycore, *words))
        return people[-1]

    yield sit_down
    for person in people:
        person.leave()
