"""What the sampler of rendered jobs wrote is added up by job; what is torn or missing is never zero."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.campaign.samples import read_samples, samples_of_job

HEAD = "time,node,gpu,gpu_percent,gpu_memory_mib,gpu_power_w,cpu_percent,memory_mib\n"


def written(directory: Path, job_id: int, node: str, text: str) -> None:
    folder = directory / "usage" / str(job_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{node}.csv").write_text(text)


def test_figures_of_all_nodes_are_added_up(tmp_path: Path) -> None:
    for node, busy in (("n1", 80), ("n2", 40)):
        lines = [
            f"{t},{node},0,{busy},1000,300,,\n{t},{node},1,0,10,50,,\n{t},{node},,,,,20.0,4096\n" for t in (100, 130)
        ]
        written(tmp_path, 7, node, HEAD + "".join(lines))
    found = read_samples(tmp_path)[7]
    assert (found.nodes, found.times, found.gpus, found.idle_gpus) == (2, 2, 4, 2)
    assert found.gpu_used == pytest.approx(0.3)
    assert found.gpu_memory_bytes == 1000 * 2**20
    assert found.gpu_power_w == pytest.approx(700)
    assert found.cpu_used == pytest.approx(0.2)
    assert found.memory_bytes == 4096 * 2**20
    assert (found.first, found.last, found.span_s) == (100, 130, 30)


def test_a_line_that_is_still_being_written_does_not_count(tmp_path: Path) -> None:
    written(tmp_path, 7, "n1", HEAD + "100,n1,,,,,20.0,4096\n130,n1,,,,,90.0,99999")
    found = samples_of_job(tmp_path, 7)
    assert found is not None
    assert (found.times, found.memory_bytes) == (1, 4096 * 2**20)
    assert found.cpu_used == pytest.approx(0.2)


def test_a_figure_that_a_gpu_does_not_tell_is_unknown_and_not_zero(tmp_path: Path) -> None:
    written(tmp_path, 7, "n1", HEAD + "100,n1,0,90,[N/A],[N/A],,\n100,n1,1,[N/A],500,[N/A],,\n")
    found = samples_of_job(tmp_path, 7)
    assert found is not None
    assert (found.gpus, found.gpu_used, found.gpu_power_w) == (2, None, None)  # of one GPU of two is not of both
    assert found.gpu_memory_bytes == 500 * 2**20


def test_without_gpus_only_the_nodes_figures_are_known(tmp_path: Path) -> None:
    written(tmp_path, 7, "n1", HEAD + "100,n1,,,,,20.0,4096\n")
    found = samples_of_job(tmp_path, 7)
    assert found is not None
    assert (found.gpus, found.gpu_used, found.gpu_memory_bytes, found.gpu_power_w) == (0, None, None, None)


def test_folders_that_are_no_jobs_and_empty_files_are_passed_over(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == {}
    written(tmp_path, 8, "n1", HEAD)
    (tmp_path / "usage" / "old").mkdir()
    assert read_samples(tmp_path) == {}


@given(st.lists(st.text(alphabet="0123456789.,-n[A]/\n eE", max_size=60), max_size=8))
def test_no_text_stops_it_and_figures_stay_in_their_ranges(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("campaign")
    written(directory, 7, "n1", HEAD + "\n".join(lines) + "\n")
    found = samples_of_job(directory, 7)
    if found is not None:
        assert found.gpu_used is None or 0 <= found.gpu_used <= 1
        assert found.cpu_used is None or 0 <= found.cpu_used <= 1
        assert found.idle_gpus <= found.gpus
        assert found.first <= found.last
