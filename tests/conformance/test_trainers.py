"""Every trainer of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("trainers", settled=["augmentation", "precision"]))
def test_trainer(component, claim):
    hold(component, claim)
