"""Detach keys, raw mode, and the relay between a client and a container."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.logs.onlookers import Tap
from pycore.streams.relay import Client, Ending, MasterSource, Relay
from pycore.streams.terminal import DetachKeys, RawMode, parse_keys, redraw, set_window_size, window_size


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-[", b"\x00\x1b"), ("CTRL-A,b", b"\x01b"), ("", b"")],
)
def test_keys_are_written_as_docker_writes_them(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ab", "ctrl-", "ctrl-1", "ctrl-pq", "a,,b", "é", "p-ctrl"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        parse_keys(text)


@given(st.lists(st.binary(max_size=5), max_size=8), st.sampled_from([b"", b"\x10\x11", b"aa", b"aab", b"abab"]))
def test_keys_are_found_however_they_are_cut_up_and_nothing_else_is_kept_back(pieces: list[bytes], keys: bytes) -> None:
    detach = DetachKeys(keys)
    passed, pressed = b"", False
    for piece in pieces:
        more, pressed = detach.feed(piece)
        passed += more
        if pressed:
            break
    whole = b"".join(pieces)
    if keys and keys in whole:
        assert pressed
        assert passed == whole[: whole.index(keys)]
    else:
        assert not pressed
        rest = whole[len(passed) :]
        assert whole.startswith(passed)
        assert keys.startswith(rest)
        assert not rest or rest != keys


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_raw_mode_is_undone(terminal: tuple[int, int]) -> None:
    _, slave = terminal
    before = termios.tcgetattr(slave)
    raw = RawMode(slave)
    assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    raw.restore()
    assert termios.tcgetattr(slave) == before


def test_what_somebody_else_has_set_meanwhile_stays(terminal: tuple[int, int]) -> None:
    _, slave = terminal
    raw = RawMode(slave)
    other = termios.tcgetattr(slave)
    other[3] |= termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, other)
    raw.restore()
    assert termios.tcgetattr(slave) == other


def test_sizes(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    set_window_size(master, (10, 20))
    assert window_size(slave) == (10, 20)
    set_window_size(master, (0, 0))  # of a client that knows none
    assert window_size(slave) == (10, 20)
    redraw(master, (10, 20))
    assert window_size(slave) == (10, 20)
    with open(os.devnull, "rb") as null:
        assert window_size(null.fileno()) == (0, 0)
        set_window_size(null.fileno(), (1, 1))


class Pieces:
    """A source with a descriptor to wake up by."""

    def __init__(self) -> None:
        self.tap = Tap()
        self.ended = False

    def descriptors(self) -> Sequence[int]:
        return (self.tap.fileno(),)

    def take(self) -> tuple[Sequence[tuple[int, bytes]], int]:
        return self.tap.take()

    def over(self) -> bool:
        return self.ended

    def end(self) -> None:
        self.ended = True
        self.tap.put(1, b"")


class Bench:
    """A relay in a thread, and the other ends of all that it holds."""

    def __init__(self, stack: contextlib.ExitStack, keys: bytes = b"\x10\x11", size: int | None = None) -> None:
        self.source = Pieces()
        stack.callback(self.source.tap.close)
        self.connection, theirs = socket.socketpair()
        self.heard: list[int] = []
        (stdin, self.typing), (self.shown, stdout), (self.errors, stderr), (self.read, sink) = (
            os.pipe() for _ in range(4)
        )
        os.set_blocking(sink, False)
        client = Client(stdin, stdout, stderr, theirs.fileno())
        for fd in (stdin, self.shown, stdout, self.errors, stderr, self.read, sink):
            stack.callback(os.close, fd)
        stack.enter_context(self.connection)
        stack.enter_context(theirs)
        self.relay = Relay(client, self.source, sink, -1, keys, self._hear)
        self.ending: Ending | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.ending = self.relay.run()

    def _hear(self, number: int) -> bool:
        self.heard.append(number)
        return number != signal.SIGTERM

    def wait(self) -> Ending | None:
        self.thread.join(10)
        return self.ending


@pytest.fixture
def bench() -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        made = Bench(stack)
        yield made
        with contextlib.suppress(OSError):
            os.close(made.typing)
        made.connection.close()
        made.thread.join(10)


def test_both_ways_and_streams_apart_until_the_output_is_over(bench: Bench) -> None:
    os.write(bench.typing, b"typed")
    assert os.read(bench.read, 100) == b"typed"
    bench.source.tap.put(1, b"out")
    bench.source.tap.put(2, b"err")
    bench.source.end()
    assert bench.wait() is Ending.ENDED
    assert (os.read(bench.shown, 100), os.read(bench.errors, 100)) == (b"out", b"err")


def test_the_end_of_a_pipe_is_not_the_end_of_the_relay(bench: Bench) -> None:
    os.close(bench.typing)
    bench.source.tap.put(1, b"later")
    assert os.read(bench.shown, 100) == b"later"
    bench.source.end()
    assert bench.wait() is Ending.ENDED


def test_the_keys_detach_and_what_was_typed_before_arrives(bench: Bench) -> None:
    os.write(bench.typing, b"last\x10")
    assert os.read(bench.read, 100) == b"last"
    os.write(bench.typing, b"\x11")
    assert bench.wait() is Ending.DETACHED
    assert bench.relay.status == 0


def test_signals_are_told_and_one_may_end_it(bench: Bench) -> None:
    bench.connection.send(bytes((signal.SIGUSR1, signal.SIGWINCH, signal.SIGTERM)))
    assert bench.wait() is Ending.DETACHED
    assert bench.heard == [signal.SIGUSR1, signal.SIGTERM]
    assert bench.relay.status == 128 + signal.SIGTERM


def test_a_client_that_is_gone_ends_it(bench: Bench) -> None:
    bench.connection.close()
    assert bench.wait() is Ending.HUNG_UP


def test_nothing_is_read_while_the_client_is_stopped(bench: Bench) -> None:
    bench.connection.send(bytes((signal.SIGTSTP, signal.SIGUSR1)))
    while not bench.heard:  # both were taken at once, and the rest of that turn is short
        pass
    os.write(bench.typing, b"for the shell")
    assert not select.select([bench.read], [], [], 0.05)[0]
    bench.connection.send(bytes((signal.SIGCONT,)))
    assert os.read(bench.read, 100) == b"for the shell"


def test_a_client_that_does_not_read_loses_the_oldest_and_is_told(bench: Bench) -> None:
    for _ in range(64):
        bench.source.tap.put(1, b"x" * (1 << 16))  # returns at once, whoever reads
    bench.source.tap.put(1, b"the end")
    bench.source.end()
    shown = b""
    while bench.thread.is_alive() or select.select([bench.shown], [], [], 0)[0]:
        if select.select([bench.shown], [], [], 0.05)[0]:
            shown += os.read(bench.shown, 1 << 16)
    assert bench.ending is Ending.ENDED
    assert shown.endswith(b"xthe end")
    assert len(shown) < 3 << 20
    assert b"bytes were not taken in time" in os.read(bench.errors, 1000)


def test_a_program_that_ends_has_all_of_its_output_shown(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    process = subprocess.Popen(["sh", "-c", "seq 3000"], stdin=slave, stdout=slave, stderr=slave)
    pidfd = os.pidfd_open(process.pid)
    read, write = os.pipe()
    result: list[Ending] = []
    relay = Relay(Client(-1, write, write), MasterSource(os.dup(master), pidfd))
    thread = threading.Thread(target=lambda: result.append(relay.run()))
    thread.start()
    shown = b""
    while not shown.endswith(b"3000\r\n"):
        shown += os.read(read, 1 << 16)
    thread.join(10)
    process.wait()
    for fd in (pidfd, read, write):
        os.close(fd)
    assert result == [Ending.ENDED]
    assert shown == b"".join(b"%d\r\n" % number for number in range(1, 3001))
