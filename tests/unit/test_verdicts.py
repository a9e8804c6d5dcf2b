"""What is printed, what is played for it, and the verdict on a number or a claim."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from bezoar.errors import SettingError
from bezoar.games.game import Game
from bezoar.records import Estimate
from bezoar.reproduce.experiments import EXPERIMENTS, LUKAS, PRESETS, find, folder_of_experiments, games_of
from bezoar.reproduce.numbers import REPAIRERS, TRUSTED, Paper, read_paper
from bezoar.reproduce.verdicts import Compared, counted, judged

FOLDER = Path(__file__).parents[2] / "experiments" / "pick-your-poison"


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_paper(FOLDER / "numbers.yaml")


def estimate(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value, value - half, value + half, 10, "models")


@pytest.mark.parametrize(
    ("measured", "tolerance", "verdict"),
    [(0.71, 0.0, "agrees"), (0.65, 0.0, "differs"), (0.65, 0.12, "agrees"), (0.60, 0.12, "differs")],
)
def test_a_number_agrees_within_the_joint_uncertainty(measured: float, tolerance: float, verdict: str) -> None:
    """The printed one is .80, and our interval's half is .1: .1 and .12 together are .156."""
    one = Compared("x", 0.80, estimate(measured), tolerance, comparable=True)
    assert one.difference == pytest.approx(measured - 0.80)
    assert one.uncertainty == pytest.approx(math.sqrt(0.01 + tolerance**2))
    assert one.verdict == verdict
    assert (
        Compared("x", 0.80, estimate(measured), tolerance, comparable=False).verdict == "not comparable at this preset"
    )
    assert Compared("x", 0.80, None, tolerance, comparable=True).verdict == "not measured"


def test_a_claim_holds_only_where_every_interval_says_so() -> None:
    up, level, down = estimate(0.2), estimate(0.05), estimate(-0.2)
    said = [judged("x", [("a", one) for one in ones]).standing for ones in ([up, up], [up, level], [up, down], [])]
    assert said == ["holds", "undecided", "does not hold", "not measured"]
    cases = ([("a", True), ("b", True)], [("a", True), ("b", False)], [("a", False)], [])
    assert [counted("x", case).standing for case in cases] == ["holds", "undecided", "does not hold", "not measured"]
    assert counted("x", cases[1]).because == "in 1 of 2: a"


def test_the_printed_numbers_are_read_whole(paper: Paper) -> None:
    """Against the page itself (Table II and III, section V), and by count."""
    second = {line.attack: line for line in paper.table2}
    assert (second["badnets"].m, second["badnets"].success, second["badnets"].area) == (50, 1.00, 0.76)
    assert (second["wanet"].success, second["no_backdoor"].accuracy) == (0.29, 0.953)
    assert len(second) == 7
    assert [(one.attack, one.m, one.area) for one in paper.figure5] == [
        ("badnets", 5, 0.56), ("badnets", 20, 0.80), ("clean_badnets", 750, 0.81),
    ]  # fmt: skip
    cells = {(cell.attack, cell.repairer, cell.trusted): cell.success for cell in paper.table3}
    assert len(cells) == len(paper.table3) == 6 * 5 * 3
    assert cells["adaptive_blend", "attention_distillation", 1250] == 0.24
    assert cells["refool", "unlearning", 2500] == 0.33
    assert {key[1] for key in cells} == set(REPAIRERS.values())
    assert {key[2] for key in cells} == set(TRUSTED.values())
    assert set(paper.table5) == set(REPAIRERS.values())
    assert paper.table5["fine_pruning"] == {"lr": 0.001, "weight_decay": 0, "rate": 0.96}


def test_a_file_without_the_numbers_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_paper(tmp_path / "numbers.yaml")
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump({"paper": {}}))
    with pytest.raises(SettingError, match="these are not the paper's numbers"):
        read_paper(tmp_path / "numbers.yaml")


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_experiment_has_games_at_every_preset(name: str, preset: str) -> None:
    folder = FOLDER.parent / find(name).paper
    games = [game for sweep in find(name).sweeps for game in games_of(sweep, preset, folder)]
    assert games
    assert all(isinstance(game, Game) for game in games)
    if find(name).paper == LUKAS:
        architectures = {game.architecture.kind for game in games}
        assert architectures == ({"small_resnet"} if preset == "cpu" else {"resnet18"})
    if preset == "paper":
        assert {game.trainer.identity()["epochs"] for game in games} == {120 if find(name).paper == LUKAS else 300}


@pytest.mark.parametrize("preset", PRESETS)
def test_experiments_share_the_models_of_equal_attacks(preset: str) -> None:
    seen, repaired_ones = (games_of(sweep, preset, FOLDER) for sweep in ("detection", "curves"))
    both = set[str]().union(*(game.trainings() for game in seen))
    more = set[str]().union(*(game.trainings() for game in repaired_ones))
    equal = [game for game in repaired_ones if game.attack in [one.attack for one in seen]]
    attacks = [
        {game.attack.identity()["poisons"] for game in few if game.attack.kind == "badnets"}
        for few in (seen, repaired_ones)
    ]
    assert len(attacks[0] & attacks[1]) >= 3, "too few poisons, enough and many: the points of Figure 7 along BadNets"
    assert len(more & both) >= 3 * 5, "of every seed the clean model and those of the equal attacks"
    if preset == "cpu":
        assert set[str]().union(*(game.trainings() for game in equal)) <= both


@pytest.mark.parametrize("preset", ["gpu", "paper"])
@pytest.mark.parametrize("sweep", ["detection", "curves"])
def test_both_curves_of_figure_5_are_the_papers(sweep: str, preset: str) -> None:
    doses: dict[str, set[int]] = {}
    for game in games_of(sweep, preset, FOLDER):
        doses.setdefault(game.attack.kind, set()).add(game.attack.identity()["poisons"])
        assert game.trusted == 500
    assert doses["badnets"] >= {5, 20, 50, 500}
    assert 750 in doses["clean_badnets"]
    assert len(doses["clean_badnets"]) >= 3


@pytest.mark.parametrize("preset", PRESETS)
def test_the_adaptive_attacks_are_in_figure_7s_plane_as_in_the_paper(preset: str) -> None:
    """Both, on both axes, by Pivotal Tuning and calibrated inversion alone, with 5 % trusted images against 1 %."""
    trusted: dict[str, dict[str, set[int]]] = {}
    defences: set[str] = set()
    for game in [game for sweep in find("fig7").sweeps for game in games_of(sweep, preset, FOLDER)]:
        trusted.setdefault(game.kind, {}).setdefault(game.attack.kind, set()).add(game.trusted)
        if game.trusted == 2500:
            facts = game.identity()
            defences.add((facts.get("repairer") or facts["detector"])["kind"])
    assert trusted.keys() == {"robustness", "detectability"}
    for few in trusted.values():
        adaptive = {name: few.pop(name) for name in ("trigger_scattering", "parameter_controlled")}
        assert adaptive == {"trigger_scattering": {2500}, "parameter_controlled": {2500}}
        assert few.keys() >= {"badnets", "adaptive_blend", "adaptive_patch"}
        assert all(counts == {500} for counts in few.values())
    assert defences == {"pivotal_tuning@1", "calibrated_inversion@1"}


def test_an_unknown_name_and_a_folder_without_experiments_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="did you mean 'table3'"):
        find("tabel3")
    with pytest.raises(SettingError, match=r"holds no numbers\.yaml"):
        folder_of_experiments("table3", tmp_path)
