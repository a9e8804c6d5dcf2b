"""CIFAR-10 from the files that are at hand: Hugging Face parquet, torchvision's batches, or the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from bezoar.component import digest, register
from bezoar.data.decode import decode, stack
from bezoar.errors import DataError, SettingError
from bezoar.records import Dataset
from bezoar.roles import DataSource, Splits
from bezoar.seed import Seed

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
HUB_NAME = "uoft-cs/cifar10"
BATCHES = "cifar-10-batches-py"

Split = Literal["train", "test"]


@register("cifar10", paper="Krizhevsky 2009")
class Cifar10(DataSource):
    """CIFAR-10: RGB photographs of 32x32 pixels in 10 classes, 50,000 for training and 10,000 for testing.

    With `train` or `test` so many images are drawn at random without regard to class; a smaller draw is
    part of every larger one. Images that were stored as JPEG differ slightly from the original's.

    In every folder, first match wins: ``train-*.parquet`` and ``test-*.parquet`` (also under ``cifar10``
    or ``plain_text``), then torchvision's ``cifar-10-batches-py``. At last the hub is asked.
    """

    train: Annotated[int, Field(ge=1)] | None = None
    test: Annotated[int, Field(ge=1)] | None = None

    def load(self, folders: tuple[Path, ...]) -> Splits:
        """Decode the chosen images into memory.

        Raises:
            DataError: no files were found, or they are broken or not CIFAR-10.
            SettingError: more images were asked for than there are.
        """
        found = _find(folders)
        return Splits(found.read("train", self.train), found.read("test", self.test))

    def fingerprint(self, folders: tuple[Path, ...]) -> str:
        """Changes with the names and bytes of the files; where they lie does not matter."""
        marks: list[list[str]] = []
        for path in _find(folders).files:
            with path.open("rb") as file:
                marks.append([path.name, file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()])
        return digest(marks)


@dataclass(frozen=True)
class _Parquet:
    """Hugging Face's layout: shards with an image column of file bytes and a label column."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.train + self.test

    def read(self, split: Split, count: int | None) -> Dataset:
        shards = self.train if split == "train" else self.test
        tables = [_read_shard(path) for path in shards]
        sizes = torch.tensor([len(table) for table in tables])
        rows = _choose(int(sizes.sum()), count, split, shards[0].parent)
        firsts = sizes.cumsum(0) - sizes
        files: list[bytes] = []
        names: list[str] = []
        labels: list[int] = []
        for path, table, first, size in zip(shards, tables, firsts.tolist(), sizes.tolist(), strict=True):
            here = rows[(rows >= first) & (rows < first + size)] - first
            chosen = table.take(pa.array(here.numpy()))
            files += _bytes(chosen.column("image"), path)
            labels += chosen.column("label").to_pylist()
            names += [f"{path}, row {row}" for row in here.tolist()]
        images = stack(
            len(files), SIDE, SIDE, lambda number: _small(decode(files[number], names[number]), names[number])
        )
        return Dataset.in_memory(images, _labels(labels, names), CLASSES)


@dataclass(frozen=True)
class _Batches:
    """torchvision's layout: pickles, opened by torchvision alone, and only if their md5 sums are the original's."""

    root: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(sorted(path for path in (self.root / BATCHES).iterdir() if path.is_file()))

    def read(self, split: Split, count: int | None) -> Dataset:
        place = self.root / BATCHES
        try:
            from torchvision.datasets import CIFAR10  # noqa: PLC0415 - an extra
        except ImportError:
            raise DataError(
                f'{place}: these files are read by torchvision; run: pip install "bezoar[vision]"'
            ) from None
        try:
            batches: Any = CIFAR10(self.root, train=split == "train", download=False)
        except RuntimeError:
            raise DataError(
                f"{place}: a file is missing or its md5 sum is not CIFAR-10's, so nothing in it was opened; "
                "unpack the original archive again"
            ) from None
        rows = _choose(len(batches.targets), count, split, place)
        pixels = torch.from_numpy(np.ascontiguousarray(batches.data[rows.numpy()]))
        labels = torch.tensor(batches.targets, dtype=torch.int64)[rows]
        return Dataset.in_memory(pixels.permute(0, 3, 1, 2).contiguous(), labels, CLASSES)


def _find(folders: tuple[Path, ...]) -> _Parquet | _Batches:
    """The first files that are CIFAR-10's."""
    for folder in folders:
        found = _find_parquet(folder / "cifar10") or _find_parquet(folder) or _find_batches(folder)
        if found is not None:
            return found
    return _ask_hub(folders)


