"""What every certifier asks of the model and of the images that it is handed."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from bezoar.errors import DataError, SettingError
from bezoar.models.classifier import Classifier


def require_evaluation(model: Classifier) -> None:
    """Refuse a model whose answers change from one look to the next.

    Raises:
        SettingError: a layer is in training mode.
    """
    training = [name or "the model" for name, layer in model.named_modules() if layer.training]
    if training:
        raise SettingError(
            f"the model is in training mode ({training[0]}), in which its answers change: call model.eval() first"
        )


def require_pixels(images: Float[Tensor, "n c h w"]) -> None:
    """Refuse values that no pixel has.

    Raises:
        DataError: a value is outside [0, 1], or no number.
    """
    inside = (images >= 0) & (images <= 1)
    if not inside.all():
        place = int((~inside).flatten(1).any(1).nonzero()[0])
        first = float(images[~inside][0])
        raise DataError(
            f"image {place} has the value {first:.6g}, outside [0, 1]; give pixels in [0, 1], the model normalises them"
        )
