"""The pump: every byte of every container, fair, with followers and listeners that cannot hold it up."""

from __future__ import annotations

import os
import pty
import select
import threading
from collections.abc import Callable, Iterator

import pytest
from pycore.errors import PycoreError
from pycore.logs import CHUNK, STDERR, STDOUT, LogSink, NoLog, PipeSink, Query
from pycore.logs.pump import LogPump

from .conftest import MakeLog, lines, read

PATIENCE = 20.0


@pytest.fixture
def lost() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def pump(lost: list[tuple[str, str]]) -> Iterator[LogPump]:
    pump = LogPump(lambda identity, reason: lost.append((identity, reason)))
    yield pump
    pump.stop()


class Memory:
    """A sink of somebody else's: it only knows bytes. ``refuses`` is what a full disk says."""

    def __init__(self, refuses: Callable[[bytes], int] = len) -> None:
        self.refuses = refuses
        self.got: list[tuple[int, bytes]] = []
        self.closed = threading.Event()

    def write(self, stream: int, data: bytes) -> int:
        kept = self.refuses(data)
        self.got.append((stream, data[:kept]))
        return kept

    def close(self) -> None:
        self.closed.set()

    def bytes_of(self, stream: int) -> bytes:
        return b"".join(data for each, data in self.got if each == stream)


def pipes() -> tuple[dict[int, int], dict[int, int]]:
    """Read ends and write ends of a container's two streams."""
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    return {STDOUT: out[0], STDERR: err[0]}, {STDOUT: out[1], STDERR: err[1]}


def close(ends: dict[int, int]) -> None:
    for fd in ends.values():
        os.close(fd)


def test_both_streams_arrive_and_then_it_is_drained(pump: LogPump, make_log: MakeLog) -> None:
    log = make_log()
    ours, theirs = pipes()
    drained = pump.add("a", log.open(), ours)
    os.write(theirs[STDOUT], b"out\n")
    os.write(theirs[STDERR], b"err\n")
    assert not drained.is_set()
    close(theirs)
    assert drained.wait(PATIENCE)
    assert {(chunk.stream, chunk.data) for chunk in read(log)} == {(STDOUT, b"out\n"), (STDERR, b"err\n")}


def test_a_sink_that_only_knows_bytes_gets_them(pump: LogPump) -> None:
    sink: LogSink = Memory()
    assert isinstance(sink, Memory)
    ours, theirs = pipes()
    drained = pump.add("a", sink, ours)
    expected = os.urandom(300_000)
    writer = threading.Thread(target=lambda: (os.write(theirs[STDERR], expected), close(theirs)))
    writer.start()
    assert drained.wait(PATIENCE)
    writer.join()
    assert sink.bytes_of(STDERR) == expected
    assert sink.closed.is_set()


@pytest.mark.parametrize("kept", [True, False], ids=["file", "nothing"])
def test_a_lot_of_output_passes(pump: LogPump, make_log: MakeLog, kept: bool) -> None:
    log = make_log(1 << 30) if kept else NoLog()
    ours, theirs = pipes()
    drained = pump.add("a", log.open(), ours)
    line, count = b"0123456789abcdef" * 4 + b"\n", 200_000
    with open(theirs[STDOUT], "wb") as writer:
        writer.writelines(line for _ in range(count))
    os.close(theirs[STDERR])
    assert drained.wait(PATIENCE)
    if kept:
        assert lines(make_log()) == [line] * count


def test_one_that_floods_does_not_starve_the_others(pump: LogPump) -> None:
    """Between two writes of the quiet one, the loud one gets a bounded piece: what it had written fills a pipe."""
    loud_pipe, loud_end = os.pipe2(os.O_CLOEXEC)
    quiet_pipe, quiet_end = os.pipe2(os.O_CLOEXEC)
    pump.add("loud", Memory(), {STDOUT: loud_pipe})
    quiet = Memory()
    drained = pump.add("quiet", quiet, {STDOUT: quiet_pipe})
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            os.write(loud_end, b"x" * CHUNK)

    thread = threading.Thread(target=flood)
    thread.start()
    follower = pump.follow(["quiet"])
    for number in range(50):
        os.write(quiet_end, b"%d\n" % number)
        assert not follower.wait(PATIENCE)
        assert follower.take() == {"quiet"}
    os.close(quiet_end)
    assert drained.wait(PATIENCE)
    over.set()
    thread.join()
    os.close(loud_end)
    follower.close()
    assert quiet.bytes_of(STDOUT) == b"".join(b"%d\n" % number for number in range(50))


