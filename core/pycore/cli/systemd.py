"""The verb systemd: the unit under which systemd keeps the supervisor, and so brings applied apps back after a boot."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from pycore import places
from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.errors import PycoreError

UNITS = Path("/etc/systemd/system")


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    systemd = verb("systemd", _systemd, "print the unit under which systemd keeps the supervisor")
    systemd.add_argument("--output", metavar="FILE", help="write it there")
    systemd.add_argument("--install", action="store_true", help=f"write it to {UNITS}/pycore.service")


def _systemd(session: Session, arguments: argparse.Namespace) -> int:
    text = unit(program(), str(session.engine.run_dir), str(session.engine.data_dir))
    if not arguments.install and not arguments.output:
        session.show({"unit": text}, lambda: text)
        return 0
    path = UNITS / "pycore.service" if arguments.install else session.path(arguments.output)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(path)
    except OSError as error:
        raise PycoreError(f"cannot write {path}: {error.strerror}") from error
    then = "systemctl daemon-reload && systemctl enable --now pycore" if arguments.install else ""
    session.show({"file": str(path), "then": then}, lambda: f"{path}\n" + (f"now: {then}\n" if then else ""))
    return 0


def program() -> str:
    """The absolute path of this command. Raises PycoreError where it cannot be told."""
    for candidate in (Path(sys.argv[0]), Path(sys.executable).with_name("pycore")):
        if candidate.name == "pycore" and candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate.absolute())
    raise PycoreError("cannot tell where the pycore command is", hint="call it by its absolute path")


def unit(command: str, run_dir: str, data_dir: str) -> str:
    """The unit file. Only the supervisor is killed with it: containers run on, and the next one takes over."""
    words = [command]
    if run_dir != places.RUN_DIR:
        words += ["--run-dir", run_dir]
    if data_dir != places.DATA_DIR:
        words += ["--data-dir", data_dir]
    return _UNIT.format(command=" ".join(map(quoted, [*words, "supervise"])))


def quoted(word: str) -> str:
    """A word for a command line of systemd.service(5): nothing in it is taken for a specifier or a variable."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if text != word or shlex.quote(word) != word else word


_UNIT = """\
[Unit]
Description=pycore: looks after containers, and brings applied apps back after a boot
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target local-fs.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Containers outlive their supervisor: only it is ended with the unit, and what comes after it takes over.
KillMode=process
KillSignal=SIGTERM
Restart=always
RestartSec=1
TimeoutStartSec=5min
# Cgroups below this unit are pycore's own.
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""
