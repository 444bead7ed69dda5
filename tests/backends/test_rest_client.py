"""HTTP to slurmrestd: tokens stay secret, certificates are checked, and nobody hangs."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import InputError, SlurmError, SlurmUnreachableError
from hpcplan.slurm import JobState, Submission
from hpcplan.slurm.choose import open_backend
from hpcplan.slurm.rest import RestBackend, connect
from hpcplan.slurm.rest_client import RestClient, Token, find_token


def jwt(**claims: Any) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    return ".".join([*parts, "c2VjcmV0LXNpZ25hdHVyZQ"])


class Answers:
    """A slurmrestd of one version; ``set`` says what it answers to a path, ``asked`` what it was asked."""

    def __init__(self, version: str = "v0.0.41") -> None:
        self.version = version
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.replies: dict[str, tuple[int, Any]] = {}
        self.delay_s = 0.0
        self.set("/slurm/ping", 200, {"pings": [{"hostname": "c", "pinged": "UP"}], "errors": [],
                                      "meta": {"slurm": {"release": "24.05.3", "cluster": "lab"}}})  # fmt: skip
        self.set("/slurmdb/diag", 200, {"errors": []})

    def set(self, path: str, status: int, answer: Any) -> None:
        room, rest = path.strip("/").split("/", 1)
        self.replies[f"/{room}/{self.version}/{rest}"] = (status, answer)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                answers.asked.append((self.command, self.path, dict(self.headers), body))
                time.sleep(answers.delay_s)
                status, answer = answers.replies.get(self.path.split("?")[0], (404, None))
                data = b"Unable find requested URL." if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def serve(answers: Answers) -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(context: ssl.SSLContext | None = None) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), answers.handler())
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_newest_version_that_is_served_is_taken_and_remembered(answers: Answers, serve: Callable[..., str]) -> None:
    backend = RestBackend(RestClient(serve(), Token(jwt(sun="ada"), "a test")))
    info = backend.ping()
    assert (info.cluster, info.version, info.accounting) == ("lab", "24.05.3", True)
    assert backend.version == "v0.0.41"
    tried = len(answers.asked)
    backend.ping()
    assert len(answers.asked) == tried + 2


def test_a_slurmrestd_of_versions_nobody_knows_is_said(serve: Callable[..., str], answers: Answers) -> None:
    answers.replies.clear()
    with pytest.raises(SlurmError, match=r"none of v0\.0\.38 to v0\.0\.44"):
        RestBackend(RestClient(serve(), None)).jobs([1])


def test_the_token_goes_into_a_header_and_nowhere_else(
    answers: Answers, serve: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    secret = jwt(sun="ada", exp=time.time() + 60)
    answers.set("/slurm/jobs", 200, {"jobs": [], "errors": []})
    with caplog.at_level(logging.DEBUG):
        backend = RestBackend(RestClient(serve(), Token(secret, "SLURM_JWT")))
        backend.jobs([1])
        answers.set("/slurm/jobs", 401, None)
        with pytest.raises(SlurmUnreachableError, match="token of SLURM_JWT is not accepted") as refused:
            backend.jobs([1])
    headers = answers.asked[-1][2]
    assert (headers["X-SLURM-USER-TOKEN"], headers["X-SLURM-USER-NAME"]) == (secret, "ada")
    assert secret not in caplog.text + str(refused.value) + repr(backend.client.token)
    assert all(secret not in path for _, path, _, _ in answers.asked)


def test_an_expired_token_is_said_to_be_expired(answers: Answers, serve: Callable[..., str]) -> None:
    answers.set("/slurm/jobs", 500, {"errors": [{"error": "Unspecified error", "error_number": -1}]})
    backend = RestBackend(RestClient(serve(), Token(jwt(sun="ada", exp=1), "SLURM_JWT")))
    with pytest.raises(SlurmUnreachableError, match=r"expired at 19(70|69)"):
        backend.jobs([1])


@pytest.mark.parametrize("address", ["ftp://x", "slurm.example.org", "https://", "http://slurm.example.org:6820"])
def test_addresses_that_are_wrong_or_carry_tokens_in_the_clear_are_refused(address: str) -> None:
    with pytest.raises(InputError):
        RestClient(address, None)


def test_a_tokens_file_must_be_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"SLURM_JWT={jwt(sun='ada')}\n")
    path.chmod(0o644)
    with pytest.raises(InputError, match="others may read this token") as refused:
        find_token({"HPCPLAN_SLURM_JWT_FILE": str(path)})
    assert refused.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    token = find_token({"HPCPLAN_SLURM_JWT_FILE": str(path)})
    assert token is not None
    assert (token.text, token.claim("sun")) == (jwt(sun="ada"), "ada")
    path.write_text("")
    with pytest.raises(InputError, match="holds no token"):
        find_token({"HPCPLAN_SLURM_JWT_FILE": str(path)})
    assert find_token({}) is None


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    path = tmp_path / "server.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(tmp_path / "c.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "c.pem").read_text())
    return path


def test_a_certificate_that_nobody_vouches_for_is_refused_and_sees_no_token(
    answers: Answers, serve: Callable[..., str], certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    url = serve(context)
    with pytest.raises(SlurmUnreachableError, match="certificate is not good"):
        RestBackend(RestClient(url, Token(jwt(sun="ada"), "SLURM_JWT"))).ping()
    assert answers.asked == []
    trusting = ssl.create_default_context(cafile=str(certificate))
    assert RestBackend(RestClient(url, None, context=trusting)).ping().cluster == "lab"


def test_nobody_there_no_answer_in_time_and_half_an_answer(answers: Answers, serve: Callable[..., str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(SlurmUnreachableError, match="refused"):
        RestClient(f"http://127.0.0.1:{port}", None).ask("GET", "/", limit_s=5)
    url = serve()
    answers.delay_s = 3
    with pytest.raises(SlurmUnreachableError, match="no answer within 0 s"):
        RestClient(url, None).ask("GET", "/slurm/v0.0.41/ping", limit_s=0.2)


def test_an_answer_that_is_a_proxys_page_is_no_crash(answers: Answers, serve: Callable[..., str]) -> None:
    backend = RestBackend(RestClient(serve(), None))
    assert backend.version == "v0.0.41"
    answers.set("/slurm/jobs", 502, None)
    with pytest.raises(SlurmUnreachableError, match="answered 502 and no JSON"):
        backend.jobs([1])


def test_one_question_to_the_controller_a_refresh_and_slurmdbd_may_be_down(
    answers: Answers, serve: Callable[..., str]
) -> None:
    jobs = [{"job_id": number, "job_state": ["RUNNING"], "nodes": "n1", "user_name": "ada"} for number in range(1, 4)]
    answers.set("/slurm/jobs", 200, {"jobs": jobs, "errors": []})
    answers.set("/slurmdb/jobs", 500, {"errors": [{"error": "Failed to open slurmdbd connection"}]})
    backend = RestBackend(RestClient(serve(), Token(jwt(sun="ada"), "a test")))
    assert backend.version
    answers.asked.clear()
    assert [record.state for record in backend.jobs([1, 3, 9])] == [JobState.RUNNING] * 2
    paths = [path.split("?")[0] for _, path, _, _ in answers.asked]
    assert paths == ["/slurm/v0.0.41/jobs", "/slurmdb/v0.0.41/jobs"]


def test_a_submission_with_a_warning_and_an_id_was_taken(
    answers: Answers, serve: Callable[..., str], tmp_path: Path
) -> None:
    script = tmp_path / "a.sbatch"
    script.write_text("#!/bin/bash\n#SBATCH --hold\ntrue\n")
    answers.set("/slurm/job/submit", 200, {"job_id": 12, "errors": [{"error_code": 2042, "error": "Job is held"}]})
    backend = RestBackend(RestClient(serve(), None))
    assert backend.submit(Submission(str(script), "/w")) == 12
    answers.set("/slurm/job/submit", 500, {"errors": [{"error": "Invalid partition name specified"}]})
    with pytest.raises(SlurmError, match="Invalid partition") as refused:
        backend.submit(Submission(str(script), "/w"))
    assert not isinstance(refused.value, SlurmUnreachableError)


def test_the_environment_names_the_slurmrestd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SlurmUnreachableError, match="no slurmrestd is named"):
        connect({})
    monkeypatch.setenv("HPCPLAN_SLURMRESTD", f"unix:{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = open_backend("auto")
    assert backend.name == "rest"
    with pytest.raises(SlurmUnreachableError, match="No such file"):
        backend.ping()
