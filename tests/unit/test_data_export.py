"""Poison on disk: what comes back, and what others read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bezoar.attacks.badnets import BadNets
from bezoar.attacks.wanet import WaNet
from bezoar.data.export import Layout, copy_chosen, read_overlay, write_chosen, write_dataset, write_overlay
from bezoar.data.folder import read_folder
from bezoar.errors import DataError, StoreError
from bezoar.records import Dataset, Poison
from bezoar.testing import toy

FACTS = {"attack": {"kind": "wanet"}, "seed": 7}


def poisoned(boost: int = 1) -> Poison:
    if boost == 1:
        return BadNets(poisons=9).poison(toy.dataset(), toy.lab(), toy.SEED)
    return WaNet(poisons=5, boost=boost).poison(toy.dataset(), toy.lab(), toy.SEED)


@pytest.mark.parametrize("boost", [1, 3])
def test_an_overlay_comes_back_bit_by_bit(tmp_path: Path, boost: int):
    poison = poisoned(boost)
    write_overlay(poison, tmp_path / "new" / "place", FACTS)
    again = read_overlay(tmp_path / "new" / "place")
    for name in ("rows", "images", "labels"):
        assert torch.equal(getattr(again, name), getattr(poison, name))
    assert again.boost == boost
    assert {name: value.tolist() for name, value in again.memory.items()} == {
        name: value.tolist() for name, value in poison.memory.items()
    }


def test_a_folder_that_holds_no_overlay_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"no poison that bezoar wrote \(poison\.safetensors and poison\.json"):
        read_overlay(tmp_path)
    write_overlay(poisoned(), tmp_path, FACTS)
    whole = (tmp_path / "poison.safetensors").read_bytes()
    (tmp_path / "poison.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no poison that bezoar wrote"):
        read_overlay(tmp_path)


def _manifest(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "manifest.csv").read_text())))


@pytest.mark.parametrize("boost", [1, 3])
def test_an_image_folder_holds_exactly_what_the_victim_would_collect(tmp_path: Path, boost: int):
    """Second route: read it as any folder of images, and compare with the overlay laid over the data in memory."""
    clean, poison = toy.dataset(), poisoned(boost)
    assert write_dataset(clean, poison, tmp_path, "folder") == 64 + (boost - 1) * len(poison.rows)
    victim = poison.apply(clean)
    read = read_folder(tmp_path / "train", 16, clean.classes)

    def contents(data: Dataset) -> list[tuple[int, bytes]]:
        return sorted(zip(data.labels.tolist(), (image.numpy().tobytes() for image in data.images()), strict=True))

    assert contents(read) == contents(victim)
    lines = _manifest(tmp_path)
    assert len(lines) == boost * len(poison.rows)
    by_row = {int(row): (image, int(label)) for row, image, label in zip(*_parts(poison), strict=True)}
    for line in lines:
        image, label = by_row[int(line["clean_row"])]
        pixels = np.asarray(Image.open(tmp_path / "train" / line["item"]))
        assert np.array_equal(pixels, image.permute(1, 2, 0).numpy())
        assert line["label"] == clean.classes[label]
        assert line["clean_label"] == clean.classes[int(clean.labels[int(line["clean_row"])])]
    assert {line["copy"] for line in lines} == {str(number) for number in range(boost)}


@pytest.mark.parametrize("boost", [1, 2])
def test_added_points_come_back_and_stand_beside_the_images_they_are_from(tmp_path: Path, boost: int):
    """Second route: read the folder, and compare with the overlay that was read back. Two points are from one row."""
    clean, rows = toy.dataset(), torch.tensor([5, 5, 9])
    points = Poison(rows, clean.batch(rows + 1), torch.tensor([1, 1, 2]), boost, added=True)
    write_overlay(points, tmp_path, FACTS)
    again = read_overlay(tmp_path)
    assert again.added
    assert write_dataset(clean, points, tmp_path, "folder") == 64 + 3 * boost
    read, victim = read_folder(tmp_path / "train", 16, clean.classes), again.apply(clean)

    def contents(data: Dataset) -> list[tuple[int, bytes]]:
        return sorted(zip(data.labels.tolist(), (image.numpy().tobytes() for image in data.images()), strict=True))

    assert contents(read) == contents(victim)
    copies = {(int(line["clean_row"]), int(line["copy"])) for line in _manifest(tmp_path)}
    assert copies == {(5, number) for number in range(1, 2 * boost + 1)} | {(9, number + 1) for number in range(boost)}


def _parts(poison: Poison) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return poison.rows, poison.images, poison.labels


def test_hugging_face_reads_the_parquet(tmp_path: Path):
    clean, poison = toy.dataset(), poisoned(3)
    write_dataset(clean, poison, tmp_path, "parquet")
    file = str(tmp_path / "train-00000-of-00001.parquet")
    read = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    victim = poison.apply(clean)
    assert read.features["label"].names == list(clean.classes)
    assert read["label"] == victim.labels.tolist()
    for number, image in enumerate(victim.images()):
        assert np.array_equal(np.asarray(read[number]["image"]), image.permute(1, 2, 0).numpy())


def test_the_manifest_of_a_parquet_counts_its_rows(tmp_path: Path):
    clean, poison = toy.dataset(), poisoned(3)
    write_dataset(clean, poison, tmp_path, "parquet")
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet").to_pylist()
    for line in _manifest(tmp_path):
        pixels = np.asarray(Image.open(io.BytesIO(table[int(line["item"])]["image"]["bytes"])))
        place = poison.rows.tolist().index(int(line["clean_row"]))
        assert np.array_equal(pixels, poison.images[place].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_a_data_set_is_written_whole_or_not_at_all(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bezoar.data.export._png", full)
    with pytest.raises(StoreError, match="No space left on device; free some space"):
        write_dataset(toy.dataset(), poisoned(), tmp_path, layout)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_is_there_is_not_overwritten(tmp_path: Path):
    write_dataset(toy.dataset(), poisoned(), tmp_path, "folder")
    with pytest.raises(DataError, match="train: this is there already"):
        write_dataset(toy.dataset(), poisoned(), tmp_path, "folder")


def test_images_that_png_cannot_hold_are_refused(tmp_path: Path):
    clean = Dataset.in_memory(torch.zeros(4, 2, 8, 8, dtype=torch.uint8), torch.arange(4), toy.CLASSES)
    poison = BadNets(poisons=1).poison(clean, toy.lab(), toy.SEED)
    with pytest.raises(DataError, match="2 channels cannot be written as PNG; write the overlay alone"):
        write_dataset(clean, poison, tmp_path, "folder")


def test_chosen_rows_come_back_under_the_names_of_their_rows(tmp_path: Path):
    data, rows = toy.dataset(), torch.tensor([7, 2, 40, 13])
    write_chosen(data, rows, tmp_path / "some")
    found = {int(path.stem): path for path in (tmp_path / "some").glob("*/*.png")}
    assert sorted(found) == [2, 7, 13, 40]
    for row, path in found.items():
        assert path.parent.name == data.classes[int(data.labels[row])]
        assert np.array_equal(np.asarray(Image.open(path)), data.images()[row].permute(1, 2, 0).numpy())


def test_copied_files_are_the_same_bytes_in_the_same_places(tmp_path: Path):
    write_chosen(toy.dataset(), torch.arange(8), tmp_path / "all")
    files = sorted((tmp_path / "all").glob("*/*.png"))
    copy_chosen(files[1:4], tmp_path / "all", tmp_path / "new" / "some")
    copied = sorted((tmp_path / "new" / "some").glob("*/*.png"))
    assert [path.read_bytes() for path in copied] == [path.read_bytes() for path in files[1:4]]
    assert [path.name for path in copied] == [path.name for path in files[1:4]]


def test_nothing_is_copied_or_written_over_what_is_there(tmp_path: Path):
    for write in (
        lambda: write_chosen(toy.dataset(), torch.arange(3), tmp_path),
        lambda: copy_chosen([], tmp_path, tmp_path),
    ):
        with pytest.raises(DataError, match="this is there already"):
            write()
    assert list(tmp_path.iterdir()) == []
