"""The mock cluster as a backend: several commands see one cluster, and nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.errors import ConflictError, HpcplanError, SlurmError, SlurmUnreachableError
from hpcplan.simulate.backend import MockBackend
from hpcplan.simulate.lifecycle import StartOptions, find_store, start_cluster
from hpcplan.simulate.store import ClusterStore
from hpcplan.site.load import load_site
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobRecord, JobState, Submission
from tests.simulate.clusters import write_script, write_site

T0 = 1_900_000_000


class Wall:
    """A wall clock that tests move by hand."""

    def __init__(self) -> None:
        self.time = float(T0)

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def mock(tmp_path: Path, wall: Wall) -> MockBackend:
    """An idle mock cluster of the tiny site, 60 times as fast as the wall clock."""
    store = start_cluster(load_site(write_site(tmp_path)), wall=wall)
    return MockBackend(store, user="ana", wall=wall)


@pytest.fixture
def submit(mock: MockBackend, tmp_path: Path) -> Callable[..., int]:
    def submit(text: str = "#SBATCH -N 1 -t 10", **options: object) -> int:
        script = write_script(tmp_path, text)
        return mock.submit(Submission(str(script), str(tmp_path), **options))  # type: ignore[arg-type]

    return submit


def one(mock: MockBackend, job_id: int) -> JobRecord:
    (record,) = mock.jobs([job_id])
    return record


def test_it_is_a_backend(mock: MockBackend) -> None:
    assert isinstance(mock, Backend)
    assert mock.name == "mock"


def test_it_answers_as_the_sites_cluster(mock: MockBackend) -> None:
    info = mock.ping()
    assert (info.backend, info.cluster, info.version, info.accounting) == ("mock", "tinycluster", "23.11", True)


def test_the_virtual_clock_runs_as_fast_as_it_was_told(mock: MockBackend, wall: Wall) -> None:
    assert mock.now() == T0
    wall.time += 10
    assert mock.now() == T0 + 600


def test_job_ids_count_from_one_and_a_job_is_known_from_submission_to_its_end(
    mock: MockBackend, submit: Callable[..., int], wall: Wall, tmp_path: Path
) -> None:
    job_id = submit("#SBATCH -N 2 -t 10 -J train\n#SBATCH --gres=gpu:h100:8", comment="token")
    assert job_id == 1
    record = one(mock, 1)
    assert (record.state, record.name, record.user, record.cluster) == (JobState.RUNNING, "train", "ana", "tinycluster")
    assert (record.node_list, record.gpus, record.comment, record.work_dir) == ("b[1-2]", 16, "token", str(tmp_path))
    assert (record.submit_time, record.start_time, record.end_time, record.exit_code) == (T0, T0, None, None)
    wall.time += 5  # five minutes there: half of the limit is over
    record = one(mock, 1)
    assert (record.state, record.end_time, record.exit_code) == (JobState.COMPLETED, T0 + 300, 0)
    assert (record.total_cpu_s, record.max_rss_bytes, record.gpu_utilisation) == (None, None, None)


def test_a_script_says_how_long_its_pretended_job_runs_and_how_it_ends(
    mock: MockBackend, submit: Callable[..., int]
) -> None:
    submit("# hpcplan: expected-runtime-s=77\n# hpcplan: pretend-exit=9\n#SBATCH -t 10")
    submit("# hpcplan: expected-runtime-s=6000\n#SBATCH -t 10")
    mock.advance(3600)
    failed, timeout = mock.jobs()
    assert (failed.state, failed.elapsed_s(), failed.exit_code) == (JobState.FAILED, 77, 9)
    assert timeout.state is JobState.TIMEOUT
    assert 600 <= (timeout.elapsed_s() or 0) <= 630  # limits are looked at every 30 s


def test_what_is_given_beside_the_script_wins(mock: MockBackend, submit: Callable[..., int]) -> None:
    first = submit("#SBATCH -t 10")
    second = submit("#SBATCH -d afterok:999 --comment=mine", dependency=f"afterok:{first}", comment="token", hold=True)
    record = one(mock, second)
    assert (record.dependency, record.comment, record.reason) == (
        f"afterok:{first}(unfulfilled)",
        "token",
        "JobHeldUser",
    )
    assert record.priority == 0


def test_a_script_that_cannot_be_read_or_is_refused_changes_nothing(mock: MockBackend, tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match=r"Unable to open file .*none"):
        mock.submit(Submission(str(tmp_path / "none"), str(tmp_path)))
    with pytest.raises(SlurmError, match="unrecognized option '--foo'"):
        mock.submit(Submission(str(write_script(tmp_path, "#SBATCH --foo")), str(tmp_path)))
    with pytest.raises(SlurmError, match="unrecognized option '--stepmgr'"):  # the site's Slurm is 23.11
        mock.submit(Submission(str(write_script(tmp_path, "#SBATCH --stepmgr")), str(tmp_path)))
    assert mock.jobs() == []


def test_jobs_are_those_asked_for_or_the_users_own_of_the_last_day(
    mock: MockBackend, submit: Callable[..., int], tmp_path: Path, wall: Wall
) -> None:
    submit()
    other = MockBackend(find_store(wall=wall), user="bo", wall=wall)
    other.submit(Submission(str(write_script(tmp_path, "#SBATCH -t 10")), str(tmp_path)))
    assert [record.job_id for record in mock.jobs()] == [1]
    assert [record.job_id for record in other.jobs()] == [2]
    assert [record.job_id for record in mock.jobs([2, 1, 99])] == [1, 2]
    mock.advance(2 * 86400)
    assert mock.jobs() == mock.jobs([1]) == []
    assert [record.job_id for record in mock.jobs([1], since=T0)] == [1]
    assert [record.job_id for record in mock.jobs(since=T0)] == [1]


def test_only_the_newest_attempt_is_a_job_and_accounting_has_them_all(
    mock: MockBackend, submit: Callable[..., int]
) -> None:
    job_id = submit()
    mock.advance(60)
    mock.requeue([job_id])
    assert (one(mock, job_id).state, one(mock, job_id).restarts) == (JobState.PENDING, 1)
    mock.advance(3600)
    assert (one(mock, job_id).state, one(mock, job_id).restarts) == (JobState.COMPLETED, 1)
    attempts = mock.accounting(T0, mock.now())
    assert [(record.job_id, record.state) for record in attempts] == [(1, JobState.REQUEUED), (1, JobState.COMPLETED)]


def test_accounting_gives_what_waited_or_ran_between_two_times(mock: MockBackend, submit: Callable[..., int]) -> None:
    submit("#SBATCH -N 6 -t 10")  # runs from 0 to 300
    submit("#SBATCH -N 6 -t 20")  # waits, runs from 300 to 900
    mock.advance(1000)
    submit("#SBATCH -t 10")
    now = mock.now()
    assert [record.job_id for record in mock.accounting(T0, now)] == [1, 2, 3]
    assert [record.job_id for record in mock.accounting(T0 + 301, now)] == [2, 3]
    assert [record.job_id for record in mock.accounting(T0 + 10, T0 + 20)] == [1, 2]
    assert [record.job_id for record in mock.accounting(T0 + 901, now)] == [3]


def test_cancelling_is_quiet_about_jobs_that_have_ended_or_that_nobody_knows(
    mock: MockBackend, submit: Callable[..., int]
) -> None:
    first, second = submit(), submit()
    mock.cancel([first])
    assert one(mock, first).state is JobState.CANCELLED
    mock.cancel([first])
    mock.cancel([99, second])
    assert one(mock, second).state is JobState.CANCELLED


def test_nobody_may_touch_the_jobs_of_others(mock: MockBackend, submit: Callable[..., int], wall: Wall) -> None:
    job_id = submit()
    other = MockBackend(find_store(wall=wall), user="bo", wall=wall)
    for act in (other.cancel, other.hold, other.release, other.requeue):
        with pytest.raises(SlurmError, match="Access/permission denied"):
            act([job_id])
    assert one(mock, job_id).state is JobState.RUNNING


def test_requeue_says_in_slurms_words_what_it_cannot_do(mock: MockBackend, submit: Callable[..., int]) -> None:
    pending, fixed = submit("#SBATCH --hold"), submit("#SBATCH --no-requeue")
    with pytest.raises(SlurmError, match=f"Job is pending execution for job {pending}"):
        mock.requeue([pending])
    with pytest.raises(SlurmError, match=f"Requested operation is presently disabled for job {fixed}"):
        mock.requeue([fixed])
    with pytest.raises(SlurmError, match="Invalid job id specified for job 99"):
        mock.hold([99])


def test_an_arrays_id_stands_for_its_tasks(mock: MockBackend, submit: Callable[..., int]) -> None:
    array = submit("#SBATCH --array=0-2 -t 10")
    assert [record.array_task_id for record in mock.jobs([array])] == [0, 1, 2]
    mock.cancel([array])
    mock.advance(10)
    assert {record.state for record in mock.jobs([array])} == {JobState.CANCELLED}
    assert [record.array_job_id for record in mock.jobs([array])] == [array] * 3


def test_a_dependency_on_a_job_that_ended_long_ago_is_judged_by_how_it_ended(
    mock: MockBackend, submit: Callable[..., int]
) -> None:
    failed = submit("# hpcplan: pretend-exit=1\n#SBATCH -t 10")
    mock.advance(5 * 86400)
    never, fine = submit(dependency=f"afterok:{failed}"), submit(dependency=f"afternotok:{failed}")
    assert one(mock, never).reason == "DependencyNeverSatisfied"
    assert one(mock, fine).state is JobState.RUNNING


def test_nodes_and_partitions_are_those_of_the_site(mock: MockBackend, submit: Callable[..., int]) -> None:
    submit("#SBATCH -N 2")
    mock.set_node_state(["b1", "s2"], "drain", "fan")
    mock.set_node_state(["b6"], "down", "power")
    nodes = {record.name: record for record in mock.nodes()}
    assert {name: record.state for name, record in nodes.items()} == {
        "b1": "draining", "b2": "allocated", "b3": "idle", "b4": "idle", "b5": "idle", "b6": "down", "s1": "idle",
        "s2": "drained",
    }  # fmt: skip
    b1 = nodes["b1"]
    assert (b1.partitions, b1.cpus, b1.cpus_allocated, b1.gres, b1.gpus) == (
        ("batch", "debug"),
        64,
        64,
        "gpu:h100:8",
        8,
    )
    assert (b1.reason, b1.usable, nodes["b3"].usable) == ("fan", False, True)
    batch, debug = mock.partitions()
    assert (batch.name, batch.state, batch.nodes, batch.default, batch.max_time_s) == (
        "batch",
        "up",
        "b[1-6]",
        True,
        86400,
    )
    assert (debug.nodes, debug.max_nodes, debug.total_nodes) == ("b[1-6],s[1-2]", 2, 8)
    with pytest.raises(SlurmError, match="Invalid node name specified"):
        mock.set_node_state(["b99"], "drain")


def test_the_start_is_estimated_as_if_limits_were_used_up(
    mock: MockBackend, submit: Callable[..., int], tmp_path: Path
) -> None:
    submit("#SBATCH -N 5 -t 60")
    script = str(write_script(tmp_path, "#SBATCH -N 1 -t 10", "small"))
    estimate = mock.estimate_start(Submission(script, str(tmp_path)))
    assert estimate is not None
    assert (estimate.start_time, estimate.nodes) == (T0, "b6")
    script = str(write_script(tmp_path, "#SBATCH -N 3 -t 10", "wide"))
    estimate = mock.estimate_start(Submission(script, str(tmp_path)))
    assert estimate is not None
    assert estimate.start_time == T0 + 3600
    assert mock.estimate_start(Submission(script, str(tmp_path), hold=True)) is None
    assert mock.estimate_start(Submission(script, str(tmp_path), dependency="afterok:1")) is None
    script = str(write_script(tmp_path, "#SBATCH -N 3 --begin=now+5hours", "later"))
    estimate = mock.estimate_start(Submission(script, str(tmp_path)))
    assert estimate is not None
    assert estimate.start_time == T0 + 5 * 3600
    with pytest.raises(SlurmError, match="not available"):
        mock.estimate_start(Submission(str(write_script(tmp_path, "#SBATCH --gres=gpu:9", "no")), str(tmp_path)))
    assert [record.job_id for record in mock.jobs()] == [1]


def test_advance_moves_the_clock_and_counts_what_ended(
    mock: MockBackend, submit: Callable[..., int], wall: Wall
) -> None:
    submit()
    submit("# hpcplan: pretend-exit=1\n#SBATCH -t 10")
    submit("#SBATCH -t 600")
    result = mock.advance(300)
    assert (result.now, result.advanced_s) == (T0 + 300, 300)
    assert (result.ended, result.pending, result.running) == ({"COMPLETED": 1, "FAILED": 1}, 0, 1)
    assert mock.now() == T0 + 300
    wall.time += 1
    assert mock.now() == T0 + 360


def test_until_idle_runs_chains_out_and_does_not_wait_for_what_needs_a_hand(
    mock: MockBackend, submit: Callable[..., int]
) -> None:
    first = submit("#SBATCH -t 60")
    second = submit("#SBATCH -t 60", dependency=f"afterok:{first}")
    held = submit("#SBATCH --hold")
    submit("#SBATCH -t 60", dependency=f"afterok:{held}")
    submit("#SBATCH -t 3-00")
    result = mock.advance(until_idle=True)
    assert (result.now, result.ended) == (T0 + 3600, {"COMPLETED": 2})
    assert (result.pending, result.running) == (3, 0)
    assert one(mock, second).end_time == T0 + 3600


def test_until_idle_ends_although_others_go_on_submitting(tmp_path: Path, wall: Wall) -> None:
    store = start_cluster(load_site(write_site(tmp_path)), StartOptions(load=0.8, history_s=6 * 3600), wall=wall)
    mock = MockBackend(store, user="ana", wall=wall)
    mock.submit(Submission(str(write_script(tmp_path, "#SBATCH -N 6 -t 60")), str(tmp_path)))
    assert mock.advance(until_idle=True).ended == {"COMPLETED": 1}
    assert mock.status().jobs["COMPLETED"] > 1


def test_without_a_running_cluster_the_hint_says_how_to_start_one() -> None:
    mock = MockBackend()
    for call in (mock.now, mock.ping, mock.jobs, mock.nodes, mock.partitions, lambda: mock.accounting(0, 1)):
        with pytest.raises(SlurmUnreachableError) as caught:
            call()
        assert "hpcplan mock start" in str(caught.value)
        assert caught.value.exit_code == 4


def test_a_stopped_cluster_stands_still_keeps_its_accounting_and_goes_on(
    mock: MockBackend, submit: Callable[..., int], tmp_path: Path, wall: Wall
) -> None:
    submit("#SBATCH -t 10")
    submit("#SBATCH -t 600")
    wall.time += 10
    find_store(wall=wall).stop()
    wall.time += 100_000
    with pytest.raises(SlurmUnreachableError):
        mock.jobs()
    again = MockBackend(wall=wall, user="ana")
    assert [record.state for record in again.accounting(T0, T0 + 10**6)] == [JobState.COMPLETED, JobState.RUNNING]
    assert (again.status().running, again.status().now) == (False, T0 + 600)
    start_cluster(load_site(write_site(tmp_path)), StartOptions(speed=1.0), wall=wall)
    assert again.now() == T0 + 600
    wall.time += 5
    assert again.now() == T0 + 605
    assert submit() == 3


def test_starting_twice_is_a_conflict(mock: MockBackend, tmp_path: Path, wall: Wall) -> None:
    site = load_site(write_site(tmp_path))
    with pytest.raises(ConflictError, match="'tiny' is running already"):
        start_cluster(site, wall=wall)
    start_cluster(site, StartOptions(name="other"), wall=wall)
    find_store("tiny", wall=wall).purge()
    with pytest.raises(ConflictError, match="another mock cluster is running: other"):
        start_cluster(site, wall=wall)


@pytest.mark.parametrize(
    "options", [StartOptions(load=0.5), StartOptions(policy="fcfs"), StartOptions(load=0.7, seed=2)]
)
def test_a_stopped_cluster_does_not_go_on_as_another(options: StartOptions, tmp_path: Path, wall: Wall) -> None:
    site = load_site(write_site(tmp_path))
    start_cluster(site, StartOptions(load=0.7, history_s=60), wall=wall).stop()
    with pytest.raises(ConflictError, match="was started with"):
        start_cluster(site, options, wall=wall)
    other = load_site(write_site(tmp_path, write_site(tmp_path).read_text().replace("b[1-6]", "b[1-5]")))
    with pytest.raises(ConflictError, match="is of another site"):
        start_cluster(other, wall=wall)
    start_cluster(load_site(write_site(tmp_path)), wall=wall)


def test_a_variable_names_the_directory_outright(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wall: Wall) -> None:
    monkeypatch.setenv("HPCPLAN_MOCK", str(tmp_path / "here" / "it" / "is"))
    start_cluster(load_site(write_site(tmp_path)), wall=wall)
    assert MockBackend(wall=wall).status().directory == str(tmp_path / "here" / "it" / "is")
    monkeypatch.setenv("HPCPLAN_MOCK", str(tmp_path))
    with pytest.raises(ConflictError, match=r"holds other files, such as 'here'"):
        start_cluster(load_site(write_site(tmp_path)), wall=wall)
    with pytest.raises(SlurmUnreachableError):
        MockBackend(wall=wall).ping()


@pytest.mark.parametrize(
    "options",
    [
        StartOptions(speed=-1.0),
        StartOptions(load=0.0),
        StartOptions(load=3.0),
        StartOptions(seed=4),
        StartOptions(history_s=60),
        StartOptions(load=0.5, history_s=-1),
        StartOptions(policy="sjf"),
        StartOptions(name="../up"),
    ],
)
def test_options_that_make_no_sense_are_bad_input_and_leave_nothing(
    options: StartOptions, tmp_path: Path, wall: Wall
) -> None:
    with pytest.raises(HpcplanError) as caught:
        start_cluster(load_site(write_site(tmp_path)), options, wall=wall)
    assert caught.value.exit_code == 2
    assert not list(Path(os.environ["XDG_DATA_HOME"]).rglob("*"))


def test_the_same_seed_gives_the_same_past_and_future(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    futures = []
    for name in ("a", "b"):
        monkeypatch.setenv("HPCPLAN_MOCK", str(tmp_path / name))
        options = StartOptions(load=0.7, seed=5, history_s=86400)
        mock = MockBackend(start_cluster(load_site(write_site(tmp_path)), options, wall=wall), wall=wall)
        for _ in range(1 if name == "a" else 6):
            mock.advance(6 * 3600 if name == "a" else 3600)
        futures.append(mock.accounting(T0 - 86400, T0 + 86400))
    assert futures[0] == futures[1]
    assert len(futures[0]) > 20


def submit_many(directory: str, script: str, count: int) -> None:
    """Submit in a process of its own."""
    mock = MockBackend(ClusterStore(Path(directory)), user="ana")
    for _ in range(count):
        mock.submit(Submission(script, "/"))


def test_two_processes_that_submit_at_once_lose_nothing(tmp_path: Path) -> None:
    store = start_cluster(load_site(write_site(tmp_path)), StartOptions(speed=600.0))
    script = str(write_script(tmp_path, "#SBATCH -t 10\n# hpcplan: expected-runtime-s=120"))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=submit_many, args=(str(store.directory), script, 40)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = MockBackend(store, user="ana").jobs(since=0)
    assert [record.job_id for record in found] == list(range(1, 81))


def test_a_command_that_is_killed_anywhere_loses_no_job_that_was_acknowledged(tmp_path: Path) -> None:
    store = start_cluster(load_site(write_site(tmp_path)), StartOptions(speed=5000.0))
    script = str(write_script(tmp_path, "#SBATCH -t 10\n# hpcplan: expected-runtime-s=60"))
    code = f"""
