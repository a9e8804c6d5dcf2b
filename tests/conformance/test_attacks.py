"""Every attack of the registry keeps the promises of its role."""

from bezoar.component import build
from bezoar.roles import Attack
from conformance import cases, hold, ready

CALIBRATED = build(Attack, {"kind": "certifier_ladder", "poisons": 6})


@cases([*ready("attacks", settled=["precision", "quantize", "method"]), CALIBRATED])  # unit tests have those settings
def test_attack(component, claim):
    hold(component, claim)
