"""One measured run: what its cells say, and what is inferred or assumed where they say nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcplan.calibrate import notes, recipes
from hpcplan.calibrate.hardware import peak_flops
from hpcplan.calibrate.notes import Counted
from hpcplan.errors import InputError
from hpcplan.plan import Precision
from hpcplan.workload.arithmetic import model_flops_per_token, parameters
from hpcplan.workload.model import ModelShape
from hpcplan.workload.public_models import shape_by_name

__all__ = ["Reader", "Row", "Unusable"]

_ADAPTER_RANK = 32  # NeMo's and Megatron-Bridge's default
_LARGEST = 1e15  # beyond any count or rate of a training run
_NODE = 8  # accelerators of a node, where a table does not say
_SEQUENCE = 4096  # where a table does not say
_BATCH_TOKENS = 4 * 1024**2
_WITHOUT_DROPOUT = re.compile(r"gpt-?neo|\bopt\b", re.IGNORECASE)  # their published configurations drop no scores
_RELU = re.compile(r"\bopt\b", re.IGNORECASE)
_WITHOUT_BF16 = re.compile(r"v100|dgx-1|\bt4\b|rtx-?20|titan")  # chips before Ampere
_HYBRID = re.compile(r"nemotron[-_ ]?(h\b|3[-_ ])|mamba|jamba", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run with everything that pricing needs; ``None`` is left for :mod:`hpcplan.calibrate.batch`."""

    line: int
    site: str
    hardware: str
    framework: str
    model: ModelShape
    sequence: int
    global_batch: int
    precision: Precision
    gpus: int
    tp: int
    pp: int
    vpp: int | None
    cp: int
    ep: int
    dp: int
    micro_batch: int | None
    schedule: str
    zero: int
    recompute: int | None
    sequence_parallel: bool
    flash: bool
    measured_s: float | None
    measured_bytes: float | None
    fitted: bool | None
    features: tuple[str, ...]
    adapter_rank: int
    frozen_bytes: float
    notes: tuple[str, ...]
    stage_layers: tuple[int, ...] = ()  # of the model, stage by stage; empty where the cut is even or not stated
    shard_group: int = 0  # ranks that ZeRO divides over, where these are not all replicas
    recompute_layers: int = 0  # of each stage, where full recomputation is of some layers only
    memory_unit: float = 1e9  # bytes of what the table calls a GB of memory
    memory_counted: Counted = "card"  # what its memory is of: the card, or the trainer's allocator


# what a stated shape leaves open
_LLAMA = {"gated": True, "norm": "rmsnorm", "position": "rope", "tied_embeddings": False}
_GPT = {"gated": False, "bias": True, "norm": "layernorm", "position": "rope", "tied_embeddings": True, "dropout": True}
_MPT = {"gated": False, "norm": "layernorm", "position": "alibi", "tied_embeddings": True}


class Unusable(Exception):
    """Why a row cannot be priced."""


