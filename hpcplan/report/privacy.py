"""Names taken out of a job table: pseudonyms that stay the same from night to night, and only this site can make."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

import polars as pl

from hpcplan.documents import write_text
from hpcplan.errors import InputError, Problem

__all__ = ["anonymized", "secret_in"]

_KINDS: Final = {"user": "user", "account": "account", "name": "job"}
_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
"""Pseudonyms have no digits: advice takes names that differ in digits alone for runs of the same thing."""


def secret_in(folder: Path) -> bytes:
    """Return the secret that pseudonyms are made with, made at first use and readable by its owner alone.

    Raises:
        InputError: the folder cannot be read or written.
    """
    path = folder / "pseudonyms.key"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, secrets.token_hex(32) + "\n")
            path.chmod(0o600)
        return bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise InputError(Problem(f"is no key of 64 hexadecimal digits: {error}", file=str(path))) from None


def anonymized(table: pl.DataFrame, secret: bytes) -> pl.DataFrame:
    """Return the table with users, accounts and job names replaced (HMAC-SHA256), and comments left out.

    Job ids, nodes, partitions and QOS stay: they are the cluster's own.
    """
    changed = []
    for column, kind in _KINDS.items():
        distinct = [name for name in table[column].unique().to_list() if name]
        made = [
            f"{kind}-{hmac.new(secret, f'{kind}:{name}'.encode(), hashlib.sha256).hexdigest()[:8].translate(_LETTERS)}"
            for name in distinct
        ]
        old = pl.Series(distinct, dtype=pl.String)
        new = pl.Series(made, dtype=pl.String)
        changed.append(table[column].replace_strict(old, new, default=table[column]).alias(column))
    return table.with_columns(*changed, pl.lit(None, dtype=pl.String).alias("comment"))
