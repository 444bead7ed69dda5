"""What templates there are, what they may use, and a start for one of one's own."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan import resources
from hpcplan.errors import ConflictError, InputError, Problem, nearest
from hpcplan.render.context import Component, ScriptContext
from hpcplan.render.environment import FILTERS, SHIPPED, template_environment
from hpcplan.render.kubernetes import JOBSET_VARIABLES

if TYPE_CHECKING:
    import jinja2

__all__ = ["Template", "blocks_of", "check_templates", "find_template", "list_templates", "new_template", "variables"]

_COMMENT: Final = re.compile(r"\{#(.*?)#\}", re.DOTALL)
_PROGRAM_COMMENT: Final = re.compile(r"^# ([^\n]*\n(?:# [^\n]*\n)*)|^\"\"\"([^\n]*)", re.MULTILINE)
# What only some templates are given, beside the variables of all.
_NAMES: Final = frozenset({"config", "least_gbps", "container", *JOBSET_VARIABLES})
FOLDERS: Final = ("sbatch", "launch", "launchers", "node", "kubernetes")


@dataclass(frozen=True, slots=True)
class Template:
    """A template: its name, as in ``sbatch/torchrun.sbatch.j2``, its file, and whose it is."""

    name: str
    path: Path
    origin: str
    """``option``, ``user``, ``system`` or ``shipped``"""
    summary: str
    """its first comment's first sentence"""
    blocks: tuple[str, ...]
    """that it defines, or overrides"""


def list_templates(templates_dir: Path | None = None) -> list[Template]:
    """Return the templates in use, by name; a file of a folder that comes earlier hides a shipped one.

    Raises:
        InputError: ``templates_dir`` does not exist.
    """
    found: dict[str, tuple[Path, str]] = {}
    for folder, origin in resources.folders("templates", templates_dir):
        for kind in FOLDERS:
            for path in sorted((folder / kind).glob("*")):
                if path.is_file():
                    found.setdefault(f"{kind}/{path.name}", (path, origin))
    return [_template(name, *found[name]) for name in sorted(found)]


def _template(name: str, path: Path, origin: str) -> Template:
    text = path.read_text(encoding="utf-8", errors="replace")
    comment = _COMMENT.search(text) or _PROGRAM_COMMENT.search(text)
    words = (
        " ".join(" ".join(group or "" for group in comment.groups()).replace("\n# ", " ").split()) if comment else ""
    )
    return Template(name, path, origin, re.split(r"(?<=\.)\s|\.$", words)[0], blocks_of(text))


def blocks_of(text: str) -> tuple[str, ...]:
    """Return the names of the blocks that a template defines, in order, each once."""
    return tuple(dict.fromkeys(re.findall(r"\{%-?\s*block\s+(\w+)", text)))


