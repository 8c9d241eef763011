"""The verb attach, and how run, exec and start share a client's terminal with a container's."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Callable, Generator
from functools import partial

from pycore.cli.parser import Verb
from pycore.cli.session import ENDING, Interrupted, Session
from pycore.cli.waiting import wait_for
from pycore.engine import Engine
from pycore.errors import Conflict, NotFound, PycoreError, UsageError
from pycore.life.attachment import Attachment
from pycore.life.live import Live
from pycore.records.state import ContainerRecord
from pycore.streams.relay import Client, Ending, Relay
from pycore.streams.terminal import DETACH_KEYS, RawMode, is_terminal, parse_keys, redraw, window_size


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    attach = verb("attach", _attach, "see what a container writes, and write to it")
    add_arguments(attach)
    attach.add_argument("--no-stdin", action="store_true", help="only look on")
    attach.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    attach.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    attach.add_argument("container", metavar="CONTAINER")


def add_arguments(parser: argparse.ArgumentParser, *, signals: bool = True) -> None:
    """What every verb that attaches takes."""
    parser.add_argument(
        "--detach-keys", metavar="KEYS", type=_keys, default=parse_keys(DETACH_KEYS),
        help=f"what is pressed to let the program run on by itself; {DETACH_KEYS} unless said otherwise",
    )  # fmt: skip
    if signals:
        parser.add_argument(
            "--sig-proxy", action=argparse.BooleanOptionalAction, default=True,
            help="pass signals on, where there is no terminal",
        )  # fmt: skip


def _keys(text: str) -> bytes:
    try:
        return parse_keys(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _attach(session: Session, arguments: argparse.Namespace) -> int:
    engine = session.engine
    try:
        live = engine.running(arguments.container)
    except (Conflict, NotFound):
        if not arguments.resume:
            raise
        return _end(session, arguments.container)
    record = live.record
    if record.paused:
        raise Conflict(f"{record.full_name} is paused", hint=f"pycore unpause {record.full_name}")
    require_output(live)
    with contextlib.closing(engine.attachment(record)) as attachment:
        attachment.connect(live, stdin=not arguments.no_stdin)
        return follow(session, arguments, record, attachment, again=True, whole=arguments.whole)


def require_output(live: Live) -> None:
    """Raises Conflict where a container's output does not come to us."""
    if live.drained is None:
        raise Conflict(
            f"the output of {live.record.full_name} does not come to pycore",
            hint="it goes to who started it with `run`",
        )


def follow(
    session: Session,
    arguments: argparse.Namespace,
    record: ContainerRecord,
    attachment: Attachment,
    *,
    again: bool = False,
    whole: bool = False,
) -> int:
    """Relay between a client and a container until one of them ends; the exit status of the command.

    ``again`` says that its program was there before, and is to draw anew what it shows; ``whole`` that the client's
    input is all that it gets, and ends with it.
    """
    no_stdin = ["--no-stdin"] if attachment.sink < 0 else []
    keys = ",".join(_key_name(byte) for byte in arguments.detach_keys)
    as_whole = ["--whole"] if whole else []
    session.resume(["attach", "--resume", "--detach-keys", keys, *no_stdin, *as_whole, record.id])
    passed = _passing(session, record.id, attachment, arguments.sig_proxy)
    with terminal_client(session, attachment.sink >= 0, attachment.terminal >= 0) as client:
        if again and attachment.terminal >= 0:
            redraw(attachment.terminal, window_size(session.stdio[1]))
        relay = Relay(client, attachment, attachment.sink, attachment.terminal, arguments.detach_keys, passed)
        if whole and attachment.terminal < 0:
            relay.on_end = partial(session.engine.end_input, attachment)
        ending = relay.run()
    if ending is Ending.HUNG_UP:
        raise Interrupted
    return _end(session, record.id) if ending is Ending.ENDED else relay.status


def _key_name(byte: int) -> str:
    return chr(byte) if byte >= 32 else f"ctrl-{chr(byte + 64).lower()}"


def _end(session: Session, identity: str) -> int:
    status = wait_for(session.engine, identity, session.gone)
    return 1 if status is None else status


def _passing(session: Session, identity: str, attachment: Attachment, wanted: bool) -> Callable[[int], bool]:
    """What a client's signals mean: with a terminal the end of this command alone, as its keys are what is typed."""
    if attachment.terminal >= 0 or not wanted:
        return lambda number: number not in ENDING
    requests = 0

    def passed(number: int) -> bool:
        nonlocal requests
        requests += number in (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(PycoreError):  # it has ended: so will we
            session.engine.kill(identity, signal.SIGKILL if requests >= 3 else number)
        return True

    return passed


@contextlib.contextmanager
def terminal_client(session: Session, typing: bool, terminal: bool) -> Generator[Client, None, None]:
    """The client for a relay; its terminal is in raw mode meanwhile, where there is one at either end."""
    stdin, stdout, stderr = session.stdio
    connection = -1 if session.connection is None else session.connection.fileno()
    raw = RawMode(stdin) if typing and terminal and is_terminal(stdin) else None
    try:
        yield Client(stdin if typing else -1, stdout, stderr, connection, raw)
    finally:
        if raw:
            raw.restore()


def require_terminal(session: Session) -> None:
    """Raises UsageError where the client has no terminal to share."""
    if not is_terminal(session.stdio[0]):
        raise UsageError("the input device is not a terminal", hint="leave -t out, or -i")
