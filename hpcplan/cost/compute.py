"""How long the arithmetic takes: products, attention and memory-bound kernels of one layer, on one rank.

Times are seconds, arrays of shape (candidates,), for one micro-batch. Backward costs twice the forward for products
(gradients of weights and of inputs) and 2.5 times for flash attention, which computes the scores again (Dao 2023,
arXiv:2307.08691, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcplan.cost.constants import Constants
from hpcplan.cost.machine import Machine
from hpcplan.cost.shardings import FULL, SELECTIVE, Floats, Shardings
from hpcplan.plan import Precision
from hpcplan.workload.model import ModelShape

__all__ = ["ELEMENT_BYTES", "Arithmetic", "LayerTime"]

ELEMENT_BYTES = 2  # activations are kept in 16 bits in every mixed precision; fp32 and tf32 double it
_BACKWARD_MATMUL = 2.0
_BACKWARD_ATTENTION = 2.5
_BACKWARD_STREAM = 2.0
_KERNELS_PER_LAYER = 22  # launches forward: norms, projections, rotary, attention, residuals, activation


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer, one micro-batch: forward, backward, and what recomputation adds to the backward pass."""

    forward_s: Floats
    backward_s: Floats
    recompute_s: Floats

    def scaled(self, factor: Floats | float) -> LayerTime:
        """Return the time of so many such layers."""
        return LayerTime(self.forward_s * factor, self.backward_s * factor, self.recompute_s * factor)

    def __add__(self, other: LayerTime) -> LayerTime:
        return LayerTime(
            self.forward_s + other.forward_s,
            self.backward_s + other.backward_s,
            self.recompute_s + other.recompute_s,
        )


