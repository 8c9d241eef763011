"""A real init as a container's first process."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from pycore_supervision.init import program
from support.command import Command

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

RUN = ("run", "--rm", "--init", "--network", "none")

OPEN = """
import errno, os
for path in ("/proc/1/exe", "/proc/self/root/proc/1/exe"):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        try:
            os.open(path, flags)
        except OSError as error:
            print(errno.errorcode[error.errno])
        else:
            print("opened")
try:
    os.truncate("/proc/1/exe", 0)
except OSError as error:
    print(errno.errorcode[error.errno])
try:
    os.chmod("/proc/1/exe", 0o777)
except OSError as error:
    print(errno.errorcode[error.errno])
"""

ORPHAN = """
(sh -c 'exit 0' & echo $! > /run/orphan)
while test -d /proc/$(cat /run/orphan); do :; done
echo reaped
"""


def test_init_is_the_first_process_and_the_program_its_child(pycore: Command) -> None:
    out = pycore(*RUN, "host", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; echo; echo $$ $PPID; ls /proc/self/fd")
    first, pids, *fds = out.splitlines()
    assert first == "dumb-init -- sh -c tr '\\0' ' ' < /proc/1/cmdline; echo; echo $$ $PPID; ls /proc/self/fd "
    assert pids == "2 1"
    assert fds == ["0", "1", "2", "3"]  # and 3 is the directory that is listed


def test_without_it_the_program_is_the_first_process(pycore: Command) -> None:
    assert pycore("run", "--rm", "--network", "none", "host", "sh", "-c", "echo $$") == "1\n"


def test_exit_status_is_passed_on(pycore: Command) -> None:
    pycore(*RUN, "host", "sh", "-c", "exit 7", status=7)
    pycore(*RUN, "host", "sh", "-c", "kill -9 $$", status=137)


def test_orphans_are_reaped(pycore: Command) -> None:
    assert pycore(*RUN, "host", "sh", "-c", ORPHAN) == "reaped\n"


def test_stop_signal_reaches_the_program(pycore: Command) -> None:
    script = "trap 'exit 7' TERM; touch /run/ready; while :; do sleep 0.01; done"
    spec = (
        f'name = "t"\n[container.one]\nimage = "host"\ncommand = ["sh", "-c", "{script}"]\n'
        'init = true\ngoal = "healthy"\n'
        '[container.one.network]\ndriver = "none"\n[container.one.health]\nfile = "/run/ready"\n'
    )
    pycore("apply", pycore.write(spec))
    pycore("stop", "one")
    (row,) = pycore.json("ps", "-a")
    assert row["exit_status"] == 7


@pytest.mark.parametrize("powers", [(), ("--cap-add", "ALL"), ("--userns", "auto")])
def test_host_file_cannot_be_written_to(pycore: Command, powers: tuple[str, ...]) -> None:
    """Whoever can write to it has code of theirs run as the host's root, in the next container (CVE-2019-5736)."""
    before = hashlib.sha256(Path(program()).read_bytes()).digest(), Path(program()).stat()
    said = pycore(*RUN, *powers, "host", "python3", "-c", OPEN).split()
    assert len(said) == 10
    assert set(said) <= {"EROFS", "ETXTBSY", "EACCES", "EPERM"}
    after = Path(program()).stat()
    assert (hashlib.sha256(Path(program()).read_bytes()).digest(), after.st_mode) == (before[0], before[1].st_mode)


def test_nothing_of_it_is_in_the_container(pycore: Command) -> None:
    mounts = pycore(*RUN, "host", "cat", "/proc/self/mountinfo")
    assert "dumb-init" not in mounts


@pytest.mark.parametrize(
    "flags",
    [("--user", "1000", "--cap-drop", "ALL"), ("--read-only",), ("--userns", "auto", "--user", "1000")],
    ids=["nobody", "read-only", "userns"],
)
def test_it_needs_no_powers_and_no_place(pycore: Command, flags: tuple[str, ...]) -> None:
    assert pycore(*RUN, *flags, "host", "sh", "-c", "echo $PPID") == "1\n"


def test_image_needs_nothing_but_the_program(pycore: Command) -> None:
    """No loader, no library: the init is static, as is the copy of it that plays the program here."""
    image = pycore.directory / "image"
    image.mkdir()
    shutil.copy(program(), image / "program")
    done = pycore.run(*RUN, "./image", "/program", "/program", "/none")
    assert "[dumb-init] /none: No such file or directory" in done.err


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("nonesuch",), 127, "nonesuch: not found in the container in PATH"),
        (("/nonesuch",), 127, "/nonesuch: not found in the container"),
        (("/etc/passwd",), 126, "/etc/passwd: cannot be executed: Permission denied"),
        (("/tmp",), 126, "/tmp: cannot be executed: Permission denied"),
    ],
)
def test_program_that_is_not_there_is_said_as_without_it(
    pycore: Command, command: tuple[str, ...], status: int, words: str
) -> None:
    assert words in pycore.fails(*RUN, "host", *command, status=status)


def test_doctor_knows_the_wheel(pycore: Command) -> None:
    found = json.dumps(pycore.json("doctor"))
    assert "dumb-init" in found
