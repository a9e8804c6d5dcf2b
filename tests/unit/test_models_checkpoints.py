"""The checkpoints that users bring."""

import errno
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bezoar.errors import ModelFileError
from bezoar.models import files
from bezoar.models.classifier import Classifier
from bezoar.models.files import load_model, save_weights
from bezoar.models.foreign import parse_architecture
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


def load(path: Path) -> files.LoadedModel:
    return load_model(path, architecture=SMALL, classes=CLASSES, shape=SHAPE)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


Write = Callable[[dict[str, Tensor], Path], None]
LAYOUTS: dict[str, tuple[str, str, Write]] = {
    "plain safetensors": ("w.safetensors", "", save_file),
    "plain pt": ("w.pt", "", torch.save),
    "old torch format": (
        "w.pth",
        "",
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ),
    "nested": ("w.pth", "", lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path)),
    "nested model": ("w.bin", "", lambda state, path: torch.save({"epoch": 3, "model": state}, path)),
    "data parallel": ("w.pt", "module.", lambda state, path: torch.save({"net": state}, path)),
    "lightning": ("w.ckpt", "model.", lambda state, path: torch.save({"state_dict": state, "lr": 0.1}, path)),
    "compiled": ("w.safetensors", "module._orig_mod.", save_file),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_repaired_weights_are_written_with_the_user_s_own_keys(model: Classifier, tmp_path: Path, layout: str):
    name, prefix, write = LAYOUTS[layout]
    theirs = {prefix + key: tensor.clone() for key, tensor in model.weights().items()}
    theirs[prefix + "linear.weight"] = theirs[prefix + "linear.weight"].half()
    write(theirs, tmp_path / name)

    loaded = load(tmp_path / name)
    assert loaded.model.head.weight.dtype == torch.float32
    assert torch.equal(loaded.model.head.weight, theirs[prefix + "linear.weight"].float())
    save_weights(loaded, loaded.model, tmp_path / "out" / "same.safetensors")
    assert same(load_file(tmp_path / "out" / "same.safetensors"), theirs)

    repaired = loaded.model.copy()
    nn.init.constant_(repaired.head.bias, 0.25)
    save_weights(loaded, repaired, tmp_path / "out" / "repaired.safetensors")
    written = load_file(tmp_path / "out" / "repaired.safetensors")
    assert same(written, {**theirs, prefix + "linear.bias": torch.full((3,), 0.25)})
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["repaired.safetensors", "same.safetensors"]


def test_a_checkpoint_without_batch_counts_is_taken(model: Classifier, tmp_path: Path):
    old = {key: tensor for key, tensor in model.weights().items() if not key.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "old.safetensors")
    loaded = load(tmp_path / "old.safetensors")
    save_weights(loaded, loaded.model, tmp_path / "new.safetensors")
    assert same(load_file(tmp_path / "new.safetensors"), old)


def test_a_transformers_checkpoint_keeps_the_keys_that_transformers_saves(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    configuration = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        num_labels=3,
    )
    with Seed(5).scoped():
        network = transformers.ViTForImageClassification(configuration).eval()
    network.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    loaded = load_model(file, architecture=parse_architecture(f"hf:{tmp_path}"), classes=CLASSES)
    assert loaded.shape == (3, 16, 16)
    images = torch.rand(2, *SHAPE, generator=Seed(6).generator())
    assert torch.allclose(loaded.model(images), network(loaded.model.normalise(images)).logits, atol=1e-6)
    save_weights(loaded, loaded.model, tmp_path / "again.safetensors")
    assert same(load_file(tmp_path / "again.safetensors"), load_file(file))