import sys
from pathlib import Path
from hpcplan.simulate.backend import MockBackend
from hpcplan.simulate.store import ClusterStore
from hpcplan.slurm.records import Submission
mock = MockBackend(ClusterStore(Path({str(store.directory)!r})), user="ana")
while True:
    print(mock.submit(Submission({script!r}, "/")), flush=True)
"""
    acknowledged: list[int] = []
    for delay_s in (0.011, 0.053, 0.097, 0.151):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.append(int(process.stdout.readline()))
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in process.stdout.read().split()]
    mock = MockBackend(store, user="ana")
    known = [record.job_id for record in mock.jobs(since=0)]
    assert set(acknowledged) <= set(known)
    assert known == list(range(1, len(known) + 1))
    assert len({(record.job_id, record.submit_time) for record in mock.accounting(0, 2**40)}) == len(known)


def test_what_a_killed_command_left_in_the_accounting_is_overwritten(
    mock: MockBackend, submit: Callable[..., int], wall: Wall
) -> None:
    submit()
    mock.advance(600)
    path = find_store(wall=wall).directory / "accounting.jsonl"
    with path.open("ab") as stream:
        stream.write(b'{"job_id":2,"end_time":1')
    submit()
    mock.advance(600)
    assert [json.loads(line)["job_id"] for line in path.read_text().splitlines()] == [1, 2]
    assert [record.job_id for record in mock.jobs()] == [1, 2]


def test_a_damaged_state_is_said_to_be_damaged(mock: MockBackend, wall: Wall) -> None:
    (find_store(wall=wall).directory / "state.json").write_text("{")
    with pytest.raises(HpcplanError, match=r"state\.json: is damaged"):
        mock.jobs()


def test_a_state_of_another_version_is_said_to_be_one(mock: MockBackend, wall: Wall) -> None:
    path = find_store(wall=wall).directory / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(HpcplanError, match=r"state\.json: was written by another version of hpcplan"):
        mock.jobs()


def test_a_state_with_other_keys_has_another_format(mock: MockBackend, wall: Wall) -> None:
    """Else the next version meets keys of the last one: count store's ``_FORMAT`` up with what is listed here."""
    mock.jobs()
    state = json.loads((find_store(wall=wall).directory / "state.json").read_text())
    assert state["format"] == 3
    assert sorted(state["engine"]) == [
        "controller", "down", "drained", "jobs", "next_id", "node_reasons", "now", "submissions",
    ]  # fmt: skip
    assert sorted(state["engine"]["controller"]) == [
        "began_ms", "completing", "holdings", "passed_over", "period", "reservations", "switch_waits", "threads",
        "told", "triggered", "untold", "usage",
    ]  # fmt: skip


def test_polling_writes_nothing_while_nothing_happens(
    mock: MockBackend, submit: Callable[..., int], wall: Wall
) -> None:
    submit("#SBATCH -t 600")
    state = find_store(wall=wall).directory / "state.json"
    before = state.stat().st_mtime_ns, state.stat().st_ino
    wall.time += 1
    mock.jobs()
    mock.nodes()
    assert (state.stat().st_mtime_ns, state.stat().st_ino) == before


def test_finished_jobs_leave_the_live_state_and_stay_in_accounting(
    mock: MockBackend, submit: Callable[..., int], wall: Wall
) -> None:
    for _ in range(30):
        submit()
    mock.advance(until_idle=True)
    directory = find_store(wall=wall).directory
    assert json.loads((directory / "state.json").read_text())["engine"]["jobs"] == []
    assert len(mock.accounting(T0, mock.now())) == 30
    assert json.loads((directory / "site.json").read_text())["name"] == "tiny"
