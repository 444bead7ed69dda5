"""Reading a model's shape from a Hugging Face ``config.json``.

Keys are those of the ``transformers`` configuration classes: Llama, Mistral, Mixtral, Qwen2/3, DeepSeek-V3, GPT-2,
GPT-NeoX, MPT, BLOOM, OPT, Falcon (new decoder), Phi-3, Gemma, BERT and RoBERTa.
"""

from __future__ import annotations

from typing import Any

from hpcplan.documents import Document
from hpcplan.errors import InputError, nearest
from hpcplan.workload.model import Experts, LatentAttention, ModelShape

__all__ = ["looks_like_config", "shape_from_config"]

# what differs from a Llama-like decoder, by `model_type`
_PLAIN: dict[str, Any] = {"gated": False, "bias": True, "norm": "layernorm"}
_LLAMA_LIKE = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "deepseek_v3", "phi3", "gemma", "gemma2",
    "olmo2",
)  # fmt: skip
_FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {} for name in _LLAMA_LIKE},
    "gpt2": {**_PLAIN, "position": "learned", "tied_embeddings": True, "dropout": True},
    "gpt_neox": {**_PLAIN},
    "mpt": {"gated": False, "norm": "layernorm", "position": "alibi", "tied_embeddings": True},
    "bloom": {**_PLAIN, "position": "alibi", "tied_embeddings": True},
    "opt": {**_PLAIN, "position": "learned", "tied_embeddings": True, "dropout": True},
    "falcon": {"gated": False, "norm": "layernorm", "tied_embeddings": True},
    "bert": {**_PLAIN, "position": "learned", "tied_embeddings": True, "causal": False, "dropout": True},
    "roberta": {**_PLAIN, "position": "learned", "tied_embeddings": True, "causal": False, "dropout": True},
}  # fmt: skip
_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocab": ("vocab_size",),
    "ffn": ("intermediate_size", "n_inner", "ffn_dim"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim",),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
}


def looks_like_config(value: Any) -> bool:
    """Whether a parsed file is a model configuration rather than a workload."""
    return isinstance(value, dict) and "model_type" in value


def shape_from_config(document: Document) -> ModelShape:
    """Return the shape that a ``config.json`` describes.

    Raises:
        InputError: a model type that is not known, or a key that is missing or not a positive whole number.
    """
    config: dict[str, Any] = document.value
    family = config.get("model_type")
    if not isinstance(family, str) or family not in _FAMILIES:
        message = f"model type {family!r} is not known" + nearest(str(family), _FAMILIES)
        raise InputError(
            document.problem(("model_type",), message), hint="write the shape into a workload file instead"
        )
    fields: dict[str, Any] = dict(_FAMILIES[family])
    for field in ("layers", "hidden", "heads", "vocab"):
        fields[field] = _number(document, field)
    for field in ("ffn", "kv_heads", "head_dim", "max_positions"):
        if any(config.get(name) is not None for name in _NAMES[field]):
            fields[field] = _number(document, field)
    fields.setdefault("ffn", 4 * fields["hidden"])
    if fields.get("position") != "learned":
        fields.pop("max_positions", None)
    if family == "opt":
        fields["relu"] = config.get("activation_function", "relu") == "relu"
    if fields.get("dropout") and config.get("attention_dropout") == 0:
        fields["attention_dropout"] = False
    if "tie_word_embeddings" in config:
        fields["tied_embeddings"] = bool(config["tie_word_embeddings"])
    fields["experts"] = _experts(document)
    fields["latent_attention"] = _latent_attention(document)
    if fields["latent_attention"] is not None:
        fields["head_dim"] = fields["latent_attention"].qk_nope_head_dim
        fields.pop("kv_heads", None)
    shape = ModelShape(**fields)
    problems = [document.problem(_place(config, str(loc[0])), message) for loc, message in shape.inconsistencies()]
    if problems:
        raise InputError(problems)
    return shape


def _place(config: dict[str, Any], field: str) -> tuple[str, ...]:
    return next(((name,) for name in _NAMES.get(field, ()) if name in config), ())


def _number(document: Document, field: str) -> int:
    config = document.value
    for name in _NAMES[field]:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise InputError(document.problem((name,), f"must be a positive whole number, not {value!r}"))
        return value
    raise InputError(document.problem((), f"has none of the keys {', '.join(_NAMES[field])}"))


def _first(document: Document, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = document.value.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(document.problem((name,), f"must be a whole number, not {value!r}"))
            return value
    return None


def _experts(document: Document) -> Experts | None:
    count = _first(document, ("num_local_experts", "n_routed_experts", "num_experts"))
    if not count:
        return None
    return Experts(
        count=count,
        per_token=_first(document, ("num_experts_per_tok",)) or 1,
        ffn=_first(document, ("moe_intermediate_size", "intermediate_size")) or 0,
        shared=_first(document, ("n_shared_experts",)) or 0,
        dense_layers=_first(document, ("first_k_dense_replace",)) or 0,
    )


def _latent_attention(document: Document) -> LatentAttention | None:
    names = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    values = {name: _first(document, (name,)) for name in names}
    if values["kv_lora_rank"] is None:
        return None
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise InputError(document.problem((), f"has latent attention but no {', '.join(missing)}"))
    return LatentAttention(**{name: value for name, value in values.items() if value is not None})
