"""Images made here, as a person makes them: imported, committed, compared; and what is written out again."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pycore_images.store import Store
from support.command import Command
from support.kept import keep
from support.published import programs

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

RUN = ("run", "--network", "none")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar with a few programs."""
    path = tmp_path_factory.mktemp("base") / "base.tar"
    path.write_bytes(programs(path.parent))
    return path


def config_of(pycore: Command, image: str) -> dict[str, object]:
    (told,) = json.loads(pycore("image", "inspect", image))
    found: dict[str, object] = told["Config"]
    return found


def test_a_container_becomes_an_image_and_that_a_container(pycore: Command, base: Path) -> None:
    pycore("import", str(base), "base", "-c", 'CMD ["/bin/sh"]', "-c", "ENV A=1")
    pycore(*RUN, "--name", "c", "base", "sh", "-c", "echo hello > /made")
    said = pycore("commit", "-a", "me", "-m", "a greeting", "-c", 'CMD ["/bin/cat", "/made"]', "c", "made:1")
    assert said == pycore("images", "-q", "--no-trunc", "made").strip() + "\n"
    assert pycore(*RUN, "--rm", "made:1") == "hello\n"
    assert config_of(pycore, "made:1")["Env"] == ["A=1"]
    step = pycore.json("image", "history", "made:1")[0]
    assert (step["author"], step["comment"]) == ("me", "a greeting")
    assert step["created_by"] == "sh -c echo hello > /made"
    assert "A /made" in pycore("image", "diff", "base", "made:1").splitlines()
    pycore("rm", "c")


def test_a_container_that_runs_is_held_still_only_meanwhile(pycore: Command, base: Path) -> None:
    pycore("import", str(base), "base")
    pycore(*RUN, "-d", "--name", "c", "base", "sleep", "1000")
    identity = json.loads(pycore("commit", "c", "--json"))["id"]
    assert pycore.json("inspect", "c")["status"] == "running"
    assert [row["id"] for row in pycore.json("images", "-f", "dangling=true")] == [identity]
    pycore("rm", "-f", "c")


def test_an_image_is_run_as_its_container_was(pycore: Command, base: Path) -> None:
    pycore("import", str(base), "base", "-c", "USER 7", "-c", "WORKDIR /srv")
    pycore(*RUN, "--name", "c", "-u", "web:77", "-e", "A=1", "--health-cmd", "true", "base", "id")
    pycore("commit", "c", "made")
    assert pycore(*RUN, "--rm", "made") == "uid=1234(web) gid=77(extra) groups=77(extra)\n"
    config = config_of(pycore, "made")
    assert (config["User"], config["Env"], config["WorkingDir"]) == ("web:77", ["A=1"], "/srv")
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]}
    pycore("rm", "c")
    pycore(*RUN, "--name", "c", "-u", "0", "-w", "/", "base", "id")
    pycore("commit", "c", "made")
    assert pycore(*RUN, "--rm", "made").startswith("uid=0(root)")
    pycore("rm", "c")


def test_what_is_exported_can_be_imported(pycore: Command, base: Path) -> None:
    pycore("import", str(base), "base")
    pycore(*RUN, "--name", "c", "base", "sh", "-c", "echo hello > /made")
    with pycore.popen("export", "c") as exporting:
        importing = pycore.popen("import", "-", "again", stdin=exporting.stdout)
        assert exporting.stdout
        exporting.stdout.close()
        _, err = importing.communicate(timeout=60)
        assert (importing.returncode, exporting.wait(20)) == (0, 0), err
    assert pycore(*RUN, "--rm", "again", "cat", "/made") == "hello\n"
    pycore("export", "-o", "out.tar", "c")
    with tarfile.open(pycore.directory / "out.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert {"made", "bin/sh", "etc/passwd"} <= names
    assert not {name for name in names if name.startswith("proc/")}
    assert (pycore.directory / "out.tar").stat().st_mode & 0o077 == 0
    pycore("rm", "c")


def test_a_directory_becomes_an_image(pycore: Command, tmp_path: Path) -> None:
    (tmp_path / "root" / "srv").mkdir(parents=True)
    (tmp_path / "root" / "srv" / "page").write_text("page")
    pycore("import", str(tmp_path / "root"), "pages:1", "-c", "WORKDIR /srv", "--platform", "linux/s390x")
    (told,) = json.loads(pycore("image", "inspect", "pages:1"))
    assert (told["Architecture"], told["Config"]) == ("s390x", {"WorkingDir": "/srv"})
    assert (Path(told["Trees"][0]) / "srv" / "page").read_text() == "page"


def test_two_images_are_compared(pycore: Command) -> None:
    store = Store(pycore.data_dir / "images")
    store.tag("docker.io/library/old:1", keep(store, "same", "old", Env=["A=1"]))
    store.tag("docker.io/library/new:1", keep(store, "same", "new", Env=["A=2"]))
    assert pycore("image", "diff", "old:1", "new:1") == "~ environment A 1 -> 2\nA /new\nD /old\n"
    told = pycore.json("image", "diff", "old:1", "new:1")
    assert told["config"] == {"environment A": {"old": "1", "new": "2"}}
    assert told["files"] == [{"path": "/new", "kind": "A"}, {"path": "/old", "kind": "D"}]
    assert pycore("image", "diff", "old:1", "old:1") == ""


def bad_tar(tmp_path: Path) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../out"))
    (tmp_path / "bad.tar").write_bytes(buffer.getvalue())
    return str(tmp_path / "bad.tar")


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (lambda path: ("import", str(path / "nothing.tar")), "No such file", 1),
        (lambda path: ("import", str(path / "text")), "", 1),
        (lambda path: ("import", bad_tar(path)), "", 1),
        (lambda path: ("import", str(path / "text"), "Name"), "capitals", 2),
        (lambda path: ("import", str(path / "text"), "-c", "CDM x"), "did you mean CMD", 2),
        (lambda path: ("import", str(path / "text"), f"x@sha256:{'0' * 64}"), "a digest is not given", 2),
        (lambda path: ("commit", "nobody"), "no such container", 1),
        (lambda path: ("export", "nobody", "-o", "x"), "no such container", 1),
        (lambda path: ("image", "diff", "a", "b"), "no image", 1),
    ],
)
def test_what_cannot_be_meant_is_said(
    pycore: Command, tmp_path: Path, words: Callable[[Path], tuple[str, ...]], said: str, status: int
) -> None:
    (tmp_path / "text").write_text("no archive")
    assert said in pycore.fails(*words(tmp_path), status=status)
    store = Store(pycore.data_dir / "images")
    assert not store.root.exists() or os.listdir(store.ingest) == os.listdir(store.root / "layers") == []
