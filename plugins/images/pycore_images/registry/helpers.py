"""Programs that keep credentials for others: ``docker-credential-NAME`` (github.com/docker/docker-credential-helpers).

A helper gets a verb as its argument and the rest on its standard input, and answers on its standard output.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from pycore.errors import PycoreError

PATIENCE = 60.0
"""Seconds that a helper may take: it may ask a person to unlock something."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_ANSWER = 1 << 20


def get(helper: str, server: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The user's name (``<token>`` for an identity token) and the secret that it keeps for a server; None if none."""
    status, answer = _call(helper, "get", server, environment)
    if status != 0:
        if b"credentials not found" in answer:
            return None
        raise PycoreError(f"docker-credential-{helper} has no credential to give for {server}: it ended with {status}")
    try:
        values: Any = json.loads(answer)
        found = cast("dict[str, Any]", values)["Username"], cast("dict[str, Any]", values)["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise PycoreError(f"docker-credential-{helper} gave an answer that is no credential") from error
    if not all(isinstance(part, str) for part in found):
        raise PycoreError(f"docker-credential-{helper} gave an answer that is no credential")
    return found if all(found) else None


def store(helper: str, server: str, username: str, secret: str, environment: Mapping[str, str]) -> None:
    """Give it a credential to keep."""
    words = json.dumps({"ServerURL": server, "Username": username, "Secret": secret})
    _expect_success(helper, "store", words, environment)


def erase(helper: str, server: str, environment: Mapping[str, str]) -> None:
    """Have it forget a credential."""
    _expect_success(helper, "erase", server, environment)


def _expect_success(helper: str, verb: str, words: str, environment: Mapping[str, str]) -> None:
    status, _ = _call(helper, verb, words, environment)
    if status != 0:
        raise PycoreError(f"docker-credential-{helper} could not {verb} the credential: it ended with {status}")


def _call(helper: str, verb: str, words: str, environment: Mapping[str, str]) -> tuple[int, bytes]:
    """What it prints is not shown to anybody: it may be a secret."""
    program = f"docker-credential-{helper}"
    found = shutil.which(program, path=environment.get("PATH", "")) if _NAME.fullmatch(helper) else None
    if found is None:
        raise PycoreError(
            f"{program} is not there, and Docker's config.json says that it keeps the credentials",
            hint="install it, or take credsStore or credHelpers out of that file",
        )
    # Not a pipe: what a helper leaves running would keep it open, and us waiting.
    with open(os.memfd_create("answer"), "r+b") as answer:
        status = _run([found, verb], words, answer, environment)
        answer.seek(0)
        return status, answer.read(_MAX_ANSWER)


def _run(command: list[str], words: str, answer: BinaryIO, environment: Mapping[str, str]) -> int:
    program = command[0].rpartition("/")[2]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            process_group=0,
        )
    except OSError as error:
        raise PycoreError(f"{program} cannot be run: {error.strerror}") from error
    with process:
        try:
            process.communicate(words.encode(), PATIENCE)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise PycoreError(f"{program} has not answered in {PATIENCE:.0f} seconds") from error
    return process.returncode
