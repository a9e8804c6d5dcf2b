"""`bezoar reproduce` from the games to the page, on experiments of the size of a test."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load, save
from world import CLEANSE, WORLD

from bezoar import sweep
from bezoar.component import build
from bezoar.games.detectability import Detectability
from bezoar.games.robustness import Robustness
from bezoar.roles import Architecture
from bezoar.seed import Seed
from bezoar.tuning import tuned

FOLDER = Path(__file__).parents[2] / "experiments" / "pick-your-poison"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's numbers beside the small world's games: two m and an adaptive attack, two detectors, two models."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "numbers.yaml").write_text((FOLDER / "numbers.yaml").read_text())
    settings = {name: value for name, value in WORLD.items() if name != "attack"}
    settings |= {"data": {**WORLD["data"], "train": 800}, "trainer": {**WORLD["trainer"], "epochs": 3}}
    inversion = {
        "kind": "calibrated_inversion",
        "reference": {"kind": "pivotal_tuning", "steps": 2, "batch_size": 16},
        "steps": 2,
        "batch_size": 8,
    }
    grid = {
        "attack": [{"kind": "badnets", "poisons": m, "target": 3} for m in (2, 100)],
        "detector": [inversion, {**CLEANSE, "steps": 10}],
    }
    presets = {"cpu": {"grid": grid}}
    (folder / "victims.yaml").write_text(yaml.safe_dump({"presets": {"cpu": settings}}))
    detection = {"extends": "victims.yaml", "game": "detectability", "models": 2, "presets": presets}
    (folder / "detection.yaml").write_text(yaml.safe_dump(detection))
    curves = {"grid": {"attack": grid["attack"]}, "repairer": {"kind": "weight_decay", "steps": 2}}
    repairs = {"extends": "victims.yaml", "game": "robustness", "presets": {"cpu": curves}}
    (folder / "curves.yaml").write_text(yaml.safe_dump(repairs))
    adaptive = {"grid": {"attack": [{"kind": "trigger_scattering", "poisons": 100, "target": 3}]}}
    for name in ("detection", "curves"):
        content = {"extends": f"{name}.yaml", "trusted": 120, "presets": {"cpu": adaptive}}
        (folder / f"adaptive_{name}.yaml").write_text(yaml.safe_dump(content))
    searched = {"grid": {"repairer": [{"kind": "weight_decay", "steps": 4}]}, "every": 2, "folds": 2}
    searched["attack"] = grid["attack"][1]
    search = {"extends": "victims.yaml", "game": "robustness", "tuned": True, "presets": {"cpu": searched}}
    (folder / "search.yaml").write_text(yaml.safe_dump(search))
    shown = {"grid": {"attack": [grid["attack"][1], {"kind": "adaptive_blend", "poisons": 5000}]}}
    gallery = {"extends": "victims.yaml", "game": "robustness", "presets": {"cpu": shown}}
    (folder / "gallery.yaml").write_text(yaml.safe_dump(gallery))
    return folder


def size_of_a_model() -> int:
    """By a file of an untrained model of the small world."""
    model = build(Architecture, WORLD["architecture"]).build((3, 32, 32), tuple("0123456789"), Seed(1))
    tensors = load(save({name: value.contiguous() for name, value in model.weights().items()}))
    return sum(value.numpy().nbytes for value in tensors.values())


def test_a_figure_is_played_drawn_and_judged_and_the_same_command_plays_nothing_again(
    bezoar: Any, experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("reproduce", "fig5", "--experiments", experiments, "--results", tmp_path)
    planned = bezoar(*words, "--dry-run")
    assert "4 games, 4 of them to play" in planned.stdout
    assert "They need 6 models (" in planned.stdout
    assert "if none were shared), about " in planned.stdout
    assert "How long it takes is not known yet" in planned.stdout
    document = json.loads(bezoar("reproduce", "fig7", *words[2:], "--dry-run", "--json").stdout)
    assert (len(document["games"]), document["to_play"]) == (4 + 2 + 2 + 1, 9)
    assert document["models"] == 2 * (1 + 2 + 1), "four sweeps share the models, the clean ones and those of an attack"
    assert document["expected_bytes"] == 8 * size_of_a_model()
    drawn = bezoar(*words, "--draw-only")
    assert "4 of 4 games of detection have not been played." in drawn.stdout
    first = bezoar(*words, "--json")
    assert first.exit_code == 0, first.stderr
    document = json.loads(first.stdout)
    assert (document["rows"], document["failed"]) == (4, [])
    claims = {one["text"]: one for one in document["claims"]}
    rise = claims["badnets: attack success rises with m"]
    assert rise["because"].startswith("strongest less weakest: +")
    assert {one["verdict"] for one in document["compared"]} == {"not measured"}  # the paper's m are others
    monkeypatch.setattr(Detectability, "play", lambda *_: pytest.fail("played twice"))
    again = bezoar(*words, "--json", "--out", tmp_path / "page")
    assert json.loads(again.stdout) == document
    assert json.loads(bezoar(*words, "--json", "--draw-only").stdout) == document
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Figure 5: attack success and detectability over m, preset cpu" in page
    assert "badnets: attack success rises with m" in page
    assert {path.suffix for path in (tmp_path / "page" / "figures").iterdir()} == {".svg", ".png"}
    told = bezoar(*words)
    assert set(rise["text"].split()) <= set(told.stdout.split()), "the claim stands there, however its lines are broken"
    assert max(len(line) for line in told.stdout.splitlines()) <= 80
    redrawn = bezoar("report", tmp_path / "detection.jsonl", "--out", tmp_path / "report")
    assert redrawn.exit_code == 0
    second = bezoar("reproduce", "table2", "--experiments", experiments, "--results", tmp_path, "--json")
    assert json.loads(second.stdout)["rows"] == 4, "another table of the same games"


def test_slices_of_a_figure_are_drawn_from_what_there_is(bezoar: Any, experiments: Path, tmp_path: Path) -> None:
    words = ("reproduce", "fig5", "--experiments", experiments, "--results", tmp_path)
    for rows in (1, 2):
        answer = bezoar(*words, "--minutes", "0.00001", "--json", "--out", tmp_path / "page")
        document = json.loads(answer.stdout)
        assert (answer.exit_code, document["rows"], document["left"]) == (0, rows, 4 - rows)
        assert json.loads(bezoar(*words, "--json", "--draw-only").stdout) == document
        assert (tmp_path / "page" / "report.html").is_file()
    told = bezoar(*words, "--minutes", "0.00001")
    assert told.exit_code == 0
    assert "The time is up and 1 game is left; the same command goes on from there." in " ".join(told.stdout.split())
    assert "time is up" not in bezoar(*words, "--draw-only").stdout
    document = json.loads(bezoar(*words, "--json").stdout)
    assert (document["rows"], document["left"]) == (4, 0)


def test_table5_searches_before_it_plays_and_is_redrawn_from_its_rows(
    bezoar: Any, experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "tuned", partial(tuned, trials=2, folds=2))
    words = ("reproduce", "table5", "--experiments", experiments, "--results", tmp_path)
    planned = bezoar(*words, "--dry-run").stdout
    assert "1 games, 1 of them to play" in planned
    assert "Their repairers are tuned first" in planned
    first = bezoar(*words, "--out", tmp_path / "page")
    assert first.exit_code == 0, first.stderr
    (row,) = (json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines())
    chosen = row["game"]["repairer"]
    told = row["tuned"]
    assert told["trials"] == 2
    assert told["found"]["settings"] == {name: chosen[name] for name in told["searched"]}, "what the search found"
    assert told["given"]["settings"] != told["found"]["settings"] or told["found"]["number"] == 0
    assert len(json.dumps(told)) < 1000
    monkeypatch.setattr(sweep, "tuned", lambda *_: pytest.fail("a drawing searches nothing"))
    drawn = bezoar(*words, "--draw-only").stdout
    assert "have not been played" not in drawn
    for name in ("lr", "weight_decay"):
        assert f"{chosen[name]:.3g}" in drawn
    tables = sorted(path.name for path in (tmp_path / "page" / "tables").glob("*.csv"))
    columns = [set(pd.read_csv(tmp_path / "page" / "tables" / name).columns) for name in tables]
    assert len(columns) == 3
    for wanted in ({"searched from", "to", "printed", "found"}, {"attack", "left (blind)"}, {"trials", "with them"}):
        assert any(wanted <= one for one in columns)


def test_figure8_shows_every_attack_and_plays_no_game(
    bezoar: Any, experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Robustness, "play", lambda *_: pytest.fail("nothing is measured in a gallery"))
    words = ("reproduce", "fig8", "--experiments", experiments, "--results", tmp_path)
    assert "0 games" in bezoar(*words, "--dry-run").stdout
    told = bezoar(*words)
    assert told.exit_code == 0, told.stderr
    assert "bezoar reproduce fig8 --preset cpu --out DIR" in " ".join(told.stdout.split())
    page = tmp_path / "page"
    assert bezoar(*words, "--out", page).exit_code == 0
    assert len(list((page / "figures").glob("*.png"))) == 2
    written = (page / "report.html").read_text()
    assert "badnets: arXiv:1708.06733" in written
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reproduce", "tabel3"), "did you mean 'table3'"),
        (("reproduce", "table3", "--experiments", "/nowhere"), "--experiments: /nowhere holds no numbers.yaml"),
    ],
)
def test_a_mistake_is_one_message(bezoar: Any, words: tuple[str, ...], message: str) -> None:
    answer = bezoar(*words)
    assert answer.exit_code == 2
    assert message in answer.stderr
