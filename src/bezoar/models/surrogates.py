"""Models of an attacker's own: trained by the victim's public recipe, saved by bezoar, or published by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.models.classifier import Classifier, frozen
from bezoar.models.files import WEIGHTS, load_model
from bezoar.models.foreign import Shape, Torchvision
from bezoar.roles import Surrogate

IMAGENET_CLASSES = tuple(str(number) for number in range(1000))
IMAGENET_SHAPE = (3, 224, 224)


@register("trained")
class Trained(Surrogate):
    """Train one: the victim's public recipe on the attacker's own copy of the clean data, with another seed."""

    def obtain(self, shape: Shape, trained: Callable[[], Classifier]) -> Classifier:
        """The trained model."""
        del shape
        return frozen(trained())


@register("saved")
class Saved(Surrogate):
    """A model folder that bezoar wrote, e.g. by ``bezoar demo``; images of another size are resized for it."""

    path: str

    def obtain(self, shape: Shape, trained: Callable[[], Classifier]) -> Classifier:
        """The model in that folder."""
        del trained
        loaded = load_model(Path(self.path))
        return fitted(loaded.model, loaded.shape, shape, f"surrogate.path: the model {self.path}")

    def fingerprint(self) -> str:
        """The digest of the weights."""
        weights = Path(self.path) / WEIGHTS
        return blake2b(weights.read_bytes(), digest_size=16).hexdigest() if weights.is_file() else ""


@register("pretrained", paper="arXiv:2305.09671, appendix B")
class Pretrained(Surrogate):
    """A network of torchvision with its weights for ImageNet: the paper's surrogate. They are downloaded once.

    Images are resized to 224x224 inside the network, so that a perturbation keeps its bound at the
    images' own resolution (spec 2.3, A10).
    """

    name: str = "resnet18"

    def obtain(self, shape: Shape, trained: Callable[[], Classifier]) -> Classifier:
        """The published network.

        Raises:
            SettingError: torchvision does not know it, or its weights can neither be found nor downloaded.
        """
        del trained
        architecture = Torchvision(name=self.name)
        try:
            model = architecture.published_model(IMAGENET_SHAPE, IMAGENET_CLASSES)
        except OSError as error:
            raise SettingError(
                f"surrogate: the weights of torchvision:{self.name} cannot be downloaded ({error}); use "
                "{kind: trained}, or {kind: saved, path: FOLDER}"
            ) from None
        return fitted(model, IMAGENET_SHAPE, shape, f"surrogate.name: torchvision:{self.name}")


class Resized(Classifier):
    """A classifier behind a bilinear resize of its images, which gradients pass through.

    Args:
        inner: takes images of `size` (h, w).
        size: to which images are resized.
    """

    def __init__(self, inner: Classifier, size: tuple[int, int]) -> None:
        super().__init__(inner.classes, (0.0,), (1.0,))
        self.inner = inner
        self.size = size

    @property
    def head(self) -> nn.Module:
        """The inner model's."""
        return self.inner.head

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Of the resized images."""
        return self.inner.features(self._resize(images))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of the resized images."""
        return self.inner(self._resize(images))

    def trace(self, images: Float[Tensor, "n c h w"]) -> tuple[list[Tensor], Float[Tensor, "n k"]]:
        """Of the resized images."""
        return self.inner.trace(self._resize(images))

    def layers(self, images: Float[Tensor, "n c h w"], count: int) -> list[Tensor]:
        """Of the resized images."""
        return self.inner.layers(self._resize(images), count)

    def _resize(self, images: Tensor) -> Tensor:
        return functional.interpolate(images, self.size, mode="bilinear", align_corners=False)


def fitted(model: Classifier, native: Shape, shape: Shape, name: str) -> Classifier:
    """A frozen copy of a model that takes images of another shape, resized on their way in.

    Raises:
        SettingError: the numbers of channels differ.
    """
    if native[0] != shape[0]:
        raise SettingError(
            f"{name} takes images of {native[0]} channel(s), these have {shape[0]}; use {{kind: trained}}"
        )
    return frozen(model) if native[1:] == shape[1:] else frozen(Resized(model, native[1:]))
