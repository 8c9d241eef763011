"""The verb exec: one more program in a container that runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
from collections.abc import Generator

from pycore.cli.attach import add_arguments, require_terminal, terminal_client
from pycore.cli.parser import Verb
from pycore.cli.session import ENDING, Interrupted, Session
from pycore.engine import Engine
from pycore.errors import UsageError
from pycore.launch.launcher import Stdio
from pycore.life.execution import Execution
from pycore.source import runflags
from pycore.streams.relay import Ending, MasterSource, Relay
from pycore.streams.terminal import window_size


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    parser = verb("exec", _exec, "run one more program in a container that runs")
    parser.add_argument("-i", "--interactive", action="store_true", help="give it our standard input")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait for its end")
    add_arguments(parser, signals=False)
    runflags.add_exec_arguments(parser, engine.plugins)
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")


def _exec(session: Session, arguments: argparse.Namespace) -> int:
    command: list[str] = arguments.command
    if not command or not command[0]:
        raise UsageError("exec needs a command", hint=f"pycore exec {arguments.container} sh")
    if arguments.tty and arguments.interactive and not arguments.detach:
        require_terminal(session)
    changes = runflags.changes(arguments, session.engine.plugins, session.environment)
    with _streams(session, arguments) as stdio:
        size = window_size(session.stdio[1])
        execution = session.engine.execute(
            arguments.container, command, stdio, changes, terminal=arguments.tty, window=size
        )
    if arguments.detach:
        session.engine.abandon(execution)
        return 0
    session.lasts()
    return _with_terminal(session, arguments, execution) if arguments.tty else _attached(session, execution)


@contextlib.contextmanager
def _streams(session: Session, arguments: argparse.Namespace) -> Generator[Stdio, None, None]:
    """The client's own streams, as far as they are wanted: nothing is copied on the way."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        alone = arguments.detach or arguments.tty
        stdin = session.stdio[0] if arguments.interactive and not alone else null
        yield Stdio(stdin, null, null) if alone else Stdio(stdin, session.stdio[1], session.stdio[2])
    finally:
        os.close(null)


def _attached(session: Session, execution: Execution) -> int:
    """Wait for its end, and pass signals on. When the client hangs up it runs on, as its streams may be anybody's."""
    connection = session.connection
    with contextlib.closing(execution):
        waiting = select.poll()  # not select(2), which knows no descriptor above 1023
        waiting.register(execution.pidfd, select.POLLIN)
        if connection is not None:
            waiting.register(connection, select.POLLIN)
        while connection is not None:
            if connection.fileno() not in {fd for fd, _ in waiting.poll()}:
                break
            numbers = connection.recv(64)
            if not numbers:
                raise Interrupted
            for number in numbers:
                session.engine.signal(execution, number)
        return _status(execution)


def _with_terminal(session: Session, arguments: argparse.Namespace, execution: Execution) -> int:
    """Share the client's terminal with it. When the client is gone, so is the terminal, and the program gets SIGHUP."""
    master = execution.terminal
    with terminal_client(session, arguments.interactive, True) as client:
        source = MasterSource(master, execution.pidfd)
        relay = Relay(client, source, master, master, arguments.detach_keys, lambda number: number not in ENDING)
        ending = relay.run()
    if ending is Ending.DETACHED and not relay.status:
        session.engine.abandon(execution)
        return 0
    with contextlib.closing(execution):
        if ending is Ending.ENDED:
            return _status(execution)
    if ending is Ending.HUNG_UP:
        raise Interrupted
    return relay.status


def _status(execution: Execution) -> int:
    status = execution.wait()
    return 1 if status is None else status
