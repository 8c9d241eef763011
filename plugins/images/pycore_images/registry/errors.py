"""What goes wrong between a registry and us, in words. Nothing secret gets into them: of an address, only its host."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, cast

from pycore.errors import PycoreError

if TYPE_CHECKING:
    import urllib3

Kind = Literal["name", "refused", "silent", "slow", "cut", "tls", "certificate", "other"]

_LONGEST = 300
"""Characters that are shown of what a registry says."""


class RegistryError(PycoreError):
    """A registry, or the way to it, does not do what is asked."""


class Denied(RegistryError):
    """Not without a login, or not with this one."""


class Cancelled(RegistryError):
    """Somebody has asked to break off."""


class Unreachable(RegistryError):
    """No answer, or only a part of one."""

    def __init__(self, kind: Kind, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind

    def passes(self, met: bool) -> bool:
        """Whether it may be better in a moment. Who was never met (``met``) is more likely misspelt than away."""
        return self.kind in ("slow", "cut") or (met and self.kind in ("name", "refused", "silent"))


class Busy(RegistryError):
    """It cannot now, and says so: too many requests, or something failed there."""

    def __init__(self, message: str, *, hint: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait
        """Seconds after which it asks to be asked again."""


def unreachable(server: str, error: Exception) -> Unreachable:
    """An error of urllib3, or of what is below it, for people."""
    from urllib3 import exceptions as of

    kind, words, hint = _about(error)
    if isinstance(error, of.ProxyError):
        inner = error.original_error
        return Unreachable("other", f"{server} cannot be reached through the proxy: {_about(inner)[1]}")
    return Unreachable(kind, f"{server}: {words}", hint=hint)


def _about(error: Exception) -> tuple[Kind, str, str | None]:
    from urllib3 import exceptions as of

    if isinstance(error, of.NameResolutionError):
        return "name", "there is no host of this name, or nobody to ask for it", None
    if isinstance(error, of.NewConnectionError):
        return "refused", f"it cannot be connected to: {_reason(error)}", None
    if isinstance(error, of.ConnectTimeoutError):
        return "silent", "it does not answer", None
    if isinstance(error, of.ReadTimeoutError):
        return "slow", "nothing came from it for too long", None
    if isinstance(error, of.SSLError):
        return _about_tls(error)
    if isinstance(error, of.ProtocolError | ConnectionError):
        return "cut", "the connection broke off", None
    return "other", f"it does not speak HTTP as it should ({type(error).__name__})", None


def _about_tls(error: Exception) -> tuple[Kind, str, str | None]:
    import ssl

    inner = error.args[0] if error.args else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        words = f"its certificate is not trusted: {inner.verify_message or 'it cannot be verified'}"
        return "certificate", words, 'name its authority as ca = "FILE" in registries.toml'
    hint = "if it speaks plain HTTP, say insecure = true for it in registries.toml"
    return "tls", "it does not speak TLS as it should", hint


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"


def refusal(server: str, what: str, response: urllib3.BaseHTTPResponse, body: bytes) -> RegistryError:
    """The error for an answer that is none of those that were hoped for, but for 401, 403 and 404.

    ``what`` is what it was asked for: ``the manifest of nginx:1``.
    """
    status = f"{response.status} {_phrase(response.status)}".strip()
    said = detail(response, body)
    said = f"{status}: {said}" if said else status
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        hint = "try again later; many registries allow more to somebody who has logged in"
        return Busy(f"{server} has had too many requests from here ({said})", hint=hint, wait=retry_after(response))
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status == HTTPStatus.REQUEST_TIMEOUT:
        return Busy(f"{server} cannot answer for {what} ({said})", wait=retry_after(response))
    return RegistryError(f"{server} refuses {what} ({said})")


def denied(server: str, what: str, registry: str, known: bool, said: str = "") -> Denied:
    """For 401 and 403. Many registries also say so of what is not there."""
    said = f" ({said})" if said else ""
    if known:
        return Denied(f"{server} denies {what}, or has no such thing for who is logged in{said}")
    hint = f"check the name, or log in: pycore login {registry}"
    return Denied(f"{server} denies {what} to who is not logged in, or has no such thing{said}", hint=hint)


def wrong_login(registry: str, said: str = "") -> Denied:
    """For a name and a password, or a token, that are not accepted."""
    said = f" ({said})" if said else ""
    return Denied(f"{registry} does not accept the login{said}", hint=f"log in anew: pycore login {registry}")


def web_page(server: str) -> RegistryError:
    """For HTML where there should be something for programs."""
    return RegistryError(f"{server} answers with a web page: it is no registry, or something stands before it")


def detail(response: urllib3.BaseHTTPResponse, body: bytes) -> str:
    """What a registry says of an error (distribution-spec, Error codes), fit to be shown; empty if nothing."""
    if is_page(response):
        return "a web page"
    try:
        values: Any = json.loads(body)
        first: Any = cast("dict[str, Any]", values)["errors"][0]
        words = str(first.get("message") or first.get("code") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    return shown(words)


def is_page(response: urllib3.BaseHTTPResponse) -> bool:
    """Whether an answer is meant for a browser."""
    return media_type(response) == "text/html"


def media_type(response: urllib3.BaseHTTPResponse) -> str:
    """The type of an answer's content, without parameters."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def shown(text: str) -> str:
    """Foreign words on one line, without control characters, and not too many."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text[: 4 * _LONGEST]).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that it asks to wait (RFC 9110, 10.2.3): as a number, or until a time."""
    import time
    from email.utils import parsedate_to_datetime

    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
