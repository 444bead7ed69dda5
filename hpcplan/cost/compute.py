"""How long the arithmetic takes: products, attention and memory-bound kernels of one layer, on one rank.

Times are seconds, arrays of shape (rows,), for one micro-batch. Backward costs twice the forward for products
(gradients of weights and of inputs) and 2.5 times for flash attention, which computes the scores again (Dao 2023,
arXiv:2307.08691, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine
from hpcplan.cost.recipe import Recipe
from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import (
    ACTIVATION,
    CPU,
    FULL,
    MLP,
    NVME,
    RING,
    SELECTIVE,
    Floats,
    Shardings,
)

__all__ = ["STATE_BYTES", "Arithmetic", "LayerTime", "attention_rate", "attention_s", "product_s"]

STATE_BYTES = 12.0  # of Adam a parameter: fp32 master weight and two moments

_BACKWARD_MATMUL = 2.0  # gradients of the inputs, and as much again for those of the weights
_BACKWARD_FLASH = 2.5
_FORWARD_HALF = 0.22  # of the tokens at which the backward pass reaches half of its rate: one H100, measured
_BACKWARD_STREAM = 2.0
_KERNELS_PER_LAYER = 22  # launches forward: norms, projections, rotary, attention, residuals, activation
_KERNELS_PER_EXCHANGE = 1.5  # a collective and what it waits for
# Of what is moved for a copy, where copies are made on arrival and added up before they leave: each is written and
# read, 2, and each message read and written, of which eight experts on 16 to 32 ranks take 0.81 to 0.90 a copy: 3.7
# of 7 elements.
_ROUTING_ONCE = 0.53
_BIAS_ELEMENTS = 22.0  # of a copy, forward: biases times probabilities in fp32, added, joined, cast 14, clamped 8
_KERNELS_PER_EXPERT = 3
_KERNELS_PER_ADAPTED_LAYER = 14  # two products for each of seven projections
_ADAM_BYTES = 26.0
_SMOOTH = 4.0  # exponent of the soft maximum of work and launches


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer, one micro-batch: forward, backward, and what recomputation adds to the backward pass.

    ``weight_s`` is the part of the backward pass that only makes gradients of weights, which nothing waits for.
    """

    forward_s: Floats
    backward_s: Floats
    recompute_s: Floats
    weight_s: Floats


def _soft_maximum(a: Floats, b: Floats) -> Floats:
    """Return the larger of the two, a little more where they are alike: neither hides the other completely."""
    top = np.maximum(a, b)
    return top * ((a / top) ** _SMOOTH + (b / top) ** _SMOOTH) ** (1 / _SMOOTH)


def product_s(rows: Number, inner: Number, columns: Number, machine: Machine, c: Coefficients) -> Floats:
    """Return seconds of a (rows x inner) by (inner x columns) product: the slower of arithmetic and memory."""
    r, w = c.matmul_half_rows, c.matmul_half_width
    # 2 r k n / (rate * r/(r+r0) * k/(k+w) * n/(n+w)), written so that an absent product takes no time
    arithmetic = 2.0 * (rows + r) * (inner + w) * (columns + w) / (machine.peak_flops * c.matmul_efficiency)
    moved = machine.operand_bytes * (rows * inner + inner * columns) + machine.element_bytes * rows * columns
    present = np.minimum(inner, columns) > 0
    return np.where(present, np.maximum(arithmetic, moved / (machine.memory_bytes_per_s * c.memory_efficiency)), 0.0)


def attention_s(
    flops: Number, width: Number, length: Number, machine: Machine, c: Coefficients
) -> tuple[Floats, Floats]:
    """Return forward and backward seconds of fused attention: ``flops`` forward, those under the causal mask left out.

    ``width`` is a head's, ``length`` the tokens that a rank has of a sequence, twice as many without the mask. Short
    sequences are slow, backward more than forward: what each block of rows begins and ends with weighs more, and so
    does what the diagonal wastes.
    """
    head = width / (width + c.attention_half_head) * (128 + c.attention_half_head) / 128
    long = np.asarray(flops / (machine.attention_peak_flops * c.attention_efficiency * head), dtype=float)
    short = c.attention_half_sequence / length
    return long * (1.0 + _FORWARD_HALF * short), _BACKWARD_FLASH * long * (1.0 + short)


