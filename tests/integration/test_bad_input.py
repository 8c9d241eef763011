"""What cannot work is refused with a sentence that names it and the way out, and leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import leaks
from support.command import Command

root = pytest.mark.root

NONE = '[container.one.network]\ndriver = "none"\n'


@pytest.fixture(autouse=True)
def nothing_is_left(pycore: Command) -> Iterator[None]:
    """No container, no layer, no mount, link, cgroup or table beside what was there before."""
    before = leaks.snapshot()
    yield
    kept = [*pycore.run_dir.glob("containers/*"), *pycore.data_dir.glob("containers/*")]
    assert kept == []
    assert leaks.ours(leaks.snapshot() - before, pycore.directory) == set()


def spec(more: str = NONE, *, image: str = "host", command: str = '["sleep", "600"]', app: str = "bad") -> str:
    return f'name = "{app}"\n\n[container.one]\nimage = "{image}"\ncommand = {command}\nstop_signal = "KILL"\n{more}'


def test_unknown_driver_names_the_ones_there_are(pycore: Command) -> None:
    error = pycore.fails("check", pycore.write(spec('[container.one.network]\ndriver = "brigde"\n')), status=2)
    assert "app.toml:8:10" in error
    for name in ("bridge", "host", "none"):
        assert name in error


def test_every_problem_is_told_at_once_each_at_its_place(pycore: Command) -> None:
    more = '[container.one.network]\ndriver = "none"\nprots = []\n[container.one.resources]\nmemory = "much"\n'
    error = pycore.fails("check", pycore.write(spec(more)), status=2)
    assert "app.toml:9:1" in error
    assert "app.toml:11:10" in error


def test_a_spec_that_is_not_there(pycore: Command) -> None:
    assert "nowhere.toml" in pycore.fails("check", "nowhere.toml", status=2)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x = 1 # " + "x" * (10 << 20), id="10 MB in a line"),
        pytest.param("[container.one]\n" + "# nothing\n" * (1 << 20), id="10 MB in lines"),
        pytest.param("x = " + "[" * 100_000, id="deep array, not closed"),
        pytest.param("x = " + "[" * 5_000 + "]" * 5_000, id="deep array"),
        pytest.param("x = " + "{ a = " * 5_000 + "1" + " }" * 5_000, id="deep table"),
        pytest.param(f"[{'.'.join('a' * 20_000)}]", id="deep header"),
        pytest.param("x = \0", id="NUL"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_spec_that_nobody_wrote_by_hand(pycore: Command, text: str) -> None:
    file = pycore.write(text)
    began = time.monotonic()
    error = pycore.fails("check", file, status=2)
    assert time.monotonic() - began < 20
    assert len(error) < 10_000


@root
@pytest.mark.needs("libseccomp")
def test_missing_image(pycore: Command) -> None:
    error = pycore.fails("apply", pycore.write(spec(image="./nowhere")), status=2)
    assert "app.toml:4:9" in error
    assert "nowhere" in error


@root
@pytest.mark.needs("libseccomp")
def test_missing_source_of_a_volume(pycore: Command) -> None:
    more = NONE + '[container.one.storage]\nvolumes = ["./nowhere:/data"]\n'
    error = pycore.fails("apply", pycore.write(spec(more)), status=2)
    assert "app.toml:10:12" in error
    assert str(pycore.directory / "nowhere") in error


@root
@pytest.mark.needs("libnftables", "libseccomp")
def test_port_that_a_process_of_the_host_holds(pycore: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        more = f'[container.one.network]\ndriver = "bridge"\nports = ["127.0.0.1:{port}:80"]\n'
        error = pycore.fails("apply", pycore.write(spec(more)), status=2)
    assert "app.toml:9:10" in error
    assert f"{port}" in error
    assert f"(pid {os.getpid()})" in error


@root
@pytest.mark.needs("libnftables", "libseccomp")
def test_port_that_another_container_holds(pycore: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    more = f'[container.one.network]\ndriver = "bridge"\nports = ["127.0.0.1:{port}:80"]\n'
    pycore("apply", pycore.write(spec(more, app="first"), "first.toml"))
    error = pycore.fails("apply", pycore.write(spec(more, app="second"), "second.toml"), status=2)
    assert "second.toml:9:10" in error
    assert "first/one" in error
    assert [row["container"] for row in pycore.json("ps", "-a")] == ["first/one"]
    pycore("down", "first")


@root
@pytest.mark.needs("libseccomp")
@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ('["nonesuch"]', 127, "nonesuch: not found"),
        ('["/nonesuch"]', 127, "/nonesuch: not found"),
        ('["/etc/passwd"]', 126, "/etc/passwd: cannot be executed"),
        ('["/etc"]', 126, "/etc: cannot be executed"),
    ],
)
def test_program_that_cannot_be_run(pycore: Command, command: str, status: int, words: str) -> None:
    assert words in pycore.fails("apply", pycore.write(spec(command=command)), status=status)
    assert pycore.json("ps", "-a") == []


@root
@pytest.mark.needs("libseccomp", "libnftables")
@pytest.mark.parametrize(
    ("library", "package", "network"),
    [
        pytest.param("seccomp", "libseccomp2", "none", id="libseccomp"),
        pytest.param("nftables", "libnftables1", "bridge", id="libnftables"),
    ],
)
def test_missing_library(pycore: Command, library: str, package: str, network: str) -> None:
    """An empty file covers the library, in a mount namespace of the command's own."""
    (place,) = {path.resolve() for path in Path("/usr/lib").glob(f"**/lib{library}.so.?")}
    cover = f'mount --bind /dev/null {place} && exec "$@"'
    without = through(pycore, "unshare", "--mount", "sh", "-c", cover, "sh")
    file = pycore.write(spec(f'[container.one.network]\ndriver = "{network}"\n'))
    assert f"apt-get install {package}" in without.fails("apply", file)
    assert f"apt-get install {package}" in without("doctor", status=1)
    assert pycore.json("ps", "-a") == []


def through(pycore: Command, *prefix: str) -> Command:
    """The command, started by another program."""
    script = pycore.directory / "through"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(prefix)} {shlex.quote(str(pycore.program))} "$@"\n')
    script.chmod(0o755)
    return replace(pycore, program=script)


@pytest.mark.root
def test_no_program_to_run(pycore: Command) -> None:
    assert "no command" in pycore.fails("run", "--rm", "host", status=125)
    assert "must name a program" in pycore.fails("run", "--rm", "host", "", status=125)
    assert pycore.json("ps", "-a") == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((), 125),
        (("--nonsense", "host", "true"), 125),
        (("--memory", "lots", "host", "true"), 125),
        (("Capitals", "true"), 125),
        (("--pull", "never", "nonesuch", "true"), 125),
        (("127.0.0.1:1/nobody/there", "true"), 125),
        (("./nonesuch.tar", "true"), 125),
        (("host", "/etc/passwd"), 126),
        (("host", "/etc"), 126),
        (("host", "/no/such/program"), 127),
        (("host", "no-such-program"), 127),
        (("-d", "host", "no-such-program"), 127),
    ],
)
def test_a_run_that_comes_to_nothing_ends_as_dockers_does(pycore: Command, words: tuple[str, ...], status: int) -> None:
    pycore.fails("run", "--network", "none", *words, status=status)
    assert pycore.json("ps") == []


@pytest.mark.root
def test_a_container_that_cannot_be_made_ends_like_a_run(pycore: Command) -> None:
    pycore.fails("create", "--network", "none", "--pull", "never", "nonesuch", "true", status=125)
    pycore.fails("create", "--nonsense", "host", "true", status=125)
