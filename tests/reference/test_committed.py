"""What is committed is true of the code beside it: generated pages, and the settings of every result row."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar.component import build, canonical
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.plans import plan, read_settings
from bezoar.reproduce.experiments import LUKAS, ZHU
from bezoar.store import Store

ROOT = Path(__file__).parents[2]
ROWS = sorted((ROOT / "results").rglob("*.jsonl"))
NO_GAMES = ("numbers.yaml", "victims.yaml", "pretraining.yaml", "bounds_victims.yaml", "smoothing_victims.yaml")
"""What the paper prints, and what several experiments build on."""

EXPERIMENTS = sorted(path for path in (ROOT / "experiments").rglob("*.yaml") if path.name not in NO_GAMES)
REPRODUCED = sorted(
    path for paper in (LUKAS, ZHU, "certification") for path in (ROOT / "results" / paper).glob("*/*.jsonl")
)
"""One folder of results for each preset."""


def _without_revisions(value: Any) -> Any:
    """An identity as settings: ``badnets@1`` becomes ``badnets``."""
    if isinstance(value, dict):
        cut = {name: _without_revisions(inner) for name, inner in value.items()}
        return cut | ({"kind": str(value["kind"]).partition("@")[0]} if "kind" in value else {})
    return [_without_revisions(inner) for inner in value] if isinstance(value, list) else value


def _label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _results(experiment: Path) -> Path:
    """Where an experiment's rows are committed."""
    return ROOT / "results" / experiment.relative_to(ROOT / "experiments").with_suffix(".jsonl")


def _presets(path: Path) -> list[str | None]:
    return list(yaml.safe_load(path.read_text()).get("presets") or [None])


@pytest.mark.parametrize(
    "script",
    [
        "catalogue",
        "results",
        "attacks",
        "repairs",
        "detectors",
        "sanitizers",
        "reproduction",
        "transfer",
        "certification",
    ],
)
def test_a_generated_page_is_what_its_script_writes(script: str) -> None:
    """The remedy is `make docs`."""
    page = runpy.run_path(str(ROOT / "docs" / f"{script}.py"))["page"]
    assert (ROOT / "docs" / f"{script}.md").read_text() == page()


@pytest.mark.parametrize("path", ROWS, ids=_label)
def test_every_committed_row_was_measured_with_the_present_revisions(path: Path, tmp_path: Path) -> None:
    """A row of an older revision would stand beside numbers that it cannot be compared with: play its game again.

    Where the images are computed rather than read from files, the row's address is checked as well.
    """
    referee = Referee(Store(tmp_path))
    for line in path.read_text().splitlines():
        row = json.loads(line)
        assert "error" not in row, f"{row['address']}: {row.get('error')}"
        game = build(Game, _without_revisions(row["game"]))
        assert game.identity() == row["game"]
        if type(game.data).generated:
            assert game.address(referee) == row["address"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=_label)
def test_every_experiment_can_be_planned(path: Path) -> None:
    """All of its presets: unknown names and values out of range are found before anybody waits for them."""
    for preset in _presets(path):
        assert plan(read_settings(path, preset))


@pytest.mark.parametrize("path", [path for path in EXPERIMENTS if _results(path).is_file()], ids=_label)
def test_committed_rows_are_those_of_their_experiment(path: Path) -> None:
    """Neither left over from settings that have changed since, nor missing: the file is what its sweep would make."""
    measured = {canonical(json.loads(line)["game"]) for line in _results(path).read_text().splitlines()}
    planned: set[str] = set()
    for preset in _presets(path):
        described = read_settings(path, preset)
        if described.tuned:
            return  # what a search will find is not known before it
        planned |= {canonical(game.identity()) for game in plan(described)}
    assert measured == planned


@pytest.mark.parametrize("path", REPRODUCED, ids=_label)
def test_reproduced_rows_are_those_of_their_preset(path: Path) -> None:
    """A reproduction may be under way, so rows may be missing; none may be of another setting."""
    experiment = read_settings(
        ROOT / "experiments" / path.parent.parent.name / f"{path.stem}.yaml", preset=path.parent.name
    )

    def settled(game: dict[str, Any]) -> str:
        """The game without what a search finds for its repairer, which is not known before it."""
        found = {"repairer": game["repairer"]["kind"]} if experiment.tuned else {}
        return canonical({**game, **found})

    measured = {settled(json.loads(line)["game"]) for line in path.read_text().splitlines()}
    assert measured <= {settled(game.identity()) for game in plan(experiment)}
