"""Tables of measured runs: what is read, inferred, and refused."""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.calibrate.batch import system_of
from hpcplan.calibrate.rows import Row, read_rows
from hpcplan.errors import InputError
from hpcplan.workload.public_models import shape_by_name


def table(tmp_path: Path, header: str, *lines: str) -> list[Row | str]:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return list(read_rows(path).rows)


def one(tmp_path: Path, header: str, line: str) -> Row:
    (row,) = table(tmp_path, header, line)
    assert isinstance(row, Row), row
    return row


def test_a_bare_row_is_completed_and_says_how(tmp_path: Path) -> None:
    row = one(tmp_path, "site,gpus,model,tp,iter_time_s", "dgx-h100,64,LLAMA3.1_70B,8,12.5")
    assert row.model.layers == 80
    assert row.dp == 8
    assert row.precision == "bf16"
    said = " ".join(row.notes)
    for words in ("shape of LLAMA3.1_70B from the catalogue", "seq 4096 assumed", "precision bf16 assumed", "ZeRO"):
        assert words in said


@pytest.mark.parametrize(
    ("columns", "values", "expected_s"),
    [
        ("tokens_per_s_per_gpu", "2048", 64 * 2048 / (2048 * 8)),
        ("iter_time_s,tokens_per_s_per_gpu", "3.5,1", 3.5),
    ],
)
def test_the_step_time_comes_from_the_rate_where_it_is_not_stated(
    tmp_path: Path, columns: str, values: str, expected_s: float
) -> None:
    header = f"site,gpus,model,seq,global_batch,{columns}"
    assert one(tmp_path, header, f"selene,8,gpt3-5b,2048,64,{values}").measured_s == pytest.approx(expected_s)


def test_tflops_that_count_recomputation_give_a_shorter_step(tmp_path: Path) -> None:
    header = "site,gpus,model,seq,global_batch,recompute,tflops_per_gpu,notes"
    plain = one(tmp_path, header, "selene,8,gpt3-5b,2048,64,full,140,")
    counted = one(tmp_path, header, "selene,8,gpt3-5b,2048,64,full,140,TFLOPs count recompute")
    assert plain.measured_s is not None
    assert counted.measured_s == pytest.approx(plain.measured_s * 4 / 3)


def test_gated_or_not_is_told_by_the_models_size(tmp_path: Path) -> None:
    header = "site,gpus,model,model_params_B,layers,hidden,heads,ffn,vocab,seq,global_batch"
    assert one(tmp_path, header, "selene,8,x,6.7,32,4096,32,11008,32000,2048,64").model.gated
    assert not one(tmp_path, header, "selene,8,x,5.3,32,4096,32,11008,32000,2048,64").model.gated
    assert not one(tmp_path, header, "selene,8,x,,32,4096,32,16384,32000,2048,64").model.gated


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("selene,,gpt3-5b,1,2048,64", "gpus is not stated"),
        ("selene,eight,gpt3-5b,1,2048,64", "gpus: 'eight' is not a number"),
        ("selene,8,gpt9-1q,1,2048,64", "neither stated nor known"),
        ("selene,8,gpt3-5b,3,2048,64", "does not divide 8 GPUs"),
        ("selene,8,gpt3-5b,1,2048,63", "does not divide over 8 data-parallel ranks"),
        ("selene,8,Nemotron-H 56b,1,2048,64", "state-space"),
    ],
)
def test_a_row_that_cannot_be_priced_says_why(tmp_path: Path, line: str, reason: str) -> None:
    (row,) = table(tmp_path, "site,gpus,model,tp,seq,global_batch", line)
    assert isinstance(row, str)
    assert reason in row


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_may_stand_between_commas_semicolons_or_tabs(tmp_path: Path, mark: str) -> None:
    header, line = "site,gpus,model,tp,iter_time_s", "dgx-h100,64,LLAMA3.1_70B,8,12.5"
    row = one(tmp_path, header.replace(",", mark), line.replace(",", mark))
    assert (row.gpus, row.tp, row.measured_s) == (64, 8, 12.5)


