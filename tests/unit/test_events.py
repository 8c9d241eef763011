from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycore.records.events import FILE, OLD, Event, EventQuery, Events

SECONDS = 20


@dataclass(frozen=True)
class Web:
    app: str = "shop"
    name: str = "web"
    id: str = "shop.web.1"


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Events]:
    events = Events(tmp_path)
    yield events
    events.close()


def never() -> bool:
    return False


def plain(found: Iterator[Event]) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key != "time"} for event in found]


class Following:
    """A follower on a thread of its own."""

    def __init__(self, events: Events, ended: Callable[[], bool] = never, query: EventQuery | None = None) -> None:
        self.found: list[Event] = []
        self._came = threading.Condition()
        found = events.follow(ended, query)
        self._thread = threading.Thread(target=self._run, args=[found], daemon=True)
        self._thread.start()

    def _run(self, found: Iterator[Event]) -> None:
        for event in found:
            with self._came:
                self.found.append(event)
                self._came.notify_all()

    def until(self, what: str) -> list[str]:
        with self._came:
            assert self._came.wait_for(lambda: what in [event["what"] for event in self.found], SECONDS), self.found
            return [event["what"] for event in self.found]

    def end(self) -> list[str]:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return [event["what"] for event in self.found]


def test_what_was_told_can_be_read(events: Events, tmp_path: Path) -> None:
    assert list(events.read()) == []
    events.emit("start", Web())
    events.emit("die", Web(), exit_status=-9, reason="memory limit 64M reached", signal=None)
    events.emit("apply", app="shop")
    web = {"app": "shop", "container": "web", "id": "shop.web.1"}
    assert plain(events.read()) == [
        {"what": "start", **web},
        {"what": "die", **web, "exit_status": -9, "reason": "memory limit 64M reached"},
        {"what": "apply", "app": "shop"},
    ]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_any_text_is_kept(events: Events) -> None:
    reason = 'line\nbreak "quoted" \x1b[31m \u2028 \ud800 é'
    events.emit("die", Web(), reason=reason)
    [event] = events.read()
    assert event["reason"] == reason.replace("\ud800", "?")


def test_events_survive_a_take_over(tmp_path: Path) -> None:
    first = Events(tmp_path)
    first.emit("start", Web())
    second = Events(tmp_path)
    second.emit("take-over")
    assert [event["what"] for event in second.read()] == ["start", "take-over"]
    first.close()
    second.close()


def test_torn_line_is_left_out(events: Events, tmp_path: Path) -> None:
    """Whoever wrote it was killed in the middle of it; what comes after must not be lost with it."""
    (tmp_path / FILE).write_text('{"time":1,"what":"start"}\n{"time":2,"wh', encoding="utf-8")
    events.emit("die", Web())
    assert [event["what"] for event in events.read()] == ["start", "die"]


@given(junk=st.lists(st.binary(max_size=60), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_in_the_file_is_no_event_and_no_error(junk: list[bytes], tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\n".join([*junk, b"[1]", b'{"time":"x","what":1}', b'"a"']))
    events = Events(tmp_path)
    events.emit("start", Web())
    found = list(events.read())
    events.close()
    assert found[-1]["what"] == "start"


def test_query_by_time(tmp_path: Path) -> None:
    moments = iter([10.0, 20.0, 30.0])
    events = Events(tmp_path, clock=lambda: next(moments))
    for _ in range(3):
        events.emit("start", Web())
    assert [event["time"] for event in events.read(EventQuery(since=20))] == [20, 30]
    assert [event["time"] for event in events.read(EventQuery(until=20))] == [10, 20]
    events.close()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"what": ["die", "start"]}, ["start", "die"]),
        ({"what": ["die"], "app": ["shop"]}, ["die"]),
        ({"what": ["die"], "app": ["other"]}, []),
        ({"container": ["web"]}, ["start", "die"]),
        ({"container": ["shop/web"]}, ["start", "die"]),
        ({"container": ["shop.web.1"]}, ["start", "die"]),
        ({"container": ["/"]}, []),
        ({"container": [""]}, []),
        ({"exit_status": ["1"]}, ["die"]),
        ({"no such thing": ["1"]}, []),
    ],
)
def test_query_by_field(events: Events, filters: dict[str, list[str]], expected: list[str]) -> None:
    events.emit("start", Web())
    events.emit("die", Web(), exit_status=1)
    events.emit("apply", app="shop/")
    assert [event["what"] for event in events.read(EventQuery(filters=filters))] == expected


def test_files_are_bounded(tmp_path: Path) -> None:
    events = Events(tmp_path, most=2000)
    for number in range(200):
        events.emit("start", Web(), number=number)
    assert (tmp_path / FILE).stat().st_size <= 2000
    assert (tmp_path / OLD).stat().st_size <= 2000
    assert len(list(tmp_path.iterdir())) == 2
    numbers = [event["number"] for event in events.read()]
    assert numbers == list(range(200 - len(numbers), 200))
    assert len(numbers) > 20
    events.close()


