"""Where files are looked for: the user's before the site's before the shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan import resources
from hpcplan.errors import InputError, nearest


def test_an_option_hides_the_user_who_hides_the_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    option, config = tmp_path / "option", tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    user = config / "hpcplan" / "sites"
    for folder in (option, user):
        folder.mkdir(parents=True)
    (user / "superpod-h100.yaml").write_text("mine")
    (user / "both.yaml").write_text("mine")
    (option / "both.yaml").write_text("given")
    listing = resources.listing("sites", ".yaml", option)
    assert listing["both"].origin == "option"
    assert listing["superpod-h100"].origin == "user"
    assert listing["mixed-lab"].origin == "shipped"


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="superpod-h100"):
        resources.find("sites", "superpod-h10", ".yaml")


def test_a_word_of_a_longer_name_brings_that_name() -> None:
    assert nearest("price", ["nodes", "price_per_hour", "mtbf"]) == "; did you mean 'price_per_hour'?"
    assert nearest("nodse", ["nodes", "price_per_hour"]) == "; did you mean 'nodes'?"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        resources.listing("sites", ".yaml", tmp_path / "nowhere")
