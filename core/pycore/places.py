"""Where pycore keeps things unless told otherwise: root's places, and a normal user's."""

from __future__ import annotations

import os

RUN_DIR = "/run/pycore"
DATA_DIR = "/var/lib/pycore"


def run_dir() -> str:
    """For what lasts until the host starts anew (XDG Base Directory Specification)."""
    user = os.geteuid()
    if not user:
        return RUN_DIR
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/pycore" if runtime else f"/tmp/pycore-{user}"


def data_dir() -> str:
    """For what stays, by the same."""
    if not os.geteuid():
        return DATA_DIR
    return f"{os.environ.get('XDG_DATA_HOME') or os.path.expanduser('~/.local/share')}/pycore"
