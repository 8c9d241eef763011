"""The verbs login and logout: who somebody is to a registry, kept where Docker keeps it."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import termios
from collections.abc import Generator

from pycore.cli.parser import Verb
from pycore.cli.session import Interrupted, Session
from pycore.engine import Engine
from pycore.errors import UsageError

from pycore_images import reference
from pycore_images.commands.breaking import breakable

_MOST = 64 << 10
"""Bytes of a password or token."""


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    login = verb("login", _login, "log in to a registry")
    login.add_argument("-u", "--username", metavar="NAME", help="asked for in the terminal otherwise")
    secret = login.add_mutually_exclusive_group()
    secret.add_argument("-p", "--password", metavar="PASSWORD", help="which others may see in the list of processes")
    secret.add_argument("--password-stdin", action="store_true", help="take the password from standard input")
    logout = verb("logout", _logout, "log out of a registry")
    for each in (login, logout):
        each.add_argument("registry", metavar="REGISTRY", nargs="?", default="", help="docker.io unless said otherwise")


def _login(session: Session, arguments: argparse.Namespace) -> int:
    from pycore_images.registry.hosts import read_hosts
    from pycore_images.registry.login import login

    registry = reference.registry_name(arguments.registry)
    username, password = _who(session, arguments)
    with breakable(session) as cancel:
        hosts = read_hosts(session.engine.data_dir)
        place = login(registry, username, password, hosts, session.environment, cancel=cancel)
    session.show({"registry": registry, "kept": place}, lambda: f"login succeeded, kept in {place}\n")
    return 0


def _logout(session: Session, arguments: argparse.Namespace) -> int:
    from pycore_images.registry.login import logout

    registry = reference.registry_name(arguments.registry)
    was_in = logout(registry, session.environment)
    words = "login removed for" if was_in else "not logged in to"
    session.show({"registry": registry, "removed": was_in}, lambda: f"{words} {registry}\n")
    return 0


def _who(session: Session, arguments: argparse.Namespace) -> tuple[str, str]:
    """Name and password, as the flags say them or a person types them."""
    username, password = arguments.username, arguments.password
    if arguments.password_stdin:
        if not username:
            raise UsageError("--password-stdin needs --username")
        return username, _read(session, lines=False)
    if not (username and password) and not os.isatty(session.stdio[0]):
        raise UsageError("there is no terminal to ask for name and password in", hint="--username, --password-stdin")
    if not username:
        session.err("Username: ")
        username = _read(session).strip()
    if password is None:
        with _without_echo(session.stdio[0]):
            session.err("Password: ")
            password = _read(session)
        session.err("\n")
    return username, password


def _read(session: Session, lines: bool = True) -> str:
    """A line, or all there is, without the newline at its end. Raises Interrupted when whoever types is gone."""
    waiting = select.poll()
    for fd in (session.stdio[0], *session.hangups()):
        waiting.register(fd, select.POLLIN)
    data = b""
    while not (lines and b"\n" in data):
        ready = {fd for fd, _ in waiting.poll()}
        if session.stdio[0] not in ready:
            if session.gone():
                raise Interrupted
            continue
        piece = os.read(session.stdio[0], 4096)
        if not piece:
            break
        data += piece
        if len(data) > _MOST:
            raise UsageError(f"a password has {_MOST} bytes at most")
    text = data.partition(b"\n")[0] if lines else data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise UsageError("a name and a password are UTF-8") from None


@contextlib.contextmanager
def _without_echo(fd: int) -> Generator[None, None, None]:
    """What is typed is not shown, but for its newline. What was typed before the question, is not the answer."""
    before = termios.tcgetattr(fd)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(fd, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it has hung up
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