def test_a_torchvision_checkpoint_is_taken_at_the_published_size(tmp_path: Path):
    models = pytest.importorskip("torchvision").models
    with Seed(7).scoped():
        network = models.mobilenet_v3_small(num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    architecture = parse_architecture("torchvision:mobilenet_v3_small")
    loaded = load_model(tmp_path / "w.pt", architecture=architecture, classes=CLASSES)
    assert loaded.shape == (3, 224, 224)
    assert same(loaded.model.weights(), network.state_dict())


class Payload:
    """Creates a file when it is unpickled by something careless."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.proof}'",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapping", ["torch", "old torch", "pickle"])
def test_a_pickle_with_code_is_refused_by_name_and_not_executed(tmp_path: Path, wrapping: str, protocol: int):
    proof, path = tmp_path / "was_here", tmp_path / "w.pt"
    content = {"state_dict": {"weight": torch.zeros(2)}, "extra": Payload(proof)}
    if wrapping == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1.0], "extra": Payload(proof)}, protocol=protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=wrapping == "torch")
    with pytest.raises(
        ModelFileError, match=r"contains os\.system besides tensors; it was not executed.*state_dict\(\)"
    ):
        load(path)
    assert not proof.exists()
    if wrapping == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()  # so the payload would have worked


def test_a_pickled_network_is_refused_by_the_name_of_its_class(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"contains torch\.nn\.modules\.linear\.Linear besides tensors"):
        load(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_checkpoint_is_called_one(model: Classifier, tmp_path: Path, name: str, share: float):
    path = tmp_path / name
    if name == "w.safetensors":
        save_file(model.weights(), path)
    else:
        torch.save(model.weights(), path, _use_new_zipfile_serialization=name == "w.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match="or only a part of one"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", "hello world", "this is no checkpoint"),
        ("w.pt", "cat\ndog\nbird\n", "this is no checkpoint"),
        ("w.safetensors", "hello world", "this is no safetensors file"),
        ("w.onnx", "hello world", "a checkpoint ends in .safetensors.*not in '.onnx'"),
        ("w", "hello world", "a checkpoint ends in"),
        ("w.pt", None, "there is no such file or folder"),
        ("w.pt", [1, 2], "it holds a list, not a dictionary of weights"),
        ("w.pt", {}, "it holds a dict, not a dictionary of weights"),
        ("w.pt", {"epoch": 3}, r"neither at its top \('epoch' ...\) nor under state_dict"),
        ("w.pt", {"model": {"linear.weight": torch.tensor([1.0, float("nan")])}}, "'linear.weight' is not finite"),
        ("w.pt", {"linear.weight": torch.tensor([float("inf")])}, "'linear.weight' is not finite"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: object, message: str):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelFileError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_another_architecture_is_refused_by_the_keys_that_differ(model: Classifier, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    weights = dict(model.weights())
    weights["extra.bias"] = torch.zeros(1)
    del weights["linear.bias"]
    save_file(weights, path)
    with pytest.raises(ModelFileError) as caught:
        load_model(path, architecture=SmallResNet(width=20), classes=CLASSES, shape=SHAPE)
    message = str(caught.value)
    assert "not the weights of small_resnet(width=20) with 3 classes" in message
    assert "missing: linear.bias" in message
    assert "unexpected: extra.bias" in message
    assert "blocks.0.0.0.weight is 16x3x3x3 in the file and 20x3x3x3 in the network" in message
    assert len(message) < 800


def test_a_checkpoint_needs_an_architecture_and_classes(model: Classifier, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file(model.weights(), path)
    with pytest.raises(ModelFileError, match=r"give its architecture.*--architecture timm:NAME"):
        load_model(path, classes=CLASSES)
    with pytest.raises(ModelFileError, match=r"give them in the order of the outputs \(--classes\)"):
        load_model(path, architecture=SMALL)
    with pytest.raises(ModelFileError, match="give their shape"):
        load_model(path, architecture=PythonFunction(target="a:b"), classes=CLASSES)


@pytest.mark.parametrize("name", ["w.pt", "w", "folder.safetensors"])
def test_weights_are_written_as_safetensors_only(model: Classifier, tmp_path: Path, name: str):
    (tmp_path / "folder.safetensors").mkdir()
    save_file(model.weights(), tmp_path / "theirs.safetensors")
    loaded = load(tmp_path / "theirs.safetensors")
    with pytest.raises(ModelFileError, match=r"ends in \.safetensors"):
        save_weights(loaded, model, tmp_path / name)


def test_a_full_disk_leaves_the_user_s_file_as_it_was(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "w.safetensors"
    save_file(model.weights(), path)
    before = path.read_bytes()

    def full(tensors: object, scratch: Path, **_: object) -> None:
        scratch.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(ModelFileError, match="No space left"):
        save_weights(load(path), model, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
