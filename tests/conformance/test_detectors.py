"""Every detector of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("detectors"))
def test_detector(component, claim):
    hold(component, claim)
