"""What one accelerator does with the kernels of training and with whole training steps: a table to predict.

``kernels`` times products, attention, memory-bound kernels and launches, as JSON lines. ``steps`` trains transformers
with random tokens in plain PyTorch (FSDP2 over one rank: fp32 weights, gradients and AdamW states, products in bf16;
or LoRA with frozen weights in bf16) and writes a table for ``hpcplan validate``; runs that do not fit are rows too. It
needs PyTorch and an accelerator, and nothing of hpcplan, so that the file alone can be taken to a machine:

    python one_gpu.py kernels -o kernels.jsonl
    python one_gpu.py steps --site NAME --hardware NAME -o steps.csv
    hpcplan validate steps.csv
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

WARM_UP, STEPS = 3, 7
MIN_S = 0.15  # of repeated kernels, so that the clock settles as it does in training


@dataclass(frozen=True)
class Model:
    """The shape of a transformer; ``gated`` ones are Llama's kind, the others GPT's."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    gated: bool = True


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    model: Model
    seq: int
    micro_batch: int
    accumulated: int = 1
    recompute: bool = False
    compiled: bool = False
    lora: bool = False  # adapters of rank 32 on all projections; the rest frozen in bf16, without FSDP


LLAMA_1B = Model("Llama-3.2-1B untied", 16, 2048, 32, 8, 8192, 128256)
LLAMA_3B = Model("Llama-3.2-3B untied", 28, 3072, 24, 8, 8192, 128256)
LLAMA_8B_PART = Model("Llama-3.1-8B, 8 layers", 8, 4096, 32, 8, 14336, 128256)
LLAMA_70B_PART = Model("Llama-3.1-70B, 2 layers", 2, 8192, 64, 8, 28672, 32000)
LLAMA_SMALL = Model("Llama 0.2B", 12, 768, 12, 12, 2048, 32000)
GPT_350M = Model("GPT 0.35B", 24, 1024, 16, 16, 4096, 50304, gated=False)
GPT_1B = Model("GPT 1.3B", 24, 2048, 16, 16, 8192, 50304, gated=False)
GPT_3B = Model("GPT 2.7B", 32, 2560, 32, 32, 10240, 50304, gated=False)
GPT_175B_PART = Model("GPT-3 175B, 1 layer", 1, 12288, 96, 96, 49152, 50304, gated=False)

LLAMA_8B = Model("Llama-3.1-8B", 32, 4096, 32, 8, 14336, 128256)
RANK = 32

