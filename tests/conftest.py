"""What holds for all tests: what they need of the host, what they may leave on it, and how a session ends.

Several processes may run them (pytest-xdist): one alone begins, counts and ends.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest
from support import leaks, needs

COMPLETE = bool(os.environ.get("PYCORE_TESTS_COMPLETE"))
"""Set by .ci/run: the host is a fresh one of our own, where nothing may be missing and nothing may be left."""
WORKER = bool(os.environ.get("PYTEST_XDIST_WORKER"))
"""Whether this process runs a part of the tests for another one."""

_LACKING = "lacking"
_skipped: Counter[str] = Counter()
"""What was not there, and how many tests wanted it."""
_before: set[str] = set()


def pytest_sessionstart() -> None:
    if COMPLETE and not WORKER:
        _before.update(leaks.snapshot())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the host cannot run, before its fixtures."""
    wanted = [str(name) for marker in item.iter_markers("needs") for name in marker.args]
    if item.get_closest_marker("root"):
        wanted.insert(0, "root")
    for name in wanted:
        if not needs.is_met(name):
            item.user_properties.append((_LACKING, needs.reason(name)))
            pytest.skip(needs.reason(name))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "setup":
        _skipped.update(str(reason) for name, reason in report.user_properties if name == _LACKING)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not COMPLETE or WORKER or session.exitstatus != pytest.ExitCode.OK:
        return
    left = leaks.snapshot() - _before
    if left:
        print(f"\nthe tests left behind: {', '.join(sorted(left))}")
    if left or _skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """The closing line, after pytest's own: how many tests were skipped for want of what, and what brings it."""
    yield
    if _skipped:
        wants = "; ".join(f"{count} {reason}" for reason, count in _skipped.most_common())
        verdict = " where none may be" if COMPLETE else ""
        line = f"skipped {_skipped.total()} tests{verdict}: {wants}"
        terminalreporter.write_line(line, red=COMPLETE, yellow=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session when a mount, link, cgroup, network namespace or nft table of its own outlives it."""
    before = leaks.snapshot()
    yield
    left = leaks.ours(leaks.snapshot() - before, tmp_path_factory.getbasetemp())
    assert not left, f"the tests left behind: {', '.join(sorted(left))}"
