"""Every certifier of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("certifiers"))
def test_certifier(component, claim):
    hold(component, claim)
