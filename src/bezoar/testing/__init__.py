"""The common tests of every role: what any attack, trigger, network, trainer, defence or data must hold to.

`bezoar check NAME` runs them on one method, `tests/conformance` on all, and a method of one's own is held to
them by ``check(MyMethod)``. Each claim is a function that raises where it does not hold; its name says it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bezoar.component import Component
from bezoar.errors import BezoarError
from bezoar.roles import (
    Architecture,
    Backdoor,
    Certifier,
    CodePoisoning,
    DataPoisoning,
    DataSource,
    Detector,
    Guard,
    Repairer,
    Sanitizer,
    TargetedPoisoning,
    Trainer,
    Trigger,
)
from bezoar.testing import (
    architectures,
    attacks,
    certifiers,
    datasets,
    detectors,
    every_component,
    guards,
    repairers,
    sanitizers,
    targeted,
    trainers,
    triggers,
)
from bezoar.testing.instances import NeedsSettingsError, instance, variants
from bezoar.testing.watch import Claim, UnmetClaimError, generators_kept

__all__ = ["NeedsSettingsError", "Outcome", "check", "claims", "held_to", "instance", "sentence", "variants"]

CLAIMS: dict[type[Component], tuple[Claim, ...]] = {
    Component: every_component.CLAIMS,
    DataSource: datasets.CLAIMS,
    Trigger: triggers.CLAIMS,
    Backdoor: attacks.PROBE_CLAIMS,
    DataPoisoning: attacks.POISON_CLAIMS,
    CodePoisoning: attacks.SUPPLY_CLAIMS,
    TargetedPoisoning: targeted.CLAIMS,
    Architecture: architectures.CLAIMS,
    Trainer: trainers.CLAIMS,
    Repairer: repairers.CLAIMS,
    Detector: detectors.CLAIMS,
    Sanitizer: sanitizers.CLAIMS,
    Guard: guards.CLAIMS,
    Certifier: certifiers.CLAIMS,
}


@dataclass(frozen=True)
class Outcome:
    """One claim, and why it does not hold; an empty `failure` means that it does."""

    claim: str
    failure: str


def check(subject: type[Component] | Component) -> list[Outcome]:
    """Hold a method to all claims of its roles, on a toy problem, in seconds.

    Args:
        subject: a component, or a class of which a cheap instance is made.

    Returns:
        One outcome a claim. For a class with settings that only its user knows (a folder of images), one
        failure that names them: give such a component ready-made.
    """
    if isinstance(subject, Component):
        component = subject
    else:
        try:
            component = instance(subject)
        except NeedsSettingsError as error:
            return [Outcome("it can be made without its user", str(error))]
    return [held_to(claim, component) for claim in claims(component)]


def claims(component: Component) -> list[Claim]:
    """The claims of all roles that a component plays, the most general first."""
    return [claim for role, each in CLAIMS.items() if isinstance(component, role) for claim in each]


def held_to(claim: Claim, component: Component) -> Outcome:
    """Test one claim. Whatever a method raises is a failure; generators and gradient mode are given back unchanged."""
    try:
        with generators_kept(), torch.enable_grad():
            claim(component)
    except (UnmetClaimError, BezoarError) as error:
        return Outcome(sentence(claim), str(error))
    except Exception as error:  # a method under test may raise anything, and that is the finding
        return Outcome(sentence(claim), f"{type(error).__name__}: {error}")
    return Outcome(sentence(claim), "")


def sentence(claim: Claim) -> str:
    """A claim in words: the name of its function."""
    return claim.__name__.replace("_", " ")
