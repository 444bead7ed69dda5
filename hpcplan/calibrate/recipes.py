"""What the recipes behind NVIDIA's published benchmarks did, by release: the tables say little, the recipes are open.

Read in the configurations of NVIDIA's repositories at the tag of each container: NeMo-Framework-Launcher until 24.07;
Megatron-Bridge v0.2.0 (25.11), v0.3.0 (26.02), v0.3.1 (26.02.01), v0.4.0 (26.04), v0.5.0 (26.06) and v0.6.0 (26.08),
in ``scripts/performance/configs`` and later ``perf_recipes``.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from hpcplan.plan import Precision

__all__ = ["precision", "recipe_features", "release"]

_Release: TypeAlias = "tuple[int, ...]"
_CONTAINER = re.compile(r"(?:\bnemo |[\[(]\s*)(2\d)\.(0[1-9]|1[0-2])(?:\.(\d+))?(?= nemo|\s*[\])])")
_EVER: Final = (99,)
_FIRST_BRIDGE: Final = (25, 11)
_WHOLE: Final = (
    r"(deepseek|gpt.?oss).*gb[23]00.*mxfp8|qwen.*(gb200|b300).*mxfp8"  # _enable_hybridep_full_iteration_mxfp8
)
_EXPERTS: Final = r"deepseek|qwen3|gpt.?oss|kimi|llama.?4|a\d+b\b|mixtral|moe"
_BALANCED: Final = re.compile(r"balanced|dgxc-benchmarking")
# a feature, what it goes by in "model hardware precision", since which container, and from which on no more
_RULES: Final[tuple[tuple[str, str, _Release, _Release], ...]] = (
    ("flash-attention-2", "", (0,), (24, 9)),  # config.yaml set NVTE_FUSED_ATTN to 0
    ("balanced-experts", _EXPERTS, (25, 9), _EVER),  # moe_router_force_load_balancing
    # cuda_graph_impl or cuda_graph_scope: "full_iteration"; with it one fused operator for experts
    ("whole-graph", _WHOLE, (26, 6), _EVER),
    ("whole-graph", "llama.*nvfp4", (26, 2), _EVER),
    ("fused-experts", _WHOLE, (26, 6), _EVER),  # use_transformer_engine_op_fuser
    # cuda_graph_scope: "attn", and "moe_router" with "moe_preprocess"
    ("attention-graph", r"qwen3.*235b.*gb[23]00|qwen3.*30b.*gb200.*bf16|gpt.?oss.*b300", _FIRST_BRIDGE, _EVER),
    ("attention-graph", r"qwen3.*30b.*\bb200", (26, 2, 1), _EVER),
    ("attention-graph", r"deepseek.*(gb200|gb300.*bf16)", (26, 2), _EVER),
    ("router-graph", r"qwen3.*30b.*(b[23]00|h100.*bf16)|qwen3.*235b.*gb[23]00", _FIRST_BRIDGE, _EVER),
    ("router-graph", r"deepseek.*(gb200|gb300.*bf16)|gpt.?oss.*b300|kimi.*gb200", _FIRST_BRIDGE, _EVER),
    # no moe_flex_dispatcher_backend
    ("all-to-all", r"gpt.?oss.*(h100|gb[23]00.*bf16)|qwen3.*235b.*(h100|\bb200)", _FIRST_BRIDGE, _EVER),
    ("all-to-all", r"kimi.*(h100|\bb[23]00)", _FIRST_BRIDGE, _EVER),
    ("all-to-all", r"qwen3.*30b.*(h100|\bb200)|deepseek.*\bb200", _FIRST_BRIDGE, (26, 2)),
    ("all-to-all", r"qwen3.*(30b.*\bb200|235b.*\bb300)|gpt.?oss.*\bb[23]00", (26, 2), (26, 2, 1)),
    # moe_a2a_overlap
    ("expert-overlap", _WHOLE, (26, 6), _EVER),
    ("expert-overlap", r"qwen3.*235b.*h100", _FIRST_BRIDGE, _EVER),
    ("expert-overlap", r"qwen3.*235b.*\bb200|deepseek.*h100", _FIRST_BRIDGE, (26, 2)),
    ("expert-overlap", r"qwen3.*(235b.*\bb300|30b.*h100)", _FIRST_BRIDGE, (26, 2, 1)),
    ("expert-overlap", r"gpt.?oss.*gb200.*bf16", (26, 4), _EVER),
)  # fmt: skip
# as trainers and tables call them, the more special before what they contain
_PRECISIONS: Final[dict[str, Precision]] = {
    "fp4": "fp4", "mxfp8": "mxfp8", "fp8-mx": "mxfp8", "blockwise": "fp8-blockwise", "subchannel": "fp8-blockwise",
    "fp8-sc": "fp8-blockwise", "delayed": "fp8-delayed", "fp8-ds": "fp8-delayed", "fp8": "fp8", "float8": "fp8",
    "bf16": "bf16", "bfloat": "bf16", "fp16": "fp16", "half": "fp16", "tf32": "tf32", "fp32": "fp32", "float32": "fp32",
}  # fmt: skip
_CURRENT_SCALING = (25, 4)  # came to Megatron-Core with 0.12; before, "fp8" is delayed scaling


def release(source: str) -> tuple[int, ...] | None:
    """Return NeMo's container as year, month and patch, of ``NeMo 24.07`` or ``[26.02.01 NeMo``; ``None`` if none."""
    found = _CONTAINER.search(source)
    return tuple(int(part) for part in found.groups() if part) if found else None


def precision(text: str, source: str) -> Precision | None:
    """Return the precision that a cell names, in lower case; ``None`` where it names none that is known."""
    for mark, name in _PRECISIONS.items():
        if mark in text:
            old = name == "fp8" and (release(source) or _EVER) < _CURRENT_SCALING
            return "fp8-delayed" if old else name
    return None


def recipe_features(source: str, model: str, hardware: str, text: str) -> list[str]:
    """Return what the recipe of a published run did: files of that name hold the factors, in so far as there are any.

    All in lower case; ``text`` is what a row says of its precision and in its notes.
    """
    released, run = release(source), f"{model} {hardware} {text}"
    if released is None:
        balanced = _BALANCED.search(f"{source} {text}") and re.search(_EXPERTS, model)
        return ["balanced-experts"] if balanced else []
    found = [name for name, mark, since, until in _RULES if since <= released < until and re.search(mark, run)]
    return [name for name in found if not ("whole-graph" in found and name in ("attention-graph", "router-graph"))]
