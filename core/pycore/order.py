"""Acts in the order of what each depends on, as many at once as that allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
Act = Callable[[], object]


def at_once(acts: Sequence[Act], number: int) -> None:
    """Call all, up to ``number`` at a time. After a failure none is begun; it is raised when all have ended."""
    in_order(dict(enumerate(acts)), lambda _: True, threading.Condition(), number)


def in_order(acts: Mapping[T, Act], ready: Callable[[T], bool], changed: threading.Condition, number: int) -> None:
    """Call all, up to ``number`` at a time, each when its time has come.

    ``ready`` says whether it has; it raises where that can never be. It is asked again whenever ``changed`` is
    notified. After a failure no act is begun; it is raised when those that were have ended.
    """
    pool = ThreadPoolExecutor(number, "pycore-start") if number > 1 and len(acts) > 1 else None
    try:
        _Ordered(dict(acts), ready, changed, pool).run()
    finally:
        if pool:
            pool.shutdown(wait=True, cancel_futures=True)


class _Ordered(Generic[T]):
    def __init__(
        self,
        waiting: dict[T, Act],
        ready: Callable[[T], bool],
        changed: threading.Condition,
        pool: ThreadPoolExecutor | None,
    ) -> None:
        self._waiting, self._ready, self._changed, self._pool = waiting, ready, changed, pool
        self._running = 0
        self._ended: deque[Future[object]] = deque()
        self._due: list[T] = []

    def run(self) -> None:
        while self._waiting or self._running:
            with self._changed:
                self._changed.wait_for(self._anything_to_do)
            while self._ended:
                self._running -= 1
                self._ended.popleft().result()
            for name in self._due:
                self._begin(self._waiting.pop(name))

    def _anything_to_do(self) -> bool:
        self._due = [name for name in self._waiting if self._ready(name)]
        return bool(self._due or self._ended)

    def _begin(self, act: Act) -> None:
        if self._pool is None:
            act()
            return
        self._running += 1
        self._pool.submit(act).add_done_callback(self._note_end)

    def _note_end(self, future: Future[object]) -> None:
        if not future.cancelled():
            self._ended.append(future)
            with self._changed:
                self._changed.notify_all()


def levels(names: Iterable[T], needs: Mapping[T, Iterable[T]]) -> list[list[T]]:
    """Names in layers: each needs only what is in layers before its own. What is in a circle comes last, together."""
    left, done, layers = list(names), set[T](), list[list[T]]()
    known = set(left)
    while left:
        layer = [name for name in left if all(need in done or need not in known for need in needs.get(name, ()))]
        layer = layer or left
        layers.append(layer)
        done.update(layer)
        left = [name for name in left if name not in done]
    return layers
