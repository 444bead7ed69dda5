"""HTTP to slurmrestd: over TLS with a token, or over its unix socket. Standard library only (decision 008).

A token is a password. It comes from ``SLURM_JWT`` or from a file that only its owner can read, goes into one header,
and appears in no message, log or ``repr``. It is not sent over plain HTTP to another machine. Certificates are checked
against the system's authorities (or ``SSL_CERT_FILE``), and there is no way to turn that off.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import socket
import ssl
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from hpcplan.errors import InputError, SlurmError, SlurmUnreachableError

__all__ = ["ADDRESS_VARIABLE", "TOKEN_FILE_VARIABLE", "RestClient", "Token", "find_token"]

ADDRESS_VARIABLE: Final = "HPCPLAN_SLURMRESTD"
TOKEN_FILE_VARIABLE: Final = "HPCPLAN_SLURM_JWT_FILE"
_TOKEN_VARIABLE: Final = "SLURM_JWT"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_ANSWER_BYTES: Final = 1 << 30
_NEW_TOKEN: Final = "get a new one on a login node: scontrol token lifespan=…"


@dataclass(frozen=True, slots=True)
class Token:
    """A JSON Web Token; its text stays out of ``repr``."""

    text: str = field(repr=False)
    source: str

    def claim(self, name: str) -> Any:
        """Return what the token says of itself, unchecked: ``sun`` is the user's name, ``exp`` when it expires."""
        try:
            middle = self.text.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        except (IndexError, ValueError, binascii.Error):
            return None
        return claims.get(name) if isinstance(claims, dict) else None

    def expired_at(self) -> float | None:
        """Return when it expired, ``None`` if it has not or does not say."""
        expires = self.claim("exp")
        return expires if isinstance(expires, int | float) and expires <= time.time() else None


def find_token(environ: Mapping[str, str]) -> Token | None:
    """Return the token of ``SLURM_JWT``, else of the file that ``HPCPLAN_SLURM_JWT_FILE`` names, else ``None``.

    Raises:
        InputError: the file cannot be read, is empty, belongs to somebody else, or others may read it.
    """
    text = environ.get(_TOKEN_VARIABLE, "").strip()
    if text:
        return Token(text, _TOKEN_VARIABLE)
    name = environ.get(TOKEN_FILE_VARIABLE)
    return _token_of(Path(name).expanduser()) if name else None


def _token_of(path: Path) -> Token:
    try:
        with path.open("rb") as stream:
            facts = os.fstat(stream.fileno())
            data = stream.read(64 * 1024)
    except OSError as error:
        raise InputError(f"{path}: the token cannot be read: {error.strerror or error}") from None
    if facts.st_uid not in (os.geteuid(), 0):
        raise InputError(f"{path}: the token's file belongs to somebody else")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(facts.st_mode):03o}"
        raise InputError(f"{path}: others may read this token (mode {mode})", hint=f"chmod 600 {path}")
    text = data.decode("ascii", "replace").strip().removeprefix(f"{_TOKEN_VARIABLE}=")
    if not text or any(character.isspace() for character in text):
        raise InputError(f"{path}: holds no token")
    return Token(text, str(path))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RestClient:
    """One slurmrestd. Every question has a time limit, and no connection outlives its answer."""

    def __init__(self, address: str, token: Token | None, *, context: ssl.SSLContext | None = None) -> None:
        """Take an address: ``https://host:port``, or ``unix:/path`` to a socket on this machine.

        Raises:
            InputError: neither, or a token would travel in the clear.
        """
        self.address = address
        self.token = token
        self._context = context
        self._parts = urlsplit(address)
        scheme, host = self._parts.scheme, self._parts.hostname
        if scheme not in ("http", "https", "unix") or (scheme != "unix" and not host):
            message = f"{ADDRESS_VARIABLE}: {address!r} is no address; https://host:port or unix:/path would be"
            raise InputError(message)
        if self._parts.username or self._parts.password:
            raise InputError(f"{ADDRESS_VARIABLE}: the address holds a password; a token comes from {_TOKEN_VARIABLE}")
        if scheme == "http" and host not in _LOOPBACK:
            raise InputError(
                f"{ADDRESS_VARIABLE}: {address} would carry the token in the clear",
                hint="use https://, or an ssh tunnel to http://localhost:PORT",
            )

    @property
    def user(self) -> str | None:
        """Whose jobs are asked for: the token's user; on a socket, the one whose slurmrestd it is."""
        if self.token is not None:
            claimed = self.token.claim("sun")
            return claimed if isinstance(claimed, str) else None
        try:
            return Path(self._parts.path).owner()
        except (OSError, KeyError):
            return None

    def ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None, limit_s: float
    ) -> tuple[int, Any]:
        """Return the status and the JSON of an answer; ``None`` in its place where it is no JSON.

        Raises:
            SlurmUnreachableError: nobody answers, its certificate is not good, or the token is not accepted. A
                submission may have been taken all the same where an answer was cut short.
        """
        target = path if not query else f"{path}?{urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        connection = self._connection(limit_s)
        try:
            connection.request(method, self._prefix + target, data, self._headers(data))
            response = connection.getresponse()
            text = response.read(_MAX_ANSWER_BYTES)
        except ssl.SSLCertVerificationError as error:
            raise self._error(f"its certificate is not good: {error.verify_message}") from None
        except TimeoutError:
            raise self._error(f"no answer within {limit_s:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._error(getattr(error, "strerror", None) or str(error) or type(error).__name__) from None
        finally:
            connection.close()
        if response.status in (401, 403):
            raise self._refused(text)
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, None

    @property
    def _prefix(self) -> str:
        return "" if self._parts.scheme == "unix" else self._parts.path.rstrip("/")

    def _connection(self, limit_s: float) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, limit_s)
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=limit_s)
        context = self._context or ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=limit_s, context=context)

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "hpcplan"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self.token is not None:
            headers["X-SLURM-USER-TOKEN"] = self.token.text
            if self.user is not None:
                headers["X-SLURM-USER-NAME"] = self.user
        return headers

    def _refused(self, text: bytes) -> SlurmError:
        words = text[:200].decode("utf-8", "replace").strip().splitlines()
        said = f" ({words[0]})" if words and not words[0].startswith(("{", "<")) else ""
        if self.token is None:
            hint = f"set {_TOKEN_VARIABLE} (scontrol token), or {TOKEN_FILE_VARIABLE} to a file of mode 600"
            return self._error(f"it wants a token{said}", hint=hint)
        return self._error(f"the token of {self.token.source} is not accepted{said}", hint=_NEW_TOKEN)

    def _error(self, why: str, *, hint: str | None = None) -> SlurmUnreachableError:
        return SlurmUnreachableError(f"slurmrestd at {self.address}: {self.explained(why)}", hint=hint)

    def explained(self, why: str) -> str:
        """Return ``why``, and that the token has expired where it has."""
        expired = self.token.expired_at() if self.token is not None else None
        if expired is None:
            return why
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(expired))
        return f"{why}; the token of {self.token.source if self.token else ''} expired at {when}"