RUNS = [
    Run(LLAMA_8B, 2048, 1, lora=True), Run(LLAMA_8B, 4096, 1, lora=True), Run(LLAMA_8B, 2048, 4, lora=True),
    Run(LLAMA_8B, 8192, 1, recompute=True, lora=True), Run(LLAMA_8B, 4096, 4, recompute=True, lora=True),
    Run(LLAMA_8B, 2048, 1, accumulated=8, lora=True), Run(LLAMA_3B, 4096, 2, lora=True),
    Run(LLAMA_1B, 4096, 1), Run(LLAMA_1B, 4096, 4), Run(GPT_1B, 2048, 4), Run(LLAMA_8B_PART, 4096, 2),
    Run(LLAMA_3B, 4096, 1, recompute=True), Run(LLAMA_1B, 8192, 2), Run(GPT_350M, 1024, 16), Run(GPT_350M, 2048, 2),
    Run(LLAMA_SMALL, 2048, 8), Run(LLAMA_SMALL, 1024, 1), Run(LLAMA_70B_PART, 4096, 1), Run(LLAMA_70B_PART, 4096, 4),
    Run(LLAMA_1B, 16384, 1), Run(LLAMA_1B, 32768, 1, recompute=True), Run(LLAMA_1B, 2048, 2, accumulated=8),
    Run(GPT_1B, 2048, 1), Run(GPT_1B, 2048, 8, recompute=True), Run(GPT_1B, 2048, 16), Run(LLAMA_8B_PART, 8192, 1),
    Run(LLAMA_8B_PART, 8192, 2, recompute=True), Run(GPT_3B, 2048, 1), Run(GPT_3B, 2048, 2, accumulated=4),
    Run(GPT_3B, 2048, 8, recompute=True), Run(LLAMA_3B, 4096, 1), Run(LLAMA_3B, 4096, 4),
    Run(LLAMA_3B, 8192, 1, recompute=True), Run(GPT_175B_PART, 2048, 1), Run(GPT_175B_PART, 2048, 4),
    Run(LLAMA_1B, 4096, 16), Run(GPT_350M, 1024, 64), Run(LLAMA_SMALL, 2048, 32),
    Run(LLAMA_1B, 4096, 4, compiled=True), Run(GPT_1B, 2048, 4, compiled=True),
    Run(LLAMA_8B_PART, 4096, 2, compiled=True), Run(LLAMA_SMALL, 2048, 8, compiled=True),
    Run(LLAMA_3B, 4096, 1, recompute=True, compiled=True), Run(LLAMA_1B, 8192, 2, compiled=True),
]  # fmt: skip
TRIAL = [Run(Model("trial", 2, 64, 4, 2, 128, 256), 64, 2), Run(Model("trial", 2, 64, 4, 4, 256, 256, False), 64, 2, 2)]
TRIAL += [Run(TRIAL[0].model, 64, 2, recompute=True), Run(TRIAL[0].model, 64, 2, lora=True)]


