"""A model's shape as numbers: scalars for one model, arrays of shape (rows,) for many models priced in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hpcplan.cost.shardings import Floats
from hpcplan.workload.arithmetic import (
    attention_adapter_width,
    attention_parameters,
    dense_ffn_parameters,
    embedding_parameters,
    expert_parameters,
    ffn_adapter_width,
    forward_flops_per_token,
    router_parameters,
)
from hpcplan.workload.model import ModelShape

__all__ = ["Number", "Shape"]

Number: TypeAlias = "float | Floats"


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths count elements a token; ``*_parameters`` count parameters; flags are 0 or 1. ``adapter_*`` are
    the inputs and outputs of a layer's projections, all added up: low-rank adapters have rank times as many parameters.

    Attention is a chain of products: ``hidden`` to ``attention_in`` (split over tensor-parallel ranks) and
    ``attention_down`` (not split; latent attention alone), two up-projections of latent attention, the kernel, and
    ``attention_out`` to ``hidden``. What a model does not have is 0.
    """

    layers: Number
    hidden: Number
    heads: Number
    vocab: Number
    ffn: Number
    ffn_matrices: Number
    ffn_kept: Number  # tensors as wide as the feed-forward layer that it keeps for the backward pass
    causal: Number
    dropout: Number
    score_dropout: Number
    head_dim: Number
    key_value_heads: Number
    attention_in: Number
    attention_down: Number
    query_rank: Number
    query_up: Number
    key_value_rank: Number
    key_value_up: Number
    attention_out: Number
    score_width: Number
    key_value_width: Number
    experts: Number
    experts_per_token: Number
    expert_ffn: Number
    shared_experts: Number
    dense_layers: Number
    capacity: Number  # of the mean load, what an expert computes and what is sent to it; 0 where nothing is dropped
    attention_parameters: Number
    ffn_parameters: Number
    expert_parameters: Number
    router_parameters: Number
    table_parameters: Number
    head_parameters: Number
    tied_embeddings: Number
    adapter_attention: Number
    adapter_ffn: Number
    expert_bias: Number  # 1 where experts have biases
    window: Number  # tokens that a token sees in a windowed layer
    windowed: Number  # share of the layers
    flops_per_token: Number
    flops_per_token_and_position: Number

    @property
    def sparse_layers(self) -> Number:
        """Layers with experts."""
        return np.where(np.asarray(self.experts) > 0, self.layers - self.dense_layers, 0.0)

    def busiest_expert(self, imbalance: Number) -> Number:
        """Return the load of the busiest expert over the mean one's.

        ``imbalance`` is that of dropless routing. With a capacity factor every expert computes as many tokens (Fedus,
        Zoph & Shazeer 2021, arXiv:2101.03961, equation 3).
        """
        return np.where(np.asarray(self.capacity) > 0, self.capacity, imbalance)

    def model_flops_per_token(self, sequence: Number) -> Number:
        """Return training FLOPs of one token; see :func:`hpcplan.workload.arithmetic.model_flops_per_token`."""
        return self.flops_per_token + self.flops_per_token_and_position * sequence

    @classmethod
    def of(cls, model: ModelShape) -> Shape:
        """Return the numbers of one model."""
        mla, experts, d = model.latent_attention, model.experts, model.head_size
        qk = mla.qk_nope_head_dim + mla.qk_rope_head_dim if mla else d
        value = mla.v_head_dim if mla else d
        short = 3 * forward_flops_per_token(model, 0)
        return cls(
            layers=model.layers,
            hidden=model.hidden,
            heads=model.heads,
            vocab=model.vocab,
            ffn=model.ffn,
            ffn_matrices=3 if model.gated else 2,
            ffn_kept=3 if model.gated else 1 if model.relu else 2,  # what the activation reads and what it writes
            causal=int(model.causal),
            dropout=int(model.dropout),
            score_dropout=int(model.dropout if model.attention_dropout is None else model.attention_dropout),
            head_dim=d,
            key_value_heads=model.key_value_heads,
            attention_in=0 if mla else (model.heads + 2 * model.key_value_heads) * d,
            attention_down=mla.q_lora_rank + mla.kv_lora_rank + mla.qk_rope_head_dim if mla else 0,
            query_rank=mla.q_lora_rank if mla else 0,
            query_up=model.heads * qk if mla else 0,
            key_value_rank=mla.kv_lora_rank if mla else 0,
            key_value_up=model.heads * (mla.qk_nope_head_dim + mla.v_head_dim) if mla else 0,
            attention_out=model.heads * value,
            score_width=qk + value,
            key_value_width=model.heads * (qk + value) if mla else 2 * model.key_value_heads * d,
            experts=experts.count if experts else 0,
            experts_per_token=experts.per_token if experts else 0,
            expert_ffn=experts.ffn if experts else 0,
            shared_experts=experts.shared if experts else 0,
            dense_layers=experts.dense_layers if experts else model.layers,
            capacity=(experts.capacity_factor or 0.0) if experts else 0.0,
            attention_parameters=attention_parameters(model),
            ffn_parameters=dense_ffn_parameters(model),
            expert_parameters=expert_parameters(model),
            router_parameters=router_parameters(model),
            table_parameters=embedding_parameters(model),
            head_parameters=model.vocab * model.hidden,
            tied_embeddings=int(model.tied_embeddings),
            adapter_attention=attention_adapter_width(model),
            adapter_ffn=ffn_adapter_width(model),
            expert_bias=int(model.bias and experts is not None),
            window=model.window or 0,
            windowed=model.windowed_layers / model.layers,
            flops_per_token=short,
            flops_per_token_and_position=3 * (forward_flops_per_token(model, 1)) - short,
        )

    @classmethod
    def stack(cls, shapes: Sequence[Shape]) -> Shape:
        """Return many models as one, each field an array."""
        return cls(*(np.array([getattr(s, f.name) for s in shapes], dtype=float) for f in dataclasses.fields(cls)))
