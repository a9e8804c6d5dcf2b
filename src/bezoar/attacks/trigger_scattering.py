"""Trigger Scattering (TSB): each poisoned image carries one of several triggers, each attacked image all of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bezoar.attacks.stamping import Stamping
from bezoar.component import register
from bezoar.roles import Trigger
from bezoar.triggers.segments import Segments


@register("trigger_scattering", paper="arXiv:2305.09671, Algorithm 7")
class TriggerScattering(Stamping):
    """Paste one of k noise patches at a random place of m images of other classes, with the target's label.

    At test time all k patches are pasted, at random places that do not overlap (Lukas & Kerschbaum,
    Algorithm 7, where the text calls it TCB; spec 2.6).
    """

    poisons: Annotated[int, Field(ge=1)] = 1000
    trigger: Trigger = Segments()
