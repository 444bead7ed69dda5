"""The runs that a site was learned from: a table as `hpcplan validate` takes it, which grows with every campaign."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpcplan.calibrate.rows import COLUMNS, Row, Table, read_rows
from hpcplan.calibrate.store import fingerprint
from hpcplan.documents import write_text
from hpcplan.plan import Plan
from hpcplan.workload.arithmetic import parameters
from hpcplan.workload.model import Experts, LatentAttention, ModelShape
from hpcplan.workload.public_models import shape_by_name

__all__ = ["add_runs", "cells_of_plan", "cells_of_table", "read_runs"]

_PLANNED = "planned by hpcplan"
_HEADER = ("key", "source", *COLUMNS)


def cells_of_plan(plan: Plan, step_s: float, key: str) -> dict[str, str] | None:
    """Return a finished plan as a row of measured runs, ``None`` where a table cannot say its model.

    Args:
        plan: what was run.
        step_s: the step time that its logs tell, in seconds.
        key: what tells this run from others: its campaign's id.
    """
    s, shape = plan.plan, _shape(plan)
    capacity = plan.job.model_arguments.get("capacity_factor")
    cells: dict[str, object] = {
        "key": key, "source": plan.job.framework, "site": plan.provenance.site.name, "gpus": s.gpus,
        "gpus_per_node": s.gpus_per_node, "model": plan.training.model, "seq": plan.training.sequence_length,
        "global_batch": plan.training.global_batch, "micro_batch": s.micro_batch, "tp": s.tp, "pp": s.pp, "vpp": s.vpp,
        "cp": s.cp, "ep": s.ep, "dp": s.dp,
        "zero": s.zero if s.shard_group is None else f"{s.zero} (group {s.shard_group})",
        "recompute": s.recompute if s.recompute_layers is None else f"{s.recompute} ({s.recompute_layers} layers)",
        "seq_parallel": str(s.sequence_parallel).lower(), "precision": s.precision, "iter_time_s": f"{step_s:.6g}",
        "notes": f"{_PLANNED}; schedule {s.schedule}" + (f"; capacity factor {capacity:g}" if capacity else ""),
    }  # fmt: skip
    if shape_by_name(plan.training.model) != shape:
        if shape.experts is not None or shape.latent_attention is not None:
            return None
        cells |= {
            "model_params_B": f"{parameters(shape) / 1e9:.4g}", "layers": shape.layers, "hidden": shape.hidden,
            "heads": shape.heads, "kv_heads": shape.key_value_heads, "ffn": shape.ffn, "vocab": shape.vocab,
        }  # fmt: skip
    return {name: str(value) for name, value in cells.items()}


def _shape(plan: Plan) -> ModelShape:
    """Return the model's shape, without what the notes of a row say: the capacity of its experts."""
    given = plan.job.model_arguments
    experts = None
    if given.get("num_experts"):
        experts = Experts(
            count=given["num_experts"], per_token=given["experts_per_token"], ffn=given["moe_ffn_hidden_size"],
            shared=given.get("shared_experts") or 0, dense_layers=given.get("dense_layers") or 0,
        )  # fmt: skip
    latent = given.get("latent_attention")
    known = shape_by_name(plan.training.model)
    made = ModelShape(
        layers=given["num_layers"], hidden=given["hidden_size"], heads=given["num_attention_heads"],
        kv_heads=given["num_query_groups"], head_dim=given["head_dim"], ffn=given["ffn_hidden_size"],
        vocab=given["vocab_size"], gated=given["gated"], bias=given["bias"], norm=given["normalization"],
        position=given["position_embedding"], tied_embeddings=given["tied_embeddings"], experts=experts,
        latent_attention=LatentAttention(**latent) if latent else None,
    )  # fmt: skip
    return known if known is not None and _same(known, made) else made


def _same(a: ModelShape, b: ModelShape) -> bool:
    """Whether two shapes cost the same: what a plan does not carry over does not count."""
    names = ("layers", "hidden", "heads", "key_value_heads", "head_size", "ffn", "vocab", "gated", "tied_embeddings",
             "experts", "latent_attention")  # fmt: skip
    return all(getattr(a, name) == getattr(b, name) for name in names)


def cells_of_table(table: Table, site: str) -> list[dict[str, str]]:
    """Return the rows of a table of measured runs that are of a site, each with what tells it from others."""
    found = []
    for cells, row in zip(table.cells, table.rows, strict=True):
        if isinstance(row, Row) and row.site == site and row.measured_s:
            found.append({**{name: cells.get(name, "") for name in _HEADER[1:]}, "key": fingerprint(row)})
    return found


def add_runs(path: Path, runs: Sequence[Mapping[str, str]]) -> int:
    """Add runs to the table, each once, and return how many are new.

    Raises:
        HpcplanError: the table cannot be written.
    """
    old = list(csv.DictReader(io.StringIO(path.read_text()))) if path.is_file() else []
    known = {cells["key"] for cells in old}
    new = [dict(cells) for cells in {cells["key"]: cells for cells in runs}.values() if cells["key"] not in known]
    if new:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, _HEADER, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*old, *new])
        write_text(path, stream.getvalue())
    return len(new)


def read_runs(path: Path) -> list[Row | str]:
    """Return the runs of the table, none where there is none yet.

    Plans say everything, so that what is inferred of published runs is not inferred of them: attention is fused, and
    the trainer is the one that was planned for.
    """
    if not path.is_file():
        return []
    table = read_rows(path)
    return [
        replace(row, flash=True, framework=cells["source"])
        if isinstance(row, Row) and cells.get("notes", "").startswith(_PLANNED)
        else row
        for cells, row in zip(table.cells, table.rows, strict=True)
    ]
