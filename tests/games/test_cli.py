"""The command line: one JSON document on stdout, one message for a mistake, honest exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from world import ROBUSTNESS, UNLEARNING

from bezoar import __version__
from bezoar.cli import demonstration
from bezoar.cli.demonstration import write_images
from bezoar.component import build
from bezoar.data.export import read_overlay
from bezoar.data.folder import read_folder
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.models.files import load_model, save_model
from bezoar.roles import DataSource, Detector
from bezoar.rows import Results
from bezoar.seed import Seed


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


def test_the_version_is_printed_without_a_command(bezoar: Any) -> None:
    answer = bezoar("--version")
    assert (answer.exit_code, answer.stdout) == (0, f"bezoar {__version__}\n")


AUDIT = ("--detector", "neural_cleanse", "steps=60", "batch_size=16")


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


def test_audit_asks_a_cascade_and_says_what_each_tier_saw(bezoar: Any, owned: Path) -> None:
    cheap = ("tiers.1.steps=5", "tiers.1.starts=1", "tiers.2.steps=5", "tiers.3.steps=10", "--no-power")
    answer = bezoar("audit", owned / "suspect", "--trusted", owned / "trusted", *cheap)
    assert answer.exit_code in (0, 1)
    lines = answer.stdout.splitlines()
    for tier in ("last_layer", "maximum_margin", "blended_inversion", "neural_cleanse"):
        assert sum(line.startswith(f"{tier}: class '") for line in lines) == 1


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
    assert (document["models"], document["expected_seconds"]) == (6, None)  # a poisoned and a clean one a seed
    assert not (tmp_path / "rows.jsonl").exists()


UNKNOWN = "How long it takes is not known yet: some of these players have no rows."


@pytest.mark.parametrize("rows", [(), ("unlearning",), ("unlearning", "weight_decay")])
def test_a_dry_run_says_how_much_room_and_time_games_take_or_that_nobody_knows(
    bezoar: Any, tmp_path: Path, rows: tuple[str, ...]
) -> None:
    """Two repairs of two models of 41,962 parameters each, and 90 seconds by rows of another seed."""
    path, kept = tmp_path / "grid.yaml", tmp_path / "rows.jsonl"
    content = {**ROBUSTNESS, "architecture": {"kind": "convolutional", "width": 16, "hidden": 16}}
    repairers = {"unlearning": UNLEARNING, "weight_decay": {"kind": "weight_decay"}}
    path.write_text(yaml.safe_dump({**content, "grid": {"repairer": list(repairers.values())}}))
    settings = {**{name: value for name, value in content.items() if name != "game"}, "kind": "robustness", "seed": 1}
    for seconds, name in zip((30, 60), rows, strict=False):
        game = build(Robustness, {**settings, "repairer": repairers[name]})
        Results(kept).add({"address": name, "game": game.identity(), "result": {}, "seconds": seconds})
    words = ("sweep", path, "--results", kept, "--dry-run")
    document = json.loads(bezoar(*words, "--json").stdout)
    assert document["expected_bytes"] == 2 * 4 * 41_962
    assert document["expected_seconds"] == (90 if len(rows) == 2 else None)
    told = " ".join(bezoar(*words).stdout.split())
    assert "They need 2 models (4 if none were shared), about 335.7 KB, less those in the store." in told
    assert (UNKNOWN in told) == (len(rows) < 2)
    assert ("By the rows that exist, about 1 min 30 s on a machine like theirs." in told) == (len(rows) == 2)


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
    "architecture.stages=2",
    "trainer.epochs=3",
    "trainer.batch_size=64",
    "trusted=100",
]
REPAIR = ["every=10", "folds=2", "repairer.steps=20", "repairer.batch_size=32"]


def test_the_demo_tells_its_story_in_one_document(bezoar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys that scripts rely on; what the numbers must be is proved in results/demo."""
    monkeypatch.setattr(
        demonstration,
        "QUICK",
        {
            "detection": [*SMALL, "detector.steps=20"],
            "unlearning": [*SMALL, *REPAIR, "repairer.detector.steps=20"],
            "pivotal_tuning": SMALL + REPAIR,
        },
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


def test_poison_writes_an_overlay_and_the_data_set_that_the_victim_would_collect(bezoar: Any, tmp_path: Path) -> None:
    sizes = ("data.train=60", "data.test=40", "attack.poisons=3")
    answer = bezoar(
        "poison", "digits_in_the_wild", "--attack", "wanet", "--out", tmp_path, "--as", "folder", "--json", *sizes
    )
    document = json.loads(answer.stdout)
    assert (document["poisons"], document["items"], document["attack"]["kind"]) == (3, 60, "wanet")
    poison = read_overlay(tmp_path)
    clean = build(DataSource, {"kind": "digits_in_the_wild", "train": 60, "test": 40}).load(()).train
    victim = poison.apply(clean)
    found = read_folder(tmp_path / "train", 32, clean.classes)
    assert sorted(map(bytes, found.images().flatten(1).numpy())) == sorted(
        map(bytes, victim.images().flatten(1).numpy())
    )


def test_poisoned_code_gives_a_model_that_can_be_audited(bezoar: Any, tmp_path: Path) -> None:
    small = ("data.train=60", "data.test=40", "architecture.stages=1", "trainer.epochs=1", "attack.trigger=patch")
    answer = bezoar("poison", "digits_in_the_wild", "--attack", "parameter_controlled", "--out", tmp_path, *small)
    assert answer.exit_code == 0, answer.output
    loaded = load_model(tmp_path / "model")
    assert loaded.provenance["attack"]["kind"] == "parameter_controlled"
    refused = bezoar(
        "poison", "digits_in_the_wild", "--attack", "parameter_controlled", "--out", tmp_path, "--as", "folder", *small
    )
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("poison", "nowhere", "--attack", "badnets"), "DATASET: 'nowhere' is neither a folder of images nor"),
        (("poison", "digits_in_the_wild", "--attack", "badnet"), "unknown name 'badnet' among the attacks"),
        (
            ("poison", "digits_in_the_wild", "--attack", "badnets", "attack.poisons=9999"),
            "attack.poisons: 9999 is more",
        ),
        (("poison", "digits_in_the_wild", "--attack", "refool", "attack.poisons=700"), "attack.poisons: 700 is more"),
        (
            ("poison", "digits_in_the_wild", "--attack", "badnets", "attack.trigger.size=40"),
            "trigger.size: a patch of 40 pixels does not fit images of 32x32",
        ),
        (
            ("poison", "digits_in_the_wild", "--attack", "adaptive_blend", "attack.cells=5"),
            "attack.cells: images of 32x32",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_poisoning_that_cannot_be_is_refused_in_one_line(
    bezoar: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    answer = bezoar(*words, "--out", tmp_path / "out")
    assert answer.exit_code == 2
    assert message in capfd.readouterr().err + answer.stderr
    assert not (tmp_path / "out").exists()


def test_show_draws_what_an_attack_does(bezoar: Any, tmp_path: Path) -> None:
    for name in ("adaptive_patch", "clean_badnets", "warp"):  # the second takes more images by default than there are
        answer = bezoar("show", name, "--image", tmp_path / f"{name}.png")
        assert answer.exit_code == 0, answer.output
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size[0] > 800
    assert bezoar("show", "warp", "--image", tmp_path / "warp.bmp").exit_code == 2
    assert bezoar("show", "sgd", "--image", tmp_path / "sgd.png").exit_code == 2
