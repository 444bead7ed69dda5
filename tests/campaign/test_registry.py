"""The list of campaigns: found by directory, by name, by id, or because it is the newest."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.campaign import campaigns, find_campaign, submit
from hpcplan.errors import InputError
from hpcplan.render import render_plan, write_campaign
from hpcplan.resources import data_dir


@pytest.fixture
def three(tmp_path: Path, plans: ModuleType, fakes: ModuleType) -> list[Path]:
    directories = []
    for number, name in enumerate(("llama", "bert", "llama")):
        directory = tmp_path / f"c{number}"
        write_campaign(render_plan(plans.srun_plan(name=name)), directory)
        slurm = fakes.FakeSlurm()
        slurm.clock += number
        submit(directory, slurm)
        directories.append(directory)
    return directories


def test_the_newest_comes_first(three: list[Path]) -> None:
    assert [entry.directory for entry in campaigns()] == [str(directory) for directory in reversed(three)]


def test_a_directory_a_name_and_an_id_all_find_it(three: list[Path], tmp_path: Path) -> None:
    bert = next(entry for entry in campaigns() if entry.name == "bert")
    for word in (str(three[1]), "bert", bert.campaign_id, bert.campaign_id[:8]):
        assert find_campaign(word, tmp_path) == (three[1], None)


def test_of_several_with_a_name_the_newest_is_meant_and_said(three: list[Path], tmp_path: Path) -> None:
    directory, note = find_campaign("llama", tmp_path)
    assert directory == three[2]
    assert note == "2 campaigns are called 'llama'; this is the newest"


def test_without_a_word_it_is_this_directory_or_the_newest(three: list[Path], tmp_path: Path) -> None:
    assert find_campaign(None, three[0]) == (three[0], None)
    directory, note = find_campaign(None, tmp_path)
    assert directory == three[2]
    assert note is not None


def test_a_word_that_means_nothing_names_the_nearest(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign is called 'lama'; did you mean 'llama'"):
        find_campaign("lama", tmp_path)
    with pytest.raises(InputError, match="holds no rendered campaign"):
        find_campaign(str(tmp_path), tmp_path)


def test_without_any_campaign_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign was submitted yet"):
        find_campaign(None, tmp_path)


def test_a_directory_that_is_gone_stays_on_the_list_but_is_not_found(three: list[Path], tmp_path: Path) -> None:
    (three[1] / "jobs.json").unlink()
    assert [entry.exists for entry in campaigns()] == [True, False, True]
    with pytest.raises(InputError, match="no campaign is called 'bert'"):
        find_campaign("bert", tmp_path)


def test_a_broken_entry_does_not_hide_the_others(three: list[Path]) -> None:
    (data_dir() / "campaigns" / "broken.json").write_text("{")
    (data_dir() / "campaigns" / "foreign.json").write_text('{"a": 1}')
    assert len(campaigns()) == 3
