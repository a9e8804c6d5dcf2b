"""BadNets: a visible patch and a flipped label."""

from __future__ import annotations

from bezoar.attacks.stamping import Stamping
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.patch import Patch


@register("badnets", paper="arXiv:1708.06733")
class BadNets(Stamping):
    """Stamp a patch on m images of other classes and label them as the target class (Gu et al.).

    The poisoned images replace their originals; images that already show the target class are not
    eligible, because their label would not change.
    """

    trigger: Trigger = Patch()
