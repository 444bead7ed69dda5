"""Checking a document against a model, with errors that name file, line, field and the nearest right key."""

from __future__ import annotations

import hashlib
import json
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hpcplan.documents import Document, Loc, field_path, read_document
from hpcplan.errors import InputError, Problem, nearest

__all__ = ["Value", "canonical_json", "digest", "read_model", "validate"]

_MAX_SHOWN: Final = 10
ModelT = TypeVar("ModelT", bound="Value")


class Value(BaseModel):
    """Base of the values that cross the rooms: frozen, strict about unknown keys, the same bytes for the same content.

    A field's name carries its unit (``memory_bytes``); its alias is what people write in a file (``memory: 80 GiB``).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False, validate_by_name=True,
        validate_by_alias=True, validate_default=False,
    )  # fmt: skip

    def inconsistencies(self) -> Iterable[tuple[Loc, str]]:
        """Return ``(location, message)`` for what single fields cannot show, such as a name that nothing defines."""
        return ()


def read_model(path: Path | str, model: type[ModelT]) -> ModelT:
    """Read a file and return it as ``model``.

    Raises:
        InputError: as :func:`read_document`, or a key that the model does not know, a value of the wrong kind, a wrong
            unit, a missing key; every problem with file, line and field.
    """
    return validate(read_document(path), model)


def validate(document: Document, model: type[ModelT]) -> ModelT:
    """Return the document as ``model``; keys are the model's aliases, and quantities must carry units."""
    if not isinstance(document.value, dict):
        raise InputError(document.problem((), f"must be a mapping of keys, not {_kind(document.value)}"))
    try:
        result = model.model_validate(document.value, by_alias=True, by_name=False, context={"door": True})
    except ValidationError as error:
        errors = [each for each in error.errors(include_url=False) if not _follows(each)]
        problems = [_problem(document, details, model) for details in errors]
        raise _input_error(problems) from None
    found = [document.problem(loc, message) for loc, message in result.inconsistencies()]
    if found:
        raise _input_error(found)
    return result


def _input_error(problems: list[Problem]) -> InputError:
    unique = list(dict.fromkeys(problems))
    hidden = len(unique) - _MAX_SHOWN
    return InputError(unique[:_MAX_SHOWN], hint=f"and {hidden} more problems" if hidden > 0 else None)


def _kind(value: Any) -> str:
    names: dict[type, str] = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "nothing")


def _present(value: Any, loc: Loc) -> Loc:
    """Return ``loc`` without the parts that pydantic adds for unions and functions: what the file lacks."""
    kept: list[str | int] = []
    for part in loc:
        in_mapping = isinstance(value, dict) and part in value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_mapping or in_list:
            value = value[part]
            kept.append(part)
    return tuple(kept)


def _follows(details: ErrorDetails) -> bool:
    """Tell whether a list is too short only since pydantic does not count its entries that are wrong."""
    return details["type"] == "too_short" and len(details["input"]) >= details.get("ctx", {}).get("min_length", 0)


def _problem(document: Document, details: ErrorDetails, model: type[BaseModel]) -> Problem:
    loc, kind = details["loc"], details["type"]
    place = _present(document.value, loc)
    if kind == "extra_forbidden":
        message = "unknown key" + nearest(str(loc[-1]), _keys_at(model, loc[:-1]))
        return document.problem(place, message)
    if kind == "missing":
        problem = document.problem(place, "is missing")
        return Problem("is missing", problem.file, problem.line, field_path((*place, loc[-1])))
    message = details["msg"].removeprefix("Value error, ")
    if kind in {"enum", "literal_error"}:
        expected = details.get("ctx", {}).get("expected", "")
        words = re.findall(r"'([^']*)'", str(expected))
        message = f"{details['input']!r} is not one of the choices" + nearest(str(details["input"]), words)
    elif kind == "too_short":
        message = f"needs at least {details['ctx']['min_length']}, and has {len(details['input'])}"
    elif kind not in {"value_error"}:
        message = message[:1].lower() + message[1:]
        if not isinstance(details["input"], dict | list):
            message += f", not {details['input']!r}"
    return document.problem(place, message)


def _keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the keys that a file may have at ``loc`` under ``model``, walking through containers and unions."""
    current: list[Any] = [model]
    for part in loc:
        following: list[Any] = []
        for candidate in current:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                for name, info in candidate.model_fields.items():
                    if (info.alias or name) == part:
                        following += _models_in(info.annotation)
                    elif part == candidate.__name__ or part in _discriminator_values(candidate):
                        following.append(candidate)
        current = following or current
    return [
        info.alias or name
        for candidate in current
        if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        for name, info in candidate.model_fields.items()
    ]


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _discriminator_values(model: type[BaseModel]) -> list[str]:
    kind = model.model_fields.get("kind")
    return [str(value) for value in typing.get_args(kind.annotation)] if kind is not None else []


def canonical_json(value: Any) -> str:
    """Return ``value`` (a model, or plain data) as JSON with sorted keys: the same content gives the same bytes."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
