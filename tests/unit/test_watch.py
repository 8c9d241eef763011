from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.life.pool import Pool
from pycore.life.watch import Later, Watch

SECONDS = 20
"""How long a test waits for what must come."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


def test_acts_are_done_in_the_order_of_their_times() -> None:
    clock, done = Clock(), list[str]()
    watch = Watch(clock=clock, threaded=False)
    watch.at(2, lambda: done.append("second"))
    watch.at(1, lambda: done.append("first"))
    watch.at(2, lambda: done.append("third"))
    assert watch.run_due() == 1
    clock.now = 1.5
    assert watch.run_due() == 0.5
    assert done == ["first"]
    clock.now = 2
    assert watch.run_due() is None
    assert done == ["first", "second", "third"]


def test_time_that_is_past_means_now() -> None:
    done: list[int] = []
    watch = Watch(clock=Clock(), threaded=False)
    watch.at(-5, lambda: done.append(1))
    watch.run_due()
    assert done == [1]


def test_act_may_ask_for_another() -> None:
    clock, done = Clock(), list[float]()
    watch = Watch(clock=clock, threaded=False)

    def again() -> None:
        done.append(clock.now)
        watch.at(1, again)

    watch.at(1, again)
    for clock.now in (1.0, 2.0, 3.0):
        assert watch.run_due() == 1
    assert done == [1, 2, 3]


def test_cancelled_act_is_not_done() -> None:
    clock, done = Clock(), list[int]()
    watch = Watch(clock=clock, threaded=False)
    later = watch.at(1, lambda: done.append(1))
    assert later.cancel()
    assert not later.cancel()
    clock.now = 2
    assert watch.run_due() is None
    assert done == []


def test_act_that_was_done_cannot_be_cancelled() -> None:
    clock = Clock()
    watch = Watch(clock=clock, threaded=False)
    later = watch.at(0, lambda: None)
    watch.run_due()
    assert not later.cancel()


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=300))
def test_what_was_not_cancelled_is_done_once(plan: list[tuple[int, bool]]) -> None:
    clock, done = Clock(), list[int]()
    watch = Watch(clock=clock, threaded=False)
    laters: list[Later] = [
        watch.at(seconds, lambda number=number: done.append(number)) for number, (seconds, _) in enumerate(plan)
    ]
    for later, (_, cancel) in zip(laters, plan, strict=True):
        if cancel:
            later.cancel()
    kept = [(seconds, number) for number, (seconds, cancel) in enumerate(plan) if not cancel]
    assert watch.pending() == len(kept)
    clock.now = 50
    watch.run_due()
    assert done == [number for _, number in sorted(kept)]
    assert watch.pending() == 0


def test_cancelled_acts_are_let_go() -> None:
    """A thousand rounds of apply and down must not leave a thousand acts that wait for an hour to pass."""
    watch = Watch(clock=Clock(), threaded=False)
    for _ in range(10_000):
        watch.at(3600, lambda: None).cancel()
    assert len(watch._heap) < 200
    assert watch.pending() == 0


def test_failure_is_reported_and_the_next_act_done() -> None:
    reported: list[BaseException] = []
    done: list[int] = []
    watch = Watch(reported.append, clock=Clock(), threaded=False)

    def fail() -> None:
        raise OSError("no")

    watch.at(0, fail)
    watch.at(0, fail, slow=True)
    watch.at(0, lambda: done.append(1))
    watch.run_due()
    assert [str(error) for error in reported] == ["no", "no"]
    assert done == [1]


def test_failing_report_does_not_end_the_thread() -> None:
    def report(error: BaseException) -> None:
        raise error

    failing, done = Watch(report), threading.Event()
    failing.at(0, lambda: 1 / 0)
    failing.at(0, done.set)
    assert done.wait(SECONDS)
    failing.close()


def test_thread_does_what_is_due(watch: Watch) -> None:
    done = threading.Event()
    watch.at(0.01, done.set)
    assert done.wait(SECONDS)


def test_sooner_act_is_not_held_up_by_a_later_one(watch: Watch) -> None:
    done = threading.Event()
    watch.at(3600, lambda: None)
    watch.at(0.01, done.set)
    assert done.wait(SECONDS)


def test_slow_act_delays_no_other(watch: Watch) -> None:
    hold, done = threading.Event(), threading.Event()
    try:
        watch.at(0, lambda: hold.wait(SECONDS), slow=True)
        watch.hand(lambda: hold.wait(SECONDS))
        watch.at(0.01, done.set, slow=True)
        assert done.wait(SECONDS)
    finally:
        hold.set()


def test_containers_that_hang_keep_no_restart_waiting(watch: Watch) -> None:
    """However many of them there are."""
    hold, done = threading.Event(), threading.Event()
    try:
        for _ in range(300):
            watch.at(0, lambda: hold.wait(SECONDS), slow=True, lane="ask")
        watch.at(0.01, done.set, slow=True)
        assert done.wait(SECONDS)
        assert 32 < len([thread for thread in threading.enumerate() if thread.name == "pycore-ask"]) <= 128
    finally:
        hold.set()


def test_nothing_is_done_after_close() -> None:
    watch, done = Watch(), list[int]()
    watch.at(3600, lambda: done.append(1))
    watch.close()
    watch.at(0, lambda: done.append(2))
    watch.hand(lambda: done.append(3))
    assert watch.run_due() is None
    assert done == []
    assert not [thread for thread in threading.enumerate() if thread.name == "pycore-watch"]


def test_close_does_not_wait_for_a_slow_act() -> None:
    watch, hold, began = Watch(), threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        hold.wait(SECONDS)

    watch.hand(slow)
    assert began.wait(SECONDS)
    watch.close()
    hold.set()


def test_act_may_close_the_watch() -> None:
    watch, done = Watch(), threading.Event()

    def close() -> None:
        watch.close()
        done.set()

    watch.at(0, close)
    assert done.wait(SECONDS)


def test_no_thread_before_the_first_act() -> None:
    before = threading.active_count()
    watch = Watch()
    assert threading.active_count() == before
    watch.close()


def test_pool_has_no_more_threads_than_it_may() -> None:
    pool, hold, began = Pool("test", 2), threading.Event(), threading.Semaphore(0)
    done: list[int] = []
    finished = threading.Event()

    def slow() -> None:
        began.release()
        hold.wait(SECONDS)

    for _ in range(2):
        pool.submit(slow)
        assert began.acquire(timeout=SECONDS)
    for number in range(5):
        pool.submit(lambda number=number: done.append(number))
    pool.submit(finished.set)
    assert len([thread for thread in threading.enumerate() if thread.name == "test"]) == 2
    assert done == []
    hold.set()
    assert finished.wait(SECONDS)
    assert sorted(done) == [0, 1, 2, 3, 4]
    pool.close()


def test_idle_thread_holds_on_to_nothing() -> None:
    class Thing:
        pass

    pool, gone = Pool("test", 1), threading.Event()
    thing = Thing()
    weakref.finalize(thing, gone.set)
    pool.submit(lambda thing=thing: None)
    del thing
    gc.collect()
    assert gone.wait(SECONDS)
    pool.close()
