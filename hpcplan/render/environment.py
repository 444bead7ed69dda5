"""The Jinja environment of the templates: sandboxed, strict about names, and safe for the shell by construction.

What a ``{{ … }}`` writes must be a number, a plain word, or text that went through one of the filters below. A template
that forgets to quote is an error, not a hole.
"""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from hpcplan import resources
from hpcplan.errors import InputError, Problem, nearest
from hpcplan.render import quoting
from hpcplan.render.versions import supports

__all__ = ["FILTERS", "SHIPPED", "render_template", "source_text", "template_environment"]

FILTERS: Final[dict[str, Callable[..., str]]] = {
    "sh": quoting.shell_word,
    "words": quoting.shell_words,
    "shell": quoting.shell_line,
    "directive": quoting.directive_value,
    "comment": quoting.comment_text,
    "variable": quoting.variable_name,
    "slurm_time": quoting.shell_time,
    "burst_buffer": quoting.burst_buffer_line,
    "json": quoting.json_text,
    "toml": quoting.toml_value,
    "runtime_word": quoting.runtime_word,
    "yaml": quoting.yaml_value,
    "yaml_block": quoting.yaml_block,
}
_NO_ATTRIBUTE: Final = re.compile(r"'(hpcplan[\w.]*)\.(\w+) object' has no attribute '(\w+)'")
_MOST_SHOWN: Final = 40
SHIPPED: Final = "shipped"  # {% extends "shipped/sbatch/base.sbatch.j2" %} from a file that overrides it


class _Compiled(jinja2.BytecodeCache):
    """Templates that this process has compiled before, by name and content: compiling takes most of a rendering."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        bucket.code = self._kept.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._kept[bucket.key, bucket.checksum] = bucket.code


_COMPILED: Final = _Compiled()


def template_environment(templates_dir: Path | None = None, *, slurm_version: str | None = None) -> jinja2.Environment:
    """Return the environment over the user's, the site's and the shipped templates, in that order.

    Raises:
        InputError: ``templates_dir`` does not exist.
    """
    folders = [str(folder) for folder, _ in resources.folders("templates", templates_dir)]
    shipped = jinja2.FileSystemLoader(str(resources.shipped("templates")))
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(folders), jinja2.PrefixLoader({SHIPPED: shipped})]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,  # marks what is already safe (filters, blocks, macros); _checked refuses everything else
        finalize=_checked,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
        bytecode_cache=_COMPILED,
    )
    environment.filters |= {name: _marked(function) for name, function in FILTERS.items()}
    environment.globals = {"supports": lambda option: supports(option, slurm_version)}
    return environment


def _marked(function: Callable[..., str]) -> Callable[..., Markup]:
    def safe(value: Any, *arguments: Any) -> Markup:
        if isinstance(value, jinja2.Undefined):
            str(value)  # raises, naming what is undefined
        return Markup(function(value, *arguments))

    return safe


def _checked(value: Any) -> Any:
    if isinstance(value, Markup | jinja2.Undefined):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Markup(value)
    if isinstance(value, str) and quoting.PLAIN.fullmatch(value):
        return Markup(value)
    if isinstance(value, str):
        raise ValueError(f"{value[:60]!r} is written unquoted; pass it through a filter: {', '.join(FILTERS)}")
    raise ValueError(f"{value!r} is not text or a number")


def render_template(environment: jinja2.Environment, name: str, variables: Mapping[str, Any]) -> str:
    """Return the text of one template.

    Raises:
        InputError: no such template; a syntax error, an undefined name or an unquoted value in one, with its file and
            line.
    """
    try:
        return environment.get_template(name).render(variables)
    except jinja2.TemplateSyntaxError as error:
        hint = "in the shell's ${#name}, '{#' begins a comment of Jinja" if "comment" in str(error.message) else None
        raise InputError(Problem(f"{error.message}", file=_file(error, name), line=error.lineno), hint=hint) from None
    except jinja2.TemplateNotFound as error:
        known = nearest(str(error.name), environment.list_templates())
        raise InputError(Problem(f"no such template{known}", file=str(error.name), line=_line(error))) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", file=str(error.filename or name))) from None
    except (jinja2.TemplateError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        problem = Problem(f"{error}" + _hint(error, variables), file=_place(error, name), line=_line(error))
        raise InputError(problem, hint=f"in scope: {_scope(error, variables)}") from None


def source_text(environment: jinja2.Environment, name: str) -> str:
    """Return a file that is copied as it is.

    Raises:
        InputError: no such file, or it is not UTF-8 text.
    """
    assert environment.loader is not None
    try:
        return environment.loader.get_source(environment, name)[0]
    except jinja2.TemplateNotFound:
        raise InputError(Problem("no such template", file=name)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read: {error}", file=name)) from None


def _file(error: jinja2.TemplateSyntaxError, name: str) -> str:
    return error.filename or error.name or name


def _hint(error: Exception, variables: Mapping[str, Any]) -> str:
    if not isinstance(error, jinja2.UndefinedError) or "'" not in str(error):
        return ""
    if match := _NO_ATTRIBUTE.fullmatch(str(error)):
        kind = getattr(importlib.import_module(match[1]), match[2], None)
        return nearest(match[3], getattr(kind, "__annotations__", ()))
    return nearest(str(error).split("'")[1], [*variables, *FILTERS])


def _scope(error: BaseException, variables: Mapping[str, Any]) -> str:
    """Return the values that the line could use: those of loops around it first, text and numbers as they are."""
    inner: dict[str, Any] = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.endswith(".j2"):  # Jinja gives it the names that the template has there
            inner |= {name: value for name, value in frame.f_locals.items() if _is_set_here(name, value, variables)}
    values = {**inner, **{name: value for name, value in variables.items() if name not in inner}}
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items() if name != "loop")


def _is_set_here(name: str, value: Any, variables: Mapping[str, Any]) -> bool:
    if name.startswith("__") or callable(value) or isinstance(value, jinja2.Undefined):
        return False
    return name not in variables or variables[name] is not value


def _short(value: Any) -> str:
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
    return f"<{type(value).__name__}>"


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """Yield the frames that are lines of templates; Jinja gives them the template's file name and line."""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.endswith(".j2"):
            yield frame


def _place(error: BaseException, name: str) -> str:
    return next((frame.filename for frame in reversed(list(_frames(error)))), name)


def _line(error: BaseException) -> int | None:
    return next((frame.lineno for frame in reversed(list(_frames(error)))), None)
