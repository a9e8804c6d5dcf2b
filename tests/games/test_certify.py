"""`bezoar certify`: what it vouches for, writes and answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bezoar.certifiers.smoothing import Smoothing
from bezoar.cli.demonstration import write_images
from bezoar.data.folder import read_pictures
from bezoar.lab import Lab
from bezoar.models.files import save_model
from bezoar.records import Trusted, as_float
from bezoar.seed import Seed
from bezoar.testing import toy

COUNT = 24
SETTINGS = ("sigma=0.6", "draws=100", "selection=20", "radius=0.3")


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an owner holds: a model, and images of its classes, with labels and without."""
    folder = tmp_path_factory.mktemp("owned")
    save_model(toy.suspect().eval(), folder / "model", architecture=toy.architecture(), shape=toy.SHAPE, provenance={})
    write_images(Trusted.of(toy.unseen().take(torch.arange(COUNT))), folder / "labelled")
    (folder / "flat").mkdir()
    for file in sorted((folder / "labelled").rglob("*.png")):
        (folder / "flat" / file.name).write_bytes(file.read_bytes())
    return folder


def test_every_image_has_the_certificate_of_the_library_and_the_sums_are_right(
    bezoar: Any, owned: Path, tmp_path: Path
) -> None:
    """Second route: `Smoothing.certify` on the images as one batch, and the sums by hand."""
    answer = bezoar("certify", owned / "model", "--images", owned / "labelled", "--out", tmp_path, "--json", *SETTINGS)
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.stdout)
    assert document == json.loads((tmp_path / "result.json").read_text())
    rows = list(csv.DictReader((tmp_path / "certificates.csv").open()))
    pictures = read_pictures(owned / "labelled", toy.SHAPE, toy.CLASSES)
    expected = Smoothing(sigma=0.6, draws=100, selection=20, radius=0.3).certify(
        toy.suspect().eval(), as_float(pictures.reader(torch.arange(COUNT))), Lab(), Seed(0) / "certify" / 0
    )
    assert [float(row["radius"]) for row in rows] == expected.radius.tolist()
    names = ["" if label < 0 else toy.CLASSES[label] for label in expected.predicted.tolist()]
    assert [row["predicted"] for row in rows] == names
    assert [row["label"] for row in rows] == [row["file"].partition("/")[0] for row in rows]
    certified = [row["certified"] == "True" for row in rows]
    assert certified == [float(row["radius"]) >= 0.3 for row in rows]
    assert 0 < sum(certified) < COUNT
    right = [row["predicted"] == row["label"] for row in rows]
    assert document["certified"]["value"] == sum(certified) / COUNT
    assert document["labels"]["certified_right"]["value"] == sum(map(min, certified, right)) / COUNT
    assert (
        document["labels"]["certified_wrong"]["value"]
        == sum(certified) / COUNT - sum(map(min, certified, right)) / COUNT
    )
    assert document["abstained"]["value"] == names.count("") / COUNT
    for reading in document["curve"]:
        held = [float(row["radius"]) >= reading["radius"] and float(row["radius"]) > 0 for row in rows]
        assert reading["certified"] == sum(held) / COUNT
        assert reading["certified_right"] == sum(map(min, held, right)) / COUNT
    table = pq.read_table(tmp_path / "certificates.parquet").to_pylist()
    assert [row["radius"] for row in table] == expected.radius.tolist()
    assert [row["predicted"] for row in table] == [name or None for name in names]
    assert [row["method"] or "" for row in table] == [row["method"] for row in rows]
    page = (tmp_path / "report.html").read_text()
    assert "within 0.3 in L2" in page
    assert "certified and wrong" in page


def test_a_flat_folder_has_certificates_without_labels(bezoar: Any, owned: Path, tmp_path: Path) -> None:
    words = ("certify", owned / "model", "--images", owned / "flat", "--out", tmp_path, "--quick", *SETTINGS)
    answer = bezoar(*words)
    assert answer.exit_code == 0, answer.output
    said = " ".join(answer.stdout.split())
    assert "20 images" in said
    assert "certified and right" not in said
    document = json.loads((tmp_path / "result.json").read_text())
    assert (document["count"], document["labels"], document["quick"]) == (20, None, True)
    rows = list(csv.DictReader((tmp_path / "certificates.csv").open()))
    assert {row["label"] for row in rows} == {""}
    assert (rows[0]["file"], rows[-1]["file"]) == ("0000.png", "0023.png")
    assert "certified and right" not in (tmp_path / "report.html").read_text()
    again = bezoar(*words[:-4], "--quick", "--json", "--seed", "0", *SETTINGS)
    assert json.loads(again.stdout)["curve"] == document["curve"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (SETTINGS, ("smoothing on", "radius 0.3 in L2", "certified and wrong", "mean radius, wrong ones 0")),
        (("--method", "bounds", "epsilon=0.001"), ("bounds on", "radius 0.001 in L∞", "certified and right")),
    ],
    ids=["smoothing", "bounds"],
)
def test_what_is_measured_of_labelled_images_is_told(
    bezoar: Any, owned: Path, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    answer = bezoar("certify", owned / "model", "--images", owned / "labelled", "--quick", *words)
    assert answer.exit_code == 0, answer.output
    told = " ".join(answer.stdout.split())
    assert [one for one in said if one not in told] == [], told


def test_an_own_checkpoint_is_certified_with_its_own_mean_and_std_and_a_wrong_model_is_warned_of(
    bezoar: Any, owned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Seed(1).scoped():
        network = toy.network(4)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    own = ("--architecture", "bezoar.testing.toy:network", "--classes", ",".join(toy.CLASSES), "--size", "16")
    words = ("certify", tmp_path / "own.safetensors", "--images", owned / "labelled", *own, "--quick", "--json")
    answers = [
        bezoar(*words, *mean, "draws=100", "selection=10")
        for mean in ((), ("--mean", "0.2,0.3,0.4", "--std", "0.1,0.1,0.1"))
    ]
    first, second = (json.loads(answer.stdout) for answer in answers)
    assert first["curve"] != second["curve"]
    assert "answers are right" in capfd.readouterr().err + answers[0].stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "smothing"), "unknown name 'smothing' among the certifiers"),
        (("sigma=0",), "sigma: "),
        (("draws=100", "radius=0.45"), "draws=189 would do"),
        (("epsilo=1",), "unknown setting 'epsilo' of smoothing"),
        (("--images", "nowhere"), "nowhere: there is no such folder"),
        (("--device", "abacus"), "--device: 'abacus' cannot be used"),
    ],
)
def test_what_cannot_be_certified_is_refused_in_one_line(
    bezoar: Any, owned: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    images = () if "--images" in words else ("--images", owned / "flat")
    answer = bezoar("certify", owned / "model", *images, *words)
    assert answer.exit_code == 2
    assert message in capfd.readouterr().err + answer.stderr
    assert answer.stdout == ""


def test_folders_of_other_classes_and_empty_ones_and_broken_images_are_refused(
    bezoar: Any, owned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "cat").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "other" / "cat" / "0.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"no image")
    for name, message in (("empty", "holds no images"), ("other", "named after no class"), ("broken", "0.png: this")):
        answer = bezoar("certify", owned / "model", "--images", tmp_path / name)
        assert answer.exit_code == 2
        assert message in capfd.readouterr().err + answer.stderr


def test_the_help_has_an_example(bezoar: Any) -> None:
    shown = " ".join(bezoar("certify", "--help").stdout.split())
    assert "Example: bezoar certify" in shown