def _find_parquet(folder: Path) -> _Parquet | None:
    for place in (folder, folder / "plain_text"):
        train, test = tuple(sorted(place.glob("train-*.parquet"))), tuple(sorted(place.glob("test-*.parquet")))
        present = train + test
        if not present or _named_classes(present[0]) not in (CLASSES, ()):
            continue
        if not (train and test):
            missing = "test" if train else "train"
            raise DataError(f"{place}: there is {present[0].name}, but no {missing}-*.parquet; put it beside the other")
        return _Parquet(train, test)
    return None


def _find_batches(folder: Path) -> _Batches | None:
    for place in (folder / "cifar10" / BATCHES, folder / BATCHES, folder):
        if place.name == BATCHES and place.is_dir():
            return _Batches(place.parent)
    return None


def _ask_hub(folders: tuple[Path, ...]) -> _Parquet:
    """The hub's files, from its cache if they were fetched before."""
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - an extra
    except ImportError:
        raise DataError(_not_found(folders, "huggingface_hub is not installed")) from None
    try:
        place = Path(snapshot_download(HUB_NAME, repo_type="dataset", allow_patterns=["plain_text/*.parquet"]))
    except Exception as error:  # its network library and so its errors change with the version; all mean the same here
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(_not_found(folders, f"not reachable ({reason})")) from None
    found = _find_parquet(place)
    if found is None:
        raise DataError(_not_found(folders, f"{HUB_NAME} holds no parquet files of CIFAR-10 any more"))
    return found


def _not_found(folders: tuple[Path, ...], hub: str) -> str:
    searched = [f"{folder}" if folder.is_dir() else f"{folder} (no such folder)" for folder in folders]
    return (
        f"cifar10: no files found. Searched: {', '.join(searched) or 'no folder'}; the hub: {hub}. "
        "Name the folder that holds train-*.parquet and test-*.parquet, or cifar-10-batches-py, with --data or in "
        'BEZOAR_DATA; or, with a network, run: pip install "bezoar[hf]"'
    )


def _choose(total: int, count: int | None, split: Split, place: Path) -> Tensor:
    """The rows to take, ascending; a draw of its own for each split, the smaller within the larger."""
    if count is None:
        return torch.arange(total)
    if count > total:
        raise SettingError(
            f"data.{split}: {count} is more than the {total} images in {place}; use at most {total}, or leave it out"
        )
    return (Seed(0) / "cifar10" / split).permutation(total)[:count].sort().values


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: this is no parquet file that can be read ({error}); fetch it again") from None


def _named_classes(path: Path) -> tuple[str, ...]:
    """The class names that Hugging Face wrote into the file; none if it did not."""
    try:
        described = json.loads(cast(dict[bytes, bytes], _schema(path).metadata)[b"huggingface"])
        return tuple(described["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _read_shard(path: Path) -> pa.Table:
    """A table with the columns ``image`` and ``label``."""
    columns: list[str] = _schema(path).names
    image = next((name for name in ("img", "image") if name in columns), None)
    if image is None or "label" not in columns:
        raise DataError(
            f"{path}: CIFAR-10 has the columns 'img' (or 'image') and 'label', but this file has "
            f"{', '.join(columns)}; fetch the data set again"
        )
    try:
        return pq.read_table(path, columns=[image, "label"]).rename_columns(["image", "label"])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: this file is broken ({error}); fetch it again") from None


def _bytes(column: pa.ChunkedArray, path: Path) -> list[bytes]:
    """The image files of a column of structs {bytes, path}."""
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        files: list[bytes | None] = [cell["bytes"] if cell else None for cell in column.to_pylist()]
        whole = [file for file in files if file is not None]
        if len(whole) == len(files):
            return whole
    raise DataError(f"{path}: the image column does not hold the images' bytes; fetch the data set again")


def _small(image: Image.Image, name: str) -> Image.Image:
    if image.size != (SIDE, SIDE):
        raise DataError(
            f"{name}: the image has {image.width}x{image.height} pixels where CIFAR-10 has {SIDE}x{SIDE}; "
            "read images of other sizes as a folder of class folders (data.kind=folder)"
        )
    return image


def _labels(labels: list[int], names: list[str]) -> Tensor:
    for label, name in zip(labels, names, strict=True):
        if label not in range(len(CLASSES)):
            raise DataError(f"{name}: the label is {label} where CIFAR-10 has 0 to 9; fetch the data set again")
    return torch.tensor(labels, dtype=torch.int64)
