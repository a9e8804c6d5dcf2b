"""Every trigger of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("triggers"))
def test_trigger(component, claim):
    hold(component, claim)
