"""Reading #SBATCH lines. The refusals are those that sbatch 22.05 printed for the same scripts."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.sbatch_options import OPTIONS, SHORT_OPTIONS
from hpcplan.simulate.script import parse_options, parse_script
from hpcplan.units import format_slurm_time

GIB = 1024**3
NO = "'--no-kill' '--no-requeue' '--nodefile' '--nodelist' '--nodes'"
TRY = 'Try "sbatch --help" for more information'


def parse(*directives: str, **options: Any) -> JobSpec:
    lines = "\n".join(f"#SBATCH {directive}" for directive in directives)
    return parse_script(f"#!/bin/bash\n{lines}\nsrun hostname\n", **options)


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("--job-name=train", {"name": "train"}),
        ("-J train", {"name": "train"}),
        ("-Jtrain", {"name": "train"}),
        ("--job-na train", {"name": "train"}),
        ("--nodes=4", {"nodes_min": 4, "nodes_max": 4}),
        ("-N2-6", {"nodes_min": 2, "nodes_max": 6}),
        ("--nodes=1k", {"nodes_min": 1024, "nodes_max": 1024}),
        ("--ntasks 16 --cpus-per-task=8", {"ntasks": 16, "cpus_per_task": 8}),
        ("--ntasks-per-node=8", {"ntasks_per_node": 8}),
        ("--time=90", {"time_limit_s": 5400}),
        ("--time=1-12:00:00", {"time_limit_s": 129600}),
        ("-t 0:30", {"time_limit_s": 60}),
        ("--time=1:30:01", {"time_limit_s": 91 * 60}),
        ("--time=UNLIMITED", {"time_limit_s": 0}),
        ("-t0", {"time_limit_s": 0}),
        ("--gres=gpu:8", {"gpus_per_node": 8}),
        ("--gres=gpu:h100:8", {"gpus_per_node": 8, "gpu_type": "h100"}),
        ("--gres=gpu", {"gpus_per_node": 1}),
        ("--gres=none", {}),
        ("--gpus-per-node=h100:4", {"gpus_per_node": 4, "gpu_type": "h100"}),
        ("-G 16", {"gpus": 16}),
        ("--gpus=gpu:8", {"gpus": 8}),
        ("--gpus-per-task=1", {"gpus_per_task": 1}),
        ("--mem=64G", {"memory_per_node_bytes": 64 * GIB}),
        ("--mem=2000", {"memory_per_node_bytes": 2000 * 1024**2}),
        ("--mem-per-cpu=4GB", {"memory_per_cpu_bytes": 4 * GIB}),
        ("--mem=1G --mem-per-gpu=2G", {"memory_per_gpu_bytes": 2 * GIB}),
        ("--exclusive", {"exclusive": True}),
        ("--exclusive=user", {"exclusive": True}),
        ("--dependency=afterok:12:13", {"dependency": "afterok:12:13"}),
        ("--kill-on-invalid-dep=yes", {"kill_on_invalid_dep": True}),
        ("--array=0-6:2%2", {"array": (0, 2, 4, 6), "array_limit": 2}),
        ("-a 5,1,3-4,1", {"array": (1, 3, 4, 5)}),
        ("--no-requeue", {"requeue": False}),
        ("--no-requeue --requeue", {"requeue": True}),
        ("--hold", {"hold": True}),
        ("-HJabc2", {"hold": True, "name": "abc2"}),
        ("--signal=B:USR1@300", {"signal": "B:USR1@300"}),
        ("--signal=15@60", {"signal": "15@60"}),
        ("--open-mode=append", {"open_mode": "append"}),
        ("--switches=1@10", {"switches": "1@10"}),
        ("--nice", {"nice": 100}),
        ("--nice=-5", {"nice": -5}),
        (
            "--constraint='a&b' --exclude=n[1-3] --nodelist n9",
            {"constraint": "a&b", "exclude": "n[1-3]", "nodelist": "n9"},
        ),
        ("-A team -q high -p gpu", {"account": "team", "qos": "high", "partition": "gpu"}),
        ("--output=%x-%j.out -e %j.err --chdir=/w", {"output": "%x-%j.out", "error": "%j.err", "work_dir": "/w"}),
        ("--export=NONE --mail-type=FAIL --mail-user=a@b", {}),
        ("""--comment="it's here" --job-name=a'b c'd""", {"comment": "it's here", "name": "ab cd"}),
        ("--hold # not --requeue but a comment", {"hold": True}),
        ("--comment=a#b", {"comment": "a#b"}),
    ],
)
def test_a_directive_sets_what_it_does_in_sbatch(directive: str, expected: dict[str, Any]) -> None:
    assert parse(directive) == JobSpec(**expected)


def test_later_directives_win_and_overrides_win_over_all() -> None:
    assert parse("--job-name=a --nodes=1", "--job-name=b").name == "b"
    assert parse("--job-name=a", overrides={"name": "c", "hold": True}) == JobSpec(name="c", hold=True)


def test_without_a_name_a_job_has_that_of_its_script() -> None:
    assert parse("--hold", name="train.sbatch").name == "train.sbatch"


def test_directives_end_at_the_first_command_and_comments_and_blank_lines_do_not_end_them() -> None:
    text = "#!/bin/sh\n\n# some\n#SBATCH -N 2\n   \n   # more\n##SBATCH --foo\n#SBATCH -J later\necho\n#SBATCH --foo\n"
    assert parse_script(text) == JobSpec(name="later", nodes_min=2, nodes_max=2)


def test_an_indented_directive_is_a_comment() -> None:
    assert parse_script("#!/bin/sh\n  #SBATCH --foo\ntrue\n") == JobSpec()


def test_our_own_comments_say_how_a_pretended_job_behaves() -> None:
    text = "#!/bin/sh\n# hpcplan: expected-runtime-s=1234.6\n#hpcplan: pretend-exit=3\n# hpcplan: other=x\ntrue\n"
    assert parse_script(text) == JobSpec(expected_runtime_s=1235, pretend_exit=3)
    assert parse_script("#!/bin/sh\ntrue\n# hpcplan: expected-runtime-s=9\n") == JobSpec()
    with pytest.raises(SlurmError, match="'hpcplan: pretend-exit=soon' needs a number"):
        parse_script("#!/bin/sh\n# hpcplan: pretend-exit=soon\n")


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("--foo", f"sbatch: unrecognized option '--foo'\n{TRY}"),
        ("--foo=4", f"sbatch: unrecognized option '--foo=4'\n{TRY}"),
        ("-Y", f"sbatch: invalid option -- 'Y'\n{TRY}"),
        ("--time", f"sbatch: option '--time' requires an argument\n{TRY}"),
        ("-J", f"sbatch: option requires an argument -- 'J'\n{TRY}"),
        ("--hold=5", f"sbatch: option '--hold' doesn't allow an argument\n{TRY}"),
        (
            "--no=abc",
            f"sbatch: option '--no=abc' is ambiguous; possibilities: {NO}\n{TRY}",
        ),
        ("--hold foo", "sbatch: error: Invalid directive found in batch script: foo"),
        ("--time=abc", "sbatch: error: Invalid --time specification"),
        ("--nodes=abc", 'sbatch: error: "abc" is not a valid node count'),
        ("--nodes=4-2", "sbatch: error: Maximum node count 2 is less than minimum node count 4"),
        ("--mem=abc", "sbatch: error: Invalid --mem specification"),
        ("--ntasks=abc", 'sbatch: error: Invalid numeric value "abc" for --ntasks.'),
        ("-c 0", 'sbatch: error: Invalid numeric value "0" for --cpus-per-task.'),
        ("--exclusive=foo", "sbatch: error: Invalid --exclusive specification"),
        ("--open-mode=foo", "sbatch: error: Invalid --open-mode specification"),
        ("--signal=B:FOO@60", "sbatch: error: Invalid --signal specification"),
        ("--kill-on-invalid-dep=maybe", "sbatch: error: Invalid --kill-on-invalid-dep specification"),
        ("--switches=abc", 'sbatch: error: Invalid numeric value "abc" for --switches.'),
        ("--gres=foo:2", "sbatch: error: Invalid generic resource (gres) specification"),
        (
            "--gres=gpu:8,gpu:h100:2",
            "sbatch: error: Invalid GRES specification (with and without type identification)",
        ),
        ("--array=5-1", "sbatch: error: Batch job submission failed: Invalid job array specification"),
        ("--array=1-100000", "sbatch: error: Batch job submission failed: Invalid job array specification"),
        ("--array=abc", "sbatch: error: Batch job submission failed: Invalid job array specification"),
        ("--job-name='a b", "sbatch: fatal: line 2: Unmatched `'` in [--job-name='a b]"),
        ("--deadline=now", "sbatch: error: the mock cluster does not support --deadline"),
    ],
)
def test_a_bad_directive_is_refused_in_sbatchs_words(directive: str, message: str) -> None:
    with pytest.raises(SlurmError) as caught:
        parse(directive)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Batch script is empty!"),
        ("\n\n", "Batch script is empty!"),
        ("sleep 1\n", "This does not look like a batch script"),
        ("#!/bin/sh\r\nsleep 1\r\n", "DOS line breaks"),
    ],
)
def test_what_is_no_script_is_refused(text: str, message: str) -> None:
    with pytest.raises(SlurmError, match=message):
        parse_script(text)


@pytest.mark.parametrize(
    ("directive", "since"), [("--prefer=x", "22.05"), ("--tres-per-task=cpu:1", "23.11"), ("--stepmgr", "24.05")]
)
def test_an_option_that_the_pretended_slurm_does_not_have_yet_is_unknown_to_it(directive: str, since: str) -> None:
    assert parse(directive, version=since) == parse(directive) == JobSpec()
    with pytest.raises(SlurmError, match="unrecognized option"):
        parse(directive, version="21.08.8")


def test_no_option_is_listed_twice() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert len(SHORT_OPTIONS) == sum(option.short is not None for option in OPTIONS)


@given(seconds=st.integers(60, 30 * 86400))
def test_a_limit_as_slurm_writes_it_comes_back_rounded_up_to_the_minute(seconds: int) -> None:
    limit = parse(f"--time={format_slurm_time(seconds)}").time_limit_s
    assert limit is not None
    assert limit % 60 == 0
    assert 0 <= limit - seconds < 60


@given(words=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="'\"\n\r#\x00"), min_size=1), max_size=4))
def test_quoted_words_keep_their_blanks(words: list[str]) -> None:
    value = " ".join(words)
    assert parse(f'--comment="{value}"').comment == (value or "")


option_words = st.one_of(
    st.sampled_from([f"--{option.name}" for option in OPTIONS] + [f"-{letter}" for letter in SHORT_OPTIONS]),
    st.sampled_from(["=", "1", "0", "gpu:8", "n[1-", "1-2", "%", ":", "afterok:1", "'", '"', "-1", "9" * 30, "\\"]),
    st.text(max_size=5),
)


@settings(max_examples=1000)
@given(words=st.lists(option_words, max_size=5), glue=st.sampled_from(["", " ", "="]))
def test_any_directive_is_read_or_refused_and_never_crashes(words: list[str], glue: str) -> None:
    with contextlib.suppress(SlurmError):
        assert isinstance(parse(glue.join(words).replace("\n", " ")), JobSpec)


@settings(max_examples=500)
@given(words=st.lists(option_words, max_size=5))
def test_any_list_of_words_is_read_or_refused_and_never_crashes(words: list[str]) -> None:
    with contextlib.suppress(SlurmError):
        assert isinstance(parse_options(words), dict)
