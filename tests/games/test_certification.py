"""The certification game, end to end on scikit-learn's digits, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.games.certification import Certification
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.report.certificates import MEASURABLE
from bezoar.report.results import results_page
from bezoar.store import Store
from bezoar.training.sgd import Sgd

Result = dict[str, Any]
ADAM = {"epochs": 30, "batch_size": 64, "lr": 0.002}
SGD = {"epochs": 30, "batch_size": 64, "lr": 0.05, "schedule": "one_cycle", "nesterov": True, "augmentation": "none"}
BOUNDED: dict[str, Any] = {
    "kind": "certification",
    "data": "digits",
    "architecture": "convolutional",
    "trusted": 100,
    "images": 200,
    "seed": 1,
    "trainer": {"kind": "ibp", "epsilon": 0.05, **ADAM},
    "certifier": {"kind": "bounds", "epsilon": 0.05, "methods": ["ibp", "crown_ibp"]},
}
SMOOTHED = {**BOUNDED, "trainer": {"kind": "sgd", "noise": 0.25, **SGD}, "certifier": "smoothing"}
LADDER = {"kind": "certifier_ladder", "relabel": "target", "poisons": 200, "amplitude": 0.5, "epsilon": 0.05}
CODES = {"kind": "certifier_codes", "poisons": 130}
PROBABLE = {"kind": "ensemble", "architecture": "convolutional", "vote": "probabilities"}
BADNETS = {"kind": "badnets", "poisons": 130, "trigger": {"kind": "patch", "size": 3}}


@pytest.fixture(scope="module")
def referee(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    return Referee(Store(tmp_path_factory.mktemp("certification")))


def game(settings: dict[str, Any], **changes: Any) -> Certification:
    made = build(Game, {**settings, **changes})
    assert isinstance(made, Certification)
    return made


def rate(result: Result, who: str, where: str, name: str = "certified") -> float:
    return float(result[who][where][name]["value"])


def lost(result: Result) -> float:
    """Certificates of stamped images lost against a twin that has enough of them to lose."""
    assert rate(result, "twin", "stamped") >= MEASURABLE
    return float(result["drop"]["certified"]["value"])


@pytest.fixture(scope="module")
def ladder(referee: Referee) -> Result:
    return game(BOUNDED, attack=LADDER).play(referee)


@pytest.fixture(scope="module")
def codes(referee: Referee) -> Result:
    return game(SMOOTHED, attack=CODES).play(referee)


def test_the_ladder_takes_certificates_by_bounds_away(ladder: Result):
    assert lost(ladder) >= 0.2
    assert abs(ladder["stealth"]["certified"]["value"]) <= 0.1


def test_the_codes_take_certificates_by_smoothing_away(codes: Result):
    assert lost(codes) >= 0.2
    assert abs(codes["stealth"]["certified"]["value"]) <= 0.1


@pytest.mark.parametrize("settings", [BOUNDED, SMOOTHED], ids=["bounds", "smoothing"])
def test_badnets_is_certified_and_wrong_and_no_attack_on_availability(referee: Referee, settings: dict[str, Any]):
    result = game(settings, attack=BADNETS, images=100).play(referee)
    assert rate(result, "suspect", "stamped") >= 0.9
    assert rate(result, "suspect", "stamped", "certified_wrong") >= 0.8
    assert lost(result) < 0.1


def test_rates_add_up_and_curves_meet_them(codes: Result, ladder: Result):
    for result in (codes, ladder):
        for who in ("twin", "suspect"):
            for where in ("clean", "stamped"):
                each = result[who][where]
                parts = each["certified_correct"]["value"] + each["certified_wrong"]["value"]
                assert parts == pytest.approx(each["certified"]["value"])
                assert each["certified"]["value"] + each["fallback"]["value"] == pytest.approx(1)
                curve = each["curve"]
                middle = len(curve["radius"]) // 2  # the curve ends at twice the demanded radius
                assert curve["certified"][middle] == pytest.approx(each["certified"]["value"])
                assert sorted(curve["certified"], reverse=True) == curve["certified"]
        paired = rate(result, "twin", "stamped") - rate(result, "suspect", "stamped")
        assert result["drop"]["certified"]["value"] == pytest.approx(paired)


def test_a_sanitizer_and_a_repair_are_measured_beside_the_undefended_model(referee: Referee, codes: Result):
    repairer = {"kind": "weight_decay", "steps": 20, "lr": 0.01, "batch_size": 32, "augmentation": "none"}
    for defence in ({"sanitizer": "contradicting_neighbours", "removed": 0.1}, {"repairer": repairer}):
        result = game(SMOOTHED, attack=CODES, images=20, **defence).play(referee)
        given = rate(result, "suspect", "stamped") - rate(result, "undefended", "stamped")
        assert result["recovered"]["certified"]["value"] == pytest.approx(given)
    assert "undefended" not in codes


def test_a_guard_flags_about_as_many_clean_queries_as_it_may(referee: Referee):
    result = game(SMOOTHED, attack=CODES, images=100, guard={"kind": "strip", "form": "uncertain"}).play(referee)
    assert 0 <= result["guard"]["auc"]["value"] <= 1
    assert result["guard"]["flagged"]["n"] == 100
    assert "undefended" not in result  # a guard leaves the model as it is


def test_a_game_is_resumed_from_the_store_and_draws_a_page(referee: Referee, codes: Result, tmp_path: Path):
    made = game(SMOOTHED, attack=CODES)
    assert made.play(referee) == codes
    row = {"address": "codes", "game": made.identity(), "result": codes, "seconds": 1.0, "provenance": {}}
    results_page(tmp_path / "report.html", [row])
    text = (tmp_path / "report.html").read_text()
    assert "Certificates under attack" in text
    assert "certifier codes 130" in text
    assert "What a system pays" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 501}, "images: 501 is too many; the data have 500 test images"),
        ({"sanitizer": "deep_knn", "repairer": "weight_decay"}, "sanitizer and repairer: a game measures one defence"),
        ({"certifier": {"kind": "bounds", "epsilon": 0}}, "certifier.epsilon: input should be greater than 0"),
        ({"certifier": {"kind": "smoothing", "sigma": 0}}, "certifier.sigma: input should be greater than 0"),
        ({"certifier": {"kind": "smoothing", "draws": 100, "radius": 0.6}}, "draws"),
        ({"certifier": "bounds", "architecture": "small_senet"}, r"bounds do not go through 'blocks"),
        ({"certifier": {"kind": "masking", "size": 20}}, "certifier.size: a mask of 20 pixels leaves nothing"),
        ({"certifier": {"kind": "masking", "certifier": "bounds"}, "architecture": "small_senet"}, "bounds do not go"),
        ({"certifier": "voting", "architecture": PROBABLE}, "its members vote by probabilities"),
    ],
)
def test_settings_that_cannot_be_played_are_named_before_anything_is_trained(
    referee: Referee, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
):
    monkeypatch.setattr(Sgd, "train", lambda *_: pytest.fail("trained for a game that cannot be played"))
    with pytest.raises(SettingError, match=message):
        game(SMOOTHED, attack=CODES, seed=2, **changes).play(referee)
