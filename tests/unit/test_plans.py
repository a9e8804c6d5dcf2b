"""Grids in settings files: short forms of numbers, and fields that vary together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar.errors import SettingError
from bezoar.plans import plan, read_game, read_settings


def planned(tmp_path: Path, **content: Any) -> list[dict[str, Any]]:
    """The games that a file on top of the demo spans, as plain settings."""
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "preset": "pivotal_tuning", **content}))
    return [game.describe() for game in plan(read_settings(path))]


@pytest.mark.parametrize(
    ("short", "values"),
    [
        ({"count": 3}, [0, 1, 2]),
        ({"from": 50, "to": 300, "step": 50}, [50, 100, 150, 200, 250, 300]),
        ({"from": 1, "to": 6, "step": 2}, [1, 3, 5]),
        ({"from": 10, "to": 1000, "points": 3, "scale": "log"}, [10, 100, 1000]),
        ({"from": 10, "to": 20, "points": 3}, [10, 15, 20]),
        ({"from": 1, "to": 4, "points": 8, "scale": "log"}, [1, 2, 3, 4]),
    ],
)
def test_numbers_in_short_are_the_list_that_they_stand_for(tmp_path: Path, short: Any, values: list[int]) -> None:
    field = "seed" if short == {"count": 3} else "attack.poisons"
    games = planned(tmp_path, grid={field: short})
    found = [game["seed"] if field == "seed" else game["attack"]["poisons"] for game in games]
    assert found == values
    assert all(isinstance(value, int) for value in found)


def test_steps_that_are_no_whole_numbers_keep_their_last(tmp_path: Path) -> None:
    games = planned(tmp_path, grid={"budget": {"from": 0.1, "to": 0.3, "step": 0.1}})
    assert [game["budget"] for game in games] == [0.1, 0.2, 0.3]


def test_zipped_fields_vary_together_and_times_the_grid(tmp_path: Path) -> None:
    zipped = {"attack.poisons": [10, 20, 30], "attack.target": [1, 2, 3]}
    games = planned(tmp_path, grid={"seed": [0, 1]}, zip=zipped)
    found = [(game["seed"], game["attack"]["poisons"], game["attack"]["target"]) for game in games]
    assert found == [(0, 10, 1), (0, 20, 2), (0, 30, 3), (1, 10, 1), (1, 20, 2), (1, 30, 3)]


def test_several_zips_are_axes_of_their_own_and_a_preset_s_replace_the_file_s(tmp_path: Path) -> None:
    two = [{"attack.poisons": [10, 20], "attack.target": [1, 2]}, {"repairer.lr": [0.1, 0.2], "seed": {"count": 2}}]
    assert len(planned(tmp_path, zip=two)) == 4
    path = tmp_path / "file.yaml"
    content = {"extends": "demo", "preset": "pivotal_tuning", "zip": two, "presets": {"one": {"zip": [two[0]]}}}
    path.write_text(yaml.safe_dump(content))
    assert len(plan(read_settings(path, "one"))) == 2
    for nothing in ({}, [], None):
        path.write_text(yaml.safe_dump({**content, "presets": {"one": {"zip": nothing}}}))
        assert len(plan(read_settings(path, "one"))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grid": {"seed": {"cuont": 3}}}, r"grid\.seed: a list with at least one value is expected, or \{count: 10\}"),
        ({"grid": {"seed": {"count": 0}}}, r"grid\.seed: a list"),
        ({"grid": {"seed": {"from": 5, "to": 1, "step": 1}}}, r"grid\.seed: a list"),
        ({"grid": {"seed": {"from": 1, "to": 5, "step": 0}}}, r"grid\.seed: a list"),
        ({"grid": {"seed": {"from": 0, "to": 5, "points": 2, "scale": "log"}}}, r"grid\.seed: a list"),
        ({"grid": {"seed": {"from": 1, "to": 5, "points": 2, "scale": "cubic"}}}, r"grid\.seed: a list"),
        ({"zip": {"seed": [1, 2], "attack.poisons": [1]}}, r"equally many values; attack\.poisons has 1, seed has 2"),
        ({"zip": {"seed": [1]}, "grid": {"seed": [2]}}, r"zip: 'seed' varies elsewhere already"),
        ({"zip": [{"seed": [1]}, {"seed": [2]}]}, r"zip: 'seed' varies elsewhere already"),
        ({"grid": {"seed": {"count": 2.5}}}, r"grid\.seed: a list"),
        ({"zip": ["seed"]}, r"zip: a mapping from dotted fields"),
    ],
)
def test_a_mistake_in_a_grid_is_one_message(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        planned(tmp_path, **content)


def test_a_file_with_a_zip_is_no_single_game(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "preset": "pivotal_tuning", "zip": {"seed": [1, 2]}}))
    with pytest.raises(SettingError, match="spans a grid of games; use 'bezoar sweep'"):
        read_game(path)
