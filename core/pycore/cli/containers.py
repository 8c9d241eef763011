"""Verbs that change containers: started, stopped, held, renamed, removed."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

from pycore.cli import attach
from pycore.cli.moments import seconds
from pycore.cli.names import containers_of
from pycore.cli.parser import Verb
from pycore.cli.session import Session, report
from pycore.cli.waiting import wait_for
from pycore.convergence.applying import stop_order
from pycore.engine import Engine
from pycore.errors import PycoreError, UsageError
from pycore.records.state import ContainerRecord
from pycore.spec import signal_number

AT_ONCE = 16
"""Containers that one command works on at once: much of it is waiting for them to end."""


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    stop = verb("stop", _stop, "ask containers to end, then kill them")
    start = verb("start", _start, "start containers that were created or have stopped")
    start.add_argument("-a", "--attach", action="store_true", help="print what it writes, end as it ends")
    start.add_argument("-i", "--interactive", action="store_true", help="the same, and give it our standard input")
    attach.add_arguments(start)
    restart = verb("restart", _restart, "stop containers and start them again")
    kill = verb("kill", _kill, "send a signal to containers")
    kill.add_argument("-s", "--signal", default="KILL", help="KILL unless said otherwise")
    pause = verb("pause", _pause, "hold containers still")
    unpause = verb("unpause", _unpause, "let containers that are held go on")
    wait = verb("wait", _wait, "wait until containers have ended, and print their exit statuses")
    remove = verb("rm", _remove, "remove containers that have stopped")
    remove.add_argument("-f", "--force", action="store_true", help="also those that run: they are killed")
    for sub in (stop, restart):
        sub.add_argument("-t", "--time", metavar="SECONDS", type=seconds, help="how long ending may take")
    for sub in (stop, start, restart, kill, pause, unpause, wait, remove):
        sub.add_argument("containers", metavar="CONTAINER|APP", nargs="+")
    rename = verb("rename", _rename, "give a container another name")
    rename.add_argument("container", metavar="CONTAINER")
    rename.add_argument("name", metavar="NAME", help="its new name in the app")


def _stop(session: Session, arguments: argparse.Namespace) -> int:
    stop = session.engine.stop
    return _each(session, arguments.containers, lambda each: stop(each.id, arguments.time).full_name, Order.LAST_FIRST)


def _start(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.attach or arguments.interactive:
        return _start_attached(session, arguments)
    return _each(session, arguments.containers, lambda each: session.engine.start(each.id).full_name, Order.FIRST_FIRST)


def _start_attached(session: Session, arguments: argparse.Namespace) -> int:
    """Start one and attach to it, so that nothing of its output is missed."""
    records = containers_of(session.engine, arguments.containers[:1])
    if len(arguments.containers) + len(records) != 2:
        raise UsageError("start with --attach or --interactive takes one container")
    (record,) = records
    with contextlib.closing(session.engine.attachment(record)) as attachment:
        session.engine.start(record.id)
        live = session.engine.live(record)
        if live:
            attach.require_output(live)
        attachment.connect(live, arguments.interactive)
        return attach.follow(session, arguments, record, attachment, again=True, whole=True)


def _restart(session: Session, arguments: argparse.Namespace) -> int:
    restart = session.engine.restart
    return _each(
        session, arguments.containers, lambda each: restart(each.id, arguments.time).full_name, Order.FIRST_FIRST
    )


def _kill(session: Session, arguments: argparse.Namespace) -> int:
    try:
        number = signal_number(arguments.signal)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _each(session, arguments.containers, lambda each: session.engine.kill(each.id, number).full_name)


def _pause(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda each: session.engine.pause(each.id).full_name)


def _unpause(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda each: session.engine.unpause(each.id).full_name)


def _wait(session: Session, arguments: argparse.Namespace) -> int:
    session.resume(["wait", *(["--json"] if session.json else []), *arguments.containers])
    return _each(session, arguments.containers, lambda each: wait_for(session.engine, each.id, session.gone))


def _remove(session: Session, arguments: argparse.Namespace) -> int:
    def remove(record: ContainerRecord) -> str:
        session.engine.remove(record.id, force=arguments.force)
        return record.full_name

    return _each(session, arguments.containers, remove, Order.LAST_FIRST)


def _rename(session: Session, arguments: argparse.Namespace) -> int:
    record = session.engine.rename(arguments.container, arguments.name)
    session.show({"container": record.full_name, "id": record.id}, lambda: f"{record.full_name}\n")
    return 0


class Order(Enum):
    """Which of several containers come first, by what each depends on."""

    NONE = 0
    FIRST_FIRST = 1
    """What others need comes before them."""
    LAST_FIRST = 2


def _each(
    session: Session, words: Sequence[str], act: Callable[[ContainerRecord], Any], order: Order = Order.NONE
) -> int:
    """Do something to all that the words name, several at once: all are tried, each failure is reported.

    Prints what ``act`` returns, in the order of the words.
    """
    records, status = _found(session, words)
    done: dict[str, Any] = {}
    for group in _groups(records, order):
        with ThreadPoolExecutor(min(AT_ONCE, len(group)), "pycore-each") as pool:
            for record, future in [(record, pool.submit(act, record)) for record in group]:
                try:
                    done[record.id] = future.result()
                except PycoreError as error:
                    report(session, error)
                    status = max(status, error.exit_status)
    results = [done[record.id] for record in records if record.id in done]
    session.show(results, lambda: "".join(f"{'unknown' if each is None else each}\n" for each in results))
    return status


def _found(session: Session, words: Sequence[str]) -> tuple[list[ContainerRecord], int]:
    """The containers that the words name, each once; a word that names none is reported, and is a failure."""
    found: dict[str, ContainerRecord] = {}
    status = 0
    for word in words:
        try:
            found |= {record.id: record for record in containers_of(session.engine, [word])}
        except PycoreError as error:
            report(session, error)
            status = max(status, error.exit_status)
    return list(found.values()), status


def _groups(records: Sequence[ContainerRecord], order: Order) -> list[list[ContainerRecord]]:
    """Containers that may be worked on at once, group after group."""
    if order is Order.NONE or len(records) < 2:
        return [[*records]] if records else []
    groups = stop_order(records)
    return groups if order is Order.LAST_FIRST else groups[::-1]
