"""Other libraries' networks behind the common interface."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bezoar.component import build
from bezoar.errors import ModelFileError, SettingError
from bezoar.models.classifier import Classifier, WrappedClassifier
from bezoar.models.foreign import parse_architecture
from bezoar.models.python_function import PythonFunction
from bezoar.models.resnet import ResNet18
from bezoar.roles import Architecture
from bezoar.seed import Seed

CLASSES = ("ape", "bee", "cat", "dog", "eel", "fox", "gnu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}


def images(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=Seed(3).generator())


def huggingface(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    configurations: dict[str, Callable[[], object]] = {
        "ResNet": lambda: transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        ),
        "ViT": lambda: transformers.ViTConfig(**VIT),
        "CLIP": lambda: transformers.CLIPConfig(vision_config=VIT),
    }
    configuration = configurations[name]()
    configuration.num_labels = len(CLASSES)
    return transformers.AutoModelForImageClassification.from_config(configuration)


def small_vision_transformer() -> nn.Module:
    models = pytest.importorskip("torchvision").models
    return models.VisionTransformer(16, 4, 3, 2, 16, 32, num_classes=len(CLASSES))


# what -> (network, side of its images, how many blocks it has at least)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "torchvision resnet18": (lambda: _torchvision("resnet18"), 32, 5),
    "torchvision mobilenet_v2": (lambda: _torchvision("mobilenet_v2"), 32, 19),
    "torchvision vit": (small_vision_transformer, 16, 4),
    "timm resnet": (lambda: _timm("resnet10t"), 32, 5),
    "timm vit": (lambda: _timm("test_vit", img_size=32), 32, 3),
    "hf ResNet": (lambda: huggingface("ResNet"), 32, 3),
    "hf ViT": (lambda: huggingface("ViT"), 16, 4),
    "hf CLIP": (lambda: huggingface("CLIP"), 16, 4),
}


def _torchvision(name: str) -> nn.Module:
    return pytest.importorskip("torchvision").models.get_model(name, num_classes=len(CLASSES))


def _timm(name: str, **settings: int) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, num_classes=len(CLASSES), **settings)


@pytest.fixture(params=NETWORKS)
def wrapped(request: pytest.FixtureRequest) -> Classifier:
    make, side, _ = NETWORKS[request.param]
    with Seed(4).scoped():
        module = make()
        for layer in module.modules():  # timm's heads start at zero, which every comparison would pass
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.1)
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        model = Classifier.wrap(module, CLASSES, MEAN, STD)
        with torch.no_grad():
            model(torch.rand(8, 3, side, side))  # without batch statistics a deep network's signal dies out
    model.eval()
    model.side, model.blocks = side, NETWORKS[request.param][2]
    return model


def test_the_logits_are_the_head_of_the_features_and_the_library_s_own(wrapped: Classifier):
    batch = images(wrapped.side)
    with torch.no_grad():
        logits, features = wrapped(batch), wrapped.features(batch)
        scaled = (batch - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        output = wrapped.module(scaled)
    assert logits.shape == (2, len(CLASSES))
    assert logits.abs().max() > 1e-3
    assert features.ndim == 2
    assert torch.allclose(wrapped.head(features), logits, atol=1e-6)
    assert torch.allclose(getattr(output, "logits", output), logits, atol=1e-5)


def test_the_stages_are_feature_maps_of_all_blocks(wrapped: Classifier):
    with torch.no_grad():
        stages = wrapped.stages(images(wrapped.side))
    assert len(stages) >= wrapped.blocks
    assert all(stage.ndim >= 3 and len(stage) == 2 for stage in stages)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wrapped.modules())


def test_gradients_reach_the_pixels_through_the_features(wrapped: Classifier):
    batch = images(wrapped.side).requires_grad_()
    wrapped.features(batch).square().sum().backward()
    assert batch.grad is not None
    assert batch.grad.abs().max() > 0


def test_verifying_changes_nothing(wrapped: Classifier):
    wrapped.train()
    before = {key: value.clone() for key, value in wrapped.state_dict().items()}
    wrapped.verify((3, wrapped.side, wrapped.side))
    assert all(torch.equal(value, before[key]) for key, value in wrapped.state_dict().items())
    assert all(module.training for module in wrapped.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wrapped.modules())


def test_a_convolution_as_head_is_refused():
    squeezenet = _torchvision("squeezenet1_1")
    with pytest.raises(ModelFileError, match=r"ends in the convolution 'classifier\.1'"):
        Classifier.wrap(squeezenet, CLASSES)


def test_a_wrong_number_of_class_names_is_refused():
    with pytest.raises(ModelFileError, match=r"no linear layer with 3 outputs.*gives 7"):
        Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 7)), CLASSES[:3])


class TwoHeads(nn.Module):
    """Averages two heads that both start at zero: no comparison of numbers would tell."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(12, 7), nn.Linear(12, 7)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(x.flatten(1)) + self.other(x.flatten(1))) / 2


