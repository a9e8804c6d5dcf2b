"""The roles of the games, each a small abstract class: the signature is the threat model.

What a role is not handed it cannot use: no defence ever receives a probe, the poisoned rows, the
target class, the poison rate or the test accuracy. A role is either an interface (here) or a leaf
(a registered method); to change a method, hold it as a field and wrap it.
"""

from bezoar.roles.attackers import (
    Attack,
    Backdoor,
    CodePoisoning,
    Crafting,
    DataPoisoning,
    Shipment,
    Surrogate,
    TargetedPoisoning,
    Trigger,
)
from bezoar.roles.builders import Architecture, Trainer
from bezoar.roles.defenders import Certifier, Detector, Guard, Range, Repairer, Sanitizer
from bezoar.roles.sources import DataSource, Splits

__all__ = [
    "Architecture",
    "Attack",
    "Backdoor",
    "Certifier",
    "CodePoisoning",
    "Crafting",
    "DataPoisoning",
    "DataSource",
    "Detector",
    "Guard",
    "Range",
    "Repairer",
    "Sanitizer",
    "Shipment",
    "Splits",
    "Surrogate",
    "TargetedPoisoning",
    "Trainer",
    "Trigger",
]
