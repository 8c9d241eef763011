"""A command line, done: in the supervisor for a client, or in the client's own process."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pycore.cli import attach, containers, cp, df, events, execute, files, host, logs, looking, run, stats, systemd
from pycore.cli.parser import Ended, Family, make_parser
from pycore.cli.session import Interrupted, Session, report
from pycore.client import STARTING, verb_of
from pycore.engine import Engine
from pycore.errors import PycoreError

FAMILIES: tuple[Family, ...] = (
    files.verbs, run.verbs, execute.verbs, attach.verbs, cp.verbs, looking.verbs, logs.verbs, stats.verbs, events.verbs,
    containers.verbs, df.verbs, host.verbs, systemd.verbs,
)  # fmt: skip
"""In the order in which ``pycore --help`` lists their verbs; those of plugins follow."""


def perform(session: Session, words: Sequence[str]) -> int:
    """Do what a command line says; the exit status. Errors are written to the session."""
    try:
        arguments = _parser(session.engine).parse_args(list(words))
        session.json = arguments.json
        status: int = arguments.act(session, arguments)
        return status
    except Ended as ended:
        session.out(ended.text)
        return ended.status
    except PycoreError as error:
        return _failed(session, words, error)
    except Interrupted:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(session, words, PycoreError(f"{where}{error.strerror or error}"))
    except Exception as error:  # a defect of ours: the user gets a sentence, whoever mends it the traceback
        traceback.print_exc()
        defect = f"a defect of pycore: {type(error).__name__}: {error}"
        return _failed(session, words, PycoreError(defect, hint=_WHERE_TRACES_GO))


def _failed(session: Session, words: Sequence[str], error: PycoreError) -> int:
    """Say it; the exit status: one that no program has, where one was to be started (125 to 127, as in Docker)."""
    report(session, error)
    return max(error.exit_status, 125) if verb_of(words) in STARTING else error.exit_status


_WHERE_TRACES_GO = "please report it, with RUN_DIR/supervisor.log or what stands above"


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


@functools.lru_cache(maxsize=1)
def _parser(engine: Engine) -> argparse.ArgumentParser:
    """The parser for the flags of an engine's plugins; made once in the life of a supervisor."""
    return make_parser(engine, (*FAMILIES, *engine.plugins.commands()))
