"""Parameters and FLOPs of a transformer, counted from its shape.

A matrix product of (m x k) with (k x n) is 2mkn FLOPs; the backward pass costs twice the forward. *Model FLOPs* follow
the convention of MFU (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): attention is counted in full, also where
a causal kernel skips half of it, and nothing for recomputation.
"""

from __future__ import annotations

from hpcplan.workload.model import ModelShape

__all__ = [
    "active_parameters",
    "adapter_parameters",
    "attention_adapter_width",
    "attention_parameters",
    "dense_ffn_parameters",
    "embedding_parameters",
    "expert_parameters",
    "ffn_adapter_width",
    "forward_flops_per_token",
    "layers_by_kind",
    "model_flops_per_token",
    "parameters",
    "router_parameters",
]


def attention_parameters(shape: ModelShape) -> int:
    """Return the parameters of one layer's attention: projections, biases, and the norm before it."""
    h, heads, d = shape.hidden, shape.heads, shape.head_size
    norm = h * (2 if shape.norm == "layernorm" else 1)
    if shape.latent_attention is not None:
        mla = shape.latent_attention
        qk = mla.qk_nope_head_dim + mla.qk_rope_head_dim
        query = h * mla.q_lora_rank + mla.q_lora_rank + mla.q_lora_rank * heads * qk
        down = h * (mla.kv_lora_rank + mla.qk_rope_head_dim) + mla.kv_lora_rank
        up = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        return query + down + up + heads * mla.v_head_dim * h + norm
    qkv = (heads + 2 * shape.key_value_heads) * d
    bias = qkv + h if shape.bias else 0
    return h * qkv + heads * d * h + bias + norm


def _ffn(shape: ModelShape, inner: int) -> int:
    matrices = 3 if shape.gated else 2
    bias = (inner * (matrices - 1) + shape.hidden) if shape.bias else 0
    return matrices * shape.hidden * inner + bias


def dense_ffn_parameters(shape: ModelShape) -> int:
    """Return the parameters of one plain feed-forward layer with the norm before it."""
    return _ffn(shape, shape.ffn) + shape.hidden * (2 if shape.norm == "layernorm" else 1)


def expert_parameters(shape: ModelShape) -> int:
    """Return the parameters of one expert, 0 for a model without."""
    return _ffn(shape, shape.experts.ffn) if shape.experts else 0


def router_parameters(shape: ModelShape) -> int:
    """Return what one mixture-of-experts layer has beside its routed experts: router, norm, shared experts."""
    if shape.experts is None:
        return 0
    norm = shape.hidden * (2 if shape.norm == "layernorm" else 1)
    return shape.hidden * shape.experts.count + norm + shape.experts.shared * expert_parameters(shape)


def embedding_parameters(shape: ModelShape) -> int:
    """Return the parameters of the token table and, if learned, of the position table."""
    positions = (shape.max_positions or 0) if shape.position == "learned" else 0
    return (shape.vocab + positions) * shape.hidden


def layers_by_kind(shape: ModelShape) -> tuple[int, int]:
    """Return how many layers are plain and how many have experts."""
    if shape.experts is None:
        return shape.layers, 0
    return shape.experts.dense_layers, shape.layers - shape.experts.dense_layers


def _total(shape: ModelShape, experts_per_layer: int) -> int:
    dense, sparse = layers_by_kind(shape)
    head = 0 if shape.tied_embeddings else shape.vocab * shape.hidden
    final_norm = shape.hidden * (2 if shape.norm == "layernorm" else 1)
    return (
        shape.layers * attention_parameters(shape)
        + dense * dense_ffn_parameters(shape)
        + sparse * (router_parameters(shape) + experts_per_layer * expert_parameters(shape))
        + embedding_parameters(shape)
        + head
        + final_norm
    )


def parameters(shape: ModelShape) -> int:
    """Return the number of trainable parameters."""
    return _total(shape, shape.experts.count if shape.experts else 0)


def active_parameters(shape: ModelShape) -> int:
    """Return the parameters that one token uses: all of them, or those of its experts."""
    return _total(shape, shape.experts.per_token if shape.experts else 0)


def attention_adapter_width(shape: ModelShape) -> int:
    """Return the inputs and outputs of the attention projections of one layer, added up."""
    h, heads, d = shape.hidden, shape.heads, shape.head_size
    if shape.latent_attention is not None:
        mla = shape.latent_attention
        query = h + mla.q_lora_rank + mla.q_lora_rank + heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        down = h + mla.kv_lora_rank + mla.qk_rope_head_dim
        up = mla.kv_lora_rank + heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        return query + down + up + heads * mla.v_head_dim + h
    return 3 * h + (heads + 2 * shape.key_value_heads) * d + heads * d + h


def ffn_adapter_width(shape: ModelShape) -> int:
    """Return the inputs and outputs of the matrices of one plain feed-forward layer, added up."""
    return (3 if shape.gated else 2) * (shape.hidden + shape.ffn)


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Return the parameters of low-rank adapters on every projection outside experts (Hu et al. 2021, section 4.1)."""
    dense, _ = layers_by_kind(shape)
    return rank * (shape.layers * attention_adapter_width(shape) + dense * ffn_adapter_width(shape))


def forward_flops_per_token(shape: ModelShape, sequence_length: int) -> float:
    """Return the forward model FLOPs of one token: products with weights, attention scores and values, and the head."""
    h, heads = shape.hidden, shape.heads
    table = embedding_parameters(shape)
    head = shape.vocab * h if shape.tied_embeddings else 0  # the tied table is used once more as the head
    weights = active_parameters(shape) - table + head
    if shape.latent_attention is not None:
        mla = shape.latent_attention
        width = mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim
    else:
        width = 2 * shape.head_size
    return 2.0 * weights + 2.0 * shape.layers * sequence_length * heads * width


def model_flops_per_token(shape: ModelShape, sequence_length: int) -> float:
    """Return the model FLOPs of training on one token: forward and backward."""
    return 3.0 * forward_flops_per_token(shape, sequence_length)
