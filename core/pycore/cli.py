"""The verbs of the command: what each one takes, does and prints.

A verb runs where its state is: in the supervisor, writing to the client's descriptors, or in the client's
own process when it changes nothing. It sees neither: it has a :class:`Session`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pycore import __version__
from pycore.engine import Engine
from pycore.errors import PycoreError, SpecError, UsageError
from pycore.execute import Timing
from pycore.launch.launcher import Stdio
from pycore.lifecycle import exit_code
from pycore.logs import STDERR
from pycore.ops import Operation, to_record
from pycore.plan import Action, Kind, Plan
from pycore.render import render
from pycore.spec import Process, signal_number
from pycore.state import ContainerRecord


@dataclass
class Session:
    """One command of one user: what it works on and where it writes."""

    engine: Engine
    directory: Path
    """Where relative paths of the command line start."""
    environment: Mapping[str, str]
    stdio: tuple[int, int, int]
    connection: socket.socket | None = None
    """To the client, who sends a byte per signal; None in the client's own process."""
    json: bool = False

    def out(self, text: str) -> None:
        """Write to standard output, all of it. Raises OSError (BrokenPipeError) when nobody reads."""
        self.write(1, text.encode("utf-8", "surrogateescape"))

    def err(self, text: str) -> None:
        """Write to standard error."""
        self.write(2, text.encode("utf-8", "surrogateescape"))

    def write(self, stream: int, data: bytes) -> None:
        """Write bytes to standard output (1) or error (2)."""
        while data:
            data = data[os.write(self.stdio[stream], data) :]

    def show(self, value: Any, text: Callable[[], str]) -> None:
        """Print a value as JSON where ``--json`` was said, else as text for people."""
        self.out(json.dumps(value, indent=2, default=str) + "\n" if self.json else text())

    def path(self, word: str) -> Path:
        """A path of the command line."""
        return self.directory / word

    def gone(self) -> bool:
        """Whether the client has hung up."""
        if self.connection is None:
            return False
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def signals(self) -> Iterator[int]:
        """Signals that the client passes on, until it hangs up."""
        while self.connection is not None:
            try:
                data = self.connection.recv(1)
            except OSError:
                return
            if not data:
                return
            yield data[0]


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of ending the process: it may run in the supervisor."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _Ended(status, message or "")

    def print_help(self, file: Any = None) -> None:
        raise _Ended(0, self.format_help())


