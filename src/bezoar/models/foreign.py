"""Networks of other libraries as architectures: timm, torchvision and Hugging Face."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Annotated, Any, cast

from pydantic import Field
from torch import Tensor, nn

from bezoar.component import build, register
from bezoar.errors import ModelFileError, SettingError
from bezoar.models.classifier import Classifier, WrappedClassifier
from bezoar.roles import Architecture
from bezoar.seed import Seed

Shape = tuple[int, int, int]
Scale = Annotated[float, Field(gt=0)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PREFIXES = {"timm": "timm", "torchvision": "torchvision", "hf": "huggingface", "huggingface": "huggingface"}


class ForeignArchitecture(Architecture):
    """A network that another library makes; bezoar wraps it and never touches its layers.

    Nothing is downloaded but, for a Hugging Face name, the configuration: weights come from the
    user's checkpoint or from training.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[Scale, ...] = IMAGENET_STD

    @abstractmethod
    def network(self, shape: Shape, classes: int) -> nn.Module:
        """The library's network with `classes` outputs, initialised from the global generator."""

    @abstractmethod
    def native_shape(self) -> Shape | None:
        """(c, h, w) of the images that the network was published for, if it says so."""

    def published(self, network: nn.Module) -> Mapping[str, str]:
        """Keys in the library's own files -> keys of the network, where they differ."""
        del network
        return {}

    def build(self, shape: Shape, classes: tuple[str, ...], seed: Seed) -> Classifier:
        """The wrapped network, found to take such images and to end in its head.

        Raises:
            SettingError: the library or the network is not there, or cannot be made for this shape.
            ModelFileError: the network does not give the logits of a linear layer.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, shape[0]):
                raise SettingError(
                    f"{name}: {len(values)} numbers for images of {shape[0]} channel(s); give 1 or {shape[0]}"
                )
        with seed.scoped():
            wrapped = WrappedClassifier(self.network(shape, len(classes)), classes, self.mean, self.std)
        try:
            wrapped.verify(shape)
        except ModelFileError as error:
            raise ModelFileError(f"{self}: {error}") from error
        return wrapped


@register("timm")
class Timm(ForeignArchitecture):
    """A network of timm, by its name there, e.g. ``resnet18`` or ``vit_tiny_patch16_224``."""

    name: str

    def check(self) -> None:
        """See that timm knows the name.

        Raises:
            SettingError: it does not, or timm is not installed.
        """
        timm = _library("timm", "vision")
        if not timm.is_model(self.name):
            raise _unknown(self.name, "timm", timm.list_models())

    def network(self, shape: Shape, classes: int) -> nn.Module:
        """Made for the shape, where the network depends on it."""
        self.check()
        timm = _library("timm", "vision")
        settings: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
        if timm.get_pretrained_cfg(self.name).fixed_input_size:
            settings["img_size"] = shape[1:]
        with constructing(f"timm:{self.name}"):
            return cast(nn.Module, timm.create_model(self.name, pretrained=False, **settings))

    def native_shape(self) -> Shape | None:
        """The input size of timm's own weights."""
        self.check()
        size = cast(Sequence[int], _library("timm", "vision").get_pretrained_cfg(self.name).input_size)
        return size[0], size[1], size[2]


@register("torchvision")
class Torchvision(ForeignArchitecture):
    """A classification network of torchvision, by its name there, e.g. ``resnet18`` or ``vit_b_16``."""

    name: str

    def check(self) -> None:
        """See that torchvision knows the name.

        Raises:
            SettingError: it does not, or torchvision is not installed.
        """
        models = _library("torchvision.models", "vision")
        names = cast(list[str], models.list_models(module=models))
        if self.name not in names:
            raise _unknown(self.name, "torchvision", names)

    def network(self, shape: Shape, classes: int) -> nn.Module:
        """Without weights; only its transformers depend on the size of the image."""
        self.check()
        models = _library("torchvision.models", "vision")
        if shape[0] != 3:
            raise SettingError(
                f"torchvision:{self.name} takes images of 3 channels, these have {shape[0]}; timm's take any number"
            )
        settings: dict[str, Any] = {"num_classes": classes}
        if self.name.startswith("vit_"):
            settings["image_size"] = shape[1]
        if self.name in ("googlenet", "inception_v3"):
            settings["init_weights"] = True
        with constructing(f"torchvision:{self.name}"):
            return cast(nn.Module, models.get_model(self.name, weights=None, **settings))

    def published_model(self, shape: Shape, classes: tuple[str, ...]) -> Classifier:
        """The network with torchvision's own weights for ImageNet, from its cache or downloaded.

        Raises:
            OSError: they are in no cache and cannot be downloaded.
        """
        models = _library("torchvision.models", "vision")
        network = self.network(shape, len(classes))
        network.load_state_dict(models.get_model_weights(self.name).DEFAULT.get_state_dict(check_hash=True))
        return WrappedClassifier(network, classes, self.mean, self.std)

    def native_shape(self) -> Shape | None:
        """What torchvision crops images to for its own weights."""
        self.check()
        models = _library("torchvision.models", "vision")
        side = int(models.get_model_weights(self.name).DEFAULT.transforms().crop_size[0])
        return 3, side, side


