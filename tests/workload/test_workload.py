"""Workloads: shapes against published sizes, files, Hugging Face configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import InputError
from hpcplan.workload import list_workloads, load_workload
from hpcplan.workload.arithmetic import active_parameters, model_flops_per_token, parameters

# billions, all and active, as published: Llama 3 (arXiv:2407.21783), GPT-3 and 1T with Megatron's padded vocabulary
# (arXiv:2104.04473, table 1), Mixtral (arXiv:2401.04088), DeepSeek-V3 (arXiv:2412.19437), BLOOM (arXiv:2211.05100)
PUBLISHED = {
    "llama3-8b": (8.03, 8.03),
    "llama3-70b": (70.55, 70.55),
    "llama3-405b": (405.85, 405.85),
    "gpt3-175b": (174.6, 174.6),
    "megatron-1t": (1008.0, 1008.0),
    "mixtral-8x7b": (46.7, 12.9),
    "mixtral-8x22b": (140.6, 39.2),
    "deepseek-v3": (671.0, 37.6),
    "bloom-176b": (176.25, 176.25),
    "bert-large": (0.334, 0.334),
}


def test_the_promised_names_are_there() -> None:
    assert set(list_workloads()) == set(PUBLISHED)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_as_published(name: str) -> None:
    shape = load_workload(name).workload.model
    total, active = PUBLISHED[name]
    assert parameters(shape) / 1e9 == pytest.approx(total, rel=0.002)
    assert active_parameters(shape) / 1e9 == pytest.approx(active, rel=0.005)


def test_model_flops_follow_the_published_formula() -> None:
    """72 l h^2 (1 + s/6h + V/12lh) a token (Narayanan et al. 2021, equation 3, less recomputation)."""
    shape = load_workload("gpt3-175b").workload.model
    layers, h, s, v = 96, 12288, 2048, 51200
    formula = 72 * layers * h**2 * (1 + s / (6 * h) + v / (12 * layers * h))
    assert model_flops_per_token(shape, s) == pytest.approx(formula, rel=0.002)


LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "rope_theta": 500000.0,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8,
    "num_experts_per_tok": 2, "max_position_embeddings": 32768,
}  # fmt: skip
DEEPSEEK = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_attention_heads": 128, "num_hidden_layers": 61, "num_key_value_heads": 128, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}
BLOOM = {"model_type": "bloom", "hidden_size": 14336, "n_head": 112, "n_layer": 70, "vocab_size": 250880}


@pytest.mark.parametrize(
    ("config", "billions"),
    [(LLAMA, 8.03), (MIXTRAL, 46.7), (DEEPSEEK, 671.0), (GPT2, 0.1244), (BLOOM, 176.25)],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else None,
)
def test_a_hugging_face_config_gives_the_models_size(tmp_path: Path, config: dict[str, Any], billions: float) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    loaded = load_workload(path)
    assert parameters(loaded.workload.model) / 1e9 == pytest.approx(billions, rel=0.002)
    assert len(loaded.assumed) == 3, "what the file does not say is assumed, and said"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"hidden_size": -1}, "hidden_size: must be a positive whole number"),
        ({"num_attention_heads": 33}, "not a multiple of heads"),
        ({"num_hidden_layers": None}, "has none of the keys num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size: must be a positive whole number"),
    ],
)
def test_a_wrong_config_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, **change}, indent=1))
    with pytest.raises(InputError, match=expected):
        load_workload(path)


WORKLOAD = """\
name: mine
model: llama3-8b
training: {tokens: 1T, global_batch: 256, sequence_length: 8192}
request: {nodes: 4:16, walltime: 12:00:00}
"""


def test_a_workload_file_names_a_model_of_the_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(WORKLOAD)
    workload = load_workload(path).workload
    assert workload.model == load_workload("llama3-8b").workload.model
    assert workload.request.nodes == (4, 16)
    assert workload.request.walltime_s == 12 * 3600
    assert workload.training.steps == -(-(10**12) // (256 * 8192))


def test_a_workload_file_names_a_config_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    path = tmp_path / "mine.yaml"
    path.write_text(WORKLOAD.replace("llama3-8b", "config.json"))
    experts = load_workload(path).workload.model.experts
    assert experts is not None
    assert experts.count == 8


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("llama3-8b", "llama-8b", "mine.yaml:2: model: no model is called 'llama-8b'; did you mean 'llama3-8b'"),
        ("tokens: 1T", "token: 1T", "training.token: unknown key; did you mean 'tokens'?"),
        ("4:16", "16:4", "mine.yaml:4: request.nodes"),
        ("256", "-256", "mine.yaml:3: training.global_batch"),
        ("12:00:00", "12:00", "could be hours:minutes or minutes:seconds"),
    ],
)
def test_a_mistake_in_a_workload_is_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(WORKLOAD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_workload(path)
    assert expected in str(caught.value)
