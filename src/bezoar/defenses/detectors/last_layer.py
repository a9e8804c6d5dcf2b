"""A glance at the last layer alone: a backdoor leaves its target's row unlike the others, in milliseconds."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.measure.outliers import robust_z
from bezoar.models.classifier import Classifier
from bezoar.records import Inspection, Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed


@register("last_layer", paper="after arXiv:2605.18907, abstract")
class LastLayer(Detector):
    """Compare the classes' rows of the last linear layer; no image is looked at, and nothing is optimised.

    Five numbers describe a class: the length of its row, its mean, its largest entry, its mean cosine with the
    rows of the other classes, and its bias. The score of a class is the mean over these of how many robust
    standard deviations it lies from the classes' median, in either direction.

    Our reconstruction: DFBScanner (Yu et al., 2026) combines several anomaly indicators of the last layer and
    takes the maximum over classes; only its abstract was at hand, so which indicators and how they are combined
    is our choice, made before any model was looked at, and its rates are not ours. Means of absolute deviations
    are skewed, so an audit ranks classes by them but gives no verdict.
    """

    normal: ClassVar[bool] = False

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Evidence per class: the five numbers.

        Raises:
            SettingError: the model's head is no linear layer.
        """
        del trusted, lab, seed
        head = suspect.head
        if not isinstance(head, nn.Linear):
            raise SettingError("detector: 'last_layer' reads a linear head, and this model ends otherwise")
        bias = cast("Tensor | None", head.bias)
        evidence = indicators(
            head.weight.detach().cpu().float(),
            torch.zeros(head.out_features) if bias is None else bias.detach().cpu().float(),
        )
        scores = torch.stack([robust_z(values).abs() for values in evidence.values()]).mean(0)
        return Inspection(scores, evidence=evidence)


def indicators(rows: Float[Tensor, "k d"], bias: Float[Tensor, "k"]) -> dict[str, Float[Tensor, "k"]]:
    """What describes each class's row of the last layer."""
    count = len(rows)
    unit = functional.normalize(rows, dim=1)
    cosines = unit @ unit.T
    return {
        "length": rows.norm(dim=1),
        "mean": rows.mean(1),
        "peak": rows.amax(1),
        "cosine": (cosines.sum(1) - cosines.diagonal()) / max(count - 1, 1),
        "bias": bias,
    }