class Forgetful(nn.Sequential):
    """Never calls its second layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self[0](x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Softmax(1)), "leave out a softmax"),
        (TwoHeads(), "leave out a softmax or a second head"),
        (Forgetful(nn.Flatten(), nn.Linear(12, 7)), "does not call its layer '1'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(27, 7)), "does not take images of 3x2x2"),
    ],
)
def test_a_network_without_plain_logits_is_found_out(network: nn.Module, message: str):
    with pytest.raises(ModelFileError, match=message):
        WrappedClassifier(network, CLASSES, (0.0,), (1.0,)).verify((3, 2, 2))


@pytest.mark.parametrize(
    ("text", "shape"),
    [("timm:resnet10t", (1, 24, 24)), ("timm:test_vit", (3, 32, 32)), ("torchvision:resnet18", (3, 32, 32))],
)
def test_the_seed_alone_decides_a_foreign_network(text: str, shape: tuple[int, int, int]):
    architecture = parse_architecture(text, mean=(0.5,), std=(0.25,))
    before = torch.get_rng_state()
    first, again, other = (architecture.build(shape, CLASSES, Seed(seed)).weights() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_hugging_face_folder_is_built_for_the_data_s_shape_and_classes(tmp_path: Path):
    huggingface("ViT").config.save_pretrained(tmp_path)
    architecture = parse_architecture(f"hf:{tmp_path}")
    built = architecture.replace(mean=(0.5,), std=(0.5,)).build((1, 24, 24), CLASSES[:2], Seed(0)).eval()
    assert built(torch.rand(2, 1, 24, 24)).shape == (2, 2)
    assert architecture.native_shape() == (3, 16, 16)


def test_an_architecture_survives_its_description():
    for text in ("timm:resnet10t", "torchvision:resnet18", "hf:some/name", "package.module:function", "small_resnet"):
        architecture = parse_architecture(text, mean=(0.25, 0.5, 0.75), std=(1.0, 2.0, 3.0))
        assert build(Architecture, architecture.describe()) == architecture
        assert (architecture.mean, architecture.std) == ((0.25, 0.5, 0.75), (1.0, 2.0, 3.0))


def test_imagenet_s_statistics_are_the_default_of_libraries_but_not_of_functions():
    for text in ("timm:resnet10t", "torchvision:resnet18", "hf:some/name"):
        assert (parse_architecture(text).mean, parse_architecture(text).std) == (MEAN, STD)
    assert (parse_architecture("a:b").mean, parse_architecture("a:b").std) == ((0.0,), (1.0,))
    assert parse_architecture("resnet18") == ResNet18()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:resnet81", "timm has no network called 'resnet81'; did you mean .*resnet18"),
        ("torchvision:resnt18", "torchvision has no network called 'resnt18'; did you mean resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no network called"),
        ("timm:hf-hub:somebody/something", "timm has no network called"),
        ("smal_resnet", "did you mean 'small_resnet'.*timm:NAME"),
        ("timm", "needs a name after a colon"),
        ("module:", "target"),
    ],
)
def test_an_unknown_architecture_is_named_with_its_neighbours(text: str, message: str):
    with pytest.raises(SettingError, match=message):
        parse_architecture(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_module_here:net", "no module 'no_such_module_here'"),
        ("networks:nett", "no 'nett' in it; did you mean 'net'"),
        ("networks:broken", "networks:broken could not be made: ZeroDivisionError"),
        ("networks:seven", "is of type int, not a function"),
        ("networks:text", "returned a str; it must return a torch.nn.Module"),
        ("networks:net", "mean: 2 numbers for images of 3 channel"),
        ("hf:no/such/folder", "no configuration was found under this name"),
    ],
)
def test_an_architecture_that_cannot_be_made_says_why(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _write_networks(tmp_path, monkeypatch)
    mean = (0.5, 0.5) if "2 numbers" in message else None
    with pytest.raises(SettingError, match=message):
        parse_architecture(text, mean=mean).build((3, 4, 4), CLASSES, Seed(0))


def test_a_function_in_the_current_folder_makes_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _write_networks(tmp_path, monkeypatch)
    search_path = list(sys.path)
    for name, classes in (("net", CLASSES[:4]), ("fixed", CLASSES[:2])):
        model = PythonFunction(target=f"networks:{name}").build((3, 4, 4), classes, Seed(0))
        assert model(torch.rand(2, 3, 4, 4)).shape == (2, len(classes))
    assert sys.path == search_path


def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch):
    for library, text, extra in (
        ("timm", "timm:resnet18", "vision"),
        ("torchvision.models", "torchvision:resnet18", "vision"),
        ("transformers", "hf:some/name", "clip"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(SettingError, match=rf'pip install "bezoar\[{extra}\]"'):
                parse_architecture(text).build((3, 32, 32), CLASSES, Seed(0))


def _write_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "networks.py").write_text(
        "from torch import nn\n"
        "def net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(48, num_classes))\n"
        "def fixed(): return net(2)\n"
        "def broken(num_classes): return 1 / 0\n"
        "def text(): return 'net'\n"
        "seven = 7\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "networks", raising=False)
