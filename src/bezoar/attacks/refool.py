"""Refool: images of the target class seen through a pane of glass."""

from __future__ import annotations

from bezoar.attacks.stamping import CleanLabel
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.ghost import Ghost


@register("refool", paper="Liu et al., ECCV 2020; arXiv:2305.09671, appendix B")
class Refool(CleanLabel):
    """Give m images of the target class a ghost: a second, displaced reflection of themselves (spec 2.4).

    As "Pick your Poison" runs it, the image reflects itself at full intensity; the original paper mixes
    in a foreign image, chosen by how well it works.
    """

    trigger: Trigger = Ghost()