class Norm(nn.Module):
    def __init__(self, hidden: int, gated: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.bias = None if gated else nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor) -> Tensor:
        shape = self.weight.shape
        return (
            F.rms_norm(x, shape, self.weight) if self.bias is None else F.layer_norm(x, shape, self.weight, self.bias)
        )


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries or keys (batch, heads, sequence, width) with rotary embedding."""
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)


class Adapted(nn.Module):
    """A frozen projection and its adapters (Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.frozen = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
        self.a, self.b = nn.Linear(inputs, RANK, bias=False), nn.Linear(RANK, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.b(self.a(x))


class Block(nn.Module):
    def __init__(self, m: Model, lora: bool) -> None:
        super().__init__()
        self.m, self.width, bias = m, m.hidden // m.heads, not m.gated
        linear: Callable[..., nn.Module] = Adapted if lora else nn.Linear
        self.first, self.second = Norm(m.hidden, m.gated), Norm(m.hidden, m.gated)
        self.qkv = linear(m.hidden, (m.heads + 2 * m.kv_heads) * self.width, bias=bias)
        self.out = linear(m.hidden, m.hidden, bias=bias)
        self.up = linear(m.hidden, m.ffn, bias=bias)
        self.gate = linear(m.hidden, m.ffn, bias=False) if m.gated else None
        self.down = linear(m.ffn, m.hidden, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        m, (batch, seq, _) = self.m, x.shape
        sizes = [m.heads * self.width, m.kv_heads * self.width, m.kv_heads * self.width]
        q, k, v = (
            part.view(batch, seq, -1, self.width).transpose(1, 2) for part in self.qkv(self.first(x)).split(sizes, -1)
        )
        if m.gated:
            q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        grouped = m.kv_heads != m.heads
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, seq, -1))
        y = self.second(x)
        inner = F.gelu(self.up(y), approximate="tanh") if self.gate is None else F.silu(self.gate(y)) * self.up(y)
        return x + self.down(inner)


class Transformer(nn.Module):
    def __init__(self, run: Run) -> None:
        super().__init__()
        m, seq = run.model, run.seq
        self.recompute = run.recompute
        self.table = nn.Embedding(m.vocab, m.hidden)
        self.places = None if m.gated else nn.Embedding(seq, m.hidden)
        self.blocks = nn.ModuleList(Block(m, run.lora) for _ in range(m.layers))
        self.norm, self.head = Norm(m.hidden, m.gated), nn.Linear(m.hidden, m.vocab, bias=False)
        if not m.gated:
            self.head.weight = self.table.weight  # tied, as GPT's are
        half = m.hidden // m.heads // 2
        angles = torch.outer(torch.arange(seq).float(), 10000.0 ** (-torch.arange(half).float() / half))
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        if run.lora:
            for part in (
                self.table,
                self.norm,
                self.head,
                *(norm for b in self.blocks for norm in (b.first, b.second)),
            ):
                part.requires_grad_(False)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.table(ids)
        if self.places is not None:
            x = x + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            if self.recompute:
                x = checkpoint(block, x, self.cos, self.sin, use_reentrant=False)
            else:
                x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def sync(device: torch.device) -> None:
    """Wait for the accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def built(run: Run, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the model, sharded over the one rank unless most of it is frozen, and its optimizer."""
    kind = torch.bfloat16 if run.lora else torch.float32
    with torch.device(device):
        torch.set_default_dtype(kind)
        model = Transformer(run)
        torch.set_default_dtype(torch.float32)
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        if run.compiled:
            block.compile()
        if not run.lora:
            fully_shard(block, mp_policy=mixed)
    if not run.lora:
        fully_shard(model, mp_policy=mixed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")


def step(run: Run, model: Any, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Do one training step."""
    for index, (ids, targets) in enumerate(batches):
        last = index == len(batches) - 1
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
        (model(ids, targets) / run.accumulated).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def trained(run: Run, device: torch.device) -> dict[str, float]:
    """Return seconds of a step, and GB allocated, reserved and taken from the device at the most."""
    model, optimizer = built(run, device)
    shape = (run.micro_batch, run.seq)
    batches = [
        (torch.randint(run.model.vocab, shape, device=device), torch.randint(run.model.vocab, shape, device=device))
        for _ in range(run.accumulated)
    ]
    times = []
    for index in range(WARM_UP + STEPS):
        sync(device)
        began = time.perf_counter()
        step(run, model, optimizer, batches)
        sync(device)
        if index >= WARM_UP:
            times.append(time.perf_counter() - began)
    result = {"s": statistics.median(times), "spread": max(times) / min(times) - 1}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        result |= {"allocated": torch.cuda.max_memory_allocated() / 1e9, "taken": (total - free) / 1e9,
                   "reserved": torch.cuda.max_memory_reserved() / 1e9}  # fmt: skip
    return result


def row(run: Run, site: str, hardware: str, device: torch.device) -> dict[str, object]:
    """Return one row of the table."""
    m = run.model
    cells: dict[str, object] = {
        "site": site, "source": "tests/benchmarks/one_gpu.py", "hardware": hardware, "gpus": 1, "gpus_per_node": 1,
        "model": m.name, "layers": m.layers, "hidden": m.hidden, "heads": m.heads, "kv_heads": m.kv_heads,
        "ffn": m.ffn, "vocab": m.vocab, "seq": run.seq, "global_batch": run.micro_batch * run.accumulated,
        "micro_batch": run.micro_batch, "tp": 1, "pp": 1, "vpp": 1, "cp": 1, "ep": 1, "dp": 1,
        "zero": "0" if run.lora else "fsdp2(3)",
        "recompute": "full" if run.recompute else "none", "precision": "bf16",
    }  # fmt: skip
    words = f"PyTorch {torch.__version__}; max_memory_reserved; " + (
        f"LoRA of rank {RANK}" if run.lora else "FSDP2 over one rank"
    )
    words += "; torch.compile" if run.compiled else ""
    try:
        found = trained(run, device)
    except torch.OutOfMemoryError:
        return {**cells, "outcome": "OOM", "notes": words}
    memory = {"mem_GB": f"{found['reserved']:.2f}"} if "reserved" in found else {}
    more = "; ".join(f"{name} {found[name]:.3f}" for name in ("allocated", "taken", "spread") if name in found)
    return {**cells, "iter_time_s": f"{found['s']:.5f}", **memory, "outcome": "ok", "notes": f"{words}; {more}"}


COLUMNS = [
    "site", "source", "hardware", "gpus", "gpus_per_node", "model", "layers", "hidden", "heads", "kv_heads", "ffn",
    "vocab", "seq", "global_batch", "micro_batch", "tp", "pp", "vpp", "cp", "ep", "dp", "zero", "recompute",
    "precision", "iter_time_s", "mem_GB", "outcome", "notes",
]  # fmt: skip
SHOWN = ("model", "seq", "micro_batch", "global_batch", "recompute", "iter_time_s", "mem_GB", "outcome", "notes")


def steps(options: argparse.Namespace, device: torch.device) -> None:
    """Write the table, row by row as they come."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29561")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=0, world_size=1)
    ends = time.monotonic() + options.limit_s
    with Path(options.output).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for run in TRIAL if options.trial else RUNS:
            if time.monotonic() > ends:
                print("no time is left for the rest", file=sys.stderr)
                break
            cells = row(run, options.site, options.hardware, device)
            writer.writerow(cells)
            stream.flush()
            print(*(cells.get(key, "") for key in SHOWN), flush=True)
            gc.collect()
            torch._dynamo.reset()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    dist.destroy_process_group()


def timed(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the mean seconds of a call repeated without a pause, and the shortest of single ones."""
    call()
    sync(device)
    singles = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        sync(device)
        singles.append(time.perf_counter() - began)
    repeats = max(5, min(2000, int(MIN_S / min(singles))))
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    sync(device)
    return (time.perf_counter() - began) / repeats, min(singles)


def products(device: torch.device, trial: bool) -> Iterator[dict[str, object]]:
    """Time products as training has them: rows of tokens by the widths of layers."""
    rows = (64,) if trial else (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
    widths = [
        (1024, 1024), (1024, 4096), (4096, 1024), (2048, 2048), (2048, 8192), (8192, 2048), (4096, 4096), (4096, 14336),
        (14336, 4096), (8192, 8192), (8192, 28672), (12288, 12288), (4096, 128256), (512, 4096), (4096, 512),
    ]  # fmt: skip
    widths = [(64, 64)] if trial else widths
    for kind in (torch.bfloat16, torch.float16, torch.float32):
        torch.backends.cuda.matmul.allow_tf32 = True
        for m in rows if kind is torch.bfloat16 else rows[::3]:
            for k, n in widths if kind is torch.bfloat16 else widths[::3]:
                if m * n > 2**31:
                    continue
                a, b = torch.randn(m, k, device=device).to(kind), torch.randn(n, k, device=device).to(kind).t()
                mean, best = timed(lambda a=a, b=b: a @ b, device)
                yield {"what": "product", "precision": str(kind)[6:], "m": m, "k": k, "n": n, "s": mean, "best_s": best,
                       "flops_per_s": 2 * m * k * n / mean}  # fmt: skip
    if device.type == "cuda" and torch.cuda.get_device_capability() >= (8, 9):
        one = torch.ones((), device=device)
        for m in rows[::3]:
            for k, n in widths[::3]:
                a = torch.randn(m, k, device=device).to(torch.float8_e4m3fn)
                b = torch.randn(n, k, device=device).to(torch.float8_e4m3fn).t()
                mean, best = timed(lambda a=a, b=b: torch._scaled_mm(a, b, one, one, out_dtype=torch.bfloat16), device)
                yield {"what": "product", "precision": "fp8", "m": m, "k": k, "n": n, "s": mean, "best_s": best,
                       "flops_per_s": 2 * m * k * n / mean}  # fmt: skip


def attentions(device: torch.device, trial: bool) -> Iterator[dict[str, object]]:
    """Time causal attention forward, and forward with backward."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kinds = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    if device.type == "cpu":
        kinds = {"math": SDPBackend.MATH}
    for name, backend in kinds.items():
        for width in (64, 128):
            for seq in (64,) if trial else (512, 1024, 2048, 4096, 8192, 16384, 32768):
                batch, heads = max(1, 16384 // seq), 2048 // width
                q, k, v = (
                    torch.randn(batch, heads, seq, width, device=device, dtype=torch.bfloat16, requires_grad=True)
                    for _ in range(3)
                )
                grad = torch.randn_like(q)

                def forward(q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True)

                def both(forward: Callable[[], Tensor] = forward, grad: Tensor = grad) -> None:
                    forward().backward(grad)

                with sdpa_kernel(backend):
                    try:
                        one, two = timed(forward, device)[0], timed(both, device)[0]
                    except RuntimeError:
                        continue
                flops = 2 * batch * heads * seq * seq * width  # half of 4 b h s^2 w, under the causal mask
                yield {"what": "attention", "kernel": name, "batch": batch, "heads": heads, "seq": seq, "width": width,
                       "forward_s": one, "both_s": two, "forward_flops_per_s": flops / one,
                       "both_flops_per_s": 3.5 * flops / two}  # fmt: skip


def streams(device: torch.device, trial: bool) -> Iterator[dict[str, object]]:
    """Time kernels that memory bounds, and an empty one."""
    tokens, hidden = (64, 64) if trial else (8192, 4096)
    x, y = (torch.randn(tokens, hidden, device=device, dtype=torch.bfloat16) for _ in range(2))
    weight = torch.ones(hidden, device=device, dtype=torch.bfloat16)
    logits = torch.randn(tokens // 8, 128 if trial else 128256, device=device)
    targets = torch.randint(logits.shape[1], (logits.shape[0],), device=device)
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "copy": (lambda: y.copy_(x), 4 * x.numel()),
        "add": (lambda: x + y, 6 * x.numel()),
        "rms_norm": (lambda: F.rms_norm(x, weight.shape, weight), 4 * x.numel()),
        "layer_norm": (lambda: F.layer_norm(x, weight.shape, weight, weight), 4 * x.numel()),
        "silu": (lambda: F.silu(x), 4 * x.numel()),
        "gelu": (lambda: F.gelu(x), 4 * x.numel()),
        "silu times": (lambda: F.silu(x) * y, 10 * x.numel()),
        "cross_entropy": (lambda: F.cross_entropy(logits, targets), 4 * logits.numel()),
    }
    for name, (call, moved) in calls.items():
        mean, best = timed(call, device)
        yield {"what": "stream", "kernel": name, "s": mean, "best_s": best, "bytes_per_s": moved / mean}
    small = torch.ones(64, device=device)
    mean, best = timed(lambda: small.add_(1.0), device)
    yield {"what": "launch", "s": mean, "best_s": best}
    parameter = torch.zeros(4096 if trial else 2**29, device=device, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter], fused=device.type == "cuda")
    mean, best = timed(optimizer.step, device)
    yield {"what": "adamw", "parameters": parameter.numel(), "s": mean, "bytes_per_s": 28 * parameter.numel() / mean}


def kernels(options: argparse.Namespace, device: torch.device) -> None:
    """Write what each kernel took, a JSON object a line."""
    with Path(options.output).open("w") as stream:
        for part in (streams, attentions, products):
            for found in part(device, options.trial):
                stream.write(json.dumps(found) + "\n")
                stream.flush()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kernels", "steps"])
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--site", default="")
    parser.add_argument("--hardware", default=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit-s", type=float, default=1e9, help="begin no further run after this many seconds")
    parser.add_argument("--trial", action="store_true", help="tiny runs, which a CPU can do")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    {"kernels": kernels, "steps": steps}[options.part](options, device)


if __name__ == "__main__":
    main()