def attention_rate(width: Number, length: Number, machine: Machine, c: Coefficients) -> Floats:
    """Return the FLOP/s of fused attention, forward and backward together, those under the causal mask left out."""
    forward, backward = attention_s(1.0, width, length, machine, c)
    return (1.0 + _BACKWARD_FLASH) / (forward + backward)


class Arithmetic:
    """Prices the layers of models, for many shardings, on machines."""

    def __init__(
        self, shape: Shape, sequence: Number, machine: Machine, c: Coefficients, s: Shardings, recipe: Recipe
    ) -> None:
        self.shape, self.c, self.shardings, self.machine, self.recipe = shape, c, s, machine, recipe
        self.sequence, self.flash = sequence, np.asarray(recipe.flash, dtype=float)
        self.trained = np.where(np.asarray(recipe.adapter_rank) > 0, 0.0, 1.0)
        self.matmul_flops = machine.peak_flops * c.matmul_efficiency
        self.stream_bytes_per_s = machine.memory_bytes_per_s * c.memory_efficiency
        self.tokens = s.micro_batch * sequence / s.cp
        self.split = np.where(s.sequence_parallel == 1, s.tp, 1)

    def _matmul(self, rows: Number, inner: Number, columns: Number) -> Floats:
        return product_s(rows, inner, columns, self.machine, self.c)

    def _stream(self, elements: Number) -> Floats:
        """Return seconds of kernels that read and write that many elements in all."""
        return np.asarray(elements * self.machine.element_bytes / self.stream_bytes_per_s)

    def _projections(self) -> Floats:
        """Forward seconds of the products around attention."""
        shape, tp, t, h = self.shape, self.shardings.tp, self.tokens, self.shape.hidden
        time = self._matmul(t, h, shape.attention_in / tp + shape.attention_down)
        time = time + self._matmul(t, shape.query_rank, shape.query_up / tp)
        time = time + self._matmul(t, shape.key_value_rank, shape.key_value_up / tp)
        return time + self._matmul(t, shape.attention_out / tp, h)

    def _attention(self) -> tuple[Floats, Floats]:
        """Forward and backward seconds of scores and values.

        Flash attention skips half of them under a causal mask; the plain kernels compute all of them as products and
        move every score through memory several times.
        """
        shape, s = self.shape, self.shardings
        scores = self.tokens * self.sequence * shape.heads / s.tp
        flops = 2.0 * scores * shape.score_width
        visible = flops * (1.0 - 0.5 * shape.causal)
        # a rank has its part of keys and values at a time on the ring, and else all of them
        length = (
            self.sequence / np.where(s.context_exchange == RING, s.cp, 1) * (2.0 - shape.causal)
        )  # without the mask a row sees twice as many keys
        flash, flash_back = attention_s(visible, shape.head_dim, length, self.machine, self.c)
        if np.any(np.asarray(shape.windowed) > 0):
            near = self._in_window(visible, length)
            flash, flash_back = (
                all_ + shape.windowed * (np.minimum(some, all_) - all_)
                for all_, some in zip((flash, flash_back), near, strict=True)
            )
        products = flops / (self.matmul_flops * shape.head_dim / (shape.head_dim + self.c.matmul_half_width))
        traffic = scores * self.c.score_bytes * (self.machine.element_bytes / 2.0) / self.stream_bytes_per_s
        forward = np.where(self.flash > 0, flash, products + traffic)
        backward = np.where(self.flash > 0, flash_back, _BACKWARD_MATMUL * products + traffic)
        return forward, backward

    def _in_window(self, visible: Floats, length: Number) -> tuple[Floats, Floats]:
        """Return forward and backward seconds of fused attention where a token sees a window of those before it.

        A sequence has as many pairs as rows of that window, less the corner at its beginning; kernels that skip what is
        outside run as on a sequence of twice the window, in which the mean row sees as much.
        """
        seen = np.minimum(1.0, self.shape.window / self.sequence)
        twice = np.minimum(length, np.maximum(1.0, 2.0 * self.shape.window))
        return attention_s(visible * seen * (2.0 - seen), self.shape.head_dim, twice, self.machine, self.c)

    def _feed_forward(self, inner: Number, tokens: Number) -> Floats:
        tp, h = self.shardings.tp, self.shape.hidden
        return self._matmul(tokens, h, inner * (self.shape.ffn_matrices - 1) / tp) + self._matmul(tokens, inner / tp, h)

    def _experts(self) -> Floats:
        """Forward seconds of routed and shared experts; each rank runs its experts one after the other."""
        shape = self.shape
        held = shape.experts / self.shardings.ep
        routed = self.tokens * shape.experts_per_token * shape.busiest_expert(self.c.expert_imbalance)
        each = routed / np.maximum(held, 1.0)
        return held * self._feed_forward(shape.expert_ffn, each) + self._feed_forward(
            shape.expert_ffn * shape.shared_experts, self.tokens
        )

    def _streams(self, inner: Number) -> Floats:
        """Forward seconds of norms, residuals, dropout, rotary embedding and activation."""
        shape, s = self.shape, self.shardings
        replicated = (self.c.stream_elements + 2 * shape.dropout) * shape.hidden / self.split
        activation = self.c.activation_elements * inner + shape.attention_in + shape.attention_out
        return self._stream(self.tokens * (replicated + activation / s.tp))

    def _casts(self, inner: Number, copies: Number) -> tuple[Floats, Floats]:
        """Return seconds to cast operands of 8- and 4-bit products: inputs forward, gradients of outputs backward.

        ``inner`` is the width between a feed-forward's two products, ``copies`` how often it has a token as its input.
        Under sequence parallelism each rank casts its piece before pieces are gathered, as Transformer Engine does.
        """
        shape, machine, tp = self.shape, self.machine, self.shardings.tp
        elements = machine.cast_bytes / machine.element_bytes * self.tokens
        replicated = shape.hidden * (1.0 + copies) / self.split
        inputs = shape.query_rank + shape.key_value_rank + (shape.attention_out + inner) / tp
        outputs = shape.attention_in + shape.query_up + shape.key_value_up + inner * (shape.ffn_matrices - 1)
        return (
            self._stream(elements * (replicated + inputs)),
            self._stream(elements * (replicated + shape.attention_down + outputs / tp)),
        )

    def _routing(self, copies: Number) -> Floats:
        """Return seconds to sort each token's copies by expert and back, and of biases that are added expert by expert.

        Megatron-LM's TEGroupedMLP adds a bias outside the grouped product, in fp32, where a fused operator does not.
        """
        sorting = self.c.routing_elements * np.where(np.asarray(self.recipe.dispatch_once) > 0, _ROUTING_ONCE, 1.0)
        biases = _BIAS_ELEMENTS * self.shape.expert_bias * (1.0 - np.asarray(self.recipe.fused_experts))
        return self._stream(self.tokens * self.shape.hidden * copies * (sorting + biases))

    def layer(self) -> LayerTime:
        """Return the time of the mean layer: models with experts may have some plain layers."""
        shape = self.shape
        sparse = shape.sparse_layers / shape.layers
        inner = shape.expert_ffn * (shape.experts_per_token + shape.shared_experts)
        frozen = shape.attention_parameters + shape.ffn_parameters
        adapted = shape.adapter_attention + shape.adapter_ffn
        plain = self._layer(self._feed_forward(shape.ffn, self.tokens), shape.ffn, 0.0, self._adapters(frozen, adapted))
        if not np.any(np.asarray(shape.experts) > 0):
            return plain
        frozen = shape.attention_parameters + shape.router_parameters
        frozen = frozen + shape.expert_parameters * shape.experts / self.shardings.ep
        side = self._adapters(frozen, shape.adapter_attention)
        kernels = _KERNELS_PER_EXPERT * shape.experts / self.shardings.ep
        routed = self._layer(self._experts(), inner, kernels, side, shape.experts_per_token)
        return LayerTime(
            *(
                (1 - sparse) * getattr(plain, name) + sparse * getattr(routed, name)
                for name in ("forward_s", "backward_s", "recompute_s", "weight_s")
            )
        )

    def _adapters(self, frozen: Number, width: Number) -> tuple[Floats, Floats]:
        """Return the forward seconds of a layer's low-rank adapters, and those of unpacking its frozen weights."""
        rank, kept = self.recipe.adapter_rank, self.recipe.frozen_bytes
        products = self._matmul(self.tokens, width / self.shardings.tp, rank)
        packed = (1.0 - self.trained) * (np.asarray(kept) < self.machine.element_bytes)
        moved = packed * frozen / self.shardings.tp * (kept + 2.0 * self.machine.element_bytes)  # written, read again
        return products, np.asarray(moved / self.stream_bytes_per_s)

    def _layer(
        self,
        feed_forward: Floats,
        inner: Number,
        extra_kernels: Number,
        side: tuple[Floats, Floats],
        copies: Number = 0.0,
    ) -> LayerTime:
        products, streams = self._projections() + feed_forward, self._streams(inner) + self._routing(copies)
        attention, attention_back = self._attention()
        shared = self.shape.shared_experts * (np.asarray(copies) > 0)
        casts, casts_back = self._casts(inner, np.maximum(1.0, copies + shared))
        streams_back, streams = _BACKWARD_STREAM * streams + casts_back, streams + casts
        adapters, unpacking = side
        kernels = (
            _KERNELS_PER_LAYER * (1.0 - np.asarray(self.recipe.graphed))
            + extra_kernels
            + _KERNELS_PER_ADAPTED_LAYER * (1.0 - self.trained)
        )
        kernels = kernels + _KERNELS_PER_EXCHANGE * np.where(self.shardings.tp > 1, 2.0, 0.0)
        launch = np.asarray(kernels * self.c.kernel_launch_s)
        pruned = products / self.recipe.sparse_speedup
        forward = _soft_maximum(pruned + adapters + unpacking + attention + streams, launch)
        weight = (_BACKWARD_MATMUL - 1.0) * products * self.trained + adapters
        backward = _soft_maximum(products + adapters + weight + unpacking + attention_back + streams_back, 2.0 * launch)
        recompute = self.shardings.recompute
        kept = np.minimum(1.0, self.c.selective_kept)
        part = attention + (1.0 - kept) * (forward - attention)
        share = self.shardings.recomputed(self.shape.layers)
        again = np.select([recompute == FULL, recompute == SELECTIVE], [share * forward, part], 0.0)
        if self.shardings.recompute_mlp.any():
            activation = self._stream(self.tokens * self.c.activation_elements * inner / self.shardings.tp)
            everything = activation + feed_forward / self.recipe.sparse_speedup + self._routing(copies)
            formed = np.where(self.shardings.mlp_again(MLP), everything, activation)
            more = np.where(self.shardings.mlp_again(ACTIVATION), formed, 0.0)
            again = np.maximum(again, np.minimum(again + more, forward))  # no more than the whole layer
        return LayerTime(forward, backward, again, weight)

    def head(self) -> LayerTime:
        """Return the time of the output projection and the loss, once a micro-batch on the last stage."""
        columns = self.shape.vocab / self.shardings.tp
        product = self._matmul(self.tokens, self.shape.hidden, columns)
        loss = self._stream(self.tokens * columns * self.c.loss_elements)
        weight = (_BACKWARD_MATMUL - 1.0) * product * self.trained
        return LayerTime(product + loss, product + weight + loss, np.zeros(len(self.shardings)), weight)

    def optimizer(self, parameters: Floats) -> Floats:
        """Return seconds of one Adam step over so many parameters: 12 bytes read and 14 written for each.

        Offloaded, 16-bit gradients go to the host and 16-bit weights come back (Ren et al. 2021, arXiv:2101.06840,
        section 4), the host's memory does the streaming for all accelerators of the node, and states kept on local
        storage are read and written there (Rajbhandari et al. 2021, arXiv:2104.07857, section 5).
        """
        machine, offload = self.machine, self.shardings.offload
        on_device = _ADAM_BYTES * parameters / self.stream_bytes_per_s
        if not offload.any():
            return on_device
        node = parameters * np.minimum(machine.gpus_per_node, self.shardings.gpus)
        moved = 4.0 * parameters / machine.host_link_bytes_per_s + _ADAM_BYTES * node / machine.host_memory_bytes_per_s
        with np.errstate(divide="ignore", invalid="ignore"):
            stored = np.where(node > 0, 2 * STATE_BYTES * node / np.asarray(machine.nvme_bytes_per_s, dtype=float), 0.0)
        return np.select([offload == CPU, offload == NVME], [moved, np.maximum(moved, stored)], on_device)
