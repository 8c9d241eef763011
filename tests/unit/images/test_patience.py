"""How long is waited before something is tried again."""

from __future__ import annotations

import pytest
from pycore_images.registry.errors import Busy, Unreachable
from pycore_images.registry.patience import Patience, Tries
from support.clock import Clock

CUT = Unreachable("cut", "it broke off")


def test_each_wait_is_longer_than_the_one_before() -> None:
    clock = Clock()
    tries = Tries(Patience(tries=6, delay=1, longest=5), clock)
    for _ in range(5):
        tries.failed(CUT)
    assert clock.waited_between((0.5, 1), (1, 2), (2, 4), (2.5, 5), (2.5, 5))
    with pytest.raises(Unreachable):
        tries.failed(CUT)
    assert len(clock.waits) == 5


def test_what_the_other_side_asks_for_is_waited() -> None:
    clock = Clock()
    tries = Tries(Patience(tries=5, delay=1, longest_asked=60), clock)
    tries.failed(Busy("later", wait=40))
    tries.failed(Busy("later", wait=0))
    assert clock.waited_between((40, 40), (1, 2))
    with pytest.raises(Busy):
        tries.failed(Busy("much later", wait=61))
