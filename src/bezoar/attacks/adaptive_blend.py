"""A-Blend: a faint picture over the whole image, parts of it left out."""

from __future__ import annotations

from bezoar.attacks.adaptive import Adaptive
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.blend import Blend


@register("adaptive_blend", paper="Qi et al., ICLR 2023; arXiv:2305.09671, appendix B")
class AdaptiveBlend(Adaptive):
    """Blend an apple over m images, sixteenths of it left out, half of them with true labels (spec 2.2).

    Defaults: the paper's opacity .3 at training and at test time. Qi et al. blend another picture, fainter in
    training than at test time, and count images with true labels on top of the poisons.
    """

    trigger: Trigger = Blend()
