"""Images in folders, one directory for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Int64
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from bezoar.component import digest, register
from bezoar.data.decode import check, decode, stack
from bezoar.errors import DataError
from bezoar.records import Dataset, Reader, Rows
from bezoar.roles import DataSource, Splits
from bezoar.seed import Seed


@register("folder")
class Folder(DataSource):
    """Your own images: ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``, or ``PATH/CLASS/*`` to be split here.

    Images may have any size and are read as they are needed. Those of one class that are split here go by
    a draw that depends on the class and its number of images only.

    Attributes:
        path: as it stands, or below one of the data folders.
        size: the side of the square to which images are resized and cropped, in pixels.
        test_share: the share of each class that is held out for testing where there is no ``test``.
    """

    path: Annotated[str, Field(min_length=1)]
    size: Annotated[int, Field(ge=8)] = 32
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def load(self, folders: tuple[Path, ...]) -> Splits:
        """Check every file and leave the decoding for later; `test` may lack classes, but has none that `train` lacks.

        Raises:
            DataError: there is no such folder, it has no class folders, or a file in it is no image.
        """
        root = self._find(folders)
        halves = [name for name in ("train", "test") if (root / name).is_dir()]
        if len(halves) == 2:
            train = read_folder(root / "train", self.size)
            return Splits(train, read_folder(root / "test", self.size, train.classes))
        if halves and _class_folders(root / halves[0]):
            missing = "test" if halves == ["train"] else "train"
            raise DataError(
                f"data.path: {root} holds {halves[0]}/ with class folders, but no {missing}/; add it, or give "
                f"{root / halves[0]} as the path to have data.test_share of it held out for testing"
            )
        return self._divide(read_folder(root, self.size), root)

    def fingerprint(self, folders: tuple[Path, ...]) -> str:
        """Changes with the name, size or time of change of any file in the folder."""
        root = self._find(folders)
        states = [(path.relative_to(root).as_posix(), path.stat()) for path in _files(root)]
        return digest([[name, state.st_size, state.st_mtime_ns] for name, state in states])

    def _find(self, folders: tuple[Path, ...]) -> Path:
        path = Path(self.path).expanduser()
        places = list(dict.fromkeys([path, *(folder / path for folder in folders)]))
        for place in places:
            if place.is_dir():
                return place
        raise DataError(
            f"data.path: there is no folder {self.path!r}; searched: {', '.join(str(place) for place in places)}. "
            "Give the folder that holds one folder for each class, or train/ and test/ with these"
        )

    def _divide(self, data: Dataset, root: Path) -> Splits:
        """Hold out a share of each class, at least one image and never the last."""
        held_out = torch.zeros(len(data), dtype=torch.bool)
        for label, name in enumerate(data.classes):
            rows = (data.labels == label).nonzero()[:, 0]
            count = min(max(round(self.test_share * len(rows)), 1), len(rows) - 1)
            held_out[rows[(Seed(0) / "folder" / "split" / name).permutation(len(rows))[:count]]] = True
        if not held_out.any():
            raise DataError(
                f"data.path: {root} holds one image for each class, so none can be held out for testing; add more"
            )
        return Splits(data.take((~held_out).nonzero()[:, 0]), data.take(held_out.nonzero()[:, 0]))


def read_folder(path: Path, size: int, classes: Sequence[str] | None = None) -> Dataset:
    """Open a folder that has one folder for each class.

    Every file is checked at once, so that a broken one shows before any work is done; images are decoded
    when they are read: turned upright, resized (bilinear, antialiased) until the shorter side has `size`
    pixels, and cropped in the middle. Hidden files, and files beside the class folders, are passed over.

    Args:
        path: the folder.
        size: side of the square images, in pixels.
        classes: all class names in label order, of which the folder may lack some; by default its own, sorted.

    Raises:
        DataError: the folder is missing or empty, has other classes, or a class without images, or a file
            that is broken or no image.
    """
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; give one that holds a folder of images for each class")
    folders = _class_folders(path)
    names = tuple(folder.name for folder in folders) if classes is None else tuple(classes)
    _check_classes(path, [folder.name for folder in folders], classes)
    files = image_files(path)
    labels = [names.index(file.relative_to(path).parts[0]) for file in files]
    present = set(labels)
    for folder in folders:
        if names.index(folder.name) not in present:
            raise DataError(f"{folder}: this class folder holds no images; add some, or take the folder away")
    for file in files:
        check(file)

    def read(rows: Rows) -> Tensor:
        chosen = [files[row] for row in rows.tolist()]
        return stack(len(chosen), size, size, lambda number: _fitted(chosen[number], size))

    return Dataset(torch.tensor(labels, dtype=torch.int64), names, (3, size, size), read)


@dataclass(frozen=True)
class Pictures:
    """The images of a folder, which may have no labels.

    Attributes:
        files: in the order of the rows.
        labels: int64 [n], where the folder has a folder for each class.
        reader: rows int64 [b] -> uint8 [b, c, h, w].
    """

    files: Sequence[Path]
    labels: Int64[Tensor, "n"] | None
    reader: Reader

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: Int64[Tensor, "m"]) -> Pictures:
        """Some of them, in that order."""
        files = [self.files[row] for row in rows.tolist()]
        labels = None if self.labels is None else self.labels[rows]
        return Pictures(files, labels, lambda chosen: self.reader(rows[chosen]))


def read_pictures(path: Path, shape: tuple[int, int, int], classes: Sequence[str]) -> Pictures:
    """Open a folder of images, or one that has folders of them named after classes, as `read_folder` does.

    Args:
        path: the folder.
        shape: (c, h, w) of the square images that are wanted, in colour or, of one channel, in grey.
        classes: all class names in label order.

    Raises:
        DataError: the folder is missing or empty, has folders named after no class, or a file that is broken or no
            image; or no images of so many channels can be had.
    """
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; give one of images, or one that holds one for each class")
    channels, size, _ = shape
    if channels not in (1, 3):
        raise DataError(f"{path}: images have 3 channels or, in grey, 1; the model takes {channels}")
    if not _class_folders(path):
        files, labels = _files(path), None
        if not files:
            raise DataError(f"{path}: this folder holds no images; give one that does")
        for file in files:
            check(file)
    else:
        labels = read_folder(path, size, classes).labels
        files = image_files(path)

    def read(rows: Rows) -> Tensor:
        chosen = [files[row] for row in rows.tolist()]
        images = stack(len(chosen), size, size, lambda number: _fitted(chosen[number], size))
        return images if channels == 3 else images.float().mean(1, keepdim=True).round().to(torch.uint8)

    return Pictures(files, labels, read)


def image_files(path: Path) -> list[Path]:
    """The files of a folder that has one folder for each class, in the order of the rows of `read_folder`."""
    return [file for folder in _class_folders(path) for file in _files(folder)]


def _check_classes(path: Path, found: Sequence[str], classes: Sequence[str] | None) -> None:
    if not found:
        raise DataError(f"{path}: this folder holds no class folders; put the images into one folder for each class")
    if classes is None:
        if len(found) == 1:
            raise DataError(f"{path}: there is only one class folder, {found[0]!r}; a classifier needs at least two")
        return
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise DataError(
            f"{path}: the folders {', '.join(map(repr, unknown))} are named after no class. "
            f"Folders: {', '.join(found)}; classes: {', '.join(classes)}. "
            "Rename the folders, or give the class names that they have"
        )


def _class_folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(path: Path) -> list[Path]:
    """All files in a folder and below, sorted; hidden ones are left out."""
    files = (entry for entry in path.rglob("*") if entry.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _fitted(path: Path, size: int) -> Image.Image:
    return ImageOps.fit(decode(path, str(path)), (size, size), Image.Resampling.BILINEAR)
