"""`--minutes`: what has been begun is finished, nothing else is begun, and the same command plays the rest."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import ROBUSTNESS, WORLD

from bezoar import sweep as sweeps
from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.inventory import entries
from bezoar.rows import Results, Row
from bezoar.slices import Slice, TimeUpError
from bezoar.store import Store
from bezoar.sweep import sweep
from bezoar.tuning import tuned

MINUTE = 60.0
SMALL: dict[str, Any] = {
    **ROBUSTNESS,
    "data": {**WORLD["data"], "train": 500, "test": 60},
    "trainer": {**WORLD["trainer"], "epochs": 1},
    "trusted": 60,
    "every": 2,
    "repairer": {"kind": "weight_decay", "steps": 4, "batch_size": 30},
}


class Watch:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Every game takes as many minutes as its `trusted` says, and those with a seed below 2 fail in the end."""
    watch = Watch()

    def play(game: Robustness, referee: Referee) -> dict[str, Any]:
        watch.seconds += MINUTE * game.trusted
        if game.seed < 2:
            raise SettingError("it fails")
        return {"seed": game.seed}

    monkeypatch.setattr(Robustness, "play", play)
    return watch


def games(seeds: range, minutes: int) -> list[Game]:
    settings = {**ROBUSTNESS, "kind": "robustness", "trusted": minutes}
    return [build(Game, {**{n: v for n, v in settings.items() if n != "game"}, "seed": seed}) for seed in seeds]


def seeds_of(rows: list[Row]) -> list[int]:
    return [row["game"]["seed"] for row in rows]


def test_no_game_is_begun_after_the_time_and_slices_come_to_the_end(
    referee: Referee, tmp_path: Path, watch: Watch
) -> None:
    wanted, kept = games(range(2, 7), minutes=4), Results(tmp_path / "rows.jsonl")
    first = sweep(wanted, referee, kept, limit=Slice(8.0, watch))
    assert (seeds_of(first), watch.seconds) == ([2, 3], 1000 + 8 * MINUTE), "at eight minutes it is too late"
    second = sweep(wanted, referee, kept, limit=Slice(8.1, watch))
    assert (seeds_of(second), watch.seconds) == ([2, 3, 4, 5, 6], 1000 + 20 * MINUTE), "a game in play is finished"
    assert [row["result"]["seed"] for row in second] == [2, 3, 4, 5, 6]
    assert second[:2] == first


def test_a_game_that_is_longer_than_its_slice_is_played(referee: Referee, tmp_path: Path, watch: Watch) -> None:
    wanted, kept = games(range(2, 5), minutes=20), Results(tmp_path / "rows.jsonl")
    for played in (1, 2, 3):
        limit = Slice(8.0, watch)
        watch.seconds += 9 * MINUTE  # whatever came before it
        assert len(sweep(wanted, referee, kept, limit=limit)) == played
        assert limit.over


def test_games_that_fail_late_do_not_keep_slices_from_the_others(
    referee: Referee, tmp_path: Path, watch: Watch
) -> None:
    wanted, kept = games(range(4), minutes=20), Results(tmp_path / "rows.jsonl")
    for _ in wanted:
        rows = sweep(wanted, referee, kept, limit=Slice(8.0, watch))
    assert [row.get("error", row.get("result")) for row in rows] == ["it fails"] * 2 + [{"seed": 2}, {"seed": 3}]


def test_one_slice_is_for_all_sweeps_of_a_command(referee: Referee, tmp_path: Path, watch: Watch) -> None:
    limit = Slice(8.0, watch)
    assert seeds_of(sweep(games(range(2, 4), 9), referee, Results(tmp_path / "a.jsonl"), limit=limit)) == [2]
    assert sweep(games(range(4, 6), 9), referee, Results(tmp_path / "b.jsonl"), limit=limit) == []


def test_pieces_of_work_are_run_until_the_time_is_up() -> None:
    watch = Watch()
    limit = Slice(1.0, watch)
    watch.seconds += 45
    assert limit.left == pytest.approx(0.25)
    watch.seconds += 16
    assert Slice(limit.left).left, "a slice elsewhere that ends with one that is over can begin its first piece"
    assert limit.run(lambda: 5) == 5, "the first comes late, and is done"
    with pytest.raises(TimeUpError, match="the same command goes on"):
        limit.run(lambda: pytest.fail("it is begun all the same"))
    watch.seconds += 1e9
    endless = Slice(None, watch)
    endless.begin()
    assert not endless.over
    assert endless.left is None


def measured(rows: list[Row]) -> list[Row]:
    return [{name: row[name] for name in ("address", "game", "result")} for row in rows]


def test_a_command_with_a_tiny_limit_plays_one_game_and_without_it_the_rest(bezoar: Any, tmp_path: Path) -> None:
    path, rows = tmp_path / "grid.yaml", tmp_path / "rows.jsonl"
    grid = {"repairer.steps": [2, 4, 6]}
    path.write_text(yaml.safe_dump({**SMALL, "grid": grid}))
    whole = json.loads(bezoar("sweep", path, "--results", tmp_path / "whole.jsonl", "--json").stdout)
    assert whole["left"] == 0
    words = ("sweep", path, "--results", rows)
    cut = bezoar(*words, "--minutes", "0.00001", "--json")
    assert cut.exit_code == 0, cut.stderr
    document = json.loads(cut.stdout)
    assert document["left"] == 2
    assert measured(document["rows"]) == measured(whole["rows"])[:1]
    assert [json.loads(line) for line in rows.read_text().splitlines()] == document["rows"]
    told = bezoar(*words, "--minutes", "0.00001")
    assert told.exit_code == 0
    assert "The time is up and 1 game is left; the same command goes on from there." in " ".join(told.stdout.split())
    again = bezoar(*words)
    assert again.exit_code == 0
    assert "left" not in again.stdout
    assert measured([json.loads(line) for line in rows.read_text().splitlines()]) == measured(whole["rows"])


def test_a_search_is_played_in_slices_too_and_loses_nothing(
    bezoar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeps, "tuned", partial(tuned, trials=2, folds=2))
    monkeypatch.setenv("BEZOAR_HOME", str(tmp_path))
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "tuned": True}))
    words = ("sweep", path, "--results", tmp_path / "rows.jsonl", "--minutes", "0.00001", "--json")
    stages: list[int] = []
    for _ in range(9):
        answer = bezoar(*words)
        assert answer.exit_code == 0, answer.stderr
        assert "Trial" not in capfd.readouterr().err + answer.stderr, "a search that is stopped tells the user of it"
        document = json.loads(answer.stdout)
        stages.append(sum(entry.stage == "tune" for entry in entries(Store(tmp_path))))
        assert document["left"] == 1 - len(document["rows"])
        if not document["left"]:
            break
    made = stages[-1]
    assert 2 <= made <= 4
    assert stages == [*range(1, made + 1), made], "each slice makes one trial's fold, and the last one plays"
    assert document["rows"][0]["tuned"]["trials"] == 2


@pytest.mark.parametrize("minutes", ["0", "-3", "nan"])
@pytest.mark.parametrize("words", [("sweep", "demo"), ("reproduce", "fig5")])
def test_no_time_at_all_is_refused(bezoar: Any, words: tuple[str, ...], minutes: str) -> None:
    answer = bezoar(*words, "--minutes", minutes)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert f"--minutes: {minutes} is no time to play in; give more than 0" in answer.stderr
