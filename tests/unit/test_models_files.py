"""Models on disk: bezoar's own folders."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bezoar.errors import ModelFileError
from bezoar.models import files
from bezoar.models.classifier import Classifier
from bezoar.models.files import load_model, save_model
from bezoar.models.python_function import PythonFunction
from bezoar.models.resnet import SmallResNet
from bezoar.seed import Seed

CLASSES = ("ant", "bee", "cow")
SHAPE = (3, 16, 16)
SMALL = SmallResNet(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture
def model() -> Classifier:
    """A small network with batch statistics that are not the initial ones."""
    made = SMALL.build(SHAPE, CLASSES, Seed(1))
    made(torch.rand(8, *SHAPE, generator=Seed(2).generator()))
    return made.eval()


def save(model: Classifier, folder: Path) -> Path:
    save_model(model, folder, architecture=SMALL, shape=SHAPE, provenance={"seed": 1, "data": {"name": "x"}})
    return folder


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def test_a_saved_model_comes_back_bit_by_bit(model: Classifier, tmp_path: Path):
    images = torch.rand(5, *SHAPE, generator=Seed(3).generator())
    loaded = load_model(save(model, tmp_path / "deep" / "model"))
    assert torch.equal(loaded.model(images), model(images))
    assert same(loaded.model.state_dict(), model.state_dict())
    assert not any(layer.training for layer in loaded.model.modules())
    assert (loaded.architecture, loaded.shape, loaded.model.classes) == (SMALL, SHAPE, CLASSES)
    assert loaded.provenance == {"seed": 1, "data": {"name": "x"}}


def test_a_model_folder_is_two_readable_files(model: Classifier, tmp_path: Path):
    folder = save(model, tmp_path / "model")
    assert sorted(entry.name for entry in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert same(load_file(folder / "weights.safetensors"), model.weights())
    description = json.loads((folder / "model.json").read_text())
    assert description["format"] == 1
    assert description["classes"] == list(CLASSES)
    assert description["architecture"]["mean"] == [0.4, 0.5, 0.6]


def test_a_strided_and_a_shared_tensor_are_saved_as_they_are(model: Classifier, tmp_path: Path):
    model = model.to(memory_format=torch.channels_last)
    model.blocks[1][0].body[2][0].weight = model.blocks[1][0].body[2][0].weight
    model.blocks[1][0].body[2][1].bias = model.blocks[1][0].body[0][1].bias
    loaded = load_model(save(model, tmp_path / "model"))
    assert same(loaded.model.state_dict(), model.state_dict())


def test_loading_and_saving_leave_the_global_generator_alone(model: Classifier, tmp_path: Path):
    before = torch.get_rng_state()
    load_model(save(model, tmp_path / "model"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_folder_is_replaced_by_a_new_model(model: Classifier, tmp_path: Path):
    folder = save(model, tmp_path / "model")
    changed = model.copy()
    nn.init.ones_(changed.head.bias)
    save(changed, folder)
    assert torch.equal(load_model(folder).model.head.bias, torch.ones(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("present", ["file", "folder", "folder with a model and more"])
def test_nothing_but_a_model_folder_is_replaced(model: Classifier, tmp_path: Path, present: str):
    place = tmp_path / "model"
    if present == "file":
        place.write_text("mine")
        mine = place
    else:
        if "model" in present:
            save(model, place)
        place.mkdir(exist_ok=True)
        mine = place / "thesis.tex"
        mine.write_text("mine")
    with pytest.raises(ModelFileError, match="is not replaced; choose another place"):
        save(model, place)
    assert mine.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("fails", ["save_file", "_put"])
def test_a_full_disk_leaves_nothing_half_written(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, there_before: bool
):
    folder = tmp_path / "model"
    if there_before:
        save(model, folder)
    changed = model.copy()
    nn.init.ones_(changed.head.bias)

    def full(tensors: object, path: Path, **_: object) -> None:
        if fails == "save_file":
            path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, fails, full)
    with pytest.raises(ModelFileError, match=r"model: .*No space left.*make room"):
        save(changed, folder)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == (["model"] if there_before else [])
    if there_before:
        assert same(load_model(folder).model.state_dict(), model.state_dict())


def test_a_failed_exchange_puts_the_old_model_back(model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save(model, tmp_path / "model")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".scratch" and target == folder:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ModelFileError, match="make room"):
        save(model.copy(), folder)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    assert same(load_model(folder).model.state_dict(), model.state_dict())


def _edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no bezoar model: it has no model.json; to load one file"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors: there is no such file"),
        (_truncate("model.json"), "model.json: this is not JSON, or only a part of it"),
        (_truncate("weights.safetensors"), "weights.safetensors: this is no safetensors file, or only a part of one"),
        (_edit(format=2, bezoar="9.0"), "format 2, written by bezoar 9.0.* reads format 1"),
        (_edit(format=None), "format None"),
        (_edit(classes="abc"), "'classes' is missing"),
        (_edit(shape=[3, 16]), r"'shape' is \[3, 16\]"),
        (_edit(architecture={"kind": "small_resnot"}), "did you mean 'small_resnet'"),
        (_edit(architecture={"kind": "small_resnet", "width": 20}), "these are not the weights of small_resnet"),
        (_edit(classes=["one", "two"]), "linear.weight is 3x64 in the file and 2x64 in the network"),
        (lambda folder: (folder / "model.json").write_text("[1]"), "does not describe a bezoar model"),
    ],
)
def test_a_damaged_model_folder_is_refused_with_one_message(
    model: Classifier, tmp_path: Path, damage: Callable[[Path], object], message: str
):
    folder = save(model, tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_what_is_said_of_a_model_folder_must_agree_with_it(model: Classifier, tmp_path: Path):
    folder = save(model, tmp_path / "model")
    assert load_model(folder, architecture=SMALL, classes=CLASSES, shape=SHAPE).model.classes == CLASSES
    with pytest.raises(ModelFileError, match=r"its architecture is .* leave architecture out"):
        load_model(folder, architecture=SmallResNet(width=20))
    with pytest.raises(ModelFileError, match=r'its classes is \["ant", "bee", "cow"\], not \["x"\]'):
        load_model(folder, classes=("x",))
    with pytest.raises(ModelFileError, match=r"its shape is \[3, 16, 16\]"):
        load_model(folder, shape=(3, 32, 32))


def test_a_model_folder_cannot_make_bezoar_run_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sent_code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'was_here')!r}).touch()\n"
        "from torch import nn\n"
        "def net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(768, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    architecture = PythonFunction(target="sent_code:net")
    save_model(Classifier.wrap(network, CLASSES), tmp_path / "m", architecture=architecture, shape=SHAPE, provenance={})
    with pytest.raises(ModelFileError, match=r"whose code would be run; .* --architecture sent_code:net"):
        load_model(tmp_path / "m")
    assert not (tmp_path / "was_here").exists()
    loaded = load_model(tmp_path / "m", architecture=architecture)
    assert (tmp_path / "was_here").exists()
    assert same(loaded.model.weights(), network.state_dict())
