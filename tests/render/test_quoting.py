"""Text of any kind through the quoting functions: bash sees exactly the string, or it is refused."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.render.quoting import (
    absolute_path,
    burst_buffer_line,
    comment_text,
    directive_value,
    job_name,
    option_groups,
    runtime_word,
    shell_line,
    shell_word,
    shell_words,
    toml_value,
    variable_name,
)

HOSTILE = [
    "", " ", "'", '"', "\\", "$(touch /tmp/x)", "`id`", "${HOME}", "a\nb", "a\r\nb", "#SBATCH --account=root",
    "\n#SBATCH --account=root\n", "'; rm -rf / #", "!!", "*", "~", "~root", "-n", "=x", "==", "[0]=x", "{a,b}",
    "\t", "\x07\x1b[31m",
    "é", "日本語", "\u2028", "\U0001f600", "\u202eabc", "%x", "x" * 10_000, "a'b" * 3000, "\x7f", "\\n", "$'\\n'",
]  # fmt: skip
texts = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


def bash_words(quoted: str, locale: str = "C.UTF-8") -> list[str]:
    script = f"printf '%s\\0' {quoted}"
    shell = ["bash", "--noprofile", "--norc", "-s"]
    result = subprocess.run(shell, input=script.encode(), capture_output=True, check=True, env={"LC_ALL": locale})
    return result.stdout.decode().split("\0")[:-1]


@settings(deadline=None, max_examples=60)
@given(st.lists(texts, min_size=1, max_size=20))
def test_bash_sees_exactly_the_words(words: list[str]) -> None:
    assert bash_words(shell_words(words)) == words


def test_bash_sees_exactly_the_hostile_words_in_the_c_locale() -> None:
    assert bash_words(shell_words(HOSTILE), "C") == HOSTILE


@given(texts)
def test_a_quoted_word_is_one_line(text: str) -> None:
    assert "\n" not in shell_word(text)
    assert "\r" not in shell_word(text)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_process_can_be_given_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogate"):
        shell_word(text)


@given(st.text())
def test_a_directive_is_plain_or_refused(text: str) -> None:
    try:
        value = directive_value(text)
    except ValueError:
        return
    assert value == text
    assert re.fullmatch(r"[A-Za-z0-9_.:=@+,/\[\]-]+", value)


@pytest.mark.parametrize("text", ["a b", "a\n#SBATCH --x", "a'b", 'a"b', "a#b", "a\\b", "", "$(x)", "é"])
def test_what_sbatch_would_have_to_unquote_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in an #SBATCH line"):
        directive_value(text)


@given(st.text())
def test_a_comment_stays_on_its_line(text: str) -> None:
    comment = comment_text(text)
    assert len(comment) <= 200
    assert comment.isprintable()


@given(st.text(), st.integers(1, 99))
def test_any_name_becomes_one_that_slurm_takes(text: str, segment: int) -> None:
    name = job_name(text, f"-train-{segment:02d}")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*|_[A-Za-z0-9._-]*", name)
    assert len(name) <= 64
    assert name.endswith(f"-train-{segment:02d}")


def test_names_keep_what_is_legal() -> None:
    assert job_name("llama3-70b_v1.5") == "llama3-70b_v1.5"
    assert job_name("Llama 3 (70B) été") == "Llama-3-70B-ete"
    assert job_name("日本") == "campaign"


@given(st.text())
def test_a_variable_name_is_one_that_bash_assigns_to(text: str) -> None:
    try:
        name = variable_name(text)
    except ValueError:
        return
    assert re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name)


def test_a_setup_line_with_a_line_break_is_refused() -> None:
    assert (
        shell_line("source venv/bin/activate && ulimit -l unlimited")
        == "source venv/bin/activate && ulimit -l unlimited"
    )
    with pytest.raises(ValueError, match="line break"):
        shell_line("true\n#SBATCH --account=root")


@given(st.lists(texts))
def test_grouping_options_keeps_every_word_in_order(words: list[str]) -> None:
    assert [word for group in option_groups(words) for word in group] == words


plain_data = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(plain_data)
def test_plain_data_reads_back_from_toml(value: object) -> None:
    assert tomllib.loads(f"key = {toml_value(value)}\n")["key"] == value


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match="has no TOML form"):
        toml_value(None)


@pytest.mark.parametrize("text", ["a=$DIR", "--x", "plain", 'q"$DIR"', "back`tick`$DIR", "a b", "back\\slash$DIR"])
def test_a_word_for_run_time_expands_its_variables_and_nothing_else(text: str) -> None:
    words = bash_words(f"{runtime_word(text)}".replace("$DIR", "${DIR:-/the dir}"))
    assert words == [text.replace("$DIR", "/the dir")]


@pytest.mark.parametrize("text", ["relative", "", "~/x", "a/b"])
def test_a_path_that_depends_on_where_one_stands_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an absolute path"):
        absolute_path(text)


@pytest.mark.parametrize("text", ["#SBATCH --x", "#DW a\n#SBATCH --x", "rm -rf /", "#BB", "#DW \u00e9"])
def test_a_burst_buffers_line_can_be_no_other(text: str) -> None:
    assert burst_buffer_line("#BB_LUA pool=a capacity=1TiB") == "#BB_LUA pool=a capacity=1TiB"
    with pytest.raises(ValueError, match="is not a burst buffer's directive"):
        burst_buffer_line(text)
