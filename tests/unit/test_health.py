from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import ProbeFailed
from pycore.hookspecs import HealthCheck, Inside
from pycore.life.health import KEPT, LONGEST, Health, HealthWatch, Result, Word, ask
from pycore.life.watch import Watch


@dataclass
class Asked:
    """A probe that answers what the test says."""

    answer: str | Exception = "fine"
    times: list[float] = field(default_factory=list[float])
    clock: Callable[[], float] = lambda: 0.0
    pidfds: list[int] = field(default_factory=list[int])

    def ask(self, inside: Inside, timeout: float) -> str:
        self.times.append(self.clock())
        self.pidfds.append(os.fstat(inside.pidfd).st_ino)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def explain(self) -> str:
        return "the test"


def check(probe: Asked | None = None, **settings: float) -> HealthCheck:
    values = {"interval": 30, "timeout": 30, "retries": 3, "start_period": 0, "start_interval": 5} | settings
    return HealthCheck(probe or Asked(), **values, on_unhealthy="none")  # type: ignore[arg-type]


def result(ok: bool) -> Result:
    return Result(0, ok, "", 0)


class TestHealth:
    def test_first_success_makes_it_healthy(self) -> None:
        health = Health(check(), 0)
        assert health.word == "starting"
        assert health.feed(result(True), 1)
        assert health.word == "healthy"
        assert not health.feed(result(True), 2)

    def test_so_many_failures_in_a_row_make_it_unhealthy(self) -> None:
        health = Health(check(), 0, "healthy", 100)
        assert [health.feed(result(ok), 1) for ok in (False, False, True, False, False)] == [False] * 5
        assert health.word == "healthy"
        assert health.feed(result(False), 1)
        assert health.word == "unhealthy"

    def test_one_success_makes_it_well_again(self) -> None:
        health = Health(check(), 0, "unhealthy", 100)
        assert health.feed(result(True), 1)
        assert health.word == "healthy"
        assert health.failures == 0

    def test_failures_of_the_start_period_do_not_count(self) -> None:
        health = Health(check(start_period=60, retries=1), 0)
        assert not health.feed(result(False), 59)
        assert (health.word, health.failures) == ("starting", 0)
        assert health.feed(result(False), 60)

    def test_first_success_ends_the_start_period(self) -> None:
        health = Health(check(start_period=60, retries=1), 0)
        health.feed(result(True), 10)
        assert health.feed(result(False), 11)
        assert health.word == "unhealthy"

    def test_failure_counts_no_sooner_than_after_one_interval(self) -> None:
        """It is asked often while it starts; that must not make it unhealthy sooner than asking rarely would."""
        health, now = Health(check(), 0), 0.0
        while health.word == "starting":
            now += health.delay(now)
            health.feed(result(False), now)
        assert now == 30 + 2 * 30

    def test_questions_come_often_at_first_then_each_interval(self) -> None:
        health, now, delays = Health(check(), 0), 0.0, list[float]()
        for _ in range(12):
            delays.append(round(health.delay(now), 3))
            now += health.delay(now)
            health.feed(result(False), now)
        assert delays[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5]
        assert sum(delays[:11]) == pytest.approx(30)
        assert delays[11] == 30

    def test_age_is_that_of_the_process(self) -> None:
        """After a take-over an old container has no start period."""
        health = Health(check(start_period=60, retries=1), 1000, "starting", age=61)
        assert health.feed(result(False), 1000)
        assert Health(check(start_period=60), 1000, "healthy", age=61).delay(1000) == 30

    def test_last_results_are_kept(self) -> None:
        health = Health(check(), 0)
        for number in range(KEPT + 3):
            health.feed(Result(number, True, "well", 0.1), number)
        kept = health.to_json()
        assert [each["time"] for each in kept["log"]] == list(range(3, KEPT + 3))
        assert kept["status"] == "healthy"

    @given(
        st.lists(st.booleans(), max_size=60),
        st.floats(0.001, 1e9),
        st.floats(0, 1e9),
        st.floats(0.001, 1e9),
        st.integers(1, 5),
    )
    def test_words_and_delays(
        self, answers: list[bool], interval: float, start_period: float, start_interval: float, retries: int
    ) -> None:
        """Unhealthy only after so many failures in a row, healthy only after a success; never asked in a tight loop."""
        health = Health(
            check(interval=interval, start_period=start_period, start_interval=start_interval, retries=retries), 0
        )
        now, row = 0.0, 0
        for ok in answers:
            delay = health.delay(now)
            assert min(interval, start_interval, 0.001) <= delay <= interval
            now += delay
            row = 0 if ok else row + 1
            before: Word = health.word
            changed = health.feed(result(ok), now)
            assert changed == (health.word != before)
            assert health.word != "unhealthy" or row >= retries
            assert (health.word == "healthy") if ok else (not changed or health.word == "unhealthy")


@dataclass
class Running:
    """A container that runs: its pidfd is that of this very process."""

    pid: int = field(default_factory=os.getpid)
    pidfd: int = field(default_factory=lambda: os.pidfd_open(os.getpid()))

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, bytes]:
        raise NotImplementedError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A watch on a clock that only the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.errors: list[BaseException] = []
        self.watch = Watch(self.errors.append, clock=self.clock, threaded=False)
        self.probe = Asked(clock=self.clock)
        self.inside = Running()
        self.words: list[tuple[Word, str]] = []

    def begin(self, word: str = "", age: float = 0.0, **settings: float) -> HealthWatch:
        return HealthWatch(self.watch, check(self.probe, **settings), self.inside, self.hear, word=word, age=age)

    def hear(self, word: Word, outcome: Result) -> None:
        self.words.append((word, outcome.output))

    def run(self, until: float) -> None:
        while (wait := self.watch.run_due()) is not None and self.clock.now + wait <= until:
            self.clock.now += wait
        self.clock.now = until


