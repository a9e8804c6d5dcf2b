"""One small world for all tests of games: a store that lasts the session, so that models are trained once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tiny import GAMES
from typer.testing import CliRunner, Result
from world import CLEANSE, UNLEARNING, WORLD

from bezoar.cli import app
from bezoar.component import build
from bezoar.games.detectability import Detectability
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.rows import Results, Row
from bezoar.store import Store
from bezoar.sweep import sweep


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's store lies: one for all processes that run tests, so that none trains what another has."""
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "home-of-the-session"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session")
def referee(home: Path) -> Referee:
    """A referee with the session's store."""
    return Referee(Store(home))


@pytest.fixture(scope="session")
def robustness() -> Robustness:
    """A small robustness game."""
    return build(Robustness, {**WORLD, "repairer": UNLEARNING, "every": 4, "folds": 2})


@pytest.fixture(scope="session")
def detectability() -> Detectability:
    """A small detectability game on the same twins."""
    return build(Detectability, {**WORLD, "detector": CLEANSE, "models": 1})


@pytest.fixture(scope="session")
def played(robustness: Robustness, referee: Referee) -> dict[str, Any]:
    """The result of the robustness game."""
    return robustness.play(referee)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of the tiny games from an undisturbed sweep in one process."""
    folder = tmp_path_factory.mktemp("alone")
    return sweep(GAMES, Referee(Store(folder)), Results(folder / "rows.jsonl"))


@pytest.fixture
def bezoar(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in the session's store."""
    monkeypatch.setenv("BEZOAR_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return call
