"""Every sanitizer of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


@cases(ready("sanitizers"))
def test_sanitizer(component, claim):
    hold(component, claim)
