from __future__ import annotations

import base64
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.report import jobstats


def packed(summary: object) -> str:
    return "JS1:" + base64.b64encode(gzip.compress(json.dumps(summary).encode(), mtime=0)).decode()


def node(**values: object) -> dict[str, object]:
    return {"total_memory": 2**32, "used_memory": 2**31, "total_time": 100.5, "cpus": 2, **values}


def test_a_jobstats_summary_is_added_up_over_the_nodes() -> None:
    found = jobstats.read(
        packed({"nodes": {"n1": node(gpu_utilization={"0": 90, "1": 10}), "n2": node(gpu_utilization={"0": 50})}})
    )
    assert found == jobstats.Measured(201.0, 2**32, 0.5)


def test_what_one_node_lacks_is_unknown_of_the_whole() -> None:
    second = node()
    del second["total_time"]
    found = jobstats.read(packed({"nodes": {"n1": node(), "n2": second}}))
    assert found == jobstats.Measured(None, 2**32, None)


def test_a_gpu_script_gives_its_percentage_in_plain_json() -> None:
    assert jobstats.read('{"gpu_mem_max": 12345, "ngpu": 1, "gpu_util": 53.1}') == jobstats.Measured(gpu_used=0.531)


@pytest.mark.parametrize(
    "comment",
    [
        "", "my favourite job", "JS1:", "JS1:Short", "JS1:None", "JS1:!!!", "{}", '{"gpu_util": "high"}', "{broken}",
        '{"gpu_util": 1e400}', '{"gpu_util": -3}', '{"gpu_util": 900}', '{"gpu_util": true}', "[1]", packed([1, 2]),
        packed({"nodes": {}}), packed({"nodes": {"n1": 3}}), packed({"nodes": [1]}), packed("text"),
        "JS1:" + base64.b64encode(b"\x1f\x8b\x08 not gzip").decode(), "{" * 20_000 + "}",
    ],
)  # fmt: skip
def test_any_other_comment_measures_nothing(comment: str) -> None:
    found = jobstats.read(comment)
    assert found is None or found == jobstats.Measured()


def test_a_decompression_bomb_is_not_unpacked() -> None:
    bomb = "JS1:" + base64.b64encode(gzip.compress(b" " * 10**8, mtime=0)).decode()
    assert jobstats.read(bomb) is None


@given(st.text())
def test_no_comment_breaks_the_reader(comment: str) -> None:
    for text in (comment, "JS1:" + comment, "{" + comment + "}"):
        assert jobstats.read(text) is None or isinstance(jobstats.read(text), jobstats.Measured)
