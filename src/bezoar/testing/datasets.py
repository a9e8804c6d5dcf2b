"""What every data source must hold to. Files are looked for in the folders of ``BEZOAR_DATA``."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bezoar.records import Dataset
from bezoar.roles import DataSource, Splits
from bezoar.testing.watch import Claim, nothing_global_changes, other_generators, pixels, require, require_unchanged


def loading_twice_gives_the_same_images(source: DataSource) -> None:
    """Whatever the global generators are at."""
    first = _load(source)
    with other_generators():
        second = _load(source)
    for name, one, other in (("train", first.train, second.train), ("test", first.test, second.test)):
        require_unchanged(pixels(one), pixels(other), f"{name} ")


def images_and_labels_are_what_they_should_be(source: DataSource) -> None:
    """uint8 images of the shape that is said, int64 labels that are classes, and no empty half."""
    for data in _halves(source):
        require(len(data) > 0, "a half is empty")
        images = data.images()
        require(images.dtype == torch.uint8, f"images are {images.dtype}")
        require(
            images.shape == (len(data), *data.shape), f"images of {data.shape} have the shape {tuple(images.shape)}"
        )
        require(data.labels.dtype == torch.int64, f"labels are {data.labels.dtype}")
        labelled = bool((data.labels >= 0).all() and (data.labels < len(data.classes)).all())
        require(labelled, "a label is no class")
        require(data.groups is None or data.groups.shape == data.labels.shape, "there is not one group for each image")


def both_halves_have_the_same_classes_and_shape(source: DataSource) -> None:
    """In the same order; no class has two names."""
    train, test = _halves(source)
    require(train.classes == test.classes, f"{train.classes} are not {test.classes}")
    require(len(set(train.classes)) == len(train.classes) > 1, f"the classes are {train.classes}")
    require(train.shape == test.shape, f"{train.shape} is not {test.shape}")


def rows_can_be_read_in_any_order(source: DataSource) -> None:
    """Some rows, backwards, are those rows of all images."""
    for data in _halves(source):
        rows = torch.arange(len(data)).flip(0)[:7]
        require(torch.equal(data.batch(rows), data.images()[rows]), "rows read alone differ from those read with all")


def no_source_object_is_in_both_halves(source: DataSource) -> None:
    """Where images have groups, training images show nothing that test images show."""
    train, test = _halves(source)
    if train.groups is not None and test.groups is not None:
        shared = set(train.groups.tolist()) & set(test.groups.tolist())
        require(not shared, f"{len(shared)} groups are in both halves")


def the_fingerprint_holds_while_files_do(source: DataSource) -> None:
    """Asked twice, it is the same."""
    first, second = source.fingerprint(folders()), source.fingerprint(folders())
    require(first == second, f"{first!r} became {second!r}")


def loading_leaves_global_state_alone(source: DataSource) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        for data in _halves(source):
            data.images()


def folders() -> tuple[Path, ...]:
    """The folders of ``BEZOAR_DATA``."""
    return tuple(Path(entry) for entry in os.environ.get("BEZOAR_DATA", "").split(os.pathsep) if entry)


def _load(source: DataSource) -> Splits:
    return source.load(folders())


def _halves(source: DataSource) -> tuple[Dataset, Dataset]:
    splits = _load(source)
    return splits.train, splits.test


CLAIMS: tuple[Claim, ...] = (
    loading_twice_gives_the_same_images,
    images_and_labels_are_what_they_should_be,
    both_halves_have_the_same_classes_and_shape,
    rows_can_be_read_in_any_order,
    no_source_object_is_in_both_halves,
    the_fingerprint_holds_while_files_do,
    loading_leaves_global_state_alone,
)