class Arithmetic:
    """Prices the layers of one model, for many shardings, on one machine."""

    def __init__(
        self,
        shape: ModelShape,
        sequence: int,
        precision: Precision,
        machine: Machine,
        constants: Constants,
        s: Shardings,
    ) -> None:
        self.shape, self.constants, self.shardings = shape, constants, s
        self.sequence = sequence
        accelerator = machine.accelerator
        self.matmul_flops = accelerator.peak(precision) * _efficiency(constants, precision)
        attention_precision = "bf16" if precision == "fp8" else precision  # flash kernels run in 16 bits beside fp8
        self.attention_flops = accelerator.peak(attention_precision) * constants.attention_efficiency.value
        self.stream_bytes_per_s = accelerator.memory_bandwidth_bytes_per_s * constants.memory_efficiency.value
        self.element_bytes = ELEMENT_BYTES * (2 if precision in ("fp32", "tf32") else 1)
        self.tokens = s.micro_batch * sequence / s.cp

    def _matmul(self, rows: Floats, inner: Floats | float, columns: Floats | float) -> Floats:
        """Return seconds of a (rows x inner) by (inner x columns) product: the slower of arithmetic and memory."""
        half_rows = self.constants.matmul_half_rows.value
        half_inner = self.constants.matmul_half_inner.value
        shape = rows / (rows + half_rows) * inner / (inner + half_inner) * columns / (columns + half_inner)
        arithmetic = 2.0 * rows * inner * columns / (self.matmul_flops * shape)
        moved = self.element_bytes * (rows * inner + np.multiply(inner, columns) + rows * columns)
        return np.maximum(arithmetic, moved / self.stream_bytes_per_s)

    def _stream(self, elements: Floats) -> Floats:
        """Return seconds of kernels that read and write that many elements in all."""
        return elements * self.element_bytes / self.stream_bytes_per_s

    def _projections(self) -> Floats:
        """Forward seconds of the products around attention."""
        shape, tp, h = self.shape, self.shardings.tp, self.shape.hidden
        if shape.latent_attention is not None:
            mla = shape.latent_attention
            qk = mla.qk_nope_head_dim + mla.qk_rope_head_dim
            down = self._matmul(self.tokens, h, mla.q_lora_rank + mla.kv_lora_rank + mla.qk_rope_head_dim)
            query = self._matmul(self.tokens, mla.q_lora_rank, shape.heads * qk / tp)
            up = mla.qk_nope_head_dim + mla.v_head_dim
            key_value = self._matmul(self.tokens, mla.kv_lora_rank, shape.heads * up / tp)
            return down + query + key_value + self._matmul(self.tokens, shape.heads * mla.v_head_dim / tp, h)
        heads = shape.heads + 2 * shape.key_value_heads
        qkv = self._matmul(self.tokens, h, heads * shape.head_size / tp)
        return qkv + self._matmul(self.tokens, shape.heads * shape.head_size / tp, h)

    def _attention(self) -> Floats:
        """Forward seconds of flash attention: scores and values, half of them skipped under a causal mask."""
        shape = self.shape
        if shape.latent_attention is not None:
            mla = shape.latent_attention
            width = mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim
        else:
            width = 2 * shape.head_size
        flops = 2.0 * self.tokens * self.sequence * shape.heads / self.shardings.tp * width
        return flops * (0.5 if shape.causal else 1.0) / self.attention_flops

    def _feed_forward(self, inner: int, tokens: Floats) -> Floats:
        tp, h = self.shardings.tp, self.shape.hidden
        columns = inner * (2 if self.shape.gated else 1) / tp
        return self._matmul(tokens, h, columns) + self._matmul(tokens, inner / tp, h)

    def _experts(self) -> Floats:
        """Forward seconds of routed and shared experts; each rank runs its experts one after the other."""
        experts = self.shape.experts
        assert experts is not None
        held = experts.count / self.shardings.ep
        routed = self.tokens * experts.per_token * self.constants.expert_imbalance.value
        each = routed / np.maximum(held, 1.0)
        time = held * self._feed_forward(experts.ffn, each)
        if experts.shared:
            time = time + self._feed_forward(experts.ffn * experts.shared, self.tokens)
        return time

    def _streams(self, inner: float) -> Floats:
        """Forward seconds of norms, residuals, dropout, rotary embedding and activation."""
        shape, s = self.shape, self.shardings
        split = np.where(s.sequence_parallel == 1, s.tp, 1)
        replicated = (10 if shape.dropout else 8) * self.tokens * shape.hidden / split
        sharded = self.tokens * (3 * inner + 2 * (shape.heads + shape.key_value_heads) * shape.head_size) / s.tp
        return self._stream(replicated + sharded)

    def layer(self, *, sparse: bool) -> LayerTime:
        """Return the time of one layer; ``sparse`` layers have experts in place of the plain feed-forward layer."""
        experts = self.shape.experts if sparse else None
        inner = experts.ffn * (experts.per_token + experts.shared) if experts else self.shape.ffn
        feed_forward = self._experts() if experts else self._feed_forward(self.shape.ffn, self.tokens)
        products, attention, streams = self._projections() + feed_forward, self._attention(), self._streams(inner)
        held = experts.count / self.shardings.ep if experts else np.zeros(len(self.shardings))
        launch = (_KERNELS_PER_LAYER + 3 * held) * self.constants.kernel_launch_s.value
        forward = np.maximum(products + attention + streams, launch)
        backward = np.maximum(
            _BACKWARD_MATMUL * products + _BACKWARD_ATTENTION * attention + _BACKWARD_STREAM * streams, 2 * launch
        )
        again = np.select(
            [self.shardings.recompute == FULL, self.shardings.recompute == SELECTIVE], [forward, attention], 0.0
        )
        return LayerTime(forward, backward, again)

    def head(self) -> LayerTime:
        """Return the time of the output projection and the loss, once a micro-batch on the last stage."""
        columns = self.shape.vocab / self.shardings.tp
        product = self._matmul(self.tokens, self.shape.hidden, columns)
        loss = self._stream(self.tokens * columns * 6)
        return LayerTime(product + loss, _BACKWARD_MATMUL * product + loss, np.zeros(len(self.shardings)))

    def optimizer(self, parameters: Floats) -> Floats:
        """Return seconds of one Adam step over so many parameters: 12 bytes read and 14 written for each."""
        return 26.0 * parameters / self.stream_bytes_per_s


def _efficiency(constants: Constants, precision: Precision) -> float:
    values = constants.matmul_efficiency.values
    return values.get(precision, min(values.values()))
