"""The verb logs: what containers have written, of several merged by time."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import cycle, groupby

from pycore.cli.moments import moment
from pycore.cli.names import containers_of
from pycore.cli.parser import Verb
from pycore.cli.screen import is_terminal
from pycore.cli.session import Interrupted, Session
from pycore.engine import Engine
from pycore.errors import UsageError
from pycore.logs import NOTE, STDERR, Query
from pycore.logs.lines import Line
from pycore.records.state import ContainerRecord

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Of names, in turns: ANSI's cyan, yellow, green, magenta, blue, then their bright kin."""

_FRACTION = re.compile(r"(\d+|.*:\d\d)\.(\d{1,9})(Z|[+-][\d:]+)?")


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    logs = verb("logs", _logs, "print what containers have written, or all containers of an app")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until they have ended")
    logs.add_argument("-n", "--tail", metavar="N", default="all", help="the last N lines of each; all without it")
    since = "what came at or after a date, seconds since 1970, or 10m for so long ago"
    logs.add_argument("--since", metavar="MOMENT", help=since)
    logs.add_argument("--until", metavar="MOMENT", help="what came up to then")
    logs.add_argument("-t", "--timestamps", action="store_true", help="begin each line with its time")
    logs.add_argument("--no-prefix", action="store_true", help="of several, do not say whose line it is")
    logs.add_argument("containers", metavar="CONTAINER|APP", nargs="+")


def _logs(session: Session, arguments: argparse.Namespace) -> int:
    query = Query(_nanoseconds(arguments.since), _nanoseconds(arguments.until), _tail(arguments.tail))
    records = containers_of(session.engine, arguments.containers)
    alone = len(records) == 1
    mark = _marking(session, arguments)
    mark(time.time_ns() if query.since is None else query.since)
    if alone and not arguments.timestamps and not session.json:
        noted = _print_chunks(session, records[0], query, arguments.follow, mark)
    else:
        begin = _beginning(session, records, arguments.timestamps, prefix=not (alone or arguments.no_prefix))
        noted = _print_lines(session, records, query, arguments.follow, begin, mark)
    if session.gone():
        raise Interrupted
    for record in records:
        lost = session.engine.lost_output(record)
        if lost and record.full_name not in noted:
            session.err(f"pycore: {record.full_name}: {lost} bytes could not be kept\n")
    return 0


def _marking(session: Session, arguments: argparse.Namespace) -> Callable[[int], None]:
    """Called with the time up to which a follower has heard: from there the client goes on if the supervisor ends."""
    if not arguments.follow:
        return lambda _: None
    words = ["logs", "--follow", *(["--json"] if session.json else [])]
    words += [f"--{word.replace('_', '-')}" for word in ("timestamps", "no_prefix") if getattr(arguments, word)]
    words += [] if arguments.until is None else ["--until", f"{moment(arguments.until):.6f}"]

    def mark(nanoseconds: int) -> None:
        seconds, rest = divmod(nanoseconds, 10**9)
        session.resume([*words, "--since", f"{seconds}.{rest:09}", *arguments.containers])

    return mark


def _nanoseconds(word: str | None) -> int | None:
    """A moment to the last digit: what ``--timestamps`` has printed finds its line again."""
    if word is None:
        return None
    found = _FRACTION.fullmatch(word)
    if found is None:
        return int(moment(word) * 1e9)
    return int(moment(found[1] + (found[3] or ""))) * 10**9 + int(found[2].ljust(9, "0"))


def _tail(word: str) -> int | None:
    if word == "all":
        return None
    if not (word.isascii() and word.isdigit() and len(word) < 16):
        raise UsageError(f"--tail {word}: must be a number of lines, or all")
    return int(word)


def _print_chunks(
    session: Session, record: ContainerRecord, query: Query, follow: bool, mark: Callable[[int], None]
) -> set[str]:
    """One container's bytes as they came. Returns of whom it was said that something is missing."""
    noted: set[str] = set()
    chunks = session.engine.logs(
        record.id,
        query,
        follow=follow,
        hangups=session.stdio[1:2],
        interrupts=dict.fromkeys(session.hangups(), session.gone),
    )
    for chunk in chunks:
        if chunk.stream == NOTE:
            _note(session, record.full_name, chunk.data, noted)
        else:
            session.write(2 if chunk.stream == STDERR else 1, chunk.data)
        mark(chunk.time + 1)
        if session.gone():
            raise Interrupted
    return noted


def _print_lines(
    session: Session,
    records: Sequence[ContainerRecord],
    query: Query,
    follow: bool,
    begin: Callable[[str, Line], bytes],
    mark: Callable[[int], None],
) -> set[str]:
    """Several containers, or one whose lines begin with their times; likewise."""
    noted: set[str] = set()
    portions = session.engine.lines(
        [record.id for record in records],
        query,
        follow=follow,
        hangups=session.stdio[1:2],
        interrupts=dict.fromkeys(session.hangups(), session.gone),
    )
    for portion in portions:
        for stream, lines in groupby(portion, key=_descriptor(session)):
            if session.json:
                session.write(1, b"".join(_json(name, line) for name, line in lines))
            elif stream == NOTE:
                for name, line in lines:
                    _note(session, name, line.data, noted)
            else:
                session.write(stream, b"".join(begin(name, line) + _ended(line.data) for name, line in lines))
        mark(portion[-1][1].time + 1)
        if session.gone():
            raise Interrupted
    return noted


def _descriptor(session: Session) -> Callable[[tuple[str, Line]], int]:
    """Where a line goes: to the descriptor of its stream, all of them to one as JSON."""
    return lambda entry: 1 if session.json else entry[1].stream


def _ended(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def _json(name: str, line: Line) -> bytes:
    stream = {NOTE: "note", STDERR: "stderr"}.get(line.stream, "stdout")
    text = line.data.decode("utf-8", "replace")
    return json.dumps({"container": name, "time": line.time / 1e9, "stream": stream, "text": text}).encode() + b"\n"


def _note(session: Session, name: str, data: bytes, noted: set[str]) -> None:
    noted.add(name)
    session.err(f"pycore: {name}: {data.decode('utf-8', 'replace')}\n")


def _beginning(
    session: Session, records: Sequence[ContainerRecord], timestamps: bool, *, prefix: bool
) -> Callable[[str, Line], bytes]:
    """How a line begins: whose it is, in a colour of its own where that can be seen, and when it came."""
    prefixes = {name: word.encode() for name, word in _prefixes(session, records).items()} if prefix else {}

    @lru_cache(4)  # all lines of one read have the same
    def when(nanoseconds: int) -> bytes:
        return timestamp(nanoseconds).encode() + b" "

    def begin(name: str, line: Line) -> bytes:
        return prefixes.get(name, b"") + (when(line.time) if timestamps else b"")

    return begin


def _prefixes(session: Session, records: Sequence[ContainerRecord]) -> dict[str, str]:
    """Full name to what its lines begin with: ``web-1  | ``."""
    one_app = len({record.app for record in records}) == 1
    shown = {record.full_name: record.name if one_app else record.full_name for record in records}
    width = max(map(len, shown.values()))
    padded = {name: f"{word:{width}}  | " for name, word in shown.items()}
    if not is_terminal(session.stdio[1], session.environment) or session.environment.get("NO_COLOR"):
        return padded
    colours = cycle(_COLOURS)
    return {name: f"\x1b[{next(colours)}m{word}\x1b[0m" for name, word in padded.items()}


def timestamp(nanoseconds: int) -> str:
    """A time as RFC 3339 wants it, in UTC, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
