"""What is inferred of a run that does not say: what a tuned run would have used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcplan.calibrate.batch import Batch, known_system, make_batch
from hpcplan.calibrate.rows import Row, read_rows
from hpcplan.calibrate.validate import predict_table
from hpcplan.cost.constants import constants_for
from hpcplan.cost.shardings import FULL, NONE, SELECTIVE

HEADER = "site,gpus,model,seq,global_batch,micro_batch,tp,pp,vpp,dp,recompute,precision,iter_time_s\n"


def batch(tmp_path: Path, *lines: str) -> Batch:
    path = tmp_path / "runs.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    rows = [row for row in read_rows(path).rows if isinstance(row, Row)]
    assert len(rows) == len(lines)
    return make_batch(rows, constants_for().coefficients)


def test_what_is_stated_is_kept(tmp_path: Path) -> None:
    s = batch(tmp_path, "dgx-h100,64,llama3-70b,8192,64,2,8,4,1,2,full,bf16,10").shardings
    assert (s.micro_batch[0], s.vpp[0], s.recompute[0]) == (2, 1, FULL)


def test_recomputation_is_none_where_that_fits_and_else_selective(tmp_path: Path) -> None:
    """Selective recomputation drops the scores: what was trained before fused attention has some."""
    made = batch(
        tmp_path,
        "selene,8,gpt3-5b,2048,64,1,8,1,1,1,,fp16,10",
        "selene,8,gpt3-5b,2048,64,8,4,1,1,2,,fp16,10",
    )
    assert list(made.shardings.recompute) == [NONE, SELECTIVE]
    assert made.notes[1] == ("recompute selective inferred",)


def test_what_would_not_fit_keeps_activations_of_some_layers_elsewhere(tmp_path: Path) -> None:
    run = "dgx-h100,8,llama3-8b,8192,256,{},2,2,1,2,{},bf16,10"
    made = batch(tmp_path, run.format(1, ""), run.format(4, ""), run.format(64, ""), run.format(4, "none"))
    spared = made.shardings.spared_layers
    assert spared[0] == spared[3] == 0
    assert 0 < spared[1] < 16
    assert f"activations of {spared[1]} layers a stage elsewhere" in made.notes[1][0]
    assert spared[2] == 0, "not even all layers make room for the logits of 64 sequences"
    costs = made.price(constants_for().coefficients)
    assert list(costs.memory_bytes <= made.machine.memory_bytes) == [True, True, False, False]
    assert costs.step_s[1] == pytest.approx(costs.step_s[3])


def test_cut_and_groups_of_a_row_reach_its_sharding(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    header = "site,source,gpus,model,layers,hidden,heads,ffn,vocab,seq,global_batch,micro_batch,tp,pp,dp"
    run = "selene,megatron,64,gpt,32,2560,20,10240,50272,2048,64,1,2,4,8,1 (group 4),full (3 layers)"
    path.write_text(f'{header},zero,recompute,notes\n{run},"layers_per_stage=[7, 9, 9, 9]"\n')
    rows = [row for row in read_rows(path).rows if isinstance(row, Row)]
    s = make_batch(rows, constants_for().coefficients).shardings
    assert (s.fullest_layers[0], s.last_layers[0], s.kept_layers[0]) == (9, 8, 27)
    assert (s.shard_group[0], s.shards[0], s.spared_layers[0]) == (4, 4, 3)


def test_a_figure_of_the_allocator_is_less_than_what_the_card_holds(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    header = "site,source,gpus,model,seq,global_batch,micro_batch,tp,pp,dp,zero,recompute,mem_GB,notes"
    run = "dgx-h100,{},8,llama3-8b,8192,8,1,1,1,8,fsdp,full,40,{}"
    runs = [("torchtitan", ""), *(("own", f"max_memory_{word}") for word in ("reserved", "allocated")), ("own", "")]
    path.write_text("\n".join([header, *(run.format(*each) for each in runs)]) + "\n")
    made = make_batch([row for row in read_rows(path).rows if isinstance(row, Row)], constants_for().coefficients)
    c = constants_for().coefficients
    reported, card = made.memory_bytes(c)
    assert np.all(card == card[0]), "it is the same run"
    outside = float(c.context_bytes) + float(c.nccl_bytes)
    assert reported[[0, 1]] == pytest.approx(card[[0, 1]] - outside)
    assert reported[2] < reported[1] - float(c.framework_bytes) * 0.99
    assert reported[3] == card[3]


def test_memory_of_a_run_that_states_its_cut_is_that_of_its_fullest_stage(tmp_path: Path) -> None:
    """The first stage has the table, but half of the layers of the second; the last has head and logits."""
    path = tmp_path / "runs.csv"
    shape = "layers,hidden,heads,ffn,vocab"
    header = f"site,source,gpus,model,{shape},seq,global_batch,micro_batch,tp,pp,dp,recompute,notes"
    run = 'selene,megatron,8,gpt,24,2560,20,10240,50272,2048,16,1,1,4,2,none,"layers_per_stage=[{}]"'
    path.write_text("\n".join([header, run.format("4, 8, 6, 6"), run.format("8, 4, 6, 6")]) + "\n")
    made = make_batch([row for row in read_rows(path).rows if isinstance(row, Row)], constants_for().coefficients)
    c = constants_for().coefficients
    reported, card = made.memory_bytes(c)
    everything = made.price(c).memory_bytes
    assert reported[0] < everything[0] - 1e9, "no stage has the most of everything"
    assert np.all(card <= everything)
    assert reported[1] > reported[0]


def test_the_micro_batch_is_the_fastest_that_fits(tmp_path: Path) -> None:
    run = "selene,8,gpt3-5b,2048,512,{},8,1,1,1,full,fp16,10"
    made = batch(tmp_path, run.format(""), run.format(1))
    costs = made.price(constants_for().coefficients)
    assert made.shardings.micro_batch[0] > 1
    assert costs.step_s[0] < costs.step_s[1]
    assert np.all(costs.memory_bytes <= made.machine.memory_bytes)


@pytest.mark.parametrize(("precision", "inferred"), [("bf16", True), ("fp16", False)])
def test_interleaving_is_inferred_for_trainers_that_have_it(tmp_path: Path, precision: str, inferred: bool) -> None:
    made = batch(tmp_path, f"dgx-h100,64,llama3-70b,8192,64,1,8,4,,2,none,{precision},10")
    assert bool(made.shardings.vpp[0] > 1) is inferred
    assert made.shardings.micro_batches[0] % made.shardings.pp[0] == 0


def test_a_site_that_nobody_knows_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(HEADER + "atlantis,8,gpt3-5b,2048,64,1,1,1,1,8,,bf16,10\n")
    (row,) = read_rows(path).rows
    assert isinstance(row, Row)
    assert "atlantis" in str(known_system(row))


def test_a_site_that_nobody_knows_is_priced_by_its_hardware_and_the_note_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    lines = ("atlantis,NVIDIA A100 80GB", "atlantis,H100 96GB 500W", "atlantis,DGX-GB200", ",H100 SXM")
    rest = ",8,gpt3-5b,2048,64,1,1,1,1,8,,bf16,10"
    path.write_text(HEADER.replace("site,", "site,hardware,") + "".join(f"{line}{rest}\n" for line in lines))
    rows = [row for row in read_rows(path).rows if isinstance(row, Row)]
    assert [known_system(row) for row in rows] == [None] * 4
    made = make_batch(rows, constants_for().coefficients)
    assert [system.family for system in made.systems] == ["A100", "H100", "B200", "H100"]
    assert "generic-a100-80g" in made.notes[0][0]


def test_a_pipeline_over_oversubscribed_pods_takes_as_long_as_was_reported(tmp_path: Path) -> None:
    """Llama 3 405B on 8,192 H100: 430 TFLOP/s a GPU (Grattafiori et al. 2024, table 4).

    That is 12.0 s a step if the scores under the causal mask are not counted, and 12.5 s if they are. Six stages share
    a pod, and one of them its up-link.
    """
    path = tmp_path / "llama.csv"
    path.write_text(
        "site,hardware,gpus,model,seq,global_batch,micro_batch,tp,pp,vpp,cp,dp,recompute,seq_parallel,precision,tflops_per_gpu\n"
        "grand-teton-h100-700w,H100,8192,llama3-405b,8192,2048,1,8,16,8,1,64,none,true,bf16,430\n"
    )
    _, (found,) = predict_table(path)
    assert found.step_s is not None
    assert 0.95 * 12.0 < found.step_s < 1.05 * 12.5
