"""Log in to a registry and out of it again: the login is tried, and then kept where Docker keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from pycore.errors import UsageError

from pycore_images.registry import errors
from pycore_images.registry.credentials import Credential, Credentials
from pycore_images.registry.hosts import Hosts
from pycore_images.registry.patience import USUAL, Cancel, Patience
from pycore_images.registry.session import Request, Session
from pycore_images.registry.transport import Transport


def login(
    registry: str,
    username: str,
    password: str,
    hosts: Hosts,
    environment: Mapping[str, str],
    *,
    patience: Patience = USUAL,
    cancel: Cancel | None = None,
) -> str:
    """Where the login is kept now, for people. Raises Denied if the registry does not accept it."""
    if not username or not password or ":" in username:
        raise UsageError("a login is a user's name, without a colon in it, and a password or token")
    credential = Credential(username, password)
    endpoint = hosts.itself(registry)
    transport = Transport(environment, endpoint.ca)
    session = Session(endpoint, transport, lambda: credential, patience=patience, cancel=cancel, offline=True)
    try:
        answer = session.ask(
            Request("GET", "/v2/", "a login"), (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        )
    finally:
        transport.close()
    if answer.status != HTTPStatus.OK:
        raise errors.wrong_login(registry)
    if not session.authorization.known:
        raise errors.RegistryError(f"{registry} asks nobody who they are: there is nothing to log in to")
    if token := session.authorization.refresh_token:
        credential = Credential(username, identity_token=token)
    return Credentials(environment).store(registry, credential)


def logout(registry: str, environment: Mapping[str, str]) -> bool:
    """Forget the login; whether there was one."""
    return Credentials(environment).erase(registry)
