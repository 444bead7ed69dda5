"""What the pages say exists: commands and their options, links, variables, events, blocks, keys."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from types import ModuleType

import click
import pytest

from hpcplan.cli import hpcplan
from hpcplan.demo import run as demo
from hpcplan.errors import ExitCode
from hpcplan.frameworks import FRAMEWORKS
from hpcplan.plan import DataShards
from hpcplan.render import render_plan
from hpcplan.render.context import ScriptContext
from hpcplan.render.environment import FILTERS
from hpcplan.report.jobs import COLUMNS
from hpcplan.resources import shipped
from tests.render.sites import framework_plan, hybrid_plan, pooled_plan, staged_plan

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = TOP + sorted(page for page in DOCS.rglob("*.md") if not {"_generated", "_build"} & set(page.parts))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def transcripts() -> ModuleType:
    """The module docs/transcripts.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("docs_transcripts", DOCS / "transcripts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def console_lines(page: Path) -> list[str]:
    """Return what a reader is told to type."""
    blocks = re.findall(r"^```console\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    whole = [re.sub(r"\\\n\s*", "", block) for block in blocks]
    return [line[2:] for block in whole for line in block.splitlines() if line.startswith("$ ")]


def commands_in(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in lexer:
        if set(token) <= set("();<>|&"):
            yield words
            words = [">"] if set(token) <= set("<>") else []  # what follows is a file, not a command
        else:
            words.append(token)
    yield words


def found(words: list[str]) -> tuple[click.Context, click.Command, list[str]]:
    """Return the command that words after ``hpcplan`` name, and its own words."""
    command: click.Command = hpcplan
    context = click.Context(hpcplan, info_name="hpcplan")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        assert inner is not None, f"there is no command {context.command_path} {words[0]}"
        context = click.Context(inner, info_name=words[0], parent=context)
        command, words = inner, words[1:]
    return context, command, words


def check_parses(words: list[str]) -> None:
    """Let click read the words as the command would; nothing is run."""
    context, command, own = found(words)
    try:
        command.make_context(context.info_name, list(own), parent=context.parent).close()
    except click.exceptions.Exit:
        return  # --help
    except click.UsageError as error:
        pytest.fail(f"hpcplan {' '.join(words)}: {error.format_message()}")


@EVERY_PAGE
def test_commands_to_type_are_commands_with_these_options(page: Path) -> None:
    for line in console_lines(page):
        for words in commands_in(line):
            if words[:1] == ["hpcplan"]:
                check_parses(words[1:])


@EVERY_PAGE
def test_commands_in_running_text_exist(page: Path) -> None:
    known_everywhere = {"-h", "--help", "-V", "--version"}
    for code in re.findall(r"(?<!`)`(hpcplan [^`]+)`(?!`)", " ".join(text_of(page).split())):
        _, command, own = found([word for word in next(commands_in(code))[1:] if word.isascii()])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in own:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in options | known_everywhere, code


@EVERY_PAGE
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = [words[1] for line in console_lines(page) for words in commands_in(line) if words[:1] == ["make"]]
    named += re.findall(r"`make ([a-z-]+)`", text_of(page))
    assert set(named) <= targets


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#{1,6} (.*)$", text_of(page), re.MULTILINE)}


@EVERY_PAGE
def test_relative_links_lead_somewhere(page: Path, transcripts: ModuleType) -> None:
    generated = set(re.findall(r'"([a-z-]+\.md)"', text_of(DOCS / "generate.py"))) | {
        f"transcripts/{shot.name}.txt" for shots in transcripts.SESSIONS.values() for shot in shots
    }
    text = text_of(page)
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", text)
    links += re.findall(r"^```\{(?:image|literalinclude)\} (\S+)", text, re.MULTILINE)
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if DOCS / "_generated" in path.parents:
            name = str(path.relative_to(DOCS / "_generated"))
            assert name in generated or name.endswith(".svg"), link
            continue
        assert path.is_file(), link
        assert not anchor or anchor in anchors(path), link


def test_a_page_shows_the_command_whose_output_it_includes(transcripts: ModuleType) -> None:
    command = {shot.name: shot.command for shots in transcripts.SESSIONS.values() for shot in shots}
    included = {
        (page, name) for page in PAGES for name in re.findall(r"_generated/transcripts/([a-z-]+)\.txt", text_of(page))
    }
    assert included
    for page, name in included:
        assert command[name] in console_lines(page), f"{page.name}: {name}"


def test_the_commands_of_a_session_are_those_of_the_tutorial_in_its_order(transcripts: ModuleType) -> None:
    typed = [line for line in console_lines(DOCS / "tutorial.md") if line.startswith("hpcplan ")]
    run = [shot.command for shot in transcripts.SESSIONS["tutorial"]]
    position = -1
    for command in typed:
        position = run.index(command, position + 1)


def test_the_page_of_exit_codes_has_each_of_them() -> None:
    rows = re.findall(r"^\| (\d) \|", text_of(DOCS / "reference" / "exit-codes.md"), re.MULTILINE)
    assert [int(code) for code in rows] == [code.value for code in ExitCode]


def test_variables_that_scripts_export_or_hpcplan_reads_are_all_documented_and_no_others(plans: ModuleType) -> None:
    data = DataShards(manifest="shards.jsonl", sha256="0" * 64, files=1, lanes=1, tokens=1, imbalance=0)
    uneven = plans.sharding(stage_layers=(4,) * 20, recompute="full", recompute_block=2)
    deep, copied = (
        framework_plan("deepspeed", "superpod"),
        {"tp": 1, "pp": 1, "dp": 32, "zero": 3, "secondary_group": 8, "micro_batches": 4},
    )
    copied |= {"quantized": "weights"}
    twice = deep.model_copy(update={"plan": deep.plan.model_copy(update=copied)})
    swapped = hybrid_plan("srun")
    own = {"cp": 2, "dp": swapped.plan.dp // 2, "context_exchange": "a2a", "recompute": "none", "recompute_mlp": "all"}
    own |= {"micro_batches": 2 * swapped.plan.micro_batches}
    swapped = swapped.model_copy(update={"plan": swapped.plan.model_copy(update=own | {"recompute_layers": None})})
    made = (
        plans.plan(data_shards=data, plan=uneven), plans.torchrun_plan(), framework_plan("jax", "superpod"),
        pooled_plan("srun"), staged_plan("superpod"), hybrid_plan("srun"), twice, swapped,
    )  # fmt: skip
    scripts = "\n".join("\n".join(render_plan(plan).values()) for plan in made)
    lines = "\n".join(re.findall(r"^ *export (.*)", scripts, re.MULTILINE))
    exported = set(re.findall(r"(?:^| )(HPCPLAN_\w+)=", lines, re.MULTILINE))
    sources = "".join(text_of(path) for path in (ROOT / "hpcplan").rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"((?:HPCPLAN|XDG)_\w+)"', sources))
    read |= set(re.findall(r'_VARIABLE: Final = "(HPCPLAN_\w+)"', sources))
    page = text_of(DOCS / "reference" / "environment.md")
    documented = set(re.findall(r"`((?:HPCPLAN|XDG)_\w+)`", page))
    assert exported
    assert documented == exported | read


def test_events_of_the_journal_are_all_documented_and_no_others() -> None:
    sources = "".join(text_of(path) for path in (ROOT / "hpcplan" / "campaign").glob("*.py"))
    written = set(re.findall(r'(?:\.append|_note)\(\s*"([a-z-]+)"', sources))
    page = text_of(DOCS / "reference" / "campaign-directory.md").partition("## journal.jsonl")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)`", page, re.MULTILINE)) == written


def test_keys_of_a_job_in_the_report_are_all_documented_in_order() -> None:
    page = text_of(DOCS / "reference" / "report-json.md").partition("## hpcplan report jobs")[2]
    first_cells = re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)
    documented = re.findall(r"`(\w+)`", " ".join(first_cells))
    assert sorted(documented) == sorted(COLUMNS)


def test_blocks_variables_and_filters_of_templates_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    page = text_of(DOCS / "howto" / "change-the-templates.md")
    base = text_of(shipped("templates") / "sbatch" / "base.sbatch.j2")
    tables = dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", page, re.MULTILINE))
    assert set(tables) == set(re.findall(r"{% block (\w+)", base.partition("#}")[2]))
    monkeypatch.syspath_prepend(str(DOCS))
    named = set(re.findall(r"`([\w-]+)`", importlib.import_module("template_names").templates_page()))
    assert {field.name for field in fields(ScriptContext)} <= named
    assert set(FILTERS) <= named
    assert set(FRAMEWORKS) <= named


def first_screen(readme: str) -> re.Match[str]:
    """Return the part of the README that shows the demo's output, as far as it does not vary with the time of day."""
    shown = re.search(r"(?<=```text\n)1\. Plan\n.*?(?=\n3\. )", readme, re.DOTALL)
    assert shown is not None
    return shown


def without_search_time(text: str) -> str:
    return re.sub(r"in \d+\.\d+ s", "in 0.02 s", text)


def test_the_first_screen_shows_what_the_demo_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """After a change of the cost model: pytest tests/docs --update-golden."""
    monkeypatch.chdir(tmp_path)
    steps = islice(demo.run_demo(tmp_path / "hpcplan-demo"), 2)
    lines: list[str] = []
    for number, step in enumerate(steps, start=1):
        lines += [f"{number}. {step.title}", *(f"   {line}" for line in (f"$ {step.command}", *step.lines))]
    printed = without_search_time("\n".join(lines))
    readme = ROOT / "README.md"
    text = text_of(readme)
    if request.config.getoption("--update-golden"):
        text = text.replace(first_screen(text)[0], printed)
        readme.write_text(text, encoding="utf-8")
    assert first_screen(text)[0] == printed
    assert f"hpcplan mock start {demo.SITE} --load {demo.LOAD} --history 24h --speed 0" in text


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:3]) for path in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
