"""Every repairer of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("repairers", settled=["augmentation"]))
def test_repairer(component, claim):
    hold(component, claim)
