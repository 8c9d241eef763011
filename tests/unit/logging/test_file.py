"""The file driver: what it keeps, how it is bounded, and what it makes of a writer that was killed."""

from __future__ import annotations

import os
import random
import time
from contextlib import closing
from typing import Any

import pytest
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.logs import NOTE, STDERR, STDOUT, PipeSink, Query
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_logging import file, none
from pycore_logging.segments import ENTRY, HEADER, MAGIC, VERSION, numbers
from pydantic import ValidationError

from .conftest import MakeLog, data_of, index_of, lines, on_disk, pipe_with, read


def test_streams_are_apart_and_in_the_order_in_which_they_came(make_log: MakeLog) -> None:
    log = make_log()
    before = time.time_ns()
    with closing(log.open()) as sink:
        for stream, data in ((STDOUT, b"one\n"), (STDERR, b"two\n"), (STDOUT, b"three\n")):
            assert sink.write(stream, data) == len(data)
    chunks = read(log)
    assert [(chunk.stream, chunk.data) for chunk in chunks] == [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    times = [before, *(chunk.time for chunk in chunks), time.time_ns()]
    assert times == sorted(times)


def test_a_log_that_nothing_was_written_to_has_no_files(make_log: MakeLog) -> None:
    log = make_log()
    log.open().close()
    assert not log.directory.exists()
    assert read(log) == []
    log.remove()


def test_a_pipe_is_moved_by_the_kernel(make_log: MakeLog) -> None:
    log = make_log()
    sink = log.open()
    assert isinstance(sink, PipeSink)
    pipe = pipe_with(b"through the kernel\n")
    assert sink.splice(STDERR, pipe, 7) == 7
    assert sink.recent(STDERR, 7) == b"through"
    assert sink.splice(STDERR, pipe, 1 << 20) == 12
    assert sink.splice(STDERR, pipe, 1 << 20) == 0, "the pipe's end"
    os.close(pipe)
    sink.close()
    assert b"".join(chunk.data for chunk in read(log)) == b"through the kernel\n"


def test_an_empty_pipe_is_no_end(make_log: MakeLog) -> None:
    sink = make_log().open()
    assert isinstance(sink, PipeSink)
    end, start = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        sink.splice(STDOUT, end, 100)
    os.write(start, b"x")
    assert sink.splice(STDOUT, end, 100) == 1
    with pytest.raises(BlockingIOError):
        sink.splice(STDOUT, end, 100)
    os.close(end)
    os.close(start)
    sink.close()


@pytest.mark.parametrize("spliced", [True, False])
def test_a_log_is_never_larger_than_it_may_be(make_log: MakeLog, spliced: bool) -> None:
    log, chance = make_log(4096, 3), random.Random(7)
    written: list[bytes] = []
    with closing(log.open()) as sink:
        for number in range(3000):
            line = b"%d %s\n" % (number, b"x" * chance.randrange(60))
            written.append(line)
            if spliced:
                assert isinstance(sink, PipeSink)
                pipe = pipe_with(line)
                while sink.splice(chance.choice((STDOUT, STDERR)) if number < 1500 else STDOUT, pipe, 1 << 20):
                    pass
                os.close(pipe)
            else:
                assert sink.write(STDOUT, line) == len(line)
            assert on_disk(log) <= 4096 * 3
    assert len(numbers(log.directory)) == 3
    kept = lines(log)
    assert len(kept) > 60
    assert kept == written[-len(kept) :], "the newest, and the first of them is whole"


def test_one_byte_at_a_time_is_bounded_too(make_log: MakeLog) -> None:
    log = make_log(4096, 1)
    with closing(log.open()) as sink:
        for _ in range(2000):
            sink.write(STDOUT, b"x")
            assert on_disk(log) <= 4096


def test_lower_bounds_hold_once_the_log_is_opened_with_them(make_log: MakeLog) -> None:
    with closing(make_log(1 << 16, 10).open()) as sink:
        for _ in range(100):
            sink.write(STDOUT, b"y" * 4000 + b"\n")
    with closing(make_log(8192, 2).open()) as sink:
        sink.write(STDOUT, b"the last\n")
    assert on_disk(make_log()) <= 8192 * 2
    assert lines(make_log())[-1] == b"the last\n"


@pytest.mark.parametrize(("size", "files"), [(8192, 3), (1 << 20, 2)])
def test_each_bound_holds_where_only_that_one_is_lowered(make_log: MakeLog, size: int, files: int) -> None:
    with closing(make_log(1 << 16, 3 if size < 1 << 16 else 10).open()) as sink:
        for _ in range(200):
            sink.write(STDOUT, b"y" * 4000 + b"\n")
    log = make_log(size, files)
    with closing(log.open()) as sink:
        for _ in range(size // 4000 + 1):  # until the next file is begun
            sink.write(STDOUT, b"z" * 4000 + b"\n")
    assert len(list(log.directory.glob("*.index"))) <= files
    assert on_disk(log) <= size * files


def test_a_next_start_goes_on_where_the_last_one_ended(make_log: MakeLog) -> None:
    for word in (b"first\n", b"second\n"):
        with closing(make_log().open()) as sink:
            sink.write(STDOUT, word)
    assert lines(make_log()) == [b"first\n", b"second\n"]
    assert numbers(make_log().directory) == [1]


# -- a writer that was killed, a host that lost its power ------------------------------------------------


def test_data_without_an_entry_gets_one_from_the_next_writer(make_log: MakeLog) -> None:
    log = make_log()
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"noted\n")
        sink.write(STDERR, b"also noted\n")
    for stream, data in ((STDOUT, b"moved, then killed\n"), (STDERR, b"also moved\n")):
        with data_of(log, stream).open("ab") as data_file:
            data_file.write(data)
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"after\n")
    assert sorted(lines(log)) == [b"after\n", b"also moved\n", b"also noted\n", b"moved, then killed\n", b"noted\n"]
    assert [chunk.stream for chunk in read(log)] == [STDOUT, STDERR, STDOUT, STDERR, STDOUT]


