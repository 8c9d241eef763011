"""The journald driver, against a socket that plays the journal and a script that plays journalctl."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.logs import STDERR, STDOUT, Query
from pycore.logs.pump import LogPump
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_logging import journal, journald
from pycore_logging.journal import entry, exported

PATIENCE = 20.0


class PlayedJournal:
    """A socket that takes entries as the journal does."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(PATIENCE)

    def take(self) -> dict[str, bytes]:
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        if fds:
            with open(fds[0], "rb") as memory:
                memory.seek(0)
                data = memory.read()
        (fields,) = exported(io.BytesIO(data))
        return fields

    def close(self) -> None:
        self.socket.close()
        os.unlink(self.path)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedJournal]:
    path = str(tmp_path / "socket")
    monkeypatch.setattr(journal, "SOCKET", path)
    played = PlayedJournal(path)
    yield played
    played.close()


@pytest.fixture
def pump() -> Iterator[LogPump]:
    pump = LogPump()
    yield pump
    pump.stop()


def container() -> Container:
    return Container(App("shop", Path("/spec")), "web", {"logging": "journald"}, {}, id="c0ffee")


def log() -> journald.JournalLog:
    return journald.JournalLog("c0ffee", "shop/web")


def test_each_line_is_an_entry_with_its_container_and_priority(played: PlayedJournal) -> None:
    with closing(log().open()) as sink:
        assert sink.write(STDOUT, b"one\ntw") == 6
        assert sink.write(STDERR, b"wrong\n") == 6
        assert sink.write(STDOUT, b"o\n") == 2
    shared = {"SYSLOG_IDENTIFIER": b"shop/web", "CONTAINER_NAME": b"shop/web", "CONTAINER_ID": b"c0ffee"}
    assert played.take() == {"MESSAGE": b"one", "PRIORITY": b"6", **shared}
    assert played.take() == {"MESSAGE": b"wrong", "PRIORITY": b"3", **shared}
    assert played.take() == {"MESSAGE": b"two", "PRIORITY": b"6", **shared}


def test_a_last_line_without_an_end_is_sent_at_the_end(played: PlayedJournal) -> None:
    with closing(log().open()) as sink:
        sink.write(STDOUT, b"no newline")
    assert played.take()["MESSAGE"] == b"no newline"


def test_a_line_that_no_datagram_holds_goes_as_a_sealed_file(played: PlayedJournal) -> None:
    line = b"x" * 250_000
    with closing(log().open()) as sink:
        for start in range(0, len(line), 65536):
            sink.write(STDOUT, line[start : start + 65536])
        sink.write(STDOUT, b"\n")
    assert played.take()["MESSAGE"] == line


def test_a_value_with_a_newline_keeps_it() -> None:
    (fields,) = exported(io.BytesIO(entry({"A": b"x\ny=z\n", "B": b"plain"}) + b"\n"))
    assert fields == {"A": b"x\ny=z\n", "B": b"plain"}


def test_a_busy_journal_holds_up_its_container_and_no_other(played: PlayedJournal, pump: LogPump) -> None:
    expected = [b"%d" % number for number in range(5000)]
    busy_pipe, busy_end = os.pipe2(os.O_CLOEXEC)
    busy = pump.add("busy", log().open(), {STDOUT: busy_pipe})
    os.write(busy_end, b"".join(word + b"\n" for word in expected))
    os.close(busy_end)
    other_pipe, other_end = os.pipe2(os.O_CLOEXEC)
    other = pump.add("other", None, {STDOUT: other_pipe})
    os.write(other_end, b"x" * 10_000)
    os.close(other_end)
    assert other.wait(PATIENCE)
    assert not busy.is_set()
    assert [played.take()["MESSAGE"] for _ in expected] == expected
    assert busy.wait(PATIENCE)
    assert pump.lost("busy") == 0


def test_without_a_journal_output_is_lost_and_the_container_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pump: LogPump
) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "nowhere"))
    pipe, end = os.pipe2(os.O_CLOEXEC)
    drained = pump.add("a", log().open(), {STDOUT: pipe})
    os.write(end, b"lost\n")
    os.close(end)
    assert drained.wait(PATIENCE)
    assert pump.lost("a") == 5


def test_a_journal_that_was_started_anew_is_found_again(played: PlayedJournal) -> None:
    with closing(log().open()) as sink:
        sink.write(STDOUT, b"before\n")
        played.take()
        played.close()
        anew = PlayedJournal(played.path)
        sink.write(STDOUT, b"after\n")
        assert anew.take()["MESSAGE"] == b"after"
        anew.socket.close()
        played.socket = socket.socket()


@pytest.mark.parametrize("there", [True, False])
def test_a_host_without_a_journal_is_said_before_anything_is_done(there: bool) -> None:
    host = Host(FakeKernel({journal.SOCKET: ""} if there else {}), Path("/run/pycore"), Path("/var/lib/pycore"))
    assert list(journald.pycore_prepare(container(), host)) == []
    assert [problem.path for problem in host.problems] == ([] if there else [("logging", "driver")])


# -- reading back ----------------------------------------------------------------------------------------

SCRIPT = """\
#!/bin/sh
echo "$*" >> {directory}/asked
case "$*" in
    --sync) ;;
    *--after-cursor=c2*) cat {directory}/later ;;
    *) cat {directory}/entries ;;
esac
"""


def stored(number: int, message: bytes, priority: bytes) -> bytes:
    fields = {
        "__CURSOR": b"c%d" % number, "__REALTIME_TIMESTAMP": b"%d" % number, "MESSAGE": message, "PRIORITY": priority,
    }  # fmt: skip
    return entry(fields) + b"\n"


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "journalctl"
    program.write_text(SCRIPT.format(directory=tmp_path))
    program.chmod(0o755)
    (tmp_path / "entries").write_bytes(stored(1, b"one", b"6") + stored(2, b"two\nlines", b"3"))
    (tmp_path / "later").write_bytes(stored(3, b"three", b"6"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_entries_are_read_back_and_gone_on_with(journalctl: Path) -> None:
    with closing(log().read(Query(since=1_500_000_000_123_456_789, tail=2))) as reader:
        first = [(chunk.time, chunk.stream, chunk.data) for chunk in reader.more()]
        assert first == [(1000, STDOUT, b"one\n"), (2000, STDERR, b"two\nlines\n")]
        assert [(chunk.time, chunk.data) for chunk in reader.more()] == [(3000, b"three\n")]
    asked = (journalctl / "asked").read_text().splitlines()
    assert "CONTAINER_ID=c0ffee --since=@1500000000.123456 --lines=2" in asked[1]
    assert "--after-cursor=c2" in asked[3]


def test_no_lines_of_before_and_all_of_after(journalctl: Path) -> None:
    with closing(log().read(Query(tail=0))) as reader:
        assert list(reader.more()) == []
        assert [chunk.data for chunk in reader.more()] == [b"three\n"]


def test_what_journalctl_says_is_passed_on(journalctl: Path) -> None:
    (journalctl / "journalctl").write_text("#!/bin/sh\necho no journal files >&2; exit 1\n")
    with closing(log().read(Query())) as reader, pytest.raises(PycoreError, match="no journal files"):
        list(reader.more())


def test_without_journalctl_it_is_said_where_the_output_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PycoreError, match="shop/web is in the journal"):
        log().read(Query())
