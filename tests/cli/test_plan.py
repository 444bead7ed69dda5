"""``hpcplan plan`` and ``hpcplan site``, as a user types them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcplan.cli import main
from hpcplan.plan import read_plan
from hpcplan.resources import shipped


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    out, err = run(capsys, "plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "4", "--tokens", "10B",
                   "--format", "json", "-o", str(path))  # fmt: skip
    data: dict[str, Any] = json.loads(out)
    assert data["plan"]["nodes"] == 4
    assert data["search"]["seconds"] >= 0
    assert "wrote" in err
    stored = json.loads(path.read_text())
    assert "seconds" not in stored["search"], "a plan file is the same each time"
    assert read_plan(path).plan.gpus == 32


def test_the_table_shows_the_best_few_the_breakdown_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "plan", "llama3-70b", "--site", "superpod-h100", "--nodes", "16", "--tokens", "10B")
    for words in ("llama3-70b on superpod-h100", "best", "pipeline bubble", "optimizer", "activations", "Why: "):
        assert words in out


def test_an_infeasible_request_leaves_with_3_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    out, err = run(capsys, "plan", "gpt3-175b", "--site", "superpod-h100", "--nodes", "1", "-o", str(path), code=3)
    assert "memory binds" in err
    assert out == ""
    assert not path.exists()


def test_options_override_the_workload(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "2", "--tokens", "5B",
                 "--global-batch", "128", "--sequence-length", "4096", "--framework", "torchrun", "--walltime", "4 h",
                 "--format", "json")  # fmt: skip
    data = json.loads(out)
    assert data["training"]["global_batch"] == 128
    assert data["training"]["sequence_length"] == 4096
    assert data["job"]["framework"] == "torchrun"
    assert data["plan"]["tp"] == 1, "torchrun stands for trainers without model parallelism"
    assert max(segment["time_limit_s"] for segment in data["segments"]) <= 4 * 3600


def test_what_was_assumed_of_a_config_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
              "num_hidden_layers": 16, "num_key_value_heads": 8, "vocab_size": 128256}  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    out, _ = run(capsys, "plan", str(path), "--site", "superpod-h100", "--nodes", "1")
    assert "Note: tokens: " in out


def test_site_list_says_where_each_came_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "sites"
    own.mkdir()
    (own / "broken.yaml").write_text("name: [")
    out, _ = run(capsys, "site", "list", "--sites", str(own), "--format", "json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert entries["superpod-h100"]["origin"] == "shipped"
    assert entries["broken"]["origin"] == "option"
    assert "not valid YAML" in entries["broken"]["error"], "one broken file must not hide the others"


def test_site_show_and_check_agree_on_the_digest(capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(run(capsys, "site", "show", "mixed-lab", "--format", "json")[0])
    checked = json.loads(run(capsys, "site", "check", shown["path"], "--format", "json")[0])
    assert checked["valid"] is True
    assert shown["sha256"] == checked["sha256"]
    assert shown["topology"]["nodes"] == checked["nodes"] == 10
    assert "H100-SXM5-80GB" in run(capsys, "site", "show", "mixed-lab")[0]


def test_workloads_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(run(capsys, "workload", "list", "--format", "json")[0])
    assert {"llama3-8b", "gpt3-175b", "mixtral-8x7b"} <= {entry["name"] for entry in listed}
    shown = json.loads(run(capsys, "workload", "show", "mixtral-8x7b")[0])
    assert shown["workload"]["model"]["experts"]["count"] == 8
    assert shown["active_parameters"] < shown["parameters"]
    assert "llama3-70b" in run(capsys, "workload", "list")[0]


def test_the_front_is_listed_and_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "front.svg"
    out, err = run(capsys, "plan", "llama3-8b", "--site", "mixed-lab", "--tokens", "10B", "--global-batch", "64",
                   "--pareto", "--plot", str(picture), "--format", "json")  # fmt: skip
    front = json.loads(out)["pareto"]
    assert "drew" in err
    assert picture.read_text().startswith("<?xml")
    steps = [point["iter_time_s"] for point in front]
    assert steps == sorted(steps)
    assert {"cost", "energy_kwh", "nodes", "train_s", "sharding", "node_group"} <= set(front[0])
    for a in front:
        for b in front:
            if a is not b:
                assert any(a[name] < b[name] for name in ("iter_time_s", "cost", "energy_kwh", "nodes"))


def test_a_picture_of_another_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "plan", "llama3-8b", "--site", "mixed-lab", "--plot", "front.bmp", code=2)
    assert ".svg, .png, .pdf" in err


def test_an_explanation_names_the_runner_up_the_near_miss_and_what_would_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("plan", "llama3-70b", "--site", "superpod-h100", "--nodes", "16", "--tokens", "10B", "--explain")
    data = json.loads(run(capsys, *words, "--format", "json")[0])
    explained = data["explain"]
    assert sum(term["best_s"] for term in explained["terms"]) == pytest.approx(
        data["estimate"]["iter_time_s"], rel=1e-4
    )
    assert explained["near_miss"]["over_bytes"] > 0
    changes = {change["change"]: change for change in explained["changes"]}
    assert changes["twice the network between nodes"]["step_s"] <= data["estimate"]["iter_time_s"]
    assert changes["products in fp8"]["step_s"] < data["estimate"]["iter_time_s"]
    assert {"one more node", "LoRA (rank 16)", "weights pruned 2:4"} <= set(changes)
    table = run(capsys, *words)[0]
    for text in ("Runner-up: ", "Nearest that did not fit: ", "What would change it"):
        assert text in table


def test_precisions_to_choose_from_are_searched(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "2", "--tokens", "5B", "--format", "json")
    alone = json.loads(run(capsys, *words)[0])
    both = json.loads(run(capsys, *words, "--precision", "bf16,fp8")[0])
    assert both["plan"]["precision"] == "fp8"
    assert both["search"]["candidates"] == 2 * alone["search"]["candidates"]
    assert "'fp7' is none; did you mean" in run(capsys, *words, "--precision", "fp7", code=2)[1]


def test_more_headroom_leaves_more_memory_free(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "plan", "llama3-70b", "--site", "superpod-h100", "--nodes", "16", "--memory-headroom", "0.3",
                 "--format", "json")  # fmt: skip
    assert json.loads(out)["estimate"]["memory_bytes"] <= 0.7 * 80 * 2**30


def test_one_job_over_unequal_pools(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = ("plan", "llama3-8b", "--site", "mixed-lab", "--pool", "h100", "--pool", "a100=4", "--tokens", "10B",
             "--global-batch", "128")  # fmt: skip
    data = json.loads(run(capsys, *words, "--format", "json", "-o", str(path))[0])
    pools = {pool["node_group"]: pool for pool in data["placement"]["pools"]}
    assert pools["h100"]["layers"] + pools["a100"]["layers"] == 32
    assert sum(data["plan"]["stage_layers"]) == 32
    assert data["pools"]["bound_s"] <= data["pools"]["step_s"]
    assert all(step is None or step >= data["pools"]["step_s"] for step in data["pools"]["rules"].values())
    assert read_plan(path).plan.gpus == 24
    table = run(capsys, *words)[0]
    for text in ("layers by stage", "h100 alone", "bound: no grain"):
        assert text in table
    assert "do not go together" in run(capsys, *words, "--explain", code=2)[1]


def test_what_would_make_a_request_feasible_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    err = run(capsys, "plan", "gpt3-175b", "--site", "superpod-h100", "--nodes", "1", code=3)[1]
    assert "what would do: " in err
    assert " nodes" in err.split("what would do: ")[1]
    late = run(capsys, "plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "1", "--tokens", "100B",
               "--deadline", "2 d", code=3)[1]  # fmt: skip
    assert "the deadline binds" in late
    assert "nodes would do" in late
    poor = run(capsys, "plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "1", "--tokens", "100B",
               "--budget", "10", code=3)[1]  # fmt: skip
    assert "the budget binds" in poor
    cost = re.search(r"costs ([\d,]+) USD", poor)
    assert cost is not None
    assert f"what would do: --budget {cost[1].replace(',', '')}" in poor
    assert " tokens" in poor


def test_a_budget_that_fewer_nodes_would_meet_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("plan", "llama3-8b", "--site", "superpod-h100", "--tokens", "20B", "--global-batch", "64")
    cost = [
        json.loads(run(capsys, *asked, "--nodes", n, "--format", "json")[0])["training"]["cost"] for n in ("2", "8")
    ]
    assert cost[0] < cost[1]
    budget = str(sum(cost) / 2)
    err = run(capsys, *asked, "--nodes", "8", "--budget", budget, code=3)[1]
    assert "the budget binds" in err
    count = next(word for word in ("7 nodes", "6 nodes", "5 nodes", "4 nodes", "3 nodes", "2 nodes") if word in err)
    run(capsys, *asked, "--nodes", count.split()[0], "--budget", budget)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fix", "offload=nvme"), "offload can be none or cpu"),
        (("--fix", "tp=3"), "tp can be 1, 2, 4, 8, 16 or 32"),
        (("--fix", "zero=3", "--fix", "pp=2"), "zero can be 0 or 1; pp can be 1"),
        (("--fix", "tp=8", "--framework", "torchrun"), "tp can be 1; --framework megatron-lm or "),
        (("--precision", "fp4"), "--precision bf16 or fp16 or fp32 or fp8"),
        (("--precision", "fp8", "--framework", "deepspeed"), "the framework binds"),
    ],
)  # fmt: skip
def test_a_choice_that_nothing_has_says_what_there_is(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert said in run(capsys, "plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "4", *options, code=3)[1]


def test_main_memory_that_binds_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (shipped("sites") / "superpod-h100.yaml").read_text()
    site = tmp_path / "small-host.yaml"
    site.write_text(text.replace("memory: 2 TiB", "memory: 64 GiB"))
    err = run(capsys, "plan", "llama3-70b", "--site", str(site), "--nodes", "2", "--fix", "offload=cpu", code=3)[1]
    assert "main memory binds" in err
    assert "to each node" in err
    assert " nodes" in err.split("what would do: ")[1]


def test_a_framework_whose_shardings_are_all_too_large_names_others(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("plan", "gpt3-175b", "--site", "superpod-h100", "--nodes", "16", "--framework", "tensorflow")
    assert "what would do: --framework megatron-lm or" in run(capsys, *asked, code=3)[1]
