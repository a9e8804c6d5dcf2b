"""What certificates are worth together, against counting by hand, and the page and pictures that show it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bezoar import certifying
from bezoar.certifiers.smoothing import Smoothing
from bezoar.certifying import certify
from bezoar.data.folder import Pictures, read_pictures
from bezoar.errors import DataError
from bezoar.lab import Lab
from bezoar.measure.certificates import rates, share_within
from bezoar.measure.estimates import wilson
from bezoar.records import Certificates
from bezoar.report.certifying import certify_page
from bezoar.report.radii import radius_curves
from bezoar.seed import Seed
from bezoar.testing import toy

RADIUS = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.5])
FOUND = Certificates(
    predicted=torch.tensor([-1, 0, 1, 1, 0]),
    radius=RADIUS,
    certified=RADIUS >= 0.25,
    evidence=torch.zeros(5),
    method=torch.tensor([-1, 0, 0, 0, 0]),
    methods=("votes",),
    norm="2",
)
LABELS = torch.tensor([0, 0, 1, 0, 0])


def test_rates_are_what_one_counts_by_hand():
    found = rates(FOUND, LABELS)
    assert found.correctness is not None
    assert (found.certified.value, found.certified.n) == (pytest.approx(3 / 5), 5)
    assert (found.certified.low, found.certified.high) == pytest.approx(wilson(0.6, 5))
    assert found.abstained.value == pytest.approx(1 / 5)
    assert found.mean_radius.value == pytest.approx((0.1 + 0.25 + 0.5 + 0.5) / 5)
    assert found.correctness.accuracy.value == pytest.approx(3 / 5)
    assert found.correctness.right.value == pytest.approx(2 / 5)
    assert found.correctness.wrong.value == pytest.approx(1 / 5)
    assert found.correctness.average_radius.value == pytest.approx((0.1 + 0.25 + 0.5) / 5)


def test_without_labels_nothing_is_said_of_being_right():
    assert rates(FOUND).correctness is None


def test_correlated_images_widen_the_interval():
    alone, grouped = rates(FOUND).certified, rates(FOUND, groups=torch.tensor([0, 0, 1, 1, 1])).certified
    assert grouped.high - grouped.low > alone.high - alone.low


def test_the_radius_curve_counts_a_radius_as_reached_and_an_abstention_never():
    at = torch.tensor([0.0, 0.1, 0.2, 0.25, 0.5, 0.6])
    assert share_within(RADIUS, at).tolist() == pytest.approx([0.8, 0.8, 0.6, 0.6, 0.4, 0.0])
    right = FOUND.predicted == LABELS
    assert share_within(RADIUS, at, right).tolist() == pytest.approx([0.6, 0.6, 0.4, 0.4, 0.2, 0.0])


def test_a_radius_in_single_precision_reaches_the_same_number_in_double_precision():
    at = torch.tensor([0.03, 0.0301], dtype=torch.float64)
    assert share_within(torch.full((2,), 0.03), at).tolist() == [1.0, 0.0]


def test_the_drawn_curve_is_the_read_one():
    """Second route: the height of the drawn steps between their edges."""
    axes = radius_curves({"certified": RADIUS, "none": torch.zeros(3)}, demanded=0.25, norm="2").axes[0]
    steps = axes.lines[0]
    across, up = np.asarray(steps.get_xdata()), np.asarray(steps.get_ydata())
    for at in (0.05, 0.2, 0.3, 0.499, 0.51):
        drawn = up[np.searchsorted(across, at, side="right") - 1]
        assert drawn == pytest.approx(float(share_within(RADIUS, torch.tensor([at]))))
    assert np.asarray(axes.lines[1].get_ydata()).tolist() == [0, 0]


def test_parts_are_certified_one_after_the_other_and_none_is_lost(monkeypatch: pytest.MonkeyPatch):
    images, model = toy.unseen().images()[:12], toy.suspect().eval()
    pictures = Pictures([Path(str(row)) for row in range(12)], None, images.__getitem__)
    smoothing = Smoothing(sigma=0.4, draws=100, selection=10, radius=0.1)
    whole = certify(model, pictures, smoothing, Lab(), Seed(0))
    monkeypatch.setattr(certifying, "PART", 5)
    parted = certify(model, pictures, smoothing, Lab(), Seed(0))
    assert torch.equal(whole.certificates.radius[:5], parted.certificates.radius[:5])
    assert len(parted.certificates) == 12
    assert (whole.certificates.predicted == parted.certificates.predicted).float().mean() > 0.8


def test_pictures_are_read_flat_or_by_class_in_colour_or_grey(tmp_path: Path):
    levels = [30, 200]
    for folder in (tmp_path / "flat", tmp_path / "named" / "cat"):
        folder.mkdir(parents=True)
        for number, level in enumerate(levels):
            Image.new("L", (12, 12), level).save(folder / f"{number}.png")
    rows = torch.arange(2)
    flat = read_pictures(tmp_path / "flat", (3, 8, 8), ("dog", "cat"))
    assert flat.labels is None
    assert flat.reader(rows)[:, 1, 0, 0].tolist() == levels
    named = read_pictures(tmp_path / "named", (1, 8, 8), ("dog", "cat"))
    assert named.labels is not None
    assert named.labels.tolist() == [1, 1]
    assert named.reader(rows).shape == (2, 1, 8, 8)
    assert named.reader(rows)[:, 0, 0, 0].tolist() == levels
    last = named.take(torch.tensor([1]))
    assert [file.name for file in last.files] == ["1.png"]
    assert last.reader(torch.tensor([0]))[0, 0, 0, 0] == 200


def test_pictures_of_four_channels_cannot_be_had(tmp_path: Path):
    with pytest.raises(DataError, match="the model takes 4"):
        read_pictures(tmp_path, (4, 8, 8), ("a", "b"))


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("demanded", [0.05, 0.25, 0.6])
def test_a_page_shows_some_certified_or_none_and_odd_names(
    tmp_path: Path, labels: torch.Tensor | None, demanded: float
):
    images = toy.unseen().images()[:5]
    pictures = Pictures([Path(str(row)) for row in range(5)], labels, images.__getitem__)
    certificates = replace(FOUND, certified=demanded <= RADIUS)
    found = certifying.Certification(certificates, labels, demanded)
    certify_page(
        tmp_path / "report.html",
        found,
        pictures,
        ("<b>$a$ very long name of a class</b>", "other"),
        name="model",
        kind="votes",
        method="votes",
        provenance={},
    )
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;$a$ very long" in page
    assert ("certified and wrong" in page) == (labels is not None)
    refused = int((demanded > RADIUS).sum())
    assert f"{refused} of {refused} such pictures" in page
    assert 'class="verdict bad"' in page or demanded < 0.6


def test_a_page_where_all_are_certified_shows_no_pictures(tmp_path: Path):
    vouched = replace(FOUND, radius=torch.ones(5), certified=torch.ones(5, dtype=torch.bool))
    images = toy.unseen().images()[:5]
    pictures = Pictures([Path(str(row)) for row in range(5)], None, images.__getitem__)
    found = certifying.Certification(vouched, None, 0.25)
    certify_page(
        tmp_path / "a.html", found, pictures, ("a", "b"), name="model", kind="votes", method="votes", provenance={}
    )
    assert "All are." in (tmp_path / "a.html").read_text()
