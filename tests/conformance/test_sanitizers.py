"""Every sanitizer of the registry keeps the promises of its role."""

from conformance import cases, hold, ready


# independent components miss obvious poison about every other time, as the class says; blobs test them in tests/unit
@cases(ready("sanitizers", settled=["reduction"]))
def test_sanitizer(component, claim):
    hold(component, claim)
