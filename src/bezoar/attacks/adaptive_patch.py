"""A-Patch: a small patch in the corner, parts of it left out."""

from __future__ import annotations

from bezoar.attacks.adaptive import Adaptive
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.patch import Patch


@register("adaptive_patch", paper="Qi et al., ICLR 2023; arXiv:2305.09671, appendix B")
class AdaptivePatch(Adaptive):
    """Stamp BadNets' patch on m images, sixteenths of it left out, half of them with true labels (spec 2.2).

    Sixteen cells do not fit three pixels: their borders are averaged (A8). Qi et al.'s own attack of this
    name uses four patches, one for each image.
    """

    trigger: Trigger = Patch()