def test_what_cannot_be_kept_is_counted_and_said_once(pump: LogPump, lost: list[tuple[str, str]]) -> None:
    def full(data: bytes) -> int:
        raise OSError(28, "No space left on device")

    ours, theirs = pipes()
    drained = pump.add("a", Memory(full), ours)
    os.write(theirs[STDOUT], b"x" * 1000)
    os.write(theirs[STDERR], b"y" * 500)
    close(theirs)
    assert drained.wait(PATIENCE)
    assert pump.lost("a") == 1500
    assert lost == [("a", "No space left on device")]
    assert pump.lost("another") == 0


def test_a_part_that_cannot_be_kept_counts(pump: LogPump) -> None:
    ours, theirs = pipes()
    drained = pump.add("a", Memory(lambda data: 3), ours)
    os.write(theirs[STDOUT], b"12345")
    close(theirs)
    assert drained.wait(PATIENCE)
    assert pump.lost("a") == 2


def test_a_driver_that_fails_loses_output_but_nothing_else(pump: LogPump, lost: list[tuple[str, str]]) -> None:
    def broken(data: bytes) -> int:
        raise ValueError("a defect")

    ours, theirs = pipes()
    drained = pump.add("a", Memory(broken), ours)
    os.write(theirs[STDOUT], b"12345")
    close(theirs)
    assert drained.wait(PATIENCE)
    assert lost == [("a", "a defect")]
    test_both = Memory()
    ours, theirs = pipes()
    drained = pump.add("b", test_both, ours)
    os.write(theirs[STDOUT], b"fine")
    close(theirs)
    assert drained.wait(PATIENCE)
    assert test_both.bytes_of(STDOUT) == b"fine"


def test_a_driver_that_fails_to_splice_and_to_close_ends_nothing(pump: LogPump) -> None:
    class Broken(Memory):
        def splice(self, stream: int, pipe: int, limit: int) -> int:
            raise ValueError("a defect")

        def recent(self, stream: int, length: int) -> bytes:
            return b""

        def close(self) -> None:
            raise ValueError("another defect")

    sink = Broken()
    assert isinstance(sink, PipeSink)
    ours, theirs = pipes()
    drained = pump.add("a", sink, ours)
    os.write(theirs[STDOUT], b"copied instead")
    close(theirs)
    assert drained.wait(PATIENCE)
    assert sink.bytes_of(STDOUT) == b"copied instead"
    assert pump.is_alive()


# -- who looks on ----------------------------------------------------------------------------------------


def test_a_follower_sleeps_until_there_is_news(pump: LogPump) -> None:
    ours, theirs = pipes()
    drained = pump.add("a", Memory(), ours)
    follower = pump.follow(["a", "b"])
    assert not select.select([follower], [], [], 0)[0]
    os.write(theirs[STDOUT], b"news")
    assert select.select([follower], [], [], PATIENCE)[0]
    assert follower.take() == {"a"}
    assert follower.take() == set()
    assert not select.select([follower], [], [], 0)[0]
    close(theirs)
    assert drained.wait(PATIENCE)
    assert follower.wait(PATIENCE) == set()
    assert follower.take() == {"a"}, "an end is news too"
    pump.tell("b")
    assert follower.take() == {"b"}
    follower.close()
    pump.tell("b")


def test_a_follower_whose_client_is_gone_wakes_up(pump: LogPump) -> None:
    follower = pump.follow(["a"])
    reader, writer = os.pipe()
    interrupt, interrupter = os.pipe()
    assert follower.wait(0, [writer], [interrupt]) == set()
    os.write(interrupter, b"\x02")
    assert follower.wait(PATIENCE, [writer], [interrupt]) == {interrupt}
    os.close(reader)
    assert follower.wait(PATIENCE, [writer], []) == {writer}
    for fd in (writer, interrupt, interrupter):
        os.close(fd)
    follower.close()


@pytest.mark.parametrize("kept", [True, False], ids=["file", "nothing"])
def test_a_listener_gets_what_the_log_gets(pump: LogPump, make_log: MakeLog, kept: bool) -> None:
    log = make_log(8192, 2) if kept else NoLog()
    ours, theirs = pipes()
    heard: list[tuple[int, bytes]] = []
    leave = pump.listen("a", lambda stream, data: heard.append((stream, data)))
    drained = pump.add("a", log.open(), ours)
    expected = os.urandom(200_000)
    writer = threading.Thread(target=lambda: (os.write(theirs[STDOUT], expected), close(theirs)))
    writer.start()
    assert drained.wait(PATIENCE)
    writer.join()
    assert b"".join(data for _, data in heard) == expected
    leave()
    leave()


