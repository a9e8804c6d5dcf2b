"""Images in class folders."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bezoar.component import build
from bezoar.data import decode, folder
from bezoar.data.folder import Folder, read_folder
from bezoar.errors import DataError, SettingError
from bezoar.roles import DataSource


def write(path: Path, colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def noise(path: Path, width: int, height: int, seed: int = 0) -> np.ndarray:
    """A PNG of random pixels, and these as uint8 [height, width, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def classes_of(root: Path, **counts: int) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            write(root / name / f"{index:02}.png", (10 * number, index, 0))
    return root


def test_labels_follow_the_sorted_folder_names(tmp_path: Path) -> None:
    data = read_folder(classes_of(tmp_path, zebra=2, ant=3), 8)
    assert data.classes == ("ant", "zebra")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.labels.dtype == torch.int64
    # colours say which file is which: red is the folder (zebra was written first), green the number
    assert data.images()[:, :2, 0, 0].tolist() == [[10, 0], [10, 1], [10, 2], [0, 0], [0, 1]]


def test_given_classes_set_the_order_of_labels_and_may_be_lacking(tmp_path: Path) -> None:
    data = read_folder(classes_of(tmp_path, cat=1, dog=2), 8, ["dog", "bird", "cat"])
    assert data.classes == ("dog", "bird", "cat")
    assert sorted(data.labels.tolist()) == [0, 0, 2]


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = noise(tmp_path / "a" / "1.png", 16, 16)
    write(tmp_path / "b" / "1.png")
    data = read_folder(tmp_path, 16)
    assert data.shape == (3, 16, 16)
    assert torch.equal(data.batch(torch.tensor([0]))[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_a_long_image_is_cropped_in_the_middle(tmp_path: Path) -> None:
    pixels = noise(tmp_path / "a" / "wide.png", 48, 16)
    tall = noise(tmp_path / "b" / "tall.png", 16, 48)
    images = read_folder(tmp_path, 16).images()
    assert torch.equal(images[0], torch.from_numpy(pixels[:, 16:32]).permute(2, 0, 1))
    assert torch.equal(images[1], torch.from_numpy(tall[16:32]).permute(2, 0, 1))


def test_resizing_agrees_with_torchvision(tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    path = tmp_path / "a" / "1.png"
    noise(path, 90, 60)
    write(tmp_path / "b" / "1.png")
    ours = read_folder(tmp_path, 20).images()[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(transforms.Compose([transforms.Resize(20), transforms.CenterCrop(20)])(Image.open(path)))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_images_above_the_size_for_threads_are_read_in_order(tmp_path: Path) -> None:
    side = 96
    assert side * side > decode.SMALL
    pixels = [
        noise(tmp_path / name / f"{n}.png", side, side, seed) for seed, (name, n) in enumerate(["a1", "a2", "b1"])
    ]
    rows = torch.tensor([2, 0, 1, 0])
    expected = np.stack([pixels[row] for row in rows.tolist()])
    assert np.array_equal(read_folder(tmp_path, side).batch(rows).permute(0, 2, 3, 1).numpy(), expected)


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    halves = Image.new("RGB", (16, 16), "black")
    halves.paste("white", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    (tmp_path / "a").mkdir()
    halves.save(tmp_path / "a" / "1.jpg", exif=exif)
    write(tmp_path / "b" / "1.png")
    image = read_folder(tmp_path, 16).images()[0]
    assert image[:, 0, 0].max() < 10
    assert image[:, 15, 15].min() > 245


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / "a" / ("1.tiff" if mode == "CMYK" else "1.png"))
    write(tmp_path / "b" / "1.png")
    assert read_folder(tmp_path, 8).images()[0].eq(255).all()


def test_nothing_is_decoded_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    whole = folder.decode
    monkeypatch.setattr(folder, "decode", lambda path, name: decoded.append(path.name) or whole(path, name))
    data = read_folder(classes_of(tmp_path, a=3, b=3), 8)
    assert decoded == []
    data.take(torch.tensor([1, 4])).batch(torch.tensor([1]))
    assert decoded == ["01.png"]


def test_hidden_files_are_passed_over_and_folders_below_a_class_are_read(tmp_path: Path) -> None:
    classes_of(tmp_path, a=1, b=1)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "LICENSE").write_text("free")
    write(tmp_path / "b" / "more" / "9.png")
    assert read_folder(tmp_path, 8).labels.tolist() == [0, 1, 1]


def broken_files() -> dict[str, bytes]:
    """Files that start like images but end early, by name."""
    files: dict[str, bytes] = {}
    for kind in ("png", "jpg", "webp", "bmp"):
        file = BytesIO()
        pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG" if kind == "jpg" else kind.upper())
        files[f"cut.{kind}"] = file.getvalue()[: len(file.getvalue()) // 2]
        if kind == "png":
            files["flipped.png"] = file.getvalue()[:200] + b"\0\0\0\0" + file.getvalue()[204:]
    return files


@pytest.mark.parametrize("name", sorted(broken_files()))
def test_a_broken_image_is_named_before_anything_is_read(tmp_path: Path, name: str) -> None:
    classes_of(tmp_path, a=2, b=2)
    path = tmp_path / "b" / name
    path.write_bytes(broken_files()[name])
    with pytest.raises(DataError, match="replace or remove it") as caught:
        read_folder(tmp_path, 8)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    classes_of(tmp_path, a=1, b=1)
    (tmp_path / "a" / "notes.png").write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.png: this is no image of a known format"):
        read_folder(tmp_path, 8)


def test_a_jpeg_with_bytes_after_its_end_is_whole(tmp_path: Path) -> None:
    classes_of(tmp_path, b=1)
    path = write(tmp_path / "a" / "1.jpg")
    path.write_bytes(path.read_bytes() + b"trailer")
    assert len(read_folder(tmp_path, 8)) == 2


def test_an_image_that_vanishes_after_the_check_is_named(tmp_path: Path) -> None:
    data = read_folder(classes_of(tmp_path, a=1, b=1), 8)
    (tmp_path / "b" / "00.png").unlink()
    with pytest.raises(DataError, match=r"00\.png"):
        data.images()


def test_unknown_class_folders_are_shown_with_both_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_folder(classes_of(tmp_path, cat=1, dgo=1), 8, ["cat", "dog"])
    assert "'dgo'" in str(caught.value)
    assert "Folders: cat, dgo; classes: cat, dog" in str(caught.value)


def test_folders_without_what_is_needed_are_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder; give one"):
        read_folder(tmp_path / "missing", 8)
    with pytest.raises(DataError, match="holds no class folders; put the images"):
        read_folder(tmp_path, 8)
    classes_of(tmp_path, a=1)
    with pytest.raises(DataError, match="only one class folder, 'a'"):
        read_folder(tmp_path, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: this class folder holds no images"):
        read_folder(tmp_path, 8)


def test_train_and_test_folders_are_the_splits_and_share_their_labels(tmp_path: Path) -> None:
    classes_of(tmp_path / "train", a=2, b=2, c=2)
    classes_of(tmp_path / "test", c=1, b=1)
    splits = Folder(path=str(tmp_path), size=8).load(())
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.labels.tolist() == [1, 2]
    assert splits.test.classes == splits.train.classes == ("a", "b", "c")


def test_a_test_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    classes_of(tmp_path / "train", a=1, b=1)
    classes_of(tmp_path / "test", a=1, z=1)
    with pytest.raises(DataError, match="'z'"):
        Folder(path=str(tmp_path)).load(())


def test_training_images_without_test_images_are_refused(tmp_path: Path) -> None:
    classes_of(tmp_path / "train", a=1, b=1)
    with pytest.raises(DataError, match=r"no test/; add it, or give .*train as the path"):
        Folder(path=str(tmp_path)).load(())


def test_a_share_of_each_class_is_held_out_once_and_for_all(tmp_path: Path) -> None:
    classes_of(tmp_path, a=10, b=5, c=2, d=1)
    first, second = (Folder(path=str(tmp_path), size=8, test_share=0.4).load(()) for _ in range(2))
    assert torch.bincount(first.test.labels, minlength=4).tolist() == [4, 2, 1, 0]
    assert torch.bincount(first.train.labels, minlength=4).tolist() == [6, 3, 1, 1]
    assert torch.equal(first.test.images(), second.test.images())
    colours = [tuple(image[:, 0, 0].tolist()) for data in (first.train, first.test) for image in data.images()]
    assert len(set(colours)) == 18  # every image is in one of the two, and only there
    assert sorted(first.test.images()[:4, 1, 0, 0].tolist()) != [0, 1, 2, 3]  # drawn, not the first ones


def test_a_class_is_divided_alike_whatever_classes_stand_beside_it(tmp_path: Path) -> None:
    classes_of(tmp_path, b=10, c=10)
    before = Folder(path=str(tmp_path), size=8).load(()).test
    classes_of(tmp_path, a=3)
    after = Folder(path=str(tmp_path), size=8).load(()).test
    green = [image[1, 0, 0].item() for image in before.take((before.labels == 0).nonzero()[:, 0]).images()]
    assert green == [image[1, 0, 0].item() for image in after.take((after.labels == 1).nonzero()[:, 0]).images()]


def test_one_image_a_class_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="add more"):
        Folder(path=str(classes_of(tmp_path, a=1, b=1))).load(())


def test_the_path_may_lie_below_a_data_folder(tmp_path: Path) -> None:
    classes_of(tmp_path / "second" / "pets", a=2, b=2)
    found = Folder(path="pets").load((tmp_path / "first", tmp_path / "second"))
    assert len(found.train) == 2
    with pytest.raises(DataError) as caught:
        Folder(path="pest").load((tmp_path / "first", tmp_path / "second"))
    assert "'pest'" in str(caught.value)
    assert str(tmp_path / "second" / "pest") in str(caught.value)


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    source = Folder(path=str(classes_of(tmp_path, a=2, b=2)))
    marks = [source.fingerprint(())]
    assert source.fingerprint(()) == marks[0]
    path = write(tmp_path / "a" / "99.png")
    marks.append(source.fingerprint(()))
    os.utime(path, ns=(1, 1))
    marks.append(source.fingerprint(()))
    path.rename(tmp_path / "b" / "99.png")
    marks.append(source.fingerprint(()))
    assert len(set(marks)) == 4


@pytest.mark.parametrize("setting", [{"size": 4}, {"test_share": 0}, {"test_share": 1.0}, {"path": ""}])
def test_settings_out_of_range_are_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=f"^{next(iter(setting))}: "):
        build(DataSource, {"kind": "folder", "path": "x", **setting})


def test_the_path_is_needed() -> None:
    with pytest.raises(SettingError, match="path: this setting is needed"):
        build(DataSource, "folder")
