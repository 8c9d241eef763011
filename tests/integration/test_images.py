"""Apps and runs of images that are in a registry: fetched, pinned, honoured, held."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore_images.store import Store
from support.command import Command
from support.published import programs, publish
from support.registry import registry

pytestmark = [pytest.mark.root, pytest.mark.needs("docker-registry", "libseccomp")]

NGINX = {
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["echo from the image; exec sleep 1000"],
    "Env": ["PATH=/bin", "MODE=image"],
    "User": "web",
    "WorkingDir": "/srv",
    "StopSignal": "SIGKILL",
    "Labels": {"vendor": "test"},
    "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 100_000_000},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def name(address: str, request: pytest.FixtureRequest) -> str:
    """A name of the test's own in the registry."""
    return f"{address}/team/{request.node.name.translate(str.maketrans('[]-', '___')).strip('_')}:1"


def files(**contents: str) -> bytes:
    """A layer with these files in /srv."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file, text in contents.items():
            entry = tarfile.TarInfo(f"srv/{file}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def spec(image: str, **lines: str) -> str:
    more = "\n".join(f"{key} = {value}" for key, value in lines.items())
    return f'name = "shop"\n[container.web]\nimage = "{image}"\n{more}\n[container.web.network]\ndriver = "none"\n'


def test_an_app_is_made_of_an_image_and_runs_as_that_says(pycore: Command, name: str, base: bytes) -> None:
    root = publish(name, [base, files(page="hello")], NGINX)
    file = pycore.write(spec(name))
    plan = pycore("plan", file)
    assert f"pull {name}" in plan
    assert not (pycore.data_dir / "images").exists()
    pycore("apply", file)
    assert pycore("logs", "shop/web") == "from the image\n"
    assert pycore("exec", "shop/web", "id") == "uid=1234(web) gid=1235(web) groups=1235(web),77(extra)\n"
    assert pycore("exec", "shop/web", "cat", "page") == "hello"
    assert "MODE=image\n" in pycore("exec", "shop/web", "env")
    assert pycore("apply", file) == "nothing to do\n"
    lock = (pycore.directory / "app.lock").read_text()
    assert f'[image."{name}"]\ndigest = "{root.digest}"' in lock


def test_the_spec_goes_before_the_image(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base], NGINX)
    out = pycore("run", "--rm", "--network", "none", "-e", "MODE=flag", "-u", "0", "-w", "/", name, "echo $MODE; id -u")
    assert out == "flag\n0\n"
    out = pycore("run", "--rm", "--network", "none", "--entrypoint", "/bin/cat", name, "/etc/group")
    assert out.startswith("root:x:0:")


def test_a_lock_keeps_what_was_applied_when_the_tag_moves(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base, files(page="one")], NGINX)
    file = pycore.write(spec(name))
    pycore("apply", file)
    publish(name, [base, files(page="two")], NGINX)
    pycore("down", "shop")
    pycore("image", "prune", "-a", "-f")
    pycore("apply", file)
    assert pycore("exec", "shop/web", "cat", "/srv/page") == "one"
    text = pycore("pull", "--update", file)
    assert name in text
    assert "±" in pycore("plan", file)
    pycore("apply", file)
    assert pycore("exec", "shop/web", "cat", "/srv/page") == "two"


def test_policies(pycore: Command, name: str, base: bytes) -> None:
    assert "not here" in pycore.fails("run", "--network", "none", "--pull", "never", name, "true", status=125)
    publish(name, [base, files(page="one")])
    run = ("run", "--rm", "--network", "none")
    assert pycore(*run, name, "cat", "/srv/page") == "one"
    publish(name, [base, files(page="two")])
    assert pycore(*run, name, "cat", "/srv/page") == "one"
    assert pycore(*run, "--pull", "always", name, "cat", "/srv/page") == "two"
    assert pycore(*run, "--pull", "never", name, "cat", "/srv/page") == "two"


def test_a_digest_is_what_it_says(pycore: Command, name: str, base: bytes) -> None:
    one = publish(name, [base, files(page="one")])
    publish(name, [base, files(page="two")])
    pinned = f"{name.rpartition(':')[0]}@{one.digest}"
    assert pycore("run", "--rm", "--network", "none", pinned, "cat", "/srv/page") == "one"


def test_whiteouts_and_opaque_directories(pycore: Command, name: str, base: bytes) -> None:
    above = files(**{".wh.gone": "", "new": "new"})
    opaque = files(**{"sub/.wh..wh..opq": "", "sub/only": "only"})
    publish(name, [base, files(gone="x", stays="y", **{"sub/hidden": "z"}), above, opaque])
    for driver in ("overlayfs", "vfs"):
        run = ("run", "--rm", "--network", "none", "--storage", driver, name)
        assert pycore(*run, "ls", "-a", "/srv").split() == [".", "..", "new", "stays", "sub"]
        assert pycore(*run, "ls", "/srv/sub").split() == ["only"]


def test_in_a_user_namespace_files_belong_to_whom_the_image_says(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base, files(page="one")])
    run = ("run", "--rm", "--network", "none", "--userns", "500000:65536", name)
    assert pycore(*run, "ls", "-ln", "/srv/page").split()[2:4] == ["0", "0"]
    tree = next((pycore.data_dir / "images/layers").glob("*/tree/srv/page"))
    assert tree.stat().st_uid == 0  # and nothing was changed for it


def test_what_a_container_uses_is_not_removed(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base], NGINX)
    pycore("apply", pycore.write(spec(name)))
    assert "shop/web" in pycore.fails("rmi", name)
    pycore("image", "prune", "-a", "-f")
    assert pycore("exec", "shop/web", "/bin/cat", "/etc/group").startswith("root")
    pycore("down", "shop")
    assert Store(pycore.data_dir / "images").holds() == {}
    pycore("rmi", name)
    assert list((pycore.data_dir / "images/layers").iterdir()) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("Nginx", "has capitals"),
        ("127.0.0.1:1/nothing/here:1", "127.0.0.1:1"),
        ("nginx:bad tag", "tag"),
        ("./missing.tar", "there is no"),
    ],
)
def test_images_that_cannot_be_had(pycore: Command, image: str, words: str) -> None:
    error = pycore.fails("apply", pycore.write(spec(image, command='["true"]')), status=2)
    assert words in error
    assert "app.toml:3:9" in error
    assert pycore.json("ps", "-a") == []


def test_a_name_that_is_not_in_the_registry(pycore: Command, name: str) -> None:
    error = pycore.fails("run", name, "true", status=125)
    assert name.rpartition("/")[2].partition(":")[0] in error


def test_an_image_that_says_what_cannot_be(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base], {"User": "no such:user:at all", "Cmd": ["true"]})
    error = pycore.fails("apply", pycore.write(spec(name)), status=2)
    assert "what the image says of itself cannot be: user = 'no such:user:at all'" in error


def test_an_image_without_a_command(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base])
    assert "does not say what to run" in pycore.fails("apply", pycore.write(spec(name)), status=2)


def test_a_lock_has_what_a_name_does_not_say_and_no_more(pycore: Command, name: str, base: bytes) -> None:
    root = publish(name, [base])
    (pycore.directory / "base.tar").write_bytes(base)
    table = '[container.{}]\nimage = "{}"\ncommand = ["sleep", "1000"]\nnetwork = {{ driver = "none" }}\n'.format
    pinned = f"{name.rpartition(':')[0]}@{root.digest}"
    images = {"web": name, "again": name, "pinned": pinned, "file": "./base.tar", "host": "host"}
    text = 'name = "shop"\n' + "".join(table(*each) for each in images.items())
    pycore("apply", pycore.write(text))
    lock = pycore.directory / "app.lock"
    tables = [line for line in lock.read_text().splitlines() if line.startswith("[")]
    assert tables == [f'[image."{name}"]']
    before = lock.stat()
    assert pycore("apply", str(pycore.directory / "app.toml")) == "nothing to do\n"
    assert lock.stat().st_ino == before.st_ino  # not written when nothing differs
    pycore("apply", pycore.write('name = "shop"\n' + table("host", "host")))
    assert "[" not in lock.read_text()  # nothing that no container has any more


def test_a_lock_goes_before_asking_the_registry(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base, files(page="one")], NGINX)
    file = pycore.write(spec(name, pull_policy='"always"'))
    pycore("apply", file)
    publish(name, [base, files(page="two")], NGINX)
    assert pycore("apply", file) == "nothing to do\n"
    (pycore.directory / "app.lock").unlink()
    pycore("apply", file)
    assert pycore("exec", "shop/web", "cat", "/srv/page") == "two"


def test_what_an_image_asks_for_beside_its_program(pycore: Command, name: str, base: bytes) -> None:
    asked = {
        "Cmd": ["trap 'exit 5' USR1; while :; do sleep 0.1; done"], "User": "0", "StopSignal": "SIGUSR1",
        "Volumes": {"/srv/data": {}}, "ExposedPorts": {"80/tcp": {}},
    }  # fmt: skip
    publish(name, [base, files(**{"data/first": "of the image"})], {**NGINX, **asked})
    pycore("apply", pycore.write(spec(name, goal='"healthy"')))  # as the image's own check says
    (row,) = pycore.json("ps", "--filter", "label=vendor=test", "--filter", "health=healthy")
    assert row["command"] == [*NGINX["Entrypoint"], *asked["Cmd"]]
    assert pycore("exec", "shop/web", "cat", "/srv/data/first") == "of the image"
    assert " /srv/data " in pycore("exec", "shop/web", "cat", "/proc/self/mounts")
    pycore("stop", "shop/web")
    assert pycore.json("ps", "-a")[0]["exit_status"] == 5
    assert json.loads(pycore("image", "inspect", name))[0]["Config"]["ExposedPorts"] == {"80/tcp": {}}


def test_a_lock_that_cannot_be_read_is_told(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base], NGINX)
    file = pycore.write(spec(name))
    lock = pycore.directory / "app.lock"
    lock.write_text("[image]\nx = 1\n")
    assert "app.lock" in pycore.fails("apply", file, status=2)
    lock.unlink()
    os.mkfifo(lock)  # which would never end
    assert "no regular file" in pycore.fails("apply", file, status=2)
    lock.unlink()
    lock.symlink_to("/dev/zero")
    assert "no regular file" in pycore.fails("plan", file, status=2)
    lock.unlink()
    lock.mkdir()
    assert "app.lock: Is a directory" in pycore.fails("plan", file, status=2)


def test_the_lock_belongs_to_whom_the_spec_does(pycore: Command, name: str, base: bytes) -> None:
    publish(name, [base], NGINX)
    file = pycore.write(spec(name))
    os.chown(file, 1234, 1235)
    pycore("apply", file)
    found = Path(pycore.directory / "app.lock").stat()
    assert (found.st_uid, found.st_gid) == (1234, 1235)