def test_enormous_details_are_left_out(events: Events) -> None:
    events.emit("die", Web(), reason="x" * 10_000_000)
    [event] = events.read()
    assert event["what"] == "die"
    assert event["id"] == "shop.web.1"
    assert "reason" not in event


def test_unwritable_place_fails_no_act_and_says_later_what_was_lost(tmp_path: Path) -> None:
    place = tmp_path / "run"
    events = Events(place)
    events.emit("start", Web())
    events.emit("die", Web())
    place.mkdir()
    events.emit("destroy", Web())
    assert plain(events.read())[0] == {"what": "gap", "lost": 2}
    assert [event["what"] for event in events.read()] == ["gap", "destroy"]
    events.close()


def test_full_disk_leaves_no_half_line(events: Events, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the kernel then writes a part of the line."""
    events.emit("start", Web())
    size = (tmp_path / FILE).stat().st_size
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, old[1]))
    try:
        events.emit("die", Web())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / FILE).stat().st_size == size
    events.emit("destroy", Web())
    assert [event["what"] for event in events.read()] == ["start", "gap", "destroy"]


def test_follower_hears_what_comes_from_now_on(events: Events) -> None:
    events.emit("create", Web())
    following = Following(events)
    events.emit("start", Web())
    assert following.until("start") == ["start"]
    events.emit("die", Web())
    assert following.until("die") == ["start", "die"]
    events.close()
    assert following.end() == ["start", "die"]


@pytest.mark.parametrize("later", [0, 5, 12, 25, 100])
def test_follower_that_begins_to_read_late_hears_all_since_it_was_asked_for(later: int, tmp_path: Path) -> None:
    events = Events(tmp_path, most=1000)
    events.emit("create", Web())
    follower = events.follow(never)
    for number in range(later):
        events.emit("start", Web(), number=number)
    events.close()
    numbers = [event.get("number", event["what"]) for event in follower]
    if later < 15:  # no more than two files were needed
        assert numbers == list(range(later))
    else:
        assert numbers[0] == "gap"
        assert numbers[1:] == list(range(later + 1 - len(numbers), later))


def test_follower_with_since_hears_what_was_before(events: Events) -> None:
    events.emit("create", Web())
    following = Following(events, query=EventQuery(since=0))
    events.emit("start", Web())
    assert following.until("start") == ["create", "start"]
    events.emit("die", Web())
    events.close()
    assert following.end() == ["create", "start", "die"]


def test_follower_after_a_take_over_hears_all_once(tmp_path: Path) -> None:
    first = Events(tmp_path)
    first.emit("start", Web())
    first.close()
    second = Events(tmp_path)
    follower = second.follow(never, EventQuery(since=0))
    assert next(follower)["what"] == "start"
    second.emit("die", Web())
    second.close()
    assert [event["what"] for event in follower] == ["die"]


def test_follower_ends_when_nobody_listens_any_more(events: Events) -> None:
    gone = threading.Event()
    following = Following(events, gone.is_set)
    gone.set()
    events.wake()
    assert following.end() == []


def test_follower_ends_at_its_time(events: Events) -> None:
    events.emit("start", Web())
    [first] = events.read()
    following = Following(events, query=EventQuery(since=0, until=first["time"]))
    assert following.end() == ["start"]


def test_follower_keeps_up_over_changes_of_the_files(tmp_path: Path) -> None:
    events = Events(tmp_path, most=2000)
    found: list[int] = []
    follower = events.follow(never, EventQuery(since=0))
    for number in range(100):
        events.emit("start", Web(), number=number)
        found.append(next(follower)["number"])
    assert found == list(range(100))
    follower.close()  # type: ignore[attr-defined]
    events.close()


def test_follower_that_is_much_too_slow_is_told_of_the_gap(tmp_path: Path) -> None:
    events = Events(tmp_path, most=2000)
    events.emit("create", Web())
    follower = events.follow(never, EventQuery(since=0))
    assert next(follower)["what"] == "create"
    for number in range(200):
        events.emit("start", Web(), number=number)
    events.close()
    words = plain(follower)
    gap = words.index({"what": "gap"})
    before, after = [[event["number"] for event in part] for part in (words[:gap], words[gap + 1 :])]
    assert before == list(range(len(before)))
    assert after == list(range(200 - len(after), 200))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    events = Events(tmp_path, most=500)
    follower = events.follow(never, EventQuery(since=0))
    for number in range(30):
        events.emit("start", Web(), number=number)
        next(follower)
    list(events.read())
    events.close()
    list(follower)
    assert os.listdir("/proc/self/fd") == before


def test_many_tell_at_once(events: Events, tmp_path: Path) -> None:
    def tell(start: int) -> None:
        for number in range(start, start + 200):
            events.emit("start", Web(), number=number)

    threads = [threading.Thread(target=tell, args=[start]) for start in (0, 200, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / FILE).read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["number"] for line in lines) == list(range(600))
