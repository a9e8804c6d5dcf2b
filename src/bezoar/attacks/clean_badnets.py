"""C-BadNets: the patch of BadNets on images of the target class alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bezoar.attacks.stamping import CleanLabel
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.patch import Patch


@register("clean_badnets", paper="arXiv:2305.09671, Fig. 5a")
class CleanBadNets(CleanLabel):
    """Stamp BadNets' patch on m images of the target class, whose labels stay true (Lukas & Kerschbaum).

    The model must learn the patch although the images' own features explain the label already, so many
    more poisons are needed: 750 on CIFAR-10 in the paper (spec 2.1).
    """

    poisons: Annotated[int, Field(ge=1)] = 750
    trigger: Trigger = Patch()
