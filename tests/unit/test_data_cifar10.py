"""CIFAR-10 from files of each layout."""

from __future__ import annotations

import json
import os
import pickle
import sys
from hashlib import md5
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bezoar.component import build
from bezoar.data import cifar10
from bezoar.data.cifar10 import CLASSES, Cifar10
from bezoar.errors import DataError, SettingError
from bezoar.roles import DataSource

Files = list[bytes | None]


def pictures(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """uint8 [count, side, side, 3] of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shard(
    path: Path, files: Files, labels: list[int] | None = None, *, column: str = "img", classes: tuple[str, ...] = ()
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct({"bytes": "binary", "path": "string"})
    cells = pa.array([{"bytes": file, "path": None} for file in files], kind)
    labels = [number % 10 for number in range(len(files))] if labels is None else labels
    table = pa.table({column: cells, "label": pa.array(labels, pa.int64())})
    if classes:
        described = {"info": {"features": {"label": {"names": list(classes), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    pq.write_table(table, path)
    return path


def parquet(folder: Path, train: int = 30, test: int = 20, *, seed: int = 0, classes: tuple[str, ...] = ()) -> Path:
    for split, count in (("train", train), ("test", test)):
        files: Files = [png(pixels) for pixels in pictures(count, seed + (split == "test"))]
        shard(folder / f"{split}-00000-of-00001.parquet", files, classes=classes)
    return folder


def batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's files with three images each, whose md5 sums torchvision is told to expect."""
    datasets = pytest.importorskip("torchvision.datasets")
    place = root / "cifar-10-batches-py"
    place.mkdir(parents=True)
    sums: dict[str, str] = {}
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]):
        rows = pictures(3, 100 + number).transpose(0, 3, 1, 2).reshape(3, -1)
        content = {"data": rows, "labels": [number, 1, 2], "label_names": list(CLASSES)}
        (place / name).write_bytes(pickle.dumps(content))
        sums[name] = md5((place / name).read_bytes(), usedforsecurity=False).hexdigest()
    train = [[name, value] for name, value in sums.items() if name.startswith("data")]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": sums["batches.meta"]})
    return root


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No test reaches the network: the hub answers that it is unreachable, and what was asked of it is kept."""
    asked: list[str] = []

    def refuse(name: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(pytest.importorskip("huggingface_hub"), "snapshot_download", refuse)
    return asked


def test_parquet_images_come_out_as_they_went_in(tmp_path: Path, hub: list[str]) -> None:
    splits = Cifar10().load((parquet(tmp_path),))
    for data, count, seed in ((splits.train, 30, 0), (splits.test, 20, 1)):
        assert torch.equal(data.images(), torch.from_numpy(pictures(count, seed)).permute(0, 3, 1, 2))
        assert data.labels.tolist() == [number % 10 for number in range(count)]
        assert (data.images().dtype, data.labels.dtype) == (torch.uint8, torch.int64)
        assert (data.classes, data.shape) == (CLASSES, (3, 32, 32))
    assert hub == []


def test_shards_follow_one_another_and_either_column_name_is_read(tmp_path: Path) -> None:
    files: Files = [png(pixels) for pixels in pictures(9)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        shard(folder / "test-00000-of-00001.parquet", files[:1])
    shard(whole / "train-00000-of-00001.parquet", files, list(range(9)))
    shard(parts / "train-00000-of-00002.parquet", files[:4], list(range(4)), column="image")
    shard(parts / "train-00001-of-00002.parquet", files[4:], list(range(4, 9)), column="image")
    for count in (None, 6):
        one, two = (Cifar10(train=count).load((folder,)).train for folder in (whole, parts))
        assert torch.equal(one.images(), two.images())
        assert torch.equal(one.labels, two.labels)


def test_only_the_rows_that_are_taken_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    whole = cifar10.decode
    monkeypatch.setattr(cifar10, "decode", lambda source, name: decoded.append(name) or whole(source, name))
    splits = Cifar10(train=7, test=4).load((parquet(tmp_path),))
    assert (len(splits.train), len(splits.test), len(decoded)) == (7, 4, 11)


def test_a_draw_is_random_repeatable_and_part_of_every_larger_one(tmp_path: Path) -> None:
    folders = (parquet(tmp_path, train=200),)
    state = torch.get_rng_state()
    everything = [image.numpy().tobytes() for image in Cifar10().load(folders).train.images()]

    def rows(count: int) -> list[int]:
        drawn = Cifar10(train=count).load(folders).train.images()
        return [everything.index(image.numpy().tobytes()) for image in drawn]

    few, many = rows(40), rows(100)
    assert few == rows(40)
    assert set(few) < set(many)
    assert len(set(many)) == 100
    assert few != list(range(40))
    assert max(few) > 100
    assert torch.equal(torch.get_rng_state(), state)


def test_a_draw_does_not_look_at_labels(tmp_path: Path) -> None:
    path = parquet(tmp_path) / "train-00000-of-00001.parquet"
    before = Cifar10(train=20).load((tmp_path,)).train.images()
    shard(path, [png(pixels) for pixels in pictures(30)], labels=[0] * 30)
    assert torch.equal(Cifar10(train=20).load((tmp_path,)).train.images(), before)


def test_more_images_than_there_are_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"data\.test: 21 is more than the 20 images .* use at most 20"):
        Cifar10(test=21).load((parquet(tmp_path),))
    with pytest.raises(SettingError, match=r"train: .*0"):
        build(DataSource, {"kind": "cifar10", "train": 0})


@pytest.mark.parametrize("below", [".", "cifar10", "plain_text", "cifar10/plain_text"])
def test_parquet_files_are_found_where_people_keep_them(tmp_path: Path, below: str) -> None:
    parquet(tmp_path / below)
    assert len(Cifar10().load((tmp_path,)).train) == 30


def test_the_first_folder_with_files_of_any_layout_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = batches(tmp_path / "first", monkeypatch), parquet(tmp_path / "second")
    assert len(Cifar10().load((tmp_path / "none", second, first)).train) == 30
    assert len(Cifar10().load((tmp_path / "none", first, second)).train) == 15
    parquet(first / "cifar10", train=12)
    assert len(Cifar10().load((first,)).train) == 12  # in one folder, parquet comes first


def test_another_data_set_in_the_same_layout_is_passed_over(tmp_path: Path) -> None:
    other = parquet(tmp_path / "a", train=9, classes=tuple("0123456789"))
    right = parquet(tmp_path / "b", classes=CLASSES)
    assert len(Cifar10().load((other, right)).train) == 30
    with pytest.raises(DataError, match="no files found"):
        Cifar10().load((other,))


def test_torchvision_batches_come_out_as_they_went_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = batches(tmp_path / "cifar10", monkeypatch)
    expected = torch.from_numpy(np.concatenate([pictures(3, 100 + number) for number in range(5)])).permute(0, 3, 1, 2)
    for folder in (tmp_path, root, root / "cifar-10-batches-py"):
        splits = Cifar10(test=2).load((folder,))
        assert torch.equal(splits.train.images(), expected)
        assert splits.train.labels.tolist() == [0, 1, 2, 1, 1, 2, 2, 1, 2, 3, 1, 2, 4, 1, 2]
        assert len(splits.test) == 2


def test_a_pickle_with_another_md5_sum_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches(tmp_path, monkeypatch)
    mark = tmp_path / "executed"

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return os.mkdir, (str(mark),)

    for name in ("data_batch_1", "batches.meta"):
        place = tmp_path / "cifar-10-batches-py" / name
        good = place.read_bytes()
        place.write_bytes(pickle.dumps(Code()))
        with pytest.raises(DataError, match=r"md5 sum is not CIFAR-10's.*unpack the original archive again"):
            Cifar10().load((tmp_path,))
        place.write_bytes(good)
    assert not mark.exists()


def test_the_hub_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshot"
    parquet(snapshot / "plain_text", train=11)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert len(Cifar10().load((tmp_path / "nothing",)).train) == 11
    assert len(Cifar10().load((parquet(tmp_path / "here"),)).train) == 30


def test_when_nothing_is_found_the_error_says_where_it_looked_and_what_to_do(tmp_path: Path, hub: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        Cifar10().load((tmp_path, tmp_path / "missing"))
    message = str(caught.value)
    assert hub == ["uoft-cs/cifar10"]
    assert (
        f"Searched: {tmp_path}, {tmp_path / 'missing'} (no such folder); the hub: not reachable (no route)." in message
    )
    assert all(remedy in message for remedy in ("--data", "BEZOAR_DATA", 'pip install "bezoar[hf]"'))


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"no folder; the hub: huggingface_hub is not installed.*bezoar\[hf\]"):
        Cifar10().load(())
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r'pip install "bezoar\[vision\]"'):
        Cifar10().load((tmp_path,))


def test_half_a_data_set_and_one_with_other_columns_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png(pictures(1)[0])], column="picture")
    with pytest.raises(DataError, match=r"no test-\*\.parquet; put it beside"):
        Cifar10().load((tmp_path,))
    shard(tmp_path / "test-0.parquet", [png(pictures(1)[0])], column="picture")
    with pytest.raises(DataError, match="this file has picture, label"):
        Cifar10().load((tmp_path,))


def test_broken_parquet_files_are_named(tmp_path: Path) -> None:
    path = parquet(tmp_path) / "train-00000-of-00001.parquet"
    content = path.read_bytes()
    damaged = content[:40] + b"\xff" * (len(content) // 2) + content[40 + len(content) // 2 :]
    for bad in (b"nothing of the kind", content[: len(content) // 2], damaged):
        path.write_bytes(bad)
        with pytest.raises(DataError) as caught:
            Cifar10().load((tmp_path,))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "labels", "said"),
    [
        ([b"not an image"], [0], "row 1: this is no image"),
        ([png(pictures(1)[0])[:900]], [0], "row 1: this image is broken"),
        ([png(pictures(1, side=28)[0])], [0], "row 1: the image has 28x28 pixels where CIFAR-10 has 32x32"),
        ([png(pictures(1)[0])], [10], "row 1: the label is 10"),
        ([png(pictures(1)[0])], [-1], "row 1: the label is -1"),
        ([None], [0], "does not hold the images' bytes"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, files: Files, labels: list[int], said: str) -> None:
    good: Files = [png(pictures(1)[0])]
    path = shard(parquet(tmp_path) / "train-00000-of-00001.parquet", good + files, [0, *labels])
    with pytest.raises(DataError, match=f"{path}.*{said}"):
        Cifar10().load((tmp_path,))


def test_the_fingerprint_is_of_names_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = parquet(tmp_path / "here"), parquet(tmp_path / "there")
    mark = Cifar10().fingerprint((here,))
    assert Cifar10().fingerprint((there,)) == Cifar10().fingerprint((here,)) == mark
    parquet(there, seed=7)
    changed = Cifar10().fingerprint((there,))
    (there / "train-00000-of-00001.parquet").rename(there / "train-0.parquet")
    renamed = Cifar10().fingerprint((there,))
    original = Cifar10().fingerprint((batches(tmp_path, monkeypatch),))
    assert len({mark, changed, renamed, original}) == 4


@pytest.mark.skipif("BEZOAR_DATA" not in os.environ, reason="BEZOAR_DATA names no folder")
def test_the_real_images_have_the_labels_that_their_paths_say() -> None:
    folders = tuple(Path(folder) for folder in os.environ["BEZOAR_DATA"].split(os.pathsep))
    found = next(filter(None, (cifar10._find_parquet(folder / "cifar10") for folder in folders)), None)
    if found is None:
        pytest.skip("no folder of BEZOAR_DATA holds CIFAR-10 as parquet")
    table = pq.read_table(found.test[0])
    paths = [cell["path"] or "" for cell in table.column(0).to_pylist()]
    splits = Cifar10(train=200, test=300).load(folders)
    rows = cifar10._choose(len(table), 300, "test", found.test[0]).tolist()
    for row, label in zip(rows, splits.test.labels.tolist(), strict=True):
        assert paths[row].rpartition("/")[0] in ("", CLASSES[label])
    # the data set's own mean colour to within the error of a draw of 200 images
    means = splits.train.images().float().div(255).mean((0, 2, 3))
    assert torch.allclose(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.06)
