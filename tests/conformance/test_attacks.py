"""Every attack of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("attacks", settled=["precision", "quantize", "method"]))  # unit tests have these
def test_attack(component, claim):
    hold(component, claim)
