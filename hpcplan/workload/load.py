"""Finding and reading workloads: by name, from a workload file, or from a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hpcplan.documents import Document, read_document
from hpcplan.errors import InputError, Problem, nearest
from hpcplan.validation import digest, validate
from hpcplan.workload.arithmetic import active_parameters
from hpcplan.workload.huggingface import looks_like_config, shape_from_config
from hpcplan.workload.model import ModelShape, Training, Workload

__all__ = ["LoadedWorkload", "list_workloads", "load_workload"]

_CATALOGUE = Path(__file__).with_name("catalogue.yaml")
_TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022 (arXiv:2203.15556), table 3: near compute-optimal
_BATCH_TOKENS = 4 * 1024**2  # between GPT-3's 3.2 M and Llama 3's 4-16 M tokens a step


@dataclass(frozen=True, slots=True)
class LoadedWorkload:
    """A valid workload, where it came from, and what had to be assumed."""

    workload: Workload
    path: Path
    origin: str
    assumed: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """The digest of the content after validation."""
        return digest(self.workload)


@cache
def _catalogue() -> Document:
    return read_document(_CATALOGUE)


def list_workloads() -> dict[str, str]:
    """Return the names of the catalogue with their descriptions."""
    return {name: entry["description"] for name, entry in _catalogue().value.items()}


def load_workload(name: str | Path) -> LoadedWorkload:
    """Return the workload called ``name``, or the one in the file of that path.

    A workload file may name a model of the catalogue (``model: llama3-8b``) or a ``config.json`` beside it. A bare
    ``config.json`` gets 20 tokens a parameter and steps of 4 Mi tokens, and ``assumed`` says so.

    Raises:
        InputError: no such workload or file, or one that is not valid.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml", ".json"} or "/" in str(name) or path.is_file():
        return _read(path)
    known = list_workloads()
    if str(name) not in known:
        raise InputError(f"no workload is called {str(name)!r}" + nearest(str(name), known))
    return LoadedWorkload(_entry(str(name)), _CATALOGUE, "shipped")


def _entry(name: str) -> Workload:
    catalogue = _catalogue()
    lines = {loc[1:]: line for loc, line in catalogue.lines.items() if loc[:1] == (name,)}
    return validate(Document({"name": name, **catalogue.value[name]}, catalogue.source, lines), Workload)


def _read(path: Path) -> LoadedWorkload:
    document = read_document(path)
    if looks_like_config(document.value):
        return _from_config(document, path)
    value = document.value
    if isinstance(value, dict) and isinstance(value.get("model"), str):
        shape = _named_model(document, path)
        plain = shape.model_dump(mode="json", by_alias=True, exclude_none=True)
        document = Document({**value, "model": plain}, document.source, document.lines)
    return LoadedWorkload(validate(document, Workload), path, "file")


def _named_model(document: Document, path: Path) -> ModelShape:
    name: str = document.value["model"]
    if name.endswith(".json"):
        config = read_document(path.parent / name)
        if not looks_like_config(config.value):
            raise InputError(Problem("is not a model's config.json: it has no 'model_type'", file=config.source))
        return shape_from_config(config)
    known = list_workloads()
    if name not in known:
        message = f"no model is called {name!r}" + nearest(name, known)
        raise InputError(document.problem(("model",), message))
    return _entry(name).model


def _from_config(document: Document, path: Path) -> LoadedWorkload:
    shape = shape_from_config(document)
    positions = document.value.get("max_position_embeddings") or document.value.get("n_positions") or 2048
    sequence = min(int(positions), 8192)
    batch = max(1, _BATCH_TOKENS // sequence)
    tokens = _TOKENS_PER_PARAMETER * active_parameters(shape)
    name = path.resolve().parent.name if path.stem == "config" else path.stem
    fields: dict[str, Any] = {"tokens": tokens, "global_batch": batch, "sequence_length": sequence}
    assumed = (
        f"tokens: {tokens:,} ({_TOKENS_PER_PARAMETER} a parameter)",
        f"sequence_length: {sequence:,}",
        f"global_batch: {batch:,} sequences",
    )
    workload = Workload(name=name or "model", model=shape, training=Training(**fields))
    return LoadedWorkload(workload, path, "file", assumed)