def test_an_entry_that_is_torn_is_written_over(make_log: MakeLog) -> None:
    log = make_log()
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"whole\n")
    with index_of(log).open("ab") as index:
        index.write(b"torn")
    assert lines(log) == [b"whole\n"]
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"next\n")
    assert lines(log) == [b"whole\n", b"next\n"]


def test_entries_of_data_that_is_not_there_are_dropped(make_log: MakeLog) -> None:
    log = make_log()
    with closing(log.open()) as sink:
        for word in (b"a\n", b"b\n", b"c\n"):
            sink.write(STDOUT, word)
    os.truncate(data_of(log, STDOUT), 3)
    assert b"".join(lines(log)) == b"a\nb"
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"-\n")
    assert lines(log) == [b"a\n", b"b-\n"]


@pytest.mark.parametrize("left", [0, 5])
def test_a_segment_whose_header_was_not_written_is_begun_anew(make_log: MakeLog, left: int) -> None:
    log = make_log()
    log.directory.mkdir()
    (log.directory / "00000003.index").write_bytes(b"pycorlog"[:left])
    assert lines(log) == []
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"x\n")
    assert lines(log) == [b"x\n"]


def test_a_segment_of_another_version_is_left_as_it_is(make_log: MakeLog) -> None:
    log = make_log()
    log.directory.mkdir()
    theirs = HEADER.pack(MAGIC, VERSION + 1, 0, 0) + b"something else"
    (log.directory / "00000007.index").write_bytes(theirs)
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"x\n")
    assert lines(log) == [b"x\n"]
    assert (log.directory / "00000007.index").read_bytes() == theirs
    assert numbers(log.directory) == [7, 8]


