"""Telling somebody: a command of the user's, or a URL that a JSON document is posted to.

What is told was written into the journal before, so that nobody is told twice, also not after a crash. What cannot be
delivered is written down and not tried again.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hpcplan.campaign.policy import Notify

__all__ = ["deliver"]

_LIMIT_S: Final = 30.0


def deliver(policy: Notify, message: Mapping[str, Any], directory: Path) -> list[str]:
    """Tell whom the policy names, and return in words what did not work.

    The command runs in the campaign's directory, without a shell, with ``HPCPLAN_EVENT``, ``HPCPLAN_CAMPAIGN`` and
    ``HPCPLAN_TEXT`` set and the JSON document on its standard input.
    """
    text = json.dumps(message, ensure_ascii=False)
    problems = []
    if policy.command:
        problems.append(_run(policy.command, text, message, directory))
    if policy.webhook:
        problems.append(_post(policy.webhook, text))
    return [problem for problem in problems if problem is not None]


def _run(command: tuple[str, ...], text: str, message: Mapping[str, Any], directory: Path) -> str | None:
    told = {f"HPCPLAN_{name.upper()}": str(message[name]) for name in ("event", "campaign", "text")}
    try:
        subprocess.run(
            command, input=text, text=True, cwd=directory, env={**os.environ, **told}, capture_output=True,
            timeout=_LIMIT_S, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{command[0]}: took longer than {_LIMIT_S:.0f} s"
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:]
        return f"{command[0]}: exit code {error.returncode}{': ' + last[0] if last else ''}"
    except OSError as error:
        return f"{command[0]}: {error.strerror or error}"
    return None


def _post(url: str, text: str) -> str | None:
    request = urllib.request.Request(
        url, data=text.encode(), method="POST", headers={"Content-Type": "application/json", "User-Agent": "hpcplan"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_LIMIT_S):
            return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"webhook: {getattr(error, 'reason', None) or error}"  # not the URL, which may hold a secret
