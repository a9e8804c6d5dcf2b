"""Every guard of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("guards"))
def test_guard(component, claim):
    hold(component, claim)