def test_a_table_with_semicolons_may_have_decimal_commas(tmp_path: Path) -> None:
    assert one(tmp_path, "site;gpus;model;iter_time_s", "dgx-h100;64;llama3-8b;12,5").measured_s == 12.5


def test_case_and_blanks_of_column_names_do_not_matter(tmp_path: Path) -> None:
    assert one(tmp_path, " Site , GPUs,Model,Global Batch", "dgx-h100,64,llama3-8b,128").global_batch == 128


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("site,gpus,gpus,model\nselene,8,16,llama3-8b\n", "has two columns 'gpus'"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        read_rows(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("selene,8,llama3-8b,1,2,3", "has 6 cells, the header 4"),
        (",,,", "gpus is not stated"),
        ("selene,-8,llama3-8b,1", "'-8' is not a number of 0 or more"),
        ('selene,"1,024",llama3-8b,1', "written like 1234.5"),
        ("selene,8,llama3-8b,nan", "'nan' is not a number"),
        ("selene,1e30,llama3-8b,1", "'1e30' is not a number"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_named(tmp_path: Path, line: str, reason: str) -> None:
    (row,) = table(tmp_path, "site,gpus,model,iter_time_s", line)
    assert isinstance(row, str)
    assert reason in row


def test_fine_tuning_with_adapters_is_told_by_the_words_around_a_run(tmp_path: Path) -> None:
    header = "site,gpus,model,source"
    plain = one(tmp_path, header, "dgx-h100,8,llama3-8b,a page of pre-training")
    lora = one(tmp_path, header, "dgx-h100,8,llama3-8b,a page [LoRA Performance]")
    packed = one(tmp_path, header, "dgx-h100,8,llama3-8b,QLoRA")
    assert (plain.adapter_rank, lora.adapter_rank) == (0, 32)
    assert packed.frozen_bytes < lora.frozen_bytes
    assert any("adapters of rank 32" in note for note in lora.notes)


def test_a_run_on_unequal_pools_goes_at_the_pace_of_the_slowest(tmp_path: Path) -> None:
    header = "site,gpus,model,precision,hardware"
    alone = one(tmp_path, header, "mixed-rtx,8,llama3-8b,tf32,8x RTX-3090")
    mixed = one(tmp_path, header, "mixed-rtx,16,llama3-8b,tf32,8x RTX-3090 + 8x RTX-2080")
    fast, slow = (system_of(row.site, row.precision, row.hardware).machine for row in (alone, mixed))
    assert slow.peak_flops < fast.peak_flops
    assert slow.memory_bytes_per_s < fast.memory_bytes_per_s
    assert slow.memory_bytes == fast.memory_bytes


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no columns 'gpus' and 'site'"):
        table(tmp_path, "a,b", "1,2")


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("Llama 3.1 405b FP8", 126),
        ("DeepSeekV3 (w/o MTP)", 61),
        ("Qwen3_235B_a22B (tokendrop)", 94),
        ("GPT OSS 120B", 36),
        ("llama 3.1 8b Instruct", 32),
    ],
)
def test_models_are_known_however_tables_write_them(name: str, layers: int) -> None:
    shape = shape_by_name(name)
    assert shape is not None
    assert shape.layers == layers


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_cell_is_read_or_refused(a: str, b: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["site", "gpus", "model", "micro_batch", "zero", "recompute", "precision", "seq"])
    writer.writerow(["selene", a, "gpt3-5b", b, a, b, a, b])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text(stream.getvalue().replace("\0", ""), encoding="utf-8", errors="surrogatepass")
        with contextlib.suppress(InputError):
            assert len(read_rows(path).rows) >= 1


def test_every_given_table_reads(shared_data: Path) -> None:
    usable = total = 0
    for path in sorted((shared_data / "measured").glob("*.csv")):
        if "nccl" in path.name or "memory" in path.name:
            continue
        rows = read_rows(path).rows
        total += len(rows)
        usable += sum(isinstance(row, Row) for row in rows)
    assert total > 1000
    assert usable / total > 0.95


@pytest.mark.parametrize(("column", "again", "factor"), [("mfu_pct", "full", 1.0), ("hfu_pct", "full", 4 / 3)])
def test_a_share_of_the_peak_is_a_step_time(tmp_path: Path, column: str, again: str, factor: float) -> None:
    """50 % of 312 TFLOP/s is 156 TFLOP/s; hardware FLOPs count the forward pass that full recomputation repeats."""
    header = "site,gpus,model,seq,global_batch,micro_batch,tp,pp,dp,precision,recompute,"
    line = f"selene,8,llama3-8b,4096,64,1,1,1,8,bf16,{again},"
    share = one(tmp_path, header + column, line + "50")
    rate = one(tmp_path, header + "tflops_per_gpu", line + "156")
    assert share.measured_s is not None
    assert rate.measured_s is not None
    assert share.measured_s == pytest.approx(factor * rate.measured_s)


def test_notes_name_the_schedule_and_what_torchtitan_does_by_default(tmp_path: Path) -> None:
    header = "site,source,gpus,model,seq,global_batch,tp,pp,vpp,dp,precision,iter_time_s,notes"
    line = "selene,torchtitan,64,llama3-8b,4096,64,8,4,1,2,bf16,9,schedule {}"
    interleaved, plain = (one(tmp_path, header, line.format(name)) for name in ("Interleaved 1F1B", "1F1B"))
    assert (interleaved.vpp, plain.vpp) == (2, 1)
    # torchtitan's build_pipeline_schedule: as many micro-batches as there are stages, of all ranks together; before
    # its pull request 781 of January 2025 as many as ranks
    assert (interleaved.micro_batch, plain.micro_batch) == (64 // 2 // (4 * 2), 64 // 2 // 4)
    older = one(tmp_path, header, line.replace("torchtitan", "torchtitan 202412").format("Interleaved 1F1B"))
    assert older.micro_batch == 64 // 2 // 4
    assert one(tmp_path, header, line.format("GPipe")).schedule == "gpipe"
    assert one(tmp_path, header, line.format("ZB-H1")).schedule == "zero-bubble"


def test_fp16_stage_3_is_deepspeed_and_later_stage_3_is_fsdp(tmp_path: Path) -> None:
    header = "site,gpus,model,seq,global_batch,tp,pp,dp,zero,precision,iter_time_s"
    line = "selene,64,llama3-8b,4096,64,1,1,64,3,{},9"
    assert one(tmp_path, header, line.format("fp16")).framework == "megatron-deepspeed"
    assert one(tmp_path, header, line.format("bf16")).framework == "fsdp"
    assert one(tmp_path, header, line.replace(",3,", ",fsdp,").format("fp16")).framework == "fsdp"


def test_memory_is_read_in_the_unit_of_its_trainer(tmp_path: Path) -> None:
    header = "site,source,gpus,model,zero,mem_GB"
    titan = one(tmp_path, header, "dgx-h100,torchtitan/page,8,llama3-8b,3,60")
    other = one(tmp_path, header, "dgx-h100,llm-foundry,8,llama3-8b,3,60")
    assert titan.measured_bytes == 60 * 2**30
    assert other.measured_bytes == 60e9
    assert any("GiB" in note for note in titan.notes)
    assert not any("GiB" in note for note in other.notes)


def test_what_a_memory_counts_is_read_from_its_trainer_or_from_notes(tmp_path: Path) -> None:
    header = "site,source,gpus,model,zero,mem_GB,notes"
    line = "dgx-h100,{},8,llama3-8b,3,60,{}"
    assert one(tmp_path, header, line.format("torchtitan/page", "")).memory_counted == "reserved"
    assert one(tmp_path, header, line.format("megatron", "by nvidia-smi")).memory_counted == "card"
    for word in ("reserved", "allocated"):
        read = one(tmp_path, header, line.format("megatron", f"torch.cuda.max_memory_{word}()"))
        assert read.memory_counted == word


@pytest.mark.parametrize("words", ["micro_num=4", "gradient accumulation 4", "grad_accum: 4", "accumulation_steps=4"])
def test_a_batch_that_is_not_stated_follows_from_accumulation(tmp_path: Path, words: str) -> None:
    header = "site,gpus,model,micro_batch,dp,notes"
    assert one(tmp_path, header, f"selene,8,llama3-8b,2,8,{words}").global_batch == 2 * 8 * 4


@pytest.mark.parametrize(
    ("pp", "cut", "expected"),
    [
        (4, "[7, 9, 9, 9]", (6, 9, 9, 8)),  # with embedding and head
        (4, "[8, 8, 7, 9]", (8, 8, 7, 9)),
        (2, "[17, 17]", ()),  # 16 each, and the ends
        (1, "[34]", ()),
        (4, "[1, 2, 3]", ()),
    ],
)
def test_a_cut_into_stages_is_read_from_notes(tmp_path: Path, pp: int, cut: str, expected: tuple[int, ...]) -> None:
    header = "site,gpus,model,layers,hidden,heads,ffn,vocab,seq,global_batch,pp,notes"
    row = one(tmp_path, header, f'selene,8,gpt,32,2560,20,10240,50272,2048,64,{pp},"layers_per_stage={cut}"')
    assert row.stage_layers == expected
    for words in ("stage layers", "Layers per stage:", "stage-layers ="):
        said = one(tmp_path, header, f'selene,8,gpt,32,2560,20,10240,50272,2048,64,{pp},"1F1B; {words} {cut}"')
        assert said.stage_layers == expected
    assert any("is no cut of 32 layers into 4 stages" in note for note in row.notes) == (cut == "[1, 2, 3]")


@pytest.mark.parametrize(("source", "compiled"), [("bench_202412.md", False), ("bench_2025-06.md", True), ("", True)])
def test_torchtitan_compiles_the_loss_with_the_model_since_spring_2025(
    tmp_path: Path, source: str, compiled: bool
) -> None:
    header = "site,source,gpus,model,zero,notes"
    row = one(tmp_path, header, f"dgx-h100,torchtitan {source},8,llama3-8b,3,torch.compile")
    assert ("compiled-loss" in row.features) is compiled


@pytest.mark.parametrize(
    ("source", "precision", "model", "hardware", "features"),
    [
        ("performance_summary.md (NeMo 24.07)", "fp8", "llama2-7b", "DGX-H100", {"flash-attention-2"}),
        ("performance_summary.md (NeMo 24.09)", "fp8", "llama2-7b", "DGX-H100", set()),
        ("page [26.06.01 NeMo Container / Pre-Training]", "MXFP8", "DeepSeekV3", "DGX-GB300",
         {"whole-graph", "balanced-experts", "expert-overlap", "fused-experts"}),
        ("page [26.06 NeMo Container / Pre-Training]", "BF16", "DeepSeekV3", "DGX-GB200",
         {"balanced-experts", "attention-graph", "router-graph"}),
        ("page [26.04 NeMo Container / Pre-Training]", "MXFP8", "DeepSeekV3", "DGX-GB300", {"balanced-experts"}),
        ("page [26.06 NeMo Container / Pre-Training]", "MXFP8", "Kimi_K2", "DGX-GB300", {"balanced-experts"}),
        ("page [26.02 NeMo Container / Pre-Training]", "NVFP4", "LLAMA3_70B", "DGX-GB200", {"whole-graph"}),
        ("page [26.02 NeMo Container / Pre-Training]", "MXFP8", "Qwen3_30B_a3B", "DGX-B200",
         {"balanced-experts", "router-graph", "all-to-all"}),
        ("page [26.02.01 NeMo Container / Pre-Training]", "MXFP8", "Qwen3_30B_a3B", "DGX-B200",
         {"balanced-experts", "attention-graph", "router-graph"}),
        ("page [26.04 NeMo Container / Pre-Training]", "FP8", "Qwen3_235B_a22B", "DGX-H100",
         {"balanced-experts", "all-to-all", "expert-overlap"}),
        ("Megatron-Bridge as of August", "MXFP8", "DeepSeekV3", "DGX-GB300", set()),
    ],
)  # fmt: skip
def test_releases_of_nemo_tell_what_their_recipes_did(
    tmp_path: Path, source: str, precision: str, model: str, hardware: str, features: set[str]
) -> None:
    cells = f"dgx-h100,NeMo {source},{hardware},64,{model},{precision}"
    row = one(tmp_path, "site,source,hardware,gpus,model,precision", cells)
    assert row.framework == "nemo"
    assert set(row.features) == features


@pytest.mark.parametrize(
    ("precision", "source", "read"),
    [
        ("FP8-CS", "page [25.11 NeMo Container]", "fp8"), ("FP8", "page [26.04 NeMo Container]", "fp8"),
        ("FP8-MX", "page [25.11 NeMo Container]", "mxfp8"), ("MXFP8", "", "mxfp8"), ("NVFP4", "", "fp4"),
        ("FP8-DS", "", "fp8-delayed"), ("fp8", "(NeMo 24.07)", "fp8-delayed"), ("FP8 blockwise", "", "fp8-blockwise"),
        ("float8 + torch.compile", "torchtitan", "fp8"),
    ],
)  # fmt: skip
def test_8_bit_formats_are_told_apart_by_how_they_are_scaled(
    tmp_path: Path, precision: str, source: str, read: str
) -> None:
    header = "site,source,gpus,model,precision"
    assert one(tmp_path, header, f"gb200-nvl72,{source},64,llama3-70b,{precision}").precision == read


def test_products_scaled_by_rows_are_told_from_those_scaled_by_tensors(tmp_path: Path) -> None:
    header = "site,gpus,model,precision"
    assert "rowwise" in one(tmp_path, header, "dgx-h100,8,llama3-8b,float8 rowwise").features
    assert one(tmp_path, header, "dgx-h100,8,llama3-8b,float8 tensorwise").features == ()


@pytest.mark.parametrize(
    ("zero", "notes", "group"),
    [("1 (group 8)", "", 8), ("3", "HSDP", 4), ("3", "hybrid shard", 4), ("1", "", 0), ("1 (global)", "", 0)],
)
def test_hybrid_sharding_is_read(tmp_path: Path, zero: str, notes: str, group: int) -> None:
    row = one(tmp_path, "site,gpus,gpus_per_node,model,tp,zero,notes", f"selene,64,8,llama3-8b,2,{zero},{notes}")
    assert row.shard_group == group


def test_some_recomputed_layers_and_a_capacity_factor_are_read(tmp_path: Path) -> None:
    assert one(tmp_path, "site,gpus,model,recompute", "selene,8,llama3-8b,full (4 layers)").recompute_layers == 4
    header = "site,gpus,model,notes"
    for notes, factor in (("token drop", 1.0), ("capacity_factor=1.25", 1.25), ("", None)):
        experts = one(tmp_path, header, f"selene,8,mixtral-8x7b,{notes}").model.experts
        assert experts is not None
        assert experts.capacity_factor == factor


def test_a_chip_without_bf16_is_taken_to_train_in_fp16(tmp_path: Path) -> None:
    header = "site,hardware,gpus,model"
    assert one(tmp_path, header, "lab,DGX-1 V100,8,gpt3-5b").precision == "fp16"
    assert one(tmp_path, header, "lab,A100,8,gpt3-5b").precision == "bf16"
