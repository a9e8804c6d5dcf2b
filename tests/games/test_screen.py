"""`bezoar screen`: what it ranks, writes and answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bezoar.cli.demonstration import write_images
from bezoar.data.export import write_chosen
from bezoar.data.folder import image_files, read_folder
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.models.files import save_model
from bezoar.records import Trusted
from bezoar.seed import Seed


@pytest.fixture(scope="module")
def scraped(robustness: Robustness, referee: Referee, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an owner holds: scraped rows, some of them poisoned, the model they gave, and checked images."""
    folder = tmp_path_factory.mktemp("scraped")
    splits = referee.splits(robustness.data)
    poison = referee.collect(splits, robustness.attack, Seed(7))  # type: ignore[arg-type]
    data = poison.value.apply(splits.value.train)
    write_chosen(data, torch.arange(1200), folder / "data")
    write_images(Trusted.of(splits.value.train.take(torch.arange(1200, 1600))), folder / "checked")
    model = referee.train(splits, poison, robustness.recipe, Seed(7)).value
    save_model(model, folder / "model", architecture=robustness.architecture, shape=(3, 32, 32), provenance={})
    poisoned = sorted(f"{int(row):06d}.png" for row in poison.value.rows if row < 1200)
    (folder / "poisoned.json").write_text(json.dumps(poisoned))
    return folder


def test_a_screened_folder_has_ranked_rows_a_manifest_and_a_clean_copy(
    bezoar: Any, scraped: Path, tmp_path: Path
) -> None:
    words = (
        "--model",
        scraped / "model",
        "--trusted",
        scraped / "checked",
        "--out",
        tmp_path / "out",
        "--remove",
        "0.1",
    )
    answer = bezoar("screen", scraped / "data", *words, "--clean-copy", tmp_path / "clean", "--json")
    document = json.loads(answer.stdout)
    assert (answer.exit_code, document["verdict"]) == (1, "suspicious"), answer.output
    assert document == json.loads((tmp_path / "out" / "result.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "manifest.csv").open()))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 1201)]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    named = [row for row in rows if row["removed"] == "True"]
    assert len(named) == document["removed"] == len(document["named"])
    poisoned = set(json.loads((scraped / "poisoned.json").read_text()))
    hits = sum(Path(row["file"]).name in poisoned for row in named)
    assert hits > 0.8 * len(poisoned)
    left = {str(path.relative_to(tmp_path / "clean")) for path in image_files(tmp_path / "clean")}
    gone = {str(Path(row["file"]).relative_to(scraped / "data")) for row in named}
    assert len(left) + len(gone) == 1200
    assert not left & gone
    some = min(left)
    assert (tmp_path / "clean" / some).read_bytes() == (scraped / "data" / some).read_bytes()
    assert "<html" in (tmp_path / "out" / "report.html").read_text()


def test_a_registered_data_set_is_trained_on_and_without_trusted_images_nothing_is_claimed(
    bezoar: Any, tmp_path: Path
) -> None:
    small = ("data.train=120", "data.test=40", "architecture.stages=1", "trainer.epochs=2", "trainer.batch_size=20")
    answer = bezoar("screen", "digits_in_the_wild", "--method", "deep_knn", "--clean-copy", tmp_path / "clean", *small)
    assert answer.exit_code == 0, answer.output
    said = " ".join(answer.stdout.split())
    assert "6 of 120 rows named" in said
    assert "OPEN: rows are ranked" in said
    assert len(read_folder(tmp_path / "clean", 32)) == 114


def test_a_model_that_has_not_learnt_the_rows_is_warned_of(bezoar: Any, capfd: pytest.CaptureFixture[str]) -> None:
    small = ("data.train=120", "data.test=40", "architecture.stages=1", "trainer.epochs=1", "trainer.lr=1e-6")
    answer = bezoar("screen", "digits_in_the_wild", "--json", *small)
    assert json.loads(answer.stdout)["verdict"] == "open"
    assert "so its features say little" in capfd.readouterr().err + answer.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "DATASET: 'nowhere' is neither a folder of images nor"),
        (("digits_in_the_wild", "--method", "deep_nn"), "unknown name 'deep_nn' among the sanitizers"),
        (("digits_in_the_wild", "--remove", "1.5"), "--remove: 1.5 is no share"),
        (("digits_in_the_wild", "sanitizer.ratio=0"), "unknown setting 'ratio' of spectral_signatures"),
        (("digits_in_the_wild", "--clean-copy", "."), "this is there already"),
    ],
)
def test_screening_that_cannot_be_is_refused_in_one_line(
    bezoar: Any, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    answer = bezoar("screen", *words)
    assert answer.exit_code == 2
    assert message in capfd.readouterr().err + answer.stderr
    assert answer.stdout == ""


def test_a_share_that_names_no_row_or_all_is_refused_before_anything_is_trained(
    bezoar: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of rows is known as soon as the data are read."""
    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", lambda *_: pytest.fail("a model was trained"))
    for share, count in (("0.004", 0), ("0.997", 120)):
        answer = bezoar("screen", "digits_in_the_wild", "--remove", share, "data.train=120", "data.test=40")
        assert answer.exit_code == 2
        said = capfd.readouterr().err + answer.stderr
        assert f"--remove: {share} of 120 rows is {count} rows; some must go and some must stay" in said


def test_the_help_has_an_example_and_says_when_nothing_is_claimed(bezoar: Any) -> None:
    shown = " ".join(bezoar("screen", "--help").stdout.split())
    assert "Example:" in shown
    assert "always without --trusted" in shown


def test_a_model_of_other_classes_is_refused(bezoar: Any, scraped: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    for name in ("cat", "dog"):
        source = next((scraped / "data" / "0").iterdir())
        (tmp_path / name / "0.png").write_bytes(source.read_bytes())
    answer = bezoar("screen", tmp_path, "--model", scraped / "model")
    assert answer.exit_code == 2
    assert "cat" in answer.stderr
