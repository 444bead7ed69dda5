"""What templates there are, what they may use, and a start for one of one's own."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan import resources
from hpcplan.errors import ConflictError, InputError, Problem, nearest
from hpcplan.render.context import Component, ScriptContext
from hpcplan.render.environment import FILTERS, SHIPPED, template_environment

if TYPE_CHECKING:
    import jinja2

__all__ = ["Template", "blocks_of", "check_templates", "find_template", "list_templates", "new_template", "variables"]

_OTHER_COMMENT: Final = re.compile(r"^# ([^\n]*)|^\"\"\"([^\n]*)", re.MULTILINE)
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
    comment = re.search(r"\{#(.*?)#\}", text, re.DOTALL) or re.search(
        r"^# ([^\n]*)|^\"\"\"([^\n]*)", text, re.MULTILINE
    )
    words = " ".join(" ".join(group or "" for group in comment.groups()).split()) if comment else ""
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
    """Write a template that extends another and overrides one block of it, and return its file.

    Raises:
        InputError: the template or those that it extends have no such block, or it is a program that is only copied.
        ConflictError: the file is there already.
    """
    if not template.name.endswith(".j2"):
        raise InputError(f"{template.name} is copied as it is; put a file of that name into {folder / template.name}")
    blocks = list(_all_blocks(template.name))
    chosen = block or ("extra_directives" if "extra_directives" in blocks else blocks[-1] if blocks else None)
    if chosen is None or chosen not in blocks:
        raise InputError(f"{template.name} has no block {block!r}" + nearest(block or "", blocks))
    path = folder / template.name
    if path.exists():
        raise ConflictError(f"{path} is there already", hint="edit it, or name another folder with --templates")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{{# Overrides the block {chosen} of the shipped {template.name}. #}}",
        f'{{% extends "{SHIPPED}/{template.name}" %}}',
        f"{{% block {chosen} %}}",
        "{{ super() }}",
        "{% endblock %}",
    ]
    from hpcplan.documents import write_text

    write_text(path, "\n".join(lines) + "\n")
    return path


def _all_blocks(name: str) -> tuple[str, ...]:
    """Return the blocks of a shipped template and of those that it extends."""
    text = (resources.shipped("templates") / name).read_text(encoding="utf-8")
    parent = re.search(r"\{%\s*extends\s+\"([^\"]+)\"", text)
    return tuple(dict.fromkeys((*blocks_of(text), *(_all_blocks(parent[1]) if parent else ()))))


def check_templates(templates_dir: Path | None = None) -> list[Problem]:
    """Return what is wrong with templates that are not the shipped ones: syntax, and blocks that nothing has."""
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
        environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        return [Problem(str(error.message), file=str(template.path), line=error.lineno)]
    parent = re.search(r"\{%\s*extends\s+\"(?:shipped/)?([^\"]+)\"", text)
    if parent is None:
        return []
    shipped = resources.shipped("templates") / parent[1]
    if not shipped.is_file():
        return []
    known = _all_blocks(parent[1])
    found = []
    for name in template.blocks:
        if name not in known:
            line = text[: text.index(re.search(rf"block\s+{name}\b", text)[0])].count("\n") + 1  # type: ignore[index]
            message = f"overrides no block: {parent[1]} has none called {name!r}" + nearest(name, known)
            found.append(Problem(message, file=str(template.path), line=line))
    return found


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
