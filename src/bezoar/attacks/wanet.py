"""WaNet: images of the target class, warped imperceptibly."""

from __future__ import annotations

from bezoar.attacks.stamping import CleanLabel
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.warp import Warp


@register("wanet", paper="arXiv:2102.10369; arXiv:2305.09671, appendix B")
class WaNet(CleanLabel):
    """Warp m images of the target class by one smooth field, which is the trigger (spec 2.5).

    Nguyen & Tran control the training and warp on the fly, with other warps and true labels beside it; a
    data-poisoning attacker cannot, so "Pick your Poison" warps stored images of the target class about three
    times as strongly.
    """

    trigger: Trigger = Warp()