class Reader:
    """Reads one row, collecting what it had to assume."""

    def __init__(self, cell: Mapping[str, str], line: int, decimal_comma: bool) -> None:
        self.cell, self.line, self.decimal_comma = cell, line, decimal_comma
        self.notes: list[str] = []

    def number(self, name: str) -> float | None:
        text = self.cell.get(name, "")
        if not text:
            return None
        if self.decimal_comma:
            text = text.replace(",", ".")
        match = re.match(r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\d.,])", text)
        if match is None or not 0 <= float(match[1]) < _LARGEST:
            raise Unusable(
                f"{name}: {text!r} is not a number of 0 or more" + (", written like 1234.5" * (match is None))
            )
        return float(match[1])

    def measured(self, name: str) -> float | None:
        """Return a measurement; a 0, as tables have where a run failed, is none."""
        value = self.number(name)
        if value == 0:
            self.notes.append(f"{name} 0 taken as not measured")
        return value or None

    def whole(self, name: str, default: int | None = None) -> int | None:
        value = self.number(name)
        if value is None:
            if default is not None:
                self.notes.append(f"{name} {default} assumed")
            return default
        if value != int(value) or value < 1:
            raise Unusable(f"{name}: {self.cell[name]!r} is not a whole number of at least 1")
        return int(value)

    def need(self, name: str) -> int:
        value = self.whole(name)
        if value is None:
            raise Unusable(f"{name} is not stated")
        return value

    def row(self) -> Row:
        gpus = self.need("gpus")
        precision = self.precision()
        shape = self.shape()
        tp, pp, cp = (self.whole(name, 1) or 1 for name in ("tp", "pp", "cp"))
        dp = self.whole("dp") or max(1, gpus // (tp * pp * cp))
        if "suspect" in self.cell.get("outcome", ""):
            raise Unusable("the table itself calls this row suspect")
        if tp * pp * cp * dp != gpus:
            dp_fitting = gpus // (tp * pp * cp)
            if tp * pp * cp * dp_fitting != gpus:
                raise Unusable(f"tp {tp} x pp {pp} x cp {cp} does not divide {gpus} GPUs")
            self.notes.append(f"dp {dp_fitting} taken, since tp x pp x cp x dp must be {gpus}")
            dp = dp_fitting
        sequence = self.whole("seq", _SEQUENCE) or _SEQUENCE
        batch = self.batch(dp, sequence)
        framework = self.framework()
        zero = self.zero(framework)
        if framework == "megatron-lm" and zero == 3:
            # Megatron-LM of the fp16 years has no stage 3; later it has FSDP, as trainers that are not named have
            fsdp = precision != "fp16" or "sdp" in self.said("zero", "source", "notes")
            framework = "fsdp" if fsdp else "megatron-deepspeed"
        recompute = self.recompute()
        flash = self.flash(precision, framework)
        measured = self.measured_s(shape, sequence, batch, gpus, recompute, precision)
        memory, unit = self.measured("mem_GB"), self.memory_unit(framework)
        counted = "reserved" if framework == "torchtitan" else notes.memory_counted(self.said("notes"))
        outcome = self.cell.get("outcome", "").lower()
        rank, kept = self.adapters()
        vpp = self.virtual_stages(pp, flash, framework)
        return Row(
            line=self.line,
            site=self.cell.get("site") or self.cell.get("hardware", ""),
            hardware=self.cell.get("hardware", ""),
            framework=framework,
            model=shape,
            sequence=sequence,
            global_batch=batch,
            precision=precision,
            gpus=gpus,
            tp=tp,
            pp=pp,
            vpp=vpp,
            cp=cp,
            ep=min(self.whole("ep", 1) or 1, dp * cp),
            dp=dp,
            micro_batch=self.micro_batch(framework, pp, vpp or 1, batch // dp),
            schedule=notes.schedule(self.said("notes")),
            zero=zero,
            recompute=recompute,
            sequence_parallel=self.sequence_parallel(tp, flash),
            flash=flash,
            measured_s=measured,
            measured_bytes=None if memory is None else memory * unit,
            fitted=False if "oom" in outcome or "memory" in outcome else True if measured else None,
            features=notes.features(
                self.said("precision", "notes"),
                framework,
                *(self.said(name) for name in ("source", "model", "hardware")),
            ),
            adapter_rank=rank,
            frozen_bytes=kept,
            stage_layers=self.stage_layers(shape.layers, pp),
            recompute_layers=notes.recomputed_layers(self.said("recompute")),
            shard_group=self.shard_group(gpus, tp),
            memory_unit=unit,
            memory_counted=counted,
            notes=tuple(self.notes),
        )

    def memory_unit(self, framework: str) -> float:
        """Return the bytes of a GB in this row's memory: torchtitan logs and reports GiB (components/metrics.py)."""
        if framework != "torchtitan":
            return 1e9
        self.notes.append("memory in GiB, and what PyTorch reserved, as torchtitan logs it")
        return float(2**30)

    def said(self, *names: str) -> str:
        """Return the text of some cells, in lower case."""
        return " ".join(self.cell.get(name, "") for name in names).lower()

    def stage_layers(self, layers: int, pp: int) -> tuple[int, ...]:
        """Return the layers of each stage where notes state an uneven cut that can be."""
        sizes = notes.stage_layers(self.said("notes"), layers) if pp > 1 else ()
        if sizes and (len(sizes) != pp or sum(sizes) != layers or min(sizes) < 1):
            self.notes.append(f"even stages assumed: {list(sizes)} is no cut of {layers} layers into {pp} stages")
            return ()
        return sizes if len(set(sizes)) > 1 else ()

    def shard_group(self, gpus: int, tp: int) -> int:
        """Return the ranks that states are divided over where these are not all replicas."""
        words = self.said("zero", "notes")
        if notes.is_hybrid_sharded(words):
            return max(1, (self.whole("gpus_per_node") or min(gpus, _NODE)) // tp)
        return notes.shard_group(words)

    def adapters(self) -> tuple[int, float]:
        """Return the rank of low-rank adapters and the bytes of a frozen weight; rank 0 where all are trained."""
        words = " ".join(self.cell.get(name, "") for name in ("model", "source", "notes")).lower()
        if not re.search(r"\bq?lora\b|\bpeft\b", words):
            return 0, 2.0
        self.notes.append(f"low-rank adapters of rank {_ADAPTER_RANK} on all projections assumed")
        return _ADAPTER_RANK, 0.516 if "qlora" in words else 2.0

    def virtual_stages(self, pp: int, flash: bool, framework: str) -> int | None:
        """Return the stages a rank has; ``None`` where any number may have been used."""
        stated, words = self.whole("vpp"), self.cell.get("notes", "").lower()
        if pp > 1 and (stated or 1) == 1 and "interleaved" in words and framework == "torchtitan":
            self.notes.append(
                "vpp 2 assumed, torchtitan's default for looped schedules, since the notes say interleaved"
            )
            return 2
        if stated or pp == 1:
            return stated or 1
        if framework == "torchtitan" or not flash:
            return 1  # torchtitan interleaves where told to; the tables of trainers before fused attention say so
        return None

    def micro_batch(self, framework: str, pp: int, vpp: int, share: int) -> int | None:
        stated = self.whole("micro_batch")
        parts = notes.micro_batches(self.said("source"), pp, pp * vpp)
        if stated is None and framework == "torchtitan" and pp > 1 and share % parts == 0:
            self.notes.append(f"micro_batch {share // parts} assumed: torchtitan cuts a batch into {parts} by default")
            return share // parts
        return stated

    def precision(self) -> Precision:
        text = self.cell.get("precision", "").lower()
        named = recipes.precision(text, self.said("source"))
        if named is not None:
            return named
        default: Precision = "tf32" if self.framework() == "sailor" else "bf16"  # its memory is that of fp32 states
        if default == "bf16" and _WITHOUT_BF16.search(self.said("site", "hardware")):
            default = "fp16"
        self.notes.append(
            f"precision {text!r} is not known, {default} assumed" if text else f"precision {default} assumed"
        )
        return default

    def shape(self) -> ModelShape:
        name = self.cell.get("model", "")
        if _HYBRID.search(name):
            raise Unusable(f"model {name!r} has state-space layers, which the cost model does not cover")
        layers, hidden, heads = (self.whole(column) for column in ("layers", "hidden", "heads"))
        if layers is None or hidden is None or heads is None:
            known = shape_by_name(name)
            if known is None:
                raise Unusable(f"the shape of model {name!r} is neither stated nor known")
            self.notes.append(f"shape of {name} from the catalogue")
            return self.with_capacity(known)
        return self._stated_shape(layers, hidden, heads, name)

    def with_capacity(self, shape: ModelShape) -> ModelShape:
        """Return the shape with the capacity factor that the row names; one that drops tokens has 1 if it does not."""
        words = self.said("model", "notes")
        stated = notes.capacity_factor(words)
        if shape.experts is None or not (stated or notes.drops_tokens(words)):
            return shape
        if not stated:
            self.notes.append("capacity factor 1 assumed, since tokens are dropped")
        experts = shape.experts.model_copy(update={"capacity_factor": stated or 1.0})
        return shape.model_copy(update={"experts": experts})

    def _stated_shape(self, layers: int, hidden: int, heads: int, name: str) -> ModelShape:
        if hidden % heads:
            raise Unusable(f"hidden {hidden} is not a multiple of heads {heads}")
        ffn, vocab = self.whole("ffn", 4 * hidden) or 1, self.whole("vocab", 50304) or 1
        kv_heads = self.whole("kv_heads") or heads
        if heads % kv_heads:
            raise Unusable(f"heads {heads} is not a multiple of kv_heads {kv_heads}")
        sizes = {"layers": layers, "hidden": hidden, "heads": heads, "kv_heads": kv_heads, "ffn": ffn, "vocab": vocab}
        family = _MPT if "mpt" in name.lower() else _GPT
        if _WITHOUT_DROPOUT.search(name):
            dropped = self.framework() == "sailor" and "neo" in name.lower()  # its GPT-Neo: --residual-dropout 0.1
            family = {**family, "dropout": dropped, "attention_dropout": False}
        if _RELU.search(name):
            family = {**family, "relu": True}
        gated, plain = (ModelShape.model_validate({**sizes, **kind}) for kind in (_LLAMA, family))
        size = self.number("model_params_B")
        if size and ffn != 4 * hidden:
            return min((gated, plain), key=lambda shape: abs(parameters(shape) / 1e9 - size))
        return plain if ffn == 4 * hidden and kv_heads == heads else gated

    def batch(self, dp: int, sequence: int) -> int:
        batch = self.whole("global_batch")
        if batch is None:
            unit = dp * (self.whole("micro_batch") or 1)
            told = notes.accumulated(self.said("notes"))
            batch = unit * (told or max(1, round(_BATCH_TOKENS / sequence / unit)))
            self.notes.append(f"global_batch {batch} assumed")
        if batch % dp:
            raise Unusable(f"a batch of {batch} does not divide over {dp} data-parallel ranks")
        return batch

    def framework(self) -> str:
        words = f"{self.cell.get('source', '')} {self.cell.get('precision', '')} {self.cell.get('notes', '')}".lower()
        for framework, marks in (
            ("torchtitan", "torchtitan"), ("llm-foundry", "llm-foundry llm_foundry mosaicml"), ("internevo", "interne"),
            ("nemo", "nemo megatron-bridge dgxc"), ("sailor", "sailor"), ("megatron-deepspeed", "deepspeed"),
            ("megatron-lm", "megatron narayanan korthikanti"),
        ):  # fmt: skip
            if any(mark in words for mark in marks.split()):
                return framework
        return "megatron-lm"

    def zero(self, framework: str) -> int:
        text = self.cell.get("zero", "").lower()
        if "fsdp" in text or "hsdp" in text:
            return 3
        if "dist" in text:
            return 1
        stage = re.match(r"[0-3]", text)
        if stage:
            return int(stage[0])
        default = 1 if framework == "nemo" else 0
        self.notes.append(f"ZeRO {default} assumed")
        return default

    def recompute(self) -> int | None:
        text = self.cell.get("recompute", "").lower()
        for index, word in enumerate(("none", "selective", "full")):
            if text.startswith(word):
                return index
        return None

    def flash(self, precision: str, framework: str) -> bool:
        # Fused attention came with the bf16 generation of trainers (FlashAttention, 2022); the fp16 tables are older,
        # and so are Megatron-DeepSpeed and the fork of it that Sailor uses.
        return precision != "fp16" and framework not in {"sailor", "megatron-deepspeed"}

    def sequence_parallel(self, tp: int, flash: bool) -> bool:
        text = self.cell.get("seq_parallel", "").lower()
        if text in {"true", "1", "yes"}:
            return tp > 1
        if text in {"false", "0", "no"} or tp == 1:
            return False
        self.notes.append(f"sequence parallelism {'on' if flash else 'off'} assumed")
        return flash

    def measured_s(
        self, shape: ModelShape, sequence: int, batch: int, gpus: int, recompute: int | None, precision: Precision
    ) -> float | None:
        time = self.measured("iter_time_s")
        if time:
            return time
        rate = self.measured("tokens_per_s_per_gpu")
        if rate:
            return batch * sequence / (rate * gpus)
        # Megatron-LM's own formula has no factor for the causal mask, and adds a forward pass for full recomputation.
        counts_recompute = recompute == 2 and "recomput" in self.cell.get("notes", "").lower()
        flops, what = (self.measured("tflops_per_gpu") or 0.0) * 1e12, "TFLOP/s"
        for column, counted in (("mfu_pct", False), ("hfu_pct", recompute == 2)):
            if not flops and self.number(column):
                flops, what, counts_recompute = self.peak_share(column, precision), column, counted
        if not flops:
            return None
        per_token = model_flops_per_token(shape, sequence) * (4 / 3 if counts_recompute else 1)
        self.notes.append(f"step time from {what}" + (", recomputation counted" if counts_recompute else ""))
        return per_token * batch * sequence / (flops * gpus)

    def peak_share(self, column: str, precision: Precision) -> float:
        """Return FLOP/s of one accelerator from a share of its peak; 0 where the accelerator is not known."""
        site, hardware = self.cell.get("site", ""), self.cell.get("hardware", "")
        try:
            return (self.number(column) or 0.0) / 100 * peak_flops(site or hardware, hardware, precision)
        except InputError:
            return 0.0
