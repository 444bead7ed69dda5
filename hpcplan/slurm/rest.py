"""The backend that talks to slurmrestd, for machines from which one cannot log in: API 0.0.38 to 0.0.44.

``HPCPLAN_SLURMRESTD`` says where it is. What slurmrestd cannot do is said, not faked: it has no way to requeue a job
and none to ask when a script would start.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm import rest_records as convert
from hpcplan.slurm import rest_values as read
from hpcplan.slurm import sacct
from hpcplan.slurm.merge import left_to_ask, merge
from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)
from hpcplan.slurm.rest_client import ADDRESS_VARIABLE, RestClient, find_token
from hpcplan.slurm.rest_submission import request_body

__all__ = ["API_VERSIONS", "RestBackend", "connect"]

_log = logging.getLogger(__name__)

API_VERSIONS: Final = tuple(f"v0.0.{number}" for number in range(44, 37, -1))
"""What is tried, the newest first; a slurmrestd serves those of its own release and of the two or so before."""

QUERY_S: Final = 60.0
HISTORY_S: Final = 30.0
ACCOUNTING_S: Final = 600.0
DAY_S: Final = 86400
_RECENT_S: Final = 3600  # so short a time after the end of a question is not asked to be left out
_MAX_QUERY_BYTES: Final = 6000  # slurmrestd takes a line of 8 KiB
_ALREADY_OVER: Final = ("already completing or completed", "already finished", "invalid job id")
_UNREACHABLE: Final = (
    "unable to contact slurm controller", "communication connection failure", "unable to connect to database",
    "socket timed out", "connection refused", "zero bytes were transmitted", "slurmctld config is unable to load",
    "failed while looking for", "unspecified error", "failed to open slurmdbd connection",
    "protocol authentication error",
)  # fmt: skip


def connect(environ: Mapping[str, str] | None = None) -> RestBackend:
    """Return the backend for the slurmrestd that the environment names.

    Raises:
        SlurmUnreachableError: the environment names none.
        InputError: the address or the token's file is wrong.
    """
    environ = os.environ if environ is None else environ
    address = environ.get(ADDRESS_VARIABLE)
    if not address:
        hint = f"set {ADDRESS_VARIABLE} to https://host:port or unix:/path, and SLURM_JWT to a token"
        raise SlurmUnreachableError("no slurmrestd is named", hint=hint)
    return RestBackend(RestClient(address, find_token(environ)))


class RestBackend:
    """Slurm through slurmrestd. Implements :class:`hpcplan.slurm.Backend`."""

    def __init__(self, client: RestClient) -> None:
        self.client = client
        self._version: str | None = None

    @property
    def name(self) -> str:
        """``rest``."""
        return "rest"

    @property
    def version(self) -> str:
        """The newest version of the API that this slurmrestd serves; found out once.

        Raises:
            SlurmUnreachableError: slurmrestd does not answer.
            SlurmError: it serves none that is known here.
        """
        if self._version is None:
            self._version = next((v for v in API_VERSIONS if self._serves(v)), None)
        if self._version is None:
            raise SlurmError(
                f"slurmrestd at {self.client.address}: serves none of {API_VERSIONS[-1]} to {API_VERSIONS[0]}",
                hint="its option -s chooses what it serves, as in -s openapi/v0.0.38,openapi/dbv0.0.38",
            )
        return self._version

    def _serves(self, version: str) -> bool:
        status, answer = self.client.ask("GET", f"/slurm/{version}/ping", limit_s=QUERY_S)
        return status != 404 and isinstance(answer, Mapping)

    @property
    def _number(self) -> int:
        return int(self.version.rpartition(".")[2])

    def _ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
        limit_s: float = QUERY_S, accept: Callable[[Mapping[str, Any]], bool] = lambda answer: False,
    ) -> Mapping[str, Any]:  # fmt: skip
        """Return an answer without errors, or one with errors that ``accept`` takes all the same."""
        room, _, rest = path.partition("/")
        status, answer = self.client.ask(
            method, f"/{room}/{self.version}/{rest}", query=query, body=body, limit_s=limit_s
        )
        if not isinstance(answer, Mapping):
            message = f"slurmrestd at {self.client.address}: answered {status} and no JSON to {method} {path}"
            raise SlurmUnreachableError(message) if status >= 500 else SlurmError(message)
        errors = read.rows(answer.get("errors"))
        if (errors or status >= 400) and not accept(answer):
            raise self._refusal(errors, status)
        return answer

    def _refusal(self, errors: Sequence[Mapping[str, Any]], status: int) -> SlurmError:
        words = [text for error in errors for key in ("error", "description") if (text := read.word(error.get(key)))]
        said = "; ".join(dict.fromkeys(words)) or f"status {status}"
        message = f"slurmrestd: {said}"
        if "parsing" in said.lower() or not any(phrase in said.lower() for phrase in _UNREACHABLE):
            return SlurmError(message)
        # slurmrestd has the same words for a controller that is down and for a token that it does not accept
        why = self.client.explained(f"{message} (no controller, or a token that it does not accept)")
        return SlurmUnreachableError(why)

    def now(self) -> int:
        """Return this machine's clock."""
        return int(time.time())

    def ping(self) -> ClusterInfo:
        """Return which cluster answers and the controller's version; asks slurmdbd for a sign of life, too."""
        answer = self._ask("GET", "slurm/ping")
        pings = read.rows(answer.get("pings"))
        if pings and not any(_is_up(ping) for ping in pings):
            raise SlurmUnreachableError(f"slurmrestd at {self.client.address}: no controller answers it")
        about = read.mapping(answer.get("meta"))
        slurm = read.mapping(about.get("slurm", about.get("Slurm")))
        return ClusterInfo(
            backend=self.name,
            cluster=read.word(slurm.get("cluster")) or self._cluster(),
            version=read.word(slurm.get("release")),
            accounting=self._accounting_answers(),
        )

    def _cluster(self) -> str | None:
        """Return the cluster's name where pings do not have it: slurmdbd may know only one."""
        try:
            found = read.rows(self._ask("GET", "slurmdb/clusters", limit_s=HISTORY_S).get("clusters"))
        except SlurmError:
            return None
        return read.word(found[0].get("name")) if len(found) == 1 else None

    def _accounting_answers(self) -> bool:
        try:
            self._ask("GET", "slurmdb/diag", limit_s=HISTORY_S)
        except SlurmError:
            return False
        return True

    def submit(self, submission: Submission) -> int:
        """Submit the script's text; its ``#SBATCH`` lines are translated, since slurmrestd does not read them."""
        body = request_body(submission, self._number)
        answer = self._ask("POST", "slurm/job/submit", body=body, accept=lambda found: bool(_new_id(found)))
        job_id = _new_id(answer)
        if job_id is None:
            raise SlurmError("slurmrestd: answered a submission without a job id")
        return job_id

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        """Return jobs from one question to the controller and one to accounting, without which it does as it can."""
        if job_ids is not None and not job_ids:
            return []
        start = self.now() - DAY_S if since is None else since
        answer = self._ask("GET", "slurm/jobs", accept=lambda found: _nothing_there(found.get("errors")))
        queue = self._wanted(convert.queued(answer), job_ids)
        asked = job_ids if job_ids is None else left_to_ask(job_ids, queue)
        history = {} if asked == [] else self._history(asked, start)
        return merge(queue, history, since=start, job_ids=job_ids)

    def _wanted(self, records: list[JobRecord], job_ids: Sequence[int] | None) -> list[JobRecord]:
        if job_ids is None:
            return [record for record in records if record.user == self.client.user]
        wanted = frozenset(job_ids)
        return [record for record in records if record.is_among(wanted)]

    def _history(self, job_ids: Sequence[int] | None, start: int) -> Mapping[int, JobRecord]:
        query = {} if job_ids is None else {"step": ",".join(map(str, job_ids))}
        if job_ids is None and self.client.user is not None and self._number > 38:
            query = {"users": self.client.user}
        try:
            return sacct.newest(self._wanted(self._attempts(start, self.now() + 1, query, HISTORY_S), job_ids))
        except SlurmError as error:
            _log.info("accounting does not answer; jobs that the controller has forgotten are missing: %s", error)
            return {}

    def _attempts(self, start: int, end: int, query: Mapping[str, str], limit_s: float) -> list[JobRecord]:
        # "uts" and unix seconds is one of the forms of a time that every release reads (parse_time in Slurm). Asked for
        # a time with an end, slurmdbd leaves out what it has no eligible time of (see hpcplan.slurm.sacct).
        asked = {"start_time": f"uts{start}"}
        if end < self.now() - _RECENT_S:
            asked["end_time"] = f"uts{end}"
        if sum(map(len, query.values())) <= _MAX_QUERY_BYTES:
            asked |= query
        answer = self._ask("GET", "slurmdb/jobs", query=asked, limit_s=limit_s, accept=_nothing_found)
        found = convert.stored(answer)
        return [record for record in found if record.submit_time is None or record.submit_time <= end]

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel jobs one by one; those that are over, or that the controller has forgotten, are no error."""
        self._each(job_ids, lambda path: self._ask("DELETE", path, accept=_over))

    def hold(self, job_ids: Sequence[int]) -> None:
        """Hold as the token's user."""
        self._each(job_ids, lambda path: self._ask("POST", path, body={"hold": True}))

    def release(self, job_ids: Sequence[int]) -> None:
        """Release held jobs."""
        self._each(job_ids, lambda path: self._ask("POST", path, body={"hold": False}))

    def requeue(self, job_ids: Sequence[int]) -> None:
        """Refuse: no version of the API can requeue a job.

        Raises:
            SlurmError: always.
        """
        if job_ids:
            raise SlurmError(
                "slurmrestd cannot requeue a job", hint="cancel and submit it again, or run scontrol requeue there"
            )

    def _each(self, job_ids: Sequence[int], act: Callable[[str], object]) -> None:
        """Act on every job, and raise the first error when all have had their turn."""
        errors: list[SlurmError] = []
        for job_id in job_ids:
            try:
                act(f"slurm/job/{job_id}")
            except SlurmUnreachableError:
                raise
            except SlurmError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def nodes(self) -> list[NodeRecord]:
        """Return every node, by name."""
        return convert.nodes(self._ask("GET", "slurm/nodes"))

    def partitions(self) -> list[PartitionRecord]:
        """Return every partition, by name."""
        return convert.partitions(self._ask("GET", "slurm/partitions"))

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        """Return the attempts that were pending or running between two times, as slurmdbd lets the user see them."""
        return self._attempts(start, end, {}, ACCOUNTING_S)

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        """Return ``None``: no version of the API tests a script without submitting it.

        Raises:
            SlurmError: the script could not be sent through this version of the API.
        """
        request_body(submission, self._number)
        return None


def _is_up(ping: Mapping[str, Any]) -> bool:
    return ping.get("ping", ping.get("pinged")) == "UP" or ping.get("responding") is True


def _new_id(answer: Mapping[str, Any]) -> int | None:
    return read.count(answer.get("job_id")) or read.count(read.mapping(answer.get("result")).get("job_id")) or None


def _nothing_there(errors: Any) -> bool:
    """Whether the only complaint is that there are no jobs."""
    words = [str(error.get("error", "")).lower() for error in read.rows(errors)]
    return bool(words) and all("invalid job id" in text or "no change in data" in text for text in words)


def _nothing_found(answer: Mapping[str, Any]) -> bool:
    """Whether the only complaint is that accounting has no such jobs, as slurmrestd 22.05 says of an empty answer."""
    words = [text.lower() for error in read.rows(answer.get("errors")) for text in map(str, error.values())]
    return any("nothing found" in text for text in words)


def _over(answer: Mapping[str, Any]) -> bool:
    words = [str(error.get("error", "")).lower() for error in read.rows(answer.get("errors"))]
    return bool(words) and all(any(phrase in text for phrase in _ALREADY_OVER) for text in words)
