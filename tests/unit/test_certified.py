"""What certificates are worth, against numbers counted by hand."""

import pytest
import torch

from bezoar.measure.certified import POINTS, Reading, lost, systems
from bezoar.records import Certificates

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def certificates(predicted: list[int], radius: list[float], demanded: float = 0.5) -> Certificates:
    own = torch.tensor(radius)
    return Certificates(
        torch.tensor(predicted), own, own >= demanded, own, torch.where(own > 0, 0, -1), ("toy",), "inf"
    )


@pytest.fixture
def reading() -> Reading:
    """Right and certified twice, wrong and certified once, right but too near once; one abstention."""
    return Reading(certificates([0, 1, 0, 0, -1, 2, 0, 1], [1, 0.5, 0.75, 0.25, 0, 0, 0, 0]), LABELS)


def test_rates_are_those_counted_by_hand(reading: Reading):
    found = reading.as_json(1.0)
    shares = {name: found[name]["value"] * 8 for name in found if name not in ("curve", "methods")}
    assert shares == {
        "accuracy": 6,
        "certified": 3,
        "certified_correct": 2,
        "certified_wrong": 1,
        "fallback": 5,
        "abstained": 1,
        "average_certified_radius": 1.75,
        "mean_radius": 2.5,
    }
    assert found["methods"] == {"toy": 4}


def test_the_curve_ends_where_the_largest_radius_does(reading: Reading):
    curve = reading.curve(1.0)
    assert len(curve["radius"]) == POINTS
    at = {round(radius, 6): place for place, radius in enumerate(curve["radius"])}
    assert [curve["certified"][at[radius]] * 8 for radius in (0.0, 0.25, 0.275, 0.5, 0.75, 1.0)] == [4, 4, 3, 3, 2, 1]
    assert [curve["certified_correct"][at[radius]] * 8 for radius in (0.0, 0.5, 0.75, 1.0)] == [3, 2, 1, 1]


def test_the_curve_meets_the_rate_at_the_demanded_radius(reading: Reading):
    curve = reading.curve(1.0)
    assert curve["certified"][POINTS // 2] == float(reading.certified.double().mean())


def test_a_radius_of_zero_certifies_nothing():
    assert set(Reading(certificates([0] * 8, [0.0] * 8), LABELS).curve(1.0)["certified"]) == {0.0}


def test_what_is_lost_is_paired(reading: Reading):
    twin = Reading(certificates(LABELS.tolist(), [1.0] * 8), LABELS)
    found = lost(twin, reading)
    assert [found[name]["value"] * 8 for name in ("certified", "certified_correct", "right")] == [5, 6, 2]
    nothing = lost(twin, twin)["certified"]
    assert nothing["value"] == 0
    assert nothing["low"] < 0 < nothing["high"]


def test_a_system_serves_what_is_certified_and_what_its_fallback_has_time_for(reading: Reading):
    twin = Reading(certificates(LABELS.tolist(), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]), LABELS)
    found = systems(reading, twin, [0.5], [0.25, None])
    assert [one["served"]["value"] for one in found] == [3 / 8 + 2 / 8, 1.0]
    assert [one["accuracy"]["value"] for one in found] == [2 / 8 + 0.5 * 2 / 8, 2 / 8 + 0.5 * 5 / 8]
    assert [one["twin_served"]["value"] for one in found] == [1.0, 1.0]
    assert found[0]["load"]["value"] == 2.5
    assert found[0]["load"]["low"] < 2.5 < found[0]["load"]["high"]


def test_a_twin_that_never_falls_back_has_no_load(reading: Reading):
    twin = Reading(certificates(LABELS.tolist(), [1.0] * 8), LABELS)
    assert systems(reading, twin, [0.5], [None])[0]["load"] is None


def test_joined_certificates_are_those_of_the_parts(reading: Reading):
    whole = reading.certificates
    parts = [
        Certificates(
            *(getattr(whole, name)[few] for name in ("predicted", "radius", "certified", "evidence", "method")),
            whole.methods,
            whole.norm,
        )
        for few in (slice(0, 3), slice(3, 8))
    ]
    again = Certificates.joined(parts)
    assert torch.equal(again.predicted, whole.predicted)
    assert torch.equal(again.radius, whole.radius)
    assert len(again) == 8
    assert again.methods == ("toy",)
