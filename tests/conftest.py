"""What holds for all tests: what they need of the host, what they may leave on it, and how a session ends."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest
from support import leaks, needs

COMPLETE = bool(os.environ.get("PYCORE_TESTS_COMPLETE"))
"""Set by .ci/run: the host is a fresh one of our own, where nothing may be missing and nothing may be left."""

_skipped = pytest.StashKey["Counter[str]"]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skipped] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the host cannot run, before its fixtures."""
    wanted = [str(name) for marker in item.iter_markers("needs") for name in marker.args]
    if item.get_closest_marker("root"):
        wanted.insert(0, "root")
    for name in wanted:
        if not needs.is_met(name):
            item.config.stash[_skipped][needs.reason(name)] += 1
            pytest.skip(needs.reason(name))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if COMPLETE and session.config.stash[_skipped] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """The closing line, after pytest's own: how many tests were skipped for want of what, and what brings it."""
    yield
    skipped = config.stash[_skipped]
    if skipped:
        wants = "; ".join(f"{count} {reason}" for reason, count in skipped.most_common())
        verdict = " where none may be" if COMPLETE else ""
        line = f"skipped {skipped.total()} tests{verdict}: {wants}"
        terminalreporter.write_line(line, red=COMPLETE, yellow=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session when a mount, link, cgroup, network namespace or nft table outlives it."""
    before = leaks.snapshot()
    yield
    left = leaks.snapshot() - before
    if not COMPLETE:
        left = leaks.ours(left, tmp_path_factory.getbasetemp())
    assert not left, f"the tests left behind: {', '.join(sorted(left))}"
