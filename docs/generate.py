"""Makes ``docs/_generated``: tables of file formats, pictures drawn by hpcplan, and what its commands print.

Run by Sphinx at each build (conf.py); by hand: ``python docs/generate.py``.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from published_systems import published_page
from schemas import file_page, output_page
from template_names import templates_page
from transcripts import record

from hpcplan.campaign.policy import Policy
from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.constants import BaseConstants, Factors, read_base
from hpcplan.demo.run import run_demo
from hpcplan.plan import Plan
from hpcplan.report.model import SCHEMA_NAME, Report
from hpcplan.resources import shipped
from hpcplan.schedule.sharing.portfolio import Portfolio
from hpcplan.site import list_sites, load_site
from hpcplan.site.catalogue import accelerators
from hpcplan.site.draw import draw_topology
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from hpcplan.units import format_bandwidth, format_bytes, format_flops
from hpcplan.validation import read_model
from hpcplan.workload import Workload, list_workloads, load_workload
from hpcplan.workload.arithmetic import active_parameters, parameters

DRAWN = ("superpod-h100", "mixed-lab")


def catalogue_page() -> str:
    """Return the page of shipped sites, workloads, accelerators and constants."""
    return "\n".join(["# What ships", "", *_sites(), *_workloads(), *_accelerators(), *_constants()])


def _sites() -> Iterator[str]:
    yield from ("## Sites", "", "| site | what it is | sources |", "|---|---|---|")
    for name in list_sites():
        site = load_site(name).site
        yield f"| `{name}` | {site.description} | {'; '.join(site.sources)} |"
    yield ""


def _workloads() -> Iterator[str]:
    yield from ("## Workloads", "", "| workload | parameters | active | sequence | batch | tokens | sources |")
    yield "|---|---:|---:|---:|---:|---:|---|"
    for name in list_workloads():
        workload = load_workload(name).workload
        run, shape = workload.training, workload.model
        size, active = f"{parameters(shape) / 1e9:.2f} B", f"{active_parameters(shape) / 1e9:.2f} B"
        cells = (f"`{name}`", size, active, f"{run.sequence_length:,}", f"{run.global_batch:,}",
                 f"{run.tokens / 1e9:,.0f} B", "; ".join(workload.sources))  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _accelerators() -> Iterator[str]:
    yield from ("## Accelerators", "", "| accelerator | memory | bandwidth | bf16 or fp16 | source |")
    yield "|---|---:|---:|---:|---|"
    for name, chip in accelerators().items():
        memory, bandwidth = format_bytes(chip.memory_bytes), format_bandwidth(chip.memory_bandwidth_bytes_per_s)
        yield f"| `{name}` | {memory} | {bandwidth} | {format_flops(chip.peak('bf16'))} | {chip.source} |"
    yield ""


def _constants() -> Iterator[str]:
    folder = shipped("sites") / "constants"
    base: BaseConstants = read_base(folder)
    yield from ("## Constants of the cost model", "", "Base values, which every prediction begins with.", "")
    yield from ("| constant | value | meaning | source |", "|---|---:|---|---|")
    meanings = dict(re.findall(r"(\w+): \(?\s*Number\s+# (.*)", inspect.getsource(Coefficients)))
    for name, constant in base.constants.items():
        yield f"| `{name}` | {constant.value:.3g} | {meanings[name]} | {constant.source} |"
    yield f"| 90 % interval | {base.interval.value:.0%} | half-width | {base.interval.source} |"
    yield from ("", "Factors, by which some of them are multiplied. The file's name says for what.", "")
    yield from ("| file | constant | factor | source |", "|---|---|---:|---|")
    for path in sorted(folder.glob("*/*.yaml")):
        factors, file = read_model(path, Factors), path.relative_to(folder)
        for name, factor in factors.factors.items():
            yield f"| `{file}` | `{name}` | {factor.factor:.3g} | {factor.source} |"
        if factors.interval is not None:
            yield f"| `{file}` | interval, half-width | {factors.interval.value:.0%} | {factors.interval.source} |"
    yield ""


def _pages() -> dict[str, str]:
    return {
        "site-file.md": file_page(
            "site-file", "The site file", "One YAML file a site. Quantities carry their units.", Site
        ),
        "workload-file.md": file_page(
            "workload-file",
            "The workload file",
            "One YAML file a workload. `model` is a shape as below, a name of the catalogue (`model: llama3-8b`), or "
            "the name of a Hugging Face `config.json` beside the file.",
            Workload,
        ),
        "plan-file.md": file_page(
            "plan-file",
            "plan.json",
            "What `hpcplan plan -o` writes and `hpcplan render` reads. Plain numbers in base units: seconds, bytes, "
            "bytes a second; steps and segments count from 1. `hpcplan plan --format json` prints the same keys, and "
            "adds `search.seconds` and `notes`, which differ from run to run and are therefore not stored.",
            Plan,
        ),
        "portfolio-file.md": file_page(
            "portfolio-file",
            "The portfolio file",
            "What `hpcplan allocate` reads: the workloads that share a site. "
            "[How to use it](../howto/share-a-site.md).",
            Portfolio,
        ),
        "policy-file.md": file_page(
            "policy-file",
            "policy.yaml",
            "What a campaign does by itself under `hpcplan track`: a file in its directory, read anew at each round. "
            "Every key may be left out, and so may the file.",
            Policy,
        ),
        "report-keys.md": output_page(
            "report-keys",
            "Keys of the report",
            "What `hpcplan report --format json` prints. What the figures mean is in "
            "[Figures of the report](../explanation/report-metrics.md).",
            Report,
            skip=frozenset({"jobs_table"}),
            first={"schema": f"`{SCHEMA_NAME}`"},
        ),
        "catalogue.md": catalogue_page(),
        "templates.md": templates_page(),
    }


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder of its own, in which hpcplan also keeps its list of campaigns meanwhile."""
    before = os.environ.get("HPCPLAN_DATA_DIR")
    with tempfile.TemporaryDirectory() as name:
        os.environ["HPCPLAN_DATA_DIR"] = f"{name}/data"
        try:
            yield Path(name)
        finally:
            if before is None:
                del os.environ["HPCPLAN_DATA_DIR"]
            else:
                os.environ["HPCPLAN_DATA_DIR"] = before


def draw_demo(folder: Path, scratch: Path) -> None:
    """Run the demo, and keep its picture of the loop."""
    for _ in run_demo(scratch / "demo"):
        pass
    shutil.copyfile(scratch / "demo" / "loop.svg", folder / "loop.svg")


def generate(folder: Path) -> None:
    """Write every generated page and picture into ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "published-systems.txt").write_text(published_page(), encoding="utf-8")
    for name, text in _pages().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for name in DRAWN:
        site = load_site(name).site
        draw_topology(site, build_topology(site), folder / f"{name}.svg")
    with _scratch() as scratch:
        draw_demo(folder, scratch)
        record(folder / "transcripts", scratch)


if __name__ == "__main__":
    generate(Path(__file__).parent / "_generated")