@pytest.fixture
def scene() -> Iterator[Scene]:
    before = len(os.listdir("/proc/self/fd"))
    scene = Scene()
    yield scene
    os.close(scene.inside.pidfd)
    assert scene.errors == []
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


def test_it_is_asked_until_it_is_stopped(scene: Scene) -> None:
    watched = scene.begin()
    scene.run(100)
    watched.stop()
    scene.run(1000)
    assert scene.probe.times == pytest.approx([0.1, 30.1, 60.1, 90.1])
    assert scene.words == [("healthy", "fine")]
    assert scene.watch.pending() == 0


def test_change_is_heard_with_what_made_it(scene: Scene) -> None:
    watched = scene.begin(interval=1)
    scene.run(5)
    scene.probe.answer = ProbeFailed("http status 500")
    scene.run(20)
    scene.probe.answer = "fine again"
    scene.run(25)
    watched.stop()
    assert scene.words == [("healthy", "fine"), ("unhealthy", "http status 500"), ("healthy", "fine again")]


def test_what_counts_is_when_it_was_asked(scene: Scene) -> None:
    """A question that hangs for its whole timeout was asked soon after the start all the same."""

    class Hanging(Asked):
        def ask(self, inside: Inside, timeout: float) -> str:
            scene.clock.now += timeout
            raise ProbeFailed("no answer")

    scene.probe = Hanging()
    watched = scene.begin(interval=10, start_period=60, retries=1)
    scene.run(65)
    assert scene.words == []
    scene.run(120)
    watched.stop()
    assert scene.words == [("unhealthy", "no answer")]


def test_state_goes_on_after_a_take_over(scene: Scene) -> None:
    scene.probe.answer = ProbeFailed("no")
    watched = scene.begin(word="unhealthy", age=1000)
    scene.run(200)
    watched.stop()
    assert watched.health.word == "unhealthy"
    assert scene.words == []


def test_unknown_word_of_a_record_is_starting(scene: Scene) -> None:
    watched = scene.begin(word="splendid")
    assert watched.health.word == "starting"
    watched.stop()


def test_frozen_container_is_not_asked(scene: Scene) -> None:
    watched = scene.begin(interval=1)
    watched.pause()
    scene.run(10)
    assert scene.probe.times == []
    watched.unpause()
    scene.run(20)
    watched.stop()
    assert scene.words == [("healthy", "fine")]


def test_what_was_being_asked_when_it_was_frozen_does_not_count(scene: Scene) -> None:
    watched = scene.begin(interval=1, retries=1, word="healthy", age=100)

    class Freezing(Asked):
        def ask(self, inside: Inside, timeout: float) -> str:
            watched.pause()
            watched.unpause()
            raise ProbeFailed("no answer")

    watched.change(check(Freezing(), interval=1, retries=1))
    scene.run(1)
    watched.stop()
    assert watched.health.word == "healthy"


def test_other_check_is_asked_at_once_where_it_asks_more_often(scene: Scene) -> None:
    watched = scene.begin(interval=3600)
    scene.run(10)
    other = Asked(ProbeFailed("no"), clock=scene.clock)
    watched.change(check(other, interval=2, retries=2))
    scene.run(20)
    watched.stop()
    assert other.times == [12, 14, 16, 18, 20]
    assert scene.words == [("healthy", "fine"), ("unhealthy", "no")]


def test_pidfd_is_its_own(scene: Scene) -> None:
    """The engine closes its pidfd when the process has ended; the number may be another file's by then."""
    watched = scene.begin(interval=1)
    expected = os.fstat(scene.inside.pidfd).st_ino
    os.close(scene.inside.pidfd)
    scene.run(3)
    scene.inside.pidfd = os.pidfd_open(os.getpid())
    watched.stop()
    assert set(scene.probe.pidfds) == {expected}


def test_stop_from_the_change_itself(scene: Scene) -> None:
    """What an engine does that ends a container for being unhealthy."""
    holder: list[HealthWatch] = []
    scene.probe.answer = ProbeFailed("no")
    watched = HealthWatch(
        scene.watch, check(scene.probe, interval=1, retries=1), scene.inside, lambda *_: holder[0].stop()
    )
    holder.append(watched)
    scene.run(10)
    assert scene.probe.times[-1] == pytest.approx(1, abs=0.01)  # the first that counts
    assert scene.watch.pending() == 0


def test_stop_while_it_is_being_asked_lets_go_afterwards() -> None:
    began, go_on = threading.Event(), threading.Event()

    class Slow(Asked):
        def ask(self, inside: Inside, timeout: float) -> str:
            began.set()
            go_on.wait(20)
            return str(os.fstat(inside.pidfd).st_ino)

    watch, inside, words = Watch(), Running(), list[Word]()
    watched = HealthWatch(watch, check(Slow(), interval=0.01), inside, lambda word, _: words.append(word))
    assert began.wait(20)
    watched.stop()
    go_on.set()
    watch.close()
    os.close(inside.pidfd)
    assert words == []


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ("fine", "fine"),
        (ProbeFailed("http status 500"), "http status 500"),
        (OSError(111, "Connection refused"), "ConnectionRefusedError: [Errno 111] Connection refused"),
        (ValueError("a third party's mistake"), "ValueError: a third party's mistake"),
        ("x" * 100_000, "x" * LONGEST),
    ],
)
def test_whatever_comes_of_asking_is_a_result(answer: str | Exception, output: str) -> None:
    inside = Running()
    found = ask(check(Asked(answer)), inside)
    os.close(inside.pidfd)
    assert (found.ok, found.output) == (isinstance(answer, str), output)
    assert found.seconds >= 0
