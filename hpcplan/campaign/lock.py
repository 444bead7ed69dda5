"""One writer a campaign: a lock that its holder's death releases.

The lock is the kernel's (``flock``), not the file: it goes when the process that holds it ends, however it ends, so
there is no stale lock to remove. The file only says who holds it. On NFS, Linux turns ``flock`` into a byte-range lock
at the server (flock(2), since 2.6.12), so processes of different hosts exclude each other; on Lustre this needs the
``flock`` mount option (``localflock`` excludes processes of one host only). Where there are no locks, nothing is done.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcplan.errors import ConflictError, HpcplanError

__all__ = ["LOCK_NAME", "campaign_lock"]

LOCK_NAME: Final = "campaign.lock"
_POLL_S: Final = 0.1
_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@contextmanager
def campaign_lock(
    directory: Path, *, wait_s: float = 10.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the campaign's lock, waiting up to ``wait_s`` seconds for it.

    Raises:
        ConflictError: somebody else holds it; the message says who.
        HpcplanError: the directory cannot be written, or its file system has no locks.
    """
    path = directory / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise HpcplanError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        _acquire(descriptor, path, wait_s, sleep)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _acquire(descriptor: int, path: Path, wait_s: float, sleep: Callable[[float], None]) -> None:
    waited_s = 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if waited_s >= wait_s:
                message = f"{path.parent}: another hpcplan is working on this campaign{_holder(path)}"
                raise ConflictError(message, hint="try again when it has finished") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise HpcplanError(f"{path}: cannot be locked: {error.strerror}") from None
            hint = "keep campaigns on a file system with locks; Lustre has them with the flock mount option"
            raise HpcplanError(f"{path}: its file system has no locks", hint=hint) from None
        sleep(_POLL_S)
        waited_s += _POLL_S


def _sign(descriptor: int) -> None:
    """Say who holds the lock, for the message that others get; the lock holds without it."""
    text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": int(time.time())})
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode() + b"\n", 0)
    except OSError:
        return


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        return f": process {holder['pid']} on {holder['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