def find_template(name: str, templates_dir: Path | None = None) -> Template:
    """Return one template; ``torchrun`` means ``sbatch/torchrun.sbatch.j2``.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    known = {template.name: template for template in list_templates(templates_dir)}
    for candidate in (name, f"sbatch/{name}.sbatch.j2", f"{name}.j2"):
        if candidate in known:
            return known[candidate]
    short = {re.sub(r"\.sbatch\.j2$", "", one.removeprefix("sbatch/")): one for one in known}
    hint = "hpcplan template list names them all"
    raise InputError(f"no template is called {name!r}" + nearest(name, [*short, *known]), hint=hint)


def new_template(template: Template, block: str | None, folder: Path) -> Path:
    """Write a template that overrides one block of another, and return its file; one without blocks is copied whole.

    Raises:
        InputError: neither the template nor those that it extends have such a block.
        ConflictError: the file is there already.
    """
    from hpcplan.documents import write_text

    text = _text_of_new(template, block)
    path = folder / template.name
    if path.exists():
        raise ConflictError(f"{path} is there already", hint="edit it, or name another folder with --templates")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made: {error.strerror}") from None
    write_text(path, text)
    return path


def _text_of_new(template: Template, block: str | None) -> str:
    shipped = resources.shipped("templates") / template.name
    if not shipped.is_file():
        raise InputError(f"{template.path} is nobody's but yours; edit it as it is")
    blocks = list(_all_blocks(template.name)) if template.name.endswith(".j2") else []
    if block is not None and block not in blocks:
        known = f"it has {', '.join(sorted(blocks))}" if blocks else "it has none, and is copied whole without --block"
        raise InputError(f"{template.name} has no block {block!r}" + nearest(block, blocks), hint=known)
    if not blocks:
        return shipped.read_text(encoding="utf-8")
    chosen = block or ("extra_directives" if "extra_directives" in blocks else blocks[-1])
    lines = [
        f"{{# Overrides the block {chosen} of the shipped {template.name}. #}}",
        f'{{% extends "{SHIPPED}/{template.name}" %}}',
        f"{{% block {chosen} %}}",
        "{{ super() }}",
        "{% endblock %}",
    ]
    return "\n".join(lines) + "\n"


def _all_blocks(name: str) -> tuple[str, ...]:
    """Return the blocks of a shipped template and of those that it extends."""
    text = (resources.shipped("templates") / name).read_text(encoding="utf-8")
    parent = re.search(r"\{%\s*extends\s+\"([^\"]+)\"", text)
    return tuple(dict.fromkeys((*blocks_of(text), *(_all_blocks(parent[1]) if parent else ()))))


def check_templates(templates_dir: Path | None = None) -> list[Problem]:
    """Return what is wrong with templates that are not the shipped ones: syntax, filters, unknown names and blocks."""
    environment = template_environment(templates_dir)
    problems: list[Problem] = []
    for template in list_templates(templates_dir):
        if template.origin != "shipped" and template.name.endswith(".j2"):
            problems += _problems(environment, template)
    return problems


def _problems(environment: jinja2.Environment, template: Template) -> list[Problem]:
    import jinja2

    text = template.path.read_text(encoding="utf-8", errors="replace")
    try:
        environment.compile(text)
    except jinja2.TemplateSyntaxError as error:
        return [Problem(str(error.message), file=str(template.path), line=error.lineno)]
    found = [*_unknown_names(environment, text), *_unknown_blocks(environment, text)]
    return [Problem(message, file=str(template.path), line=line) for line, message in sorted(found)]


def _unknown_names(environment: jinja2.Environment, text: str) -> Iterator[tuple[int, str]]:
    from jinja2 import meta, nodes

    tree = environment.parse(text)
    known = {*_NAMES, *environment.globals, *(name.partition("[")[0] for name in variables())}
    unknown = meta.find_undeclared_variables(tree) - known
    for name in sorted(unknown):
        line = min(node.lineno for node in tree.find_all(nodes.Name) if node.name == name)
        yield line, f"{name!r} is undefined" + nearest(name, known)


def _unknown_blocks(environment: jinja2.Environment, text: str) -> Iterator[tuple[int, str]]:
    """Yield the blocks that would never be written; those inside others are new ones, to be overridden further on."""
    from jinja2 import nodes

    parent = re.search(r"\{%-?\s*extends\s+[\"'](?:shipped/)?([^\"']+)[\"']", text)
    if parent is None or not (resources.shipped("templates") / parent[1]).is_file():
        return
    known = _all_blocks(parent[1])
    for block in environment.parse(text).body:
        if isinstance(block, nodes.Block) and block.name not in known:
            message = f"overrides no block: {parent[1]} has none called {block.name!r}"
            yield block.lineno, message + nearest(block.name, known)


def variables() -> dict[str, tuple[str, str]]:
    """Return what templates are given: name, kind and meaning, read from the code that makes it."""
    found = _documented(ScriptContext) | {
        f"components[i].{name}": fact for name, fact in _documented(Component).items()
    }
    return found | {f"| {name}": ("filter", _sentence(function.__doc__)) for name, function in FILTERS.items()}


def _documented(kind: type) -> dict[str, tuple[str, str]]:
    """Return the fields of a class with their types and the strings below them."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, tuple[str, str]] = {}
    last = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
            found[last] = (ast.unparse(node.annotation), "")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            found[last] = (found[last][0], " ".join(str(node.value.value).split()))
    return found


def _sentence(text: str | None) -> str:
    first = re.split(r"\.\s|\.$|:\s", " ".join((text or "").split()))[0]
    return re.sub(r"^Return ", "", first)
