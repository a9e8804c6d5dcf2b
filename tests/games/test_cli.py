"""The command line: one JSON document on stdout, one message for a mistake, honest exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result
from world import ROBUSTNESS, UNLEARNING

from bezoar.cli import app, demonstration
from bezoar.cli.demonstration import write_images
from bezoar.component import build
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.models.files import load_model, save_model
from bezoar.roles import Detector
from bezoar.seed import Seed


@pytest.fixture
def bezoar(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in the session's store."""
    monkeypatch.setenv("BEZOAR_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return call


@pytest.fixture(scope="module")
def owned(robustness: Robustness, referee: Referee, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an owner holds: a poisoned model, its clean twin, and a folder of trusted images."""
    folder = tmp_path_factory.mktemp("owned")
    data = referee.splits(robustness.data)
    poison = referee.collect(data, robustness.attack, Seed(7))
    for name, overlay in (("suspect", poison), ("twin", None)):
        model = referee.train(data, overlay, robustness.recipe, Seed(7)).value
        save_model(model, folder / name, architecture=robustness.architecture, shape=(3, 32, 32), provenance={})
    write_images(referee.deal(data, 120, "train", Seed(7)).trusted.value, folder / "trusted")
    return folder


AUDIT = ("steps=60", "batch_size=16")


def test_audit_names_the_planted_class_and_exits_1_when_suspicious(
    bezoar: Any, owned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level is opened wide: so small a world proves nothing about error rates, results/demo does."""
    monkeypatch.setattr("bezoar.owner.ALPHA", 0.99)
    answer = bezoar("audit", owned / "suspect", "--trusted", owned / "trusted", "--json", *AUDIT)
    document = json.loads(answer.stdout)
    assert (answer.exit_code, document["verdict"], document["suspected_class"]) == (1, "suspicious", "3")


def test_audit_finds_nothing_in_the_twin_and_exits_0(bezoar: Any, owned: Path, tmp_path: Path) -> None:
    answer = bezoar("audit", owned / "twin", "--trusted", owned / "trusted", "--json", "--out", tmp_path, *AUDIT)
    assert (answer.exit_code, json.loads(answer.stdout)["verdict"]) == (0, "nothing found")
    assert (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "result.json").read_text())["verdict"] == "nothing found"


def test_repair_writes_another_model_that_loads(bezoar: Any, owned: Path, tmp_path: Path) -> None:
    settings = [f"{name}={json.dumps(value)}" for name, value in UNLEARNING.items() if name != "kind"]
    words = ("--trusted", owned / "trusted", "--out", tmp_path, "--budget", "1", "--json")
    document = json.loads(bezoar("repair", owned / "suspect", *words, *settings).stdout)
    before, after = load_model(owned / "suspect"), load_model(Path(document["repaired"]))
    assert document["step"] == 12
    assert set(before.model.weights()) == set(after.model.weights())
    moved = [name for name, value in before.model.weights().items() if not value.equal(after.model.weights()[name])]
    assert "linear.weight" in moved
    assert (tmp_path / "report.html").is_file()


def test_run_prints_one_json_document(bezoar: Any, tmp_path: Path, played: dict[str, Any]) -> None:
    path = tmp_path / "game.yaml"
    path.write_text(yaml.safe_dump(ROBUSTNESS))
    answer = bezoar("run", path, "--json", "--out", tmp_path / "out")
    assert json.loads(answer.stdout)["result"] == played
    assert (tmp_path / "out" / "report.html").is_file()


def test_run_prints_the_repair_curve_in_a_narrow_terminal(bezoar: Any, tmp_path: Path, played: dict[str, Any]) -> None:
    path = tmp_path / "game.yaml"
    path.write_text(yaml.safe_dump(ROBUSTNESS))
    answer = bezoar("run", path)
    assert "repair curve" in answer.stdout
    assert max(len(line) for line in answer.stdout.splitlines()) <= 80


def test_a_dry_run_plays_nothing(bezoar: Any, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "preset": "detection", "grid": {"seed": [1, 2, 3]}}))
    answer = bezoar("sweep", path, "--dry-run", "--json", "--results", tmp_path / "rows.jsonl")
    document = json.loads(answer.stdout)
    assert (len(document["games"]), document["to_play"]) == (3, 3)
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("run", "demo", "attack.poisson=3"), "did you mean 'poisons'"),
        (("run", "demo", "attack=badnet"), "did you mean 'badnets'"),
        (("run", "demo", "attack.poisons"), "name=value"),
        (("run", "demo", "attack.poisons=-2"), "attack.poisons: input should be greater than or equal to 1"),
        (("run", "demo", "--device", "tpu9"), "--device: 'tpu9' cannot be used"),
        (("run", "demo", "--data", "/nowhere"), "--data: there is no folder"),
        (("show", "badnetz"), "did you mean 'badnets'"),
        (("list", "attack"), "did you mean 'attacks'"),
        (("report", "nowhere.jsonl"), "no such file"),
        (("audit", "nowhere", "--trusted", "."), "nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_exit_status_2(bezoar: Any, words: tuple[str, ...], message: str) -> None:
    answer = bezoar(*words)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_a_trusted_folder_with_other_class_names_shows_both_lists(bezoar: Any, owned: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    next((owned / "trusted" / "0").iterdir()).rename(tmp_path / "cat" / "x.png")
    answer = bezoar("audit", owned / "suspect", "--trusted", tmp_path)
    assert answer.exit_code == 2
    assert "cat" in answer.stderr
    assert "0, 1, 2" in answer.stderr


@pytest.mark.parametrize("command", ["demo", "audit", "repair", "run", "sweep", "list", "show", "report", "check"])
def test_every_command_has_help_with_an_example(bezoar: Any, command: str) -> None:
    assert "Example:" in bezoar(command, "--help").stdout


def test_list_names_the_methods_of_a_family(bezoar: Any) -> None:
    names = {entry["name"] for entry in json.loads(bezoar("list", "repairers", "--json").stdout)}
    assert {"pivotal_tuning", "weight_decay", "unlearning", "batchnorm_recalibration"} <= names


def test_show_prints_the_settings_that_build_reads(bezoar: Any) -> None:
    shown = json.loads(bezoar("show", "neural_cleanse", "--json").stdout)
    defaults = {each["setting"]: each["default"] for each in shown["settings"]}
    assert build(Detector, {"kind": "neural_cleanse", **defaults}) == build(Detector, "neural_cleanse")


def test_help_imports_no_torch() -> None:
    heavy = "{'torch', 'torchvision', 'transformers', 'ray'}"
    script = f"import sys; from bezoar.cli import app; import bezoar; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


SMALL = [
    "data.train=1700",
    "data.test=300",
    "architecture.width=8",
    "architecture.stages=2",
    "trainer.epochs=3",
    "trainer.batch_size=64",
    "trusted=100",
]
REPAIR = ["every=10", "repairer.steps=20", "repairer.batch_size=32"]


def test_the_demo_tells_its_story_in_one_document(bezoar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys that scripts rely on; what the numbers must be is proved in results/demo."""
    monkeypatch.setattr(
        demonstration, "QUICK", {"detection": SMALL, "unlearning": SMALL + REPAIR, "pivotal_tuning": SMALL + REPAIR}
    )
    answer = bezoar("demo", "--quick", "--json", "--out", tmp_path, "--seed", "3")
    document = json.loads(answer.stdout)
    for model in ("suspect", "twin", "repaired"):
        for number in ("clean_accuracy", "attack_success"):
            assert set(document[model][number]) == {"value", "low", "high", "n", "unit"}
    assert {"detector", "suspect_score", "twin_score", "suspected_class", "target_class"} <= set(document["detection"])
    assert document["suspect"]["attack_success"]["value"] > document["twin"]["attack_success"]["value"]
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    assert load_model(tmp_path / "suspect").shape == (3, 32, 32)
    assert len(list((tmp_path / "trusted").glob("*/*.png"))) == 100