class _Ended(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def perform(session: Session, words: Sequence[str]) -> int:
    """Do what a command line says; the exit status. Errors are written to the session."""
    failure_status = None
    try:
        arguments = _parser(session.engine).parse_args(list(words))
        session.json = arguments.json
        failure_status = 125 if arguments.verb == "run" else None
        status: int = arguments.act(session, arguments)
        return status
    except _Ended as ended:
        session.out(ended.text)
        return ended.status
    except PycoreError as error:
        report(session, error)
        return failure_status if failure_status and error.exit_status == 1 else error.exit_status
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        report(session, PycoreError(f"{where}{error.strerror or error}"))
        return failure_status or 1
    except Exception as error:  # a defect of ours: the user gets a sentence, whoever mends it the traceback
        traceback.print_exc()
        report(session, PycoreError(f"a defect of pycore: {type(error).__name__}: {error}", hint=_WHERE_TRACES_GO))
        return failure_status or 1


_WHERE_TRACES_GO = "please report it, with RUN_DIR/supervisor.log or what stands above"


def report(session: Session, error: PycoreError) -> None:
    """Write an error for a person, or as JSON."""
    notes = getattr(error, "__notes__", [])
    if session.json:
        session.err(json.dumps({"error": error.to_json() | {"notes": notes}}, default=str) + "\n")
        return
    if isinstance(error, SpecError):
        session.err(render(error.problems) + "\n")
        return
    lines = [f"pycore: {error.message}", *(f"  {note}" for note in notes)]
    if error.hint:
        lines.append(f"  {error.hint}")
    session.err("\n".join(lines) + "\n")


def main_local(words: Sequence[str], run_dir: str, data_dir: str) -> int:
    """Perform a verb in this process."""
    try:
        engine = Engine(run_dir, data_dir)
    except PycoreError as error:
        sys.stderr.write(f"pycore: {error.message}\n")
        return error.exit_status
    session = Session(engine, Path.cwd(), os.environ, (0, 1, 2))
    try:
        return perform(session, words or ["--help"])
    except KeyboardInterrupt:
        return 130
    finally:
        engine.close()


# -- what each verb takes --------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _parser(engine: Engine) -> argparse.ArgumentParser:
    """The parser for the flags of an engine's plugins; made once in the life of a supervisor."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser = _Parser(
        prog="pycore",
        description="A declarative, plugin-based container runtime.",
        epilog="Before the verb: --run-dir DIR (PYCORE_RUN_DIR), --data-dir DIR (PYCORE_DATA_DIR).",
    )
    parser.add_argument("--version", action="version", version=f"pycore {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, act: Callable[[Session, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(act=act)
        return sub

    _file_verbs(verb)
    _container_verbs(verb)
    _host_verbs(verb)
    from pycore import runflags

    run = verb("run", _run, "run one container, with Docker's habits")
    runflags.add_arguments(run, engine.plugins)
    return parser


_Verb = Callable[[str, Callable[[Session, argparse.Namespace], int], str], argparse.ArgumentParser]


def _file_verbs(verb: _Verb) -> None:
    verb("check", _check, "say every problem of a spec").add_argument("file")
    plan = verb("plan", _plan, "say what an apply would do, and why; change nothing")
    plan.add_argument("file")
    plan.add_argument("-v", "--verbose", action="store_true", help="every operation, in words")
    apply = verb("apply", _apply, "bring an app into the state that its spec describes")
    apply.add_argument("file")
    apply.add_argument("--time", action="store_true", help="say what each operation took")
    verb("down", _down, "stop and remove an app").add_argument("app", metavar="FILE|APP")


def _container_verbs(verb: _Verb) -> None:
    ps = verb("ps", _ps, "list the containers that run")
    ps.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    ps.add_argument("-q", "--quiet", action="store_true", help="names only")
    logs = verb("logs", _logs, "print what a container has written")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    inspect = verb("inspect", _inspect, "tell all about a container")
    stop = verb("stop", _stop, "ask a container to end, then kill it")
    stop.add_argument("-t", "--time", metavar="SECONDS", type=float, help="how long it may take")
    start = verb("start", _start, "start a container that has stopped")
    kill = verb("kill", _kill, "send a signal to a container")
    kill.add_argument("-s", "--signal", default="KILL", help="KILL unless said otherwise")
    wait = verb("wait", _wait, "wait until a container has ended, and print its exit status")
    remove = verb("rm", _remove, "remove a container that has stopped")
    for sub in (logs, inspect):
        sub.add_argument("container", metavar="CONTAINER")
    for sub in (stop, start, kill, wait, remove):
        sub.add_argument("containers", metavar="CONTAINER", nargs="+")


def _host_verbs(verb: _Verb) -> None:
    verb("plugins", _plugins, "list the installed plugins")
    verb("schema", _schema, "print the JSON Schema of app.toml, for editors")
    verb("doctor", _doctor, "say what this host lacks, and what mends it")
    verb("supervise", _supervise, "look after containers in the foreground, for systemd")


# -- files -----------------------------------------------------------------------------------------------


def _check(session: Session, arguments: argparse.Namespace) -> int:
    app = session.engine.load(session.path(arguments.file), session.environment)
    names = list(app.containers)
    session.show({"app": app.name, "containers": names}, lambda: f"{app.name}: {_count(names)}, no problems\n")
    return 0


def _plan(session: Session, arguments: argparse.Namespace) -> int:
    plan = session.engine.plan(session.engine.load(session.path(arguments.file), session.environment))
    session.show(_plan_json(plan), lambda: _plan_text(plan, arguments.verbose))
    return 0


def _apply(session: Session, arguments: argparse.Namespace) -> int:
    app = session.engine.load(session.path(arguments.file), session.environment)
    timings: list[Timing] | None = [] if arguments.time else None

    def progress(container: str, word: str) -> None:
        if not session.json:
            session.out(f"{container} {word}\n")

    plan = session.engine.apply(app, progress=progress, timings=timings)
    shown = _plan_json(plan)
    if timings is not None:
        shown["timings"] = [vars(timing) for timing in timings]
    session.show(shown, lambda: _unchanged(plan) + ("" if timings is None else _timings_text(timings)))
    return 0


def _down(session: Session, arguments: argparse.Namespace) -> int:
    word: str = arguments.app
    path = session.path(word)
    name = session.engine.load(path, session.environment).name if path.is_file() or "/" in word else word
    removed = session.engine.down(name)
    session.show({"app": name, "removed": removed}, lambda: "".join(f"{each} removed\n" for each in removed))
    return 0


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "app": plan.app.name,
        "actions": [
            {
                "action": action.kind.value,
                "container": action.container,
                "reasons": [{"what": reason.what, "old": reason.old, "new": reason.new} for reason in action.reasons],
                "undo": [_operation_json(operation) for operation in action.undo],
                "do": [_operation_json(operation) for operation in action.do],
            }
            for action in plan.actions
        ],
        "unchanged": list(plan.unchanged),
    }


def _operation_json(operation: Operation) -> dict[str, Any]:
    words = {"phase": operation.step.phase.value, "step": operation.step.name.lower(), "words": operation.explain()}
    fields = {
        key: f"{len(getattr(operation, key))} bytes" if isinstance(value, dict) else value
        for key, value in to_record(operation).items()
    }
    return words | {"operation": fields}


def _plan_text(plan: Plan, verbose: bool) -> str:
    lines: list[str] = []
    for action in plan.actions:
        lines.append(f"{_SIGNS[action.kind]} {action.kind.value} {action.container}")
        lines += [f"    because {reason.words()}" for reason in action.reasons]
        if verbose:
            lines += _operations_text(action)
    return "".join(f"{line}\n" for line in lines) + _unchanged(plan)


_SIGNS = {
    Kind.CREATE: "+",
    Kind.START: "+",
    Kind.UPDATE: "~",
    Kind.RESTART: "~",
    Kind.RECREATE: "±",
    Kind.REMOVE: "-",
}


def _operations_text(action: Action) -> Iterator[str]:
    for operation in action.undo:
        yield f"    {operation.step.phase.value:8} - undo {operation.explain()}"
    for operation in action.do:
        yield f"    {operation.step.phase.value:8} + {operation.explain()}"


def _unchanged(plan: Plan) -> str:
    if not plan.unchanged:
        return ""
    return f"{_count(plan.unchanged)} unchanged\n" if plan.actions else "nothing to do\n"


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} container{'' if len(names) == 1 else 's'}"


def _timings_text(timings: Sequence[Timing]) -> str:
    return "".join(f"{each.seconds * 1000:9.3f} ms  {each.container}  {each.step:12} {each.what}\n" for each in timings)


# -- containers ------------------------------------------------------------------------------------------


def _ps(session: Session, arguments: argparse.Namespace) -> int:
    records = [each for each in session.engine.containers() if arguments.all or each.status == "running"]
    if arguments.quiet:
        session.show([each.full_name for each in records], lambda: "".join(f"{each.full_name}\n" for each in records))
    else:
        rows = [_row(session.engine, record) for record in records]
        session.show(rows, lambda: _table(rows))
    return 0


def _row(engine: Engine, record: ContainerRecord) -> dict[str, Any]:
    try:
        told = engine.inspect(record)
    except PycoreError as error:
        told = {"problem": error.message}
    process = record.source["container"][record.name]
    return {
        "container": record.full_name,
        "id": record.id,
        "image": process.get("image", ""),
        "command": process.get("command", []),
        "status": record.status,
        "exit_status": exit_code(record.exit_status),
        "pid": record.pid or None,
        "created": record.created,
        "started": record.started or None,
        "finished": record.finished or None,
        **told,
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("CONTAINER", "IMAGE", "STATUS", "ADDRESS", "PORTS", "COMMAND")
    lines = [head] + [
        (
            row["container"],
            row["image"],
            _status(row),
            str(row.get("address") or "-"),
            ", ".join(map(str, row.get("ports") or [])) or "-",
            _short(" ".join(row["command"])),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def _status(row: Mapping[str, Any]) -> str:
    if row["status"] == "running" and row["started"]:
        return f"running {_ago(row['started'])}"
    if row["status"] == "stopped":
        code = row["exit_status"]
        return f"stopped ({'unknown' if code is None else code})" + (
            f" {_ago(row['finished'])} ago" if row["finished"] else ""
        )
    return str(row["status"])


def _ago(then: float) -> str:
    seconds = max(0, int(time.time() - then))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _short(text: str, width: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _logs(session: Session, arguments: argparse.Namespace) -> int:
    record = session.engine.find(arguments.container)
    if not record.log:
        session.err(f"pycore: no log is kept of {record.full_name}: its output went to the terminal that ran it\n")
    for chunk in session.engine.logs(record.full_name, follow=arguments.follow, until=session.gone):
        if session.json:
            stream = "stderr" if chunk.stream == STDERR else "stdout"
            text = chunk.data.decode("utf-8", "replace")
            session.out(json.dumps({"time": chunk.time, "stream": stream, "text": text}) + "\n")
        else:
            session.write(2 if chunk.stream == STDERR else 1, chunk.data)
    return 0


def _inspect(session: Session, arguments: argparse.Namespace) -> int:
    record = session.engine.find(arguments.container)
    row = _row(session.engine, record) | {
        "spec": record.source,
        "operations": [
            _operation_json(operation) for which in ("prepared", "attached") for operation in record.operations(which)
        ],
    }
    session.out(json.dumps(row, indent=2, default=str) + "\n")
    return 0


def _each(session: Session, names: Sequence[str], act: Callable[[str], Any]) -> int:
    """Do something to several containers: all are tried, each failure is reported."""
    status = 0
    done: list[Any] = []
    for name in names:
        try:
            done.append(act(name))
        except PycoreError as error:
            report(session, error)
            status = max(status, error.exit_status)
    if session.json:
        session.out(json.dumps(done) + "\n")
    else:
        session.out("".join(f"{each}\n" for each in done))
    return status


def _stop(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda name: session.engine.stop(name, arguments.time).full_name)


def _start(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda name: session.engine.start(name).full_name)


def _kill(session: Session, arguments: argparse.Namespace) -> int:
    try:
        number = signal_number(arguments.signal)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _each(session, arguments.containers, lambda name: session.engine.kill(name, number).full_name)


def _wait(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda name: _wait_for(session, name))


def _wait_for(session: Session, name: str) -> int | None:
    """Wait without outliving the client."""
    while True:
        try:
            return session.engine.wait(name, 1.0)
        except TimeoutError:
            if session.gone():
                raise BrokenPipeError from None


def _remove(session: Session, arguments: argparse.Namespace) -> int:
    def remove(name: str) -> str:
        session.engine.remove(name)
        return name

    return _each(session, arguments.containers, remove)


def _run(session: Session, arguments: argparse.Namespace) -> int:
    from pycore import runflags

    text = runflags.spec(arguments, session.engine.plugins, session.environment)
    if arguments.print_toml:
        session.out(text)
        return 0
    app = session.engine.load_text(text, file="the spec of this run", directory=session.directory, environment={})
    if arguments.detach:
        record = session.engine.run(app, auto_remove=arguments.rm).record
        session.show({"container": record.full_name, "id": record.id}, lambda: f"{record.full_name}\n")
        return 0
    return _run_attached(session, app, arguments)


def _run_attached(session: Session, app: Any, arguments: argparse.Namespace) -> int:
    """The program gets the client's own descriptors; its exit status becomes ours; signals are passed on."""
    interactive = next(iter(app.containers.values()))[Process].stdin_open
    stdin = session.stdio[0] if interactive else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        live = session.engine.run(app, stdio=Stdio(stdin, session.stdio[1], session.stdio[2]), auto_remove=arguments.rm)
    finally:
        if not interactive:
            os.close(stdin)
    threading.Thread(target=_pass_signals, args=(session, live.record.id), daemon=True).start()
    status = live.wait()
    return 1 if status is None else status


def _pass_signals(session: Session, identity: str) -> None:
    """Pass the client's signals on. The third request to end is an order: PID 1 ignores what it does not handle."""
    requests = 0
    for number in session.signals():
        requests += number in (signal.SIGINT, signal.SIGTERM)
        try:
            session.engine.kill(identity, signal.SIGKILL if requests >= 3 else number)
        except PycoreError:
            return


# -- the host --------------------------------------------------------------------------------------------


def _plugins(session: Session, arguments: argparse.Namespace) -> int:
    plugins = session.engine.plugins
    rows = plugins.listing()

    def text() -> str:
        lines = [f"{row['plugin']:24} {row['what']:28} {row['distribution']}" for row in rows]
        lines += [f"{name:24} cannot be loaded: {why}" for name, why in sorted(plugins.broken.items())]
        return "".join(f"{line.rstrip()}\n" for line in lines)

    session.show({"plugins": rows, "broken": plugins.broken}, text)
    return 0


def _schema(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.schema import json_schema

    session.out(json.dumps(json_schema(session.engine.plugins), indent=2) + "\n")
    return 0


def _doctor(session: Session, arguments: argparse.Namespace) -> int:
    found = session.engine.plugins.requirements(session.engine.kernel)
    rows = [
        {"plugin": plugin, "what": need.what, "met": need.met, "why": need.why, "mend": need.mend}
        for plugin, needs in found.items()
        for need in needs
    ]
    missing = [row for row in rows if not row["met"]]

    def text() -> str:
        lines: list[str] = []
        for row in rows:
            lines.append(f"{'ok     ' if row['met'] else 'MISSING'} {row['what']} ({row['plugin']})")
            if not row["met"]:
                lines += [f"        {row[key]}" for key in ("why", "mend") if row[key]]
        lines.append(f"{len(missing)} missing" if missing else "nothing is missing")
        return "".join(f"{line}\n" for line in lines)

    session.show(rows, text)
    return 1 if missing else 0


def _supervise(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.client import SOCKET_FILE
    from pycore.launch.address import listen
    from pycore.supervisor import serve

    session.engine.run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    serve(listen(session.engine.run_dir, SOCKET_FILE), session.engine.run_dir, session.engine.data_dir, None)
    return 0
