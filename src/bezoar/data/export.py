"""Data sets on disk: poison as an overlay, a whole poisoned data set for people who train elsewhere, chosen rows."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bezoar.errors import DataError
from bezoar.records import Dataset, Poison
from bezoar.store import put_whole, write_whole

OVERLAY = "poison.safetensors"
DESCRIPTION = "poison.json"
MANIFEST = "manifest.csv"
AT_ONCE = 1024

Layout = Literal["folder", "parquet"]


@dataclass(frozen=True)
class Item:
    """One image of a poisoned data set.

    Attributes:
        pixels: uint8 [c, h, w].
        label: as it stands in the poisoned data.
        row: of the clean data from which it comes.
        poisoned: whether the attack made it.
        copy: 0, or which one it is, from 1, of the items of that row that follow the clean data.
    """

    pixels: Tensor
    label: int
    row: int
    poisoned: bool
    copy: int


def write_overlay(poison: Poison, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``poison.safetensors`` (rows, images, labels, memory) and ``poison.json`` (how it is laid, and `facts`).

    Raises:
        StoreError: the folder cannot be written; nothing half-written stays.
    """
    tensors = {"rows": poison.rows, "images": poison.images, "labels": poison.labels}
    tensors |= {f"memory.{name}": tensor for name, tensor in poison.memory.items()}
    kind = {"boost": poison.boost, "settled": poison.settled, "added": poison.added}
    text = json.dumps({**facts, **kind}, indent=2) + "\n"
    put_whole(folder / OVERLAY, lambda path: save_file({k: t.contiguous() for k, t in tensors.items()}, path))
    write_whole(folder / DESCRIPTION, text)


def read_overlay(folder: Path) -> Poison:
    """The inverse of `write_overlay`; `Poison.apply` lays it over the clean data.

    Raises:
        DataError: the folder holds no overlay, or a damaged one.
    """
    try:
        facts = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        tensors = load_file(folder / OVERLAY)
        memory = {name.removeprefix("memory."): t for name, t in tensors.items() if name.startswith("memory.")}
        settled, added = (facts.get(name, False) for name in ("settled", "added"))  # an older overlay does not say
        return Poison(tensors["rows"], tensors["images"], tensors["labels"], facts["boost"], memory, settled, added)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"{folder}: no poison that bezoar wrote ({OVERLAY} and {DESCRIPTION} are expected): {error}"
        ) from None


def write_dataset(clean: Dataset, poison: Poison, folder: Path, layout: Layout) -> int:
    """Write the poisoned training data: lossless PNG files in a folder per class, or Hugging Face's parquet.

    Beside them ``manifest.csv`` names every poisoned item: its file or parquet row, the row of the clean
    data, the label there and now, and which copy it is.

    Returns:
        How many items were written.

    Raises:
        DataError: the folder holds such data already, or images that PNG cannot hold.
        StoreError: the folder cannot be written; nothing half-written stays.
    """
    place = folder / ("train" if layout == "folder" else "train-00000-of-00001.parquet")
    require_free(place)
    write = _write_folder if layout == "folder" else _write_parquet
    lines: list[tuple[str, Item]] = []
    put_whole(place, lambda path: lines.extend(write(items(clean, poison), clean.classes, path)))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["item", "clean_row", "clean_label", "label", "copy"])
    names = clean.classes
    for name, item in lines:
        if item.poisoned:
            writer.writerow([name, item.row, names[int(clean.labels[item.row])], names[item.label], item.copy])
    write_whole(folder / MANIFEST, table.getvalue())
    return len(lines)


def require_free(place: Path) -> None:
    """See that nothing would be written over.

    Raises:
        DataError: there is something at that place.
    """
    if place.exists():
        raise DataError(f"{place}: this is there already; remove it or name another folder")


def write_chosen(data: Dataset, rows: Int64[Tensor, "k"], folder: Path) -> None:
    """Write some rows of a data set as lossless PNG files, in a folder per class, named by their rows.

    Raises:
        DataError: the folder is there already, or images that PNG cannot hold.
        StoreError: the folder cannot be written; nothing half-written stays.
    """
    require_free(folder)
    chosen = (
        Item(pixels, int(data.labels[row]), row, poisoned=False, copy=0)
        for part in rows.split(AT_ONCE)
        for row, pixels in zip(part.tolist(), data.batch(part), strict=True)
    )
    put_whole(folder, lambda path: deque(_write_folder(chosen, data.classes, path), maxlen=0))


def copy_chosen(files: Sequence[Path], root: Path, folder: Path) -> None:
    """Copy files that lie below `root` to the same places below `folder`, as they are.

    Raises:
        DataError: the folder is there already.
        StoreError: a file cannot be copied; nothing half-written stays.
    """
    require_free(folder)

    def copy(path: Path) -> None:
        for file in files:
            target = path / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)

    put_whole(folder, copy)


def items(clean: Dataset, poison: Poison) -> Iterator[Item]:
    """The poisoned data set, item by item, in the order of `Poison.apply`."""
    victim = poison.apply(clean)
    made = torch.zeros(len(victim), dtype=torch.bool)
    made[poison.places(len(clean))] = True
    later, seen = poison.rows.repeat(poison.boost - (not poison.added)), Counter[int]()
    for part in torch.arange(len(victim)).split(AT_ONCE):
        for place, pixels in zip(part.tolist(), victim.batch(part), strict=True):
            follows = place >= len(clean)
            row = int(later[place - len(clean)]) if follows else place
            seen[row] += follows
            yield Item(pixels, int(victim.labels[place]), row, bool(made[place]), seen[row] if follows else 0)


def _write_folder(stream: Iterator[Item], classes: tuple[str, ...], path: Path) -> Iterator[tuple[str, Item]]:
    for name in classes:
        (path / name).mkdir(parents=True)
    for item in stream:
        copy = f"-{item.copy}" if item.copy else ""
        name = f"{classes[item.label]}/{item.row:06d}{copy}.png"
        (path / name).write_bytes(_png(item.pixels))
        yield name, item


def _write_parquet(stream: Iterator[Item], classes: tuple[str, ...], path: Path) -> Iterator[tuple[str, Item]]:
    """An image column of PNG bytes and a label column whose names Hugging Face's `datasets` reads from the schema."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(classes)},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)
    with pq.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, Any]] = []
        for number, item in enumerate(stream):
            rows.append({"image": {"bytes": _png(item.pixels), "path": None}, "label": item.label})
            if len(rows) == AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()
            yield str(number), item
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _png(pixels: Tensor) -> bytes:
    """An image file without loss; any number of channels but 3 must be 1."""
    if len(pixels) not in (1, 3):
        raise DataError(f"images of {len(pixels)} channels cannot be written as PNG; write the overlay alone")
    array = pixels.permute(1, 2, 0).squeeze(-1).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG", compress_level=1)
    return file.getvalue()