@register("huggingface")
class HuggingFace(ForeignArchitecture):
    """An image classifier of transformers, described by the configuration in a local folder or at the hub.

    CLIP included: its vision tower with a linear head. No code from the hub is run.
    """

    name: str

    def configuration(self) -> Any:
        """The network's configuration.

        Raises:
            SettingError: there is none under this name, or transformers is not installed.
        """
        transformers = _library("transformers", "clip")
        try:
            return transformers.AutoConfig.from_pretrained(self.name, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise SettingError(
                f"hf:{self.name}: no configuration was found under this name; give a folder that holds config.json, "
                f"or a hub name where there is a network ({str(error).splitlines()[0]})"
            ) from error

    def network(self, shape: Shape, classes: int) -> nn.Module:
        """Made from the configuration, with the number of classes, channels and pixels of the data."""
        configuration = self.configuration()
        configuration.num_labels = classes
        vision = getattr(configuration, "vision_config", configuration)
        if hasattr(vision, "num_channels"):
            vision.num_channels = shape[0]
        if hasattr(vision, "image_size"):
            vision.image_size = shape[1] if shape[1] == shape[2] else shape[1:]
        transformers = _library("transformers", "clip")
        with constructing(f"hf:{self.name}"):
            return cast(nn.Module, transformers.AutoModelForImageClassification.from_config(configuration))

    def native_shape(self) -> Shape | None:
        """The image size in the configuration, if the network depends on one."""
        configuration = self.configuration()
        vision = getattr(configuration, "vision_config", configuration)
        size = getattr(vision, "image_size", None)
        if size is None:
            return None
        height, width = cast(Sequence[int], size if isinstance(size, (list, tuple)) else (size, size))
        return int(getattr(vision, "num_channels", 3)), height, width

    def published(self, network: nn.Module) -> Mapping[str, str]:
        """The keys under which transformers saves, which from its version 5 on are not always the network's."""
        try:
            saving = importlib.import_module("transformers.core_model_loading")
        except ModuleNotFoundError:  # before version 5 both are the same
            return {}
        state = network.state_dict()
        own = {id(tensor): key for key, tensor in state.items()}
        saved = cast(Mapping[str, Tensor], saving.revert_weight_conversion(network, dict(state)))
        return {key: own[id(tensor)] for key, tensor in saved.items() if id(tensor) in own}


def parse_architecture(
    text: str, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Architecture:
    """An architecture as the command line names it.

    Args:
        text: ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER_OR_NAME``, ``package.module:function``,
            or one of bezoar's own, e.g. ``resnet18``.
        mean: per channel, or one number for all, of pixels in [0, 1]; else the architecture's own.
        std: likewise.

    Raises:
        SettingError: an unknown name (with the nearest known ones), or a library that is not installed.
    """
    prefix, colon, name = text.partition(":")
    settings: dict[str, Any] = {}
    if mean is not None:
        settings["mean"] = tuple(mean)
    if std is not None:
        settings["std"] = tuple(std)
    if colon and prefix in PREFIXES:
        settings |= {"kind": PREFIXES[prefix], "name": name}
    elif colon:
        settings |= {"kind": "python", "target": text}
    elif text in PREFIXES or text == "python":
        raise SettingError(
            f"architecture: {text!r} needs a name after a colon, e.g. timm:resnet18 or package.module:function"
        )
    else:
        settings["kind"] = text
    try:
        architecture = build(Architecture, settings)
    except SettingError as error:
        forms = "timm:NAME, torchvision:NAME, hf:FOLDER_OR_NAME or package.module:function"
        raise SettingError(f"architecture: {error}; other networks are named as {forms}") from error
    if isinstance(architecture, (Timm, Torchvision)):
        architecture.check()
    return architecture


def _library(name: str, extra: str) -> Any:
    """Import another library, or say how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SettingError(f'this architecture needs {error.name}: pip install "bezoar[{extra}]"') from error


def _unknown(name: str, library: str, names: Iterable[str]) -> SettingError:
    """The error for a name that a library does not know; libraries know too many to print them all."""
    alternatives = sorted(names)
    near = get_close_matches(name, alternatives, n=5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it knows {len(alternatives)}, e.g. {alternatives[0]}"
    return SettingError(f"architecture: {library} has no network called {name!r}; {hint}")


@contextmanager
def constructing(what: str) -> Generator[None]:
    """Turn whatever somebody else's constructor raises into one message that names it."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(f"architecture: {what} could not be made: {type(error).__name__}: {error}") from error
