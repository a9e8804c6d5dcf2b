"""How games are called on a screen: so that no two of a sweep look the same, and no longer than that takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bezoar.cli.scoreboard import Titles, title
from bezoar.reproduce.experiments import EXPERIMENTS, FOLDER, PRESETS, games_of

ROOT = Path(__file__).parents[2]
SWEEPS = sorted({(one.paper, sweep) for one in EXPERIMENTS.values() for sweep in one.sweeps})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("paper", "sweep"), SWEEPS)
def test_no_two_games_of_an_experiment_look_the_same(paper: str, sweep: str, preset: str) -> None:
    games = [game.identity() for game in games_of(sweep, preset, ROOT / FOLDER / paper)]
    titles = Titles(games)
    assert len({titles(game) for game in games}) == len(games)


def test_a_title_says_what_games_of_one_title_differ_in_and_nothing_else() -> None:
    games = games_of("repairs", "cpu", ROOT / FOLDER / "pick-your-poison")
    tuned = next(game for game in games if game.trusted == 1250 and game.attack.kind == "badnets").identity()
    assert Titles(game.identity() for game in games)(tuned) == f"{title(tuned)}, trusted 1250"
    assert Titles([tuned])(tuned) == title(tuned)
    longer = {**tuned, "trainer": {**tuned["trainer"], "epochs": 32}}
    assert Titles([tuned, longer])(longer) == f"{title(tuned)}, epochs 32"
    staged = {**tuned, "attack": {**tuned["attack"], "stage": "post_augment_frozen"}}
    titles = Titles([tuned, staged])
    assert titles(staged) == f"{title(tuned)}, stage post_augment_frozen"
    assert titles(tuned) == title(tuned), "a default that is not in a game's identity is not said"