def test_a_listener_that_fails_is_let_go(pump: LogPump, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(stream: int, data: bytes) -> None:
        raise ValueError("a defect of the listener")

    sink = Memory()
    ours, theirs = pipes()
    pump.listen("a", broken)
    drained = pump.add("a", sink, ours)
    follower = pump.follow(["a"])
    os.write(theirs[STDOUT], b"one")
    follower.wait(PATIENCE)
    os.write(theirs[STDOUT], b"two")
    close(theirs)
    assert drained.wait(PATIENCE)
    follower.close()
    assert sink.bytes_of(STDOUT) == b"onetwo"
    assert capsys.readouterr().err.count("Traceback") == 1


def test_a_tap_that_nobody_empties_holds_a_bounded_part_and_says_what_is_missing(pump: LogPump) -> None:
    ours, theirs = pipes()
    tap = pump.tap("a")
    drained = pump.add("a", None, ours)
    with open(theirs[STDOUT], "wb") as writer:
        writer.writelines(b"x" * 100_000 for _ in range(40))
    os.close(theirs[STDERR])
    assert drained.wait(PATIENCE)
    assert select.select([tap], [], [], 0)[0]
    held, missing = tap.take()
    size = sum(len(data) for _, data in held)
    assert size <= tap.SIZE
    assert size + missing == 4_000_000
    assert tap.take() == ([], 0)
    assert not select.select([tap], [], [], 0)[0]
    tap.close()


def test_a_terminal_is_pumped_until_its_programs_are_gone(pump: LogPump, lost: list[tuple[str, str]]) -> None:
    master, slave = pty.openpty()
    sink = Memory()
    drained = pump.add("a", sink, {STDOUT: master})
    os.write(slave, b"hello\n")
    os.close(slave)
    assert drained.wait(PATIENCE)
    assert sink.bytes_of(STDOUT) == b"hello\r\n"
    assert lost == []


# -- changes and ends ------------------------------------------------------------------------------------


def test_a_changed_log_is_used_from_then_on(pump: LogPump, make_log: MakeLog) -> None:
    ours, theirs = pipes()
    first = Memory()
    drained = pump.add("a", first, ours)
    follower = pump.follow(["a"])
    os.write(theirs[STDOUT], b"before\n")
    follower.wait(PATIENCE)
    pump.change("a", make_log())
    assert first.closed.wait(PATIENCE)
    os.write(theirs[STDOUT], b"after\n")
    close(theirs)
    assert drained.wait(PATIENCE)
    follower.close()
    assert first.bytes_of(STDOUT) == b"before\n"
    assert lines(make_log()) == [b"after\n"]
    pump.change("a", make_log())


def test_a_changed_log_that_cannot_be_opened_loses_output_only(pump: LogPump, lost: list[tuple[str, str]]) -> None:
    class Closed(NoLog):
        def open(self) -> LogSink | None:
            raise PycoreError("nobody listens")

    ours, theirs = pipes()
    drained = pump.add("a", Memory(), ours)
    pump.change("a", Closed())
    os.write(theirs[STDOUT], b"x")
    close(theirs)
    assert drained.wait(PATIENCE)
    assert lost == [("a", "nobody listens")]


def test_what_is_in_the_pipes_at_the_end_of_a_pump_is_the_next_ones(make_log: MakeLog) -> None:
    """As when a supervisor ends and another takes over: the spawner holds the read end too."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    expected = b""
    for turn in range(5):
        pump = LogPump()
        pump.add("a", make_log().open(), {STDOUT: os.dup(read_end)})
        for number in range(200):
            word = b"%d-%d\n" % (turn, number)
            expected += word
            os.write(write_end, word)
        pump.stop()
    pump = LogPump()
    drained = pump.add("a", make_log().open(), {STDOUT: read_end})
    os.close(write_end)
    assert drained.wait(PATIENCE)
    pump.stop()
    assert b"".join(lines(make_log())) == expected


def test_nothing_stays_open(make_log: MakeLog) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    pump = LogPump()
    ours, theirs = pipes()
    pump.add("a", make_log().open(), ours)
    follower, tap = pump.follow(["a"]), pump.tap("a")
    os.write(theirs[STDOUT], b"x")
    follower.wait(PATIENCE)
    read(make_log(), tail=1)
    follower.close()
    tap.close()
    pump.stop()
    close(theirs)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_log_says_so() -> None:
    with pytest.raises(PycoreError, match="no output is kept: no logging driver"):
        NoLog().read(Query())
