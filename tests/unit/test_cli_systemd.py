"""The unit under which systemd keeps the supervisor."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pycore.cli import Session, perform, systemd
from pycore.cli.systemd import program, quoted, unit
from pycore.engine import Engine


def service(text: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(text)
    return dict(parser["Service"])


def test_the_unit_says_what_containers_need_to_live_on() -> None:
    found = service(unit("/usr/bin/pycore", "/run/pycore", "/var/lib/pycore"))
    assert found["ExecStart"] == "/usr/bin/pycore supervise"
    wanted = {
        "Type": "notify", "KillMode": "process", "Delegate": "yes", "Restart": "always", "OOMScoreAdjust": "-500",
        "TasksMax": "infinity",
    }  # fmt: skip
    assert wanted.items() <= found.items()


def test_other_directories_are_named() -> None:
    found = service(unit("/usr/bin/pycore", "/run/my pycore", "/data"))
    assert found["ExecStart"] == '/usr/bin/pycore --run-dir "/run/my pycore" --data-dir /data supervise'


@pytest.mark.parametrize(
    ("word", "text"),
    [("/a/b-c.d", "/a/b-c.d"), ("a b", '"a b"'), ("50%", '"50%%"'), ("$HOME", '"$$HOME"'), ('a"b\\', '"a\\"b\\\\"')],
)
def test_nothing_in_a_path_is_taken_for_something_else(word: str, text: str) -> None:
    assert quoted(word) == text


def test_the_command_knows_where_it_is() -> None:
    assert Path(program()).name == "pycore"
    assert Path(program()).is_absolute()


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "pycore.service"
    file.write_text(unit("/bin/true", "/run/my pycore %i $X", "/data"), encoding="utf-8")
    analyze = shutil.which("systemd-analyze")
    assert analyze
    run = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if "pycore" in line] == []


def test_it_is_installed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "UNITS", tmp_path)
    engine = Engine(tmp_path / "run", tmp_path / "data")
    out, into = os.pipe()
    session = Session(engine, tmp_path, {}, (into, into, into))
    assert perform(session, ["systemd", "--install"]) == 0
    assert service((tmp_path / "pycore.service").read_text())["Type"] == "notify"
    assert "systemctl daemon-reload && systemctl enable --now pycore" in os.read(out, 4096).decode()
    assert [path.name for path in tmp_path.iterdir()] == ["pycore.service"]
    for fd in (out, into):
        os.close(fd)