def test_strange_files_are_left_alone(make_log: MakeLog) -> None:
    log = make_log(4096, 1)
    log.directory.mkdir()
    (log.directory / "notes.txt").write_text("mine")
    (log.directory / "x.index").write_text("mine")
    with closing(log.open()) as sink:
        for _ in range(10):
            sink.write(STDOUT, b"z" * 1000)
    assert (log.directory / "notes.txt").read_text() == "mine"
    assert (log.directory / "x.index").read_text() == "mine"


def test_what_a_full_disk_lost_is_said_in_the_log(make_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    sink = log.open()
    sink.write(STDOUT, b"kept\n")
    real, full = os.pwrite, [True]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            sink.write(STDOUT, b"0123456789")
    full[0] = False
    sink.write(STDOUT, b"again\n")
    sink.close()
    chunks = read(log)
    assert [chunk.stream for chunk in chunks] == [STDOUT, NOTE, STDOUT]
    assert b"30 bytes are missing here" in chunks[1].data
    assert chunks[2].data == b"again\n"


def test_a_segment_that_cannot_be_begun_leaves_nothing(make_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log(4096)
    sink = log.open()
    sink.write(STDOUT, b"x" * 3900)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        for _ in range(5):
            with pytest.raises(OSError, match="No space"):
                sink.write(STDOUT, b"y" * 1000)
    assert numbers(log.directory) == [1]
    sink.write(STDOUT, b"z" * 1000)
    sink.close()
    assert lines(log, tail=1)[0].endswith(b"z" * 1000)


def test_a_short_write_keeps_what_went_in(make_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    sink = log.open()
    sink.write(STDOUT, b"\n")
    real, rest = os.pwrite, [4]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if not rest[0] and len(data) != ENTRY.size:
            raise OSError(28, "No space left on device")
        if len(data) != ENTRY.size:
            data, rest[0] = data[: rest[0]], 0
        return real(fd, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        assert sink.write(STDOUT, b"0123456789") == 4
    sink.close()
    assert b"".join(chunk.data for chunk in read(log) if chunk.stream) == b"\n0123"
    assert [b"6 bytes are missing" in chunk.data for chunk in read(log) if chunk.stream == NOTE] == [True]


# -- reading ---------------------------------------------------------------------------------------------


def test_a_reader_goes_on_with_what_has_come(make_log: MakeLog) -> None:
    log = make_log(4096, 4)
    with closing(log.read(Query())) as reader, closing(log.open()) as sink:
        assert list(reader.more()) == []
        got: list[bytes] = []
        for number in range(200):
            sink.write(STDOUT, b"%d\n" % number * 30)
            got += [chunk.data for chunk in reader.more()]
        assert b"".join(got) == b"".join(b"%d\n" % number * 30 for number in range(200))


def test_a_reader_that_is_overtaken_says_so_and_goes_on(make_log: MakeLog) -> None:
    log = make_log(4096, 2)
    with closing(log.read(Query())) as reader, closing(log.open()) as sink:
        sink.write(STDOUT, b"begin\n")
        assert [chunk.data for chunk in reader.more()] == [b"begin\n"]
        for number in range(2000):
            sink.write(STDOUT, b"line %d\n" % number)
        chunks = list(reader.more())
    (note,) = [chunk for chunk in chunks if chunk.stream == NOTE]
    assert b"rotated away" in note.data
    kept = b"".join(chunk.data for chunk in chunks[chunks.index(note) + 1 :]).splitlines()
    assert kept[-1] == b"line 1999"
    assert all(line.startswith(b"line ") or number == 0 for number, line in enumerate(kept))


def test_tail_with_a_log_that_grows(make_log: MakeLog) -> None:
    log = make_log()
    with closing(log.open()) as sink:
        sink.write(STDOUT, b"a\nb\nc\n")
        with closing(log.read(Query(tail=1))) as one, closing(log.read(Query(tail=0))) as nothing:
            assert [chunk.data for chunk in one.more()] == [b"c\n"]
            assert list(nothing.more()) == []
            sink.write(STDOUT, b"d\n")
            assert [chunk.data for chunk in one.more()] == [b"d\n"]
            assert [chunk.data for chunk in nothing.more()] == [b"d\n"]


def test_since_finds_its_place_without_reading_all(make_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log(64 << 20, 2)
    moment = 10**18
    monkeypatch.setattr(time, "time_ns", lambda: moment)
    with closing(log.open()) as sink:
        for number in range(50_000):
            moment = 10**18 + number * 1000
            sink.write(STDOUT, b"%d\n" % number)
    asked: list[int] = []
    real = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        asked.append(length)
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert lines(log, since=10**18 + 49_998_000) == [b"49998\n", b"49999\n"]
    assert len(asked) < 40
    assert sum(asked) < 100_000


def test_a_clock_that_is_set_back_loses_nothing(make_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    hour = 3600 * 10**9
    with closing(log.open()) as sink:
        for moment in (10 * hour, 11 * hour, 5 * hour, 6 * hour):
            monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
            sink.write(STDOUT, b"%d\n" % (moment // hour))
    assert lines(log) == [b"10\n", b"11\n", b"5\n", b"6\n"]
    assert lines(log, since=6 * hour) == [b"10\n", b"11\n", b"6\n"]
    assert lines(log, since=11 * hour) == [b"11\n"]


def test_a_line_that_came_in_two_reads_is_one(make_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    with closing(log.open()) as sink:
        for moment, stream, data in (
            (10, STDOUT, b"early\nbe"), (20, STDERR, b"error\n"), (30, STDOUT, b"gin"), (40, STDOUT, b"ning\nlate\n"),
        ):  # fmt: skip
            monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
            sink.write(stream, data)
    assert lines(log) == [b"early\n", b"error\n", b"beginning\n", b"late\n"]
    assert lines(log, since=20) == [b"error\n", b"late\n"], "a line's time is that of its first byte"
    assert lines(log, until=10) == [b"early\n", b"beginning\n"]
    assert lines(log, until=20) == [b"early\n", b"error\n", b"beginning\n"]
    assert lines(log, since=40) == [b"late\n"]
    assert lines(log, tail=1) == [b"late\n"]
    assert lines(log, tail=2) == [b"error\n", b"late\n"], "a line's place is where it begins"
    assert lines(log, tail=3) == [b"error\n", b"beginning\n", b"late\n"]


# -- as a plugin -----------------------------------------------------------------------------------------


def container(section: file.Files | None, driver: str) -> Container:
    containers: dict[str, Container] = {}
    app = App("shop", file.Path("/spec"), {}, containers)
    sections: Any = {file.Files: section} if section else {}
    return Container(app, "web", {"logging": driver}, sections, id="c0ffee")


@pytest.fixture
def host() -> Host:
    return Host(FakeKernel(), file.Path("/run/pycore"), file.Path("/var/lib/pycore"))


def test_the_section_bounds_the_log(host: Host) -> None:
    log = file.pycore_log(container(file.Files.model_validate({"max_size": "1M", "max_files": 2}), "file"), host)
    assert isinstance(log, file.FileLog)
    assert (log.max_size, log.max_files) == (1 << 20, 2)
    assert str(log.directory) == "/var/lib/pycore/containers/c0ffee/log"


@pytest.mark.parametrize("fields", [{"max_size": "100"}, {"max_size": "many"}, {"max_files": 0}, {"max_files": -1}])
def test_bounds_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        file.Files.model_validate(fields)


def test_none_keeps_nothing_and_says_why(host: Host) -> None:
    log = none.pycore_log(container(None, "none"), host)
    assert log.open() is None
    with pytest.raises(PycoreError, match=r'shop/web has driver = "none"'):
        log.read(Query())
    log.remove()
