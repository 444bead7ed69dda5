"""Reading the cost model's constants: base values, and factors by accelerator, framework, precision and site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.correction import Corrected, read_correction
from hpcplan.cost.shardings import Floats
from hpcplan.documents import Loc
from hpcplan.errors import nearest
from hpcplan.resources import config_dir, shipped
from hpcplan.site.model import rate_of
from hpcplan.validation import Value, digest, read_model

__all__ = [
    "BaseConstants",
    "Belief",
    "Constants",
    "Factors",
    "constants_for",
    "implied_features",
    "learned_factors",
    "learned_folder",
    "lineage",
    "read_base",
    "read_factors",
    "read_prior",
    "scalings",
]

Positive = Annotated[float, Field(gt=0)]


class Constant(Value):
    """A constant and where it comes from."""

    value: Positive
    source: str


class Factor(Value):
    """What a constant is multiplied by, and where that comes from."""

    factor: Positive
    source: str


class Belief(Value):
    """What is known before any fit of one chip's, framework's or feature's constant: a factor on the value of all."""

    kind: Literal["families", "accelerators", "frameworks", "precisions", "features"]
    label: str
    constant: str
    factor: Positive
    source: str


class BaseConstants(Value):
    """The schema of ``constants/base.yaml`` and ``constants/prior.yaml``."""

    name: str
    constants: dict[str, Constant]
    interval: Constant
    beliefs: tuple[Belief, ...] = ()

    def inconsistencies(self) -> list[tuple[Loc, str]]:
        """Return constants that are missing or that the model does not know."""
        missing = [(("constants",), f"{name!r} is missing") for name in NAMES if name not in self.constants]
        unknown = [
            (("beliefs", i, "constant"), f"{belief.constant!r} is no constant" + nearest(belief.constant, NAMES))
            for i, belief in enumerate(self.beliefs)
            if belief.constant not in NAMES
        ]
        return [*missing, *_unknown("constants", self.constants), *unknown]


class Factors(Value):
    """The schema of the other constants files."""

    name: str
    factors: dict[str, Factor] = Field(default_factory=dict)
    interval: Constant | None = Field(None, description="half-width of the 90 % interval where this is known")
    evidence: tuple[str, ...] = Field((), description="what was measured on a site, in words; plans repeat it")

    def inconsistencies(self) -> list[tuple[Loc, str]]:
        """Return factors of constants that the model does not know."""
        return _unknown("factors", self.factors)


def _unknown(key: str, names: dict[str, Constant] | dict[str, Factor]) -> list[tuple[Loc, str]]:
    return [((key, name), "is no constant" + nearest(name, NAMES)) for name in names if name not in NAMES]


@dataclass(frozen=True, slots=True)
class Constants:
    """The constants for one kind of run: their values, half-widths of the 90 % interval, and the files they came from.

    ``interval`` is the half-width near runs that were measured on the site, ``unseen_interval`` that on a site without.
    """

    name: str
    coefficients: Coefficients
    interval: float
    unseen_interval: float
    paths: tuple[Path, ...]
    sha256: str
    corrected: Corrected | None = None  # what runs that were measured on this site add
    evidence: tuple[str, ...] = ()  # what was measured on the site and learned of it, in words

    def half_width(self, nearest: Floats | float) -> Floats:
        """Return the half-width of the 90 % interval as a share of the step time, by the nearness of measured runs.

        Near a measured run the site's own; far from all that of a site without runs: what was measured on a site of
        one trainer, or of one model, says little of another. Between them variances of logarithms are mixed as the
        variance of a Gaussian process grows with the distance from what it knows: by the square of the nearness
        (Rasmussen & Williams 2006, equation 2.26, for one known place).
        """
        near, far = np.log1p(self.interval), np.log1p(max(self.interval, self.unseen_interval))
        told = np.asarray(nearest) ** 2
        return np.asarray(np.expm1(np.sqrt(told * near**2 + (1 - told) * far**2)), dtype=float)


@cache
def read_base(folder: Path) -> BaseConstants:
    """Return the base values of a constants folder."""
    return read_model(folder / "base.yaml", BaseConstants)


def read_prior(folder: Path) -> BaseConstants:
    """Return what a fit starts from and is pulled towards: ``prior.yaml``, or the base values where there is none."""
    path = folder / "prior.yaml"
    return read_model(path, BaseConstants) if path.is_file() else read_base(folder)


@cache
def read_factors(folder: Path, kind: str, name: str) -> Factors | None:
    """Return the factors of one file of a constants folder, ``None`` if there is none of that name."""
    path = folder / kind / f"{name}.yaml"
    return read_model(path, Factors) if name and "/" not in name and path.is_file() else None


# what a fork does not take on: how it keeps its states is what forks change
_OF_ONE_TRAINER = frozenset({"state_copies", "step_bytes", "framework_bytes", "kept_activations",
                             "activation_fragmentation", "logit_bytes", "selective_kept"})  # fmt: skip
_FORKS = {"sailor": "megatron-deepspeed"}


def lineage(framework: str) -> tuple[str, ...]:
    """Return the trainers whose constants a trainer takes on: what it is a fork of, then itself."""
    parent = _FORKS.get(framework)
    return (parent, framework) if parent else (framework,)


def scalings(precision: str) -> tuple[str, ...]:
    """Return the precisions whose constants a precision takes on: its rate, then what its scaling adds."""
    return tuple(dict.fromkeys((rate_of(precision), precision)))


def learned_folder() -> Path:
    """Return where what was learned of sites is kept: beside the user's site files."""
    return config_dir() / "sites" / "constants"


@cache
def learned_factors(path: Path) -> Factors:
    """Return the factors of a site that were learned there."""
    return read_model(path, Factors)


_CUDNN_TRAINERS = frozenset({"megatron-lm", "nemo"})
_AFTER_AMPERE = frozenset({"H100", "B200", "B300", "GB200", "GB300"})


def implied_features(framework: str, family: str, precision: str, stated: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the features that come with a trainer on a chip: files of ``features/`` hold their factors.

    Trainers on Transformer Engine take cuDNN's attention from Hopper on, unless "flash-attention-2", which was not
    written for such chips, is among the features that are ``stated``. With products in 8 bits they keep the inputs of
    products in 8 bits for the backward pass; torchtitan keeps 16.
    """
    old = "flash-attention-2" in stated
    fused = not old and framework in _CUDNN_TRAINERS and family in _AFTER_AMPERE and precision not in ("fp32", "tf32")
    narrow = framework in _CUDNN_TRAINERS and ("fp8" in precision or precision == "fp4")
    return ("cudnn-attention",) * fused + ("narrow-activations",) * narrow


def _refitted(evidence: Sequence[str]) -> bool:
    """Whether a site's factors are others than those that were fitted with its shipped corrections."""
    return any(each.startswith(("bench ", "learned ")) for each in evidence)


def constants_for(
    *,
    accelerator: str = "",
    family: str | None = None,
    framework: str = "",
    precision: str = "",
    site: str = "",
    features: Sequence[str] = (),
    folder: Path | None = None,
) -> Constants:
    """Return the constants for one kind of run; files that do not exist change nothing.

    Args:
        accelerator: a name of the catalogue.
        family: the chip that it shares constants with.
        framework: as in a workload.
        precision: of the products.
        site: its name.
        features: of the trainer, such as ``compile``.
        folder: the constants folder; if absent the shipped one, where what was learned of a site beside the user's site
            files (:func:`learned_folder`) stands in for the site's shipped factors.

    Raises:
        InputError: a file is not valid.
    """
    learned = learned_folder() / "sites" / f"{site}.yaml" if folder is None and site and "/" not in site else None
    folder = folder or shipped("sites") / "constants"
    base = read_base(folder)
    coefficients, interval = Coefficients(**{name: base.constants[name].value for name in NAMES}), base.interval.value
    used, contents = [folder / "base.yaml"], [digest(base)]
    parts = [("families", family or ""), ("accelerators", accelerator)]
    parts += [("frameworks", name) for name in lineage(framework)]
    present = (*features, *implied_features(framework, family or "", precision, features))
    parts += [("precisions", name) for name in scalings(precision)]
    parts += [*(("features", feature) for feature in present), ("sites", site)]
    evidence: tuple[str, ...] = ()
    for kind, name in parts:
        here = learned if kind == "sites" and learned is not None and learned.is_file() else None
        factors = read_factors(folder, kind, name) if here is None else learned_factors(here)
        if factors is not None:
            passed_on = kind != "frameworks" or name == framework
            own = {k: v.factor for k, v in factors.factors.items() if passed_on or k not in _OF_ONE_TRAINER}
            coefficients = coefficients.scaled(own)
            interval = factors.interval.value if factors.interval else interval
            used.append(here or folder / kind / f"{name}.yaml")
            contents.append(digest(factors))
            evidence += factors.evidence
    name = "+".join(path.stem for path in used) + (f" (evidence: {'; '.join(evidence)})" if evidence else "")
    near, path = None, folder / "corrections" / f"{site}.json"
    if learned is not None and _refitted(evidence):
        # the shipped ones were made for the shipped factors
        path = learned_folder() / "corrections" / f"{site}.json"
    if site and "/" not in site and path.is_file():
        near = Corrected((framework, precision, *features), read_correction(path))
        contents.append(path.read_text())
    return Constants(name, coefficients, interval, base.interval.value, tuple(used), digest(contents), near, evidence)
