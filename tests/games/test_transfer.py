"""The transfer game: who is trained on what, and what the referee reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from world import TRANSFER, transfer

from bezoar.component import build
from bezoar.forecast import expected_bytes
from bezoar.games.examining import Examined
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.sanitizing import Ranked
from bezoar.games.transfer import Transfer, divided
from bezoar.games.victims import fine_tuned
from bezoar.records import Estimate
from bezoar.report.examined import examined_sections
from bezoar.report.page import Percent
from bezoar.reproduce.experiments import ZHU
from bezoar.seed import Seed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result(referee: Referee) -> dict[str, Any]:
    return transfer().play(referee)


def test_the_paper_s_split_of_cifar10_has_its_counts_and_parts_share_no_image() -> None:
    """48,000 for pre-training, 500 for fine-tuning, 50 frogs: of a class the first 4,800, the next 50 and 50 more."""
    labels = torch.arange(50_000) % 10
    game = build(Game, {**TRANSFER, **{name: Transfer.model_fields[name].default for name in SIZES}})
    assert isinstance(game, Transfer)
    rows = divided(labels, game)
    whole, tuning = rows.pretraining((0.0, 1.0)), rows.fine_tuning
    assert (len(whole), len(tuning), len(rows.targets)) == (48_000, 500, 50)
    every = torch.cat([whole, tuning, rows.targets])
    assert len(every.unique()) == len(every)
    assert (labels[rows.targets] == 6).all()
    assert labels[tuning].bincount().tolist() == [50] * 10
    trusted = rows.trusted(Seed(0))
    assert len(trusted) == len(trusted.unique()) == 500
    assert not set(trusted.tolist()) & set(every.tolist()), "a defender's images serve nothing else"
    frogs = (labels == 6).nonzero()[:, 0]
    assert rows.targets.equal(frogs[4850:4900])
    assert tuning[labels[tuning] == 6].equal(frogs[4800:4850])


SIZES = ("pretraining", "fine_tuning", "targets")


def test_the_overlap_experiment_shares_half_of_the_data_or_none() -> None:
    """Of each class 1 to 2,400 for substitutes, and for victims 1,201 to 3,600, all, or 2,401 to 4,800 (Figure 6)."""
    labels = torch.arange(50_000) % 10
    game = build(Game, {**TRANSFER, **{name: Transfer.model_fields[name].default for name in SIZES}})
    assert isinstance(game, Transfer)
    rows = divided(labels, game)
    own = set(rows.pretraining((0.0, 0.5)).tolist())
    for share, size, shared in (((0.25, 0.75), 24_000, 12_000), ((0.0, 1.0), 48_000, 24_000), ((0.5, 1.0), 24_000, 0)):
        victims_own = set(rows.pretraining(share).tolist())
        assert (len(victims_own), len(own & victims_own)) == (size, shared)


def test_the_five_bases_of_real_cifar10_lie_where_the_authors_logs_say() -> None:
    """Pool positions 213, 225, 227, 247 and 249 of the 2,000 images after the first 4,800 of each class (spec 4)."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "cifar10").is_dir():
        pytest.skip("CIFAR-10 is not here")
    from bezoar.data.cifar10 import Cifar10  # noqa: PLC0415 - decodes 60,000 files only where it is asked

    labels = Cifar10().load((folder,)).train.labels
    if labels[:10].tolist() != [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]:
        pytest.skip("these files hold CIFAR-10 in another order than the original's")
    classes = [(labels == label).nonzero()[:, 0] for label in range(10)]
    pool = torch.cat([rows[4800:] for rows in classes]).sort().values
    ships = (labels[pool] == 8).nonzero()[:5, 0]
    assert ships.tolist() == [213, 225, 227, 247, 249]


def test_what_is_reported_follows_from_the_targets(result: dict[str, Any]) -> None:
    targets = result["targets"]
    assert len(targets) == result["success"]["n"] == result["base_rate"]["n"] == 6
    assert result["success"]["unit"] == "targets"
    assert result["success"]["value"] == pytest.approx(sum(one["predicted"] == 8 for one in targets) / 6)
    assert result["base_rate"]["value"] == pytest.approx(sum(one["natural"] == 8 for one in targets) / 6)
    assert [look["step"] for look in result["looks"]] == [10, 20, 30]
    assert result["looks"][-1]["substitutes"] < result["looks"][0]["substitutes"]
    last = result["looks"][-1]
    for name in ("victim_polytope", "victim_collision"):
        assert last[name] == pytest.approx(sum(one[name] for one in targets) / 6, rel=1e-4)
    assert last["victim_polytope"] <= last["victim_collision"] / (2 * 5) + 1e-6
    assert result["clean_accuracy"]["pretrained"]["value"] > 0.15, "chance is .1"
    assert 0 <= result["base_rate"]["low"] <= result["base_rate"]["high"] <= 1


def test_poisons_mislead_more_often_than_clean_images(referee: Referee) -> None:
    """With a large box on an easy problem the intended label gains where the poisons were made, on the same targets."""
    white = transfer(victim="substitute").play(referee)
    assert white["success"]["value"] > white["base_rate"]["value"]


def test_poisons_are_crafted_once_for_all_victims(
    referee: Referee, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bezoar.attacks.convex_polytope import ConvexPolytope  # noqa: PLC0415

    monkeypatch.setattr(ConvexPolytope, "craft", lambda *_: pytest.fail("crafted twice"))
    other = transfer(transfer="end_to_end", epochs=2).play(referee)
    assert [one["loss"] for one in other["targets"]] == [one["loss"] for one in result["targets"]]
    assert other["success"]["n"] == 6


def test_models_are_shared_by_games_and_counted_so() -> None:
    one = transfer()
    assert len(one.trainings()) == 2
    assert transfer(attack={**TRANSFER["attack"], "kind": "feature_collision"}).trainings() == one.trainings()
    assert len(transfer(victim_data=[0.5, 1.0]).trainings() & one.trainings()) == 1, "the substitute is the same"


def test_each_network_takes_its_own_room(referee: Referee) -> None:
    """Second route: the parameters of a small victim counted by hand, beside whatever the substitute takes."""
    white = expected_bytes([transfer(victim="substitute")], referee)
    assert white > 4 * 73_370, "as the architecture says of itself, and the statistics of its normalisation"
    assert expected_bytes([transfer()], referee) == 2 * white
    small = transfer(architecture={"kind": "convolutional", "width": 16, "hidden": 16})
    by_hand = 4 * ((3 * 16 * 16 + 16) + (16 * 32 * 16 + 32) + (32 * 8 * 8 * 16 + 16) + (16 * 10 + 10))
    assert expected_bytes([small], referee) == white + by_hand
    assert expected_bytes([transfer(), small], referee) == 2 * white + by_hand, "they share the substitute"


def test_a_white_box_victim_is_the_substitute_and_nothing_else_is_trained(
    referee: Referee, result: dict[str, Any]
) -> None:
    game = transfer(victim="substitute")
    assert len(game.trainings()) == 1
    found = game.play(referee)
    assert found["success"]["value"] >= result["success"]["value"]
    assert found["looks"][-1]["victim_polytope"] < result["looks"][-1]["victim_polytope"], "it was made for that one"
    assert transfer().identity() == {name: value for name, value in game.identity().items() if name != "victim"}


def test_a_sanitizer_ranks_the_rows_of_every_victim_and_it_is_tuned_again(
    referee: Referee, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[Any] = []

    def spy(*rest: Any, visit: Any = None) -> Any:
        visits.append(type(visit))
        return fine_tuned(*rest, visit=visit)

    monkeypatch.setattr("bezoar.games.transfer.fine_tuned", spy)
    found = transfer(sanitizer="deep_knn", removed=0.1, detector="last_layer", examined=1, trusted=20).play(referee)
    assert visits == [Ranked, Examined], "victims are examined as they are after the sanitizer"
    assert len(found["inspected"]["poisoned"]) == 1
    assert {name: found[name] for name in ("success", "targets")} == {
        name: result[name] for name in ("success", "targets")
    }
    told = found["sanitized"]
    assert (told["rows"], told["removed"]) == (100, 10)
    assert told["poisoned_removed"]["unit"] == "targets"
    rows = 5 * told["poisoned_removed"]["value"] + 95 * told["clean_removed"]["value"]
    assert rows == pytest.approx(10), "of five poisons and 95 clean rows"
    assert 0 <= told["auc"]["value"] <= 1
    assert told["success"]["n"] == 6


def test_victims_are_repaired_and_inspected_and_nothing_else_changes(referee: Referee, result: dict[str, Any]) -> None:
    repairer = {"kind": "weight_decay", "steps": 2, "batch_size": 16}
    game = transfer(repairer=repairer, detector="last_layer", examined=3, trusted=40, repair_every=1)
    assert transfer().identity().keys().isdisjoint({"repairer", "detector", "trusted", "examined", "budget"})
    assert game.trainings() == transfer().trainings()
    found = game.play(referee)
    assert {name: found[name] for name in result} == result
    repaired, inspected = found["repaired"], found["inspected"]
    hits = [one["predicted"] == 8 for one in found["targets"][:3]]
    assert repaired["before"]["attack_success"]["value"] == pytest.approx(sum(hits) / 3)
    assert repaired["before"]["lost"]["value"] == 0
    assert repaired["oracle"]["attack_success"]["value"] <= repaired["before"]["attack_success"]["value"]
    assert all(one["final"]["lost"]["value"] <= 0.02 for one in repaired["targets"])
    scores, (clean,) = [one["score"] for one in inspected["poisoned"]], inspected["clean"]
    assert len(scores) == 3
    above = sum((score > clean["score"]) + (score == clean["score"]) / 2 for score in scores) / 3
    assert (inspected["auc"]["value"], inspected["auc"]["n"]) == (pytest.approx(above), 4)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (section,) = examined_sections([{"game": game.identity(), "result": found}] * 2)
    assert section.table is not None
    (line,) = section.table.rows
    assert line[2] == "weight decay, last layer"
    left, models = line[4], line[7]
    assert isinstance(left, Percent)
    assert (left.estimate.value, left.estimate.n) == (repaired["final"]["attack_success"]["value"], 6)
    assert isinstance(models, Estimate)
    assert (models.value, models.n) == (pytest.approx(above), 8)
    (picture,) = section.figures
    drawn = [bars.lines[0].get_xydata() for bars in picture.figure.axes[0].containers]
    assert [one.tolist() for one in drawn] == [[[left.estimate.value, pytest.approx(above)]]]
    assert examined_sections([{"game": transfer().identity(), "result": result}]) == []


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figure 5 at the size of a test: two attacks, a gray-box victim."""
    folder = tmp_path_factory.mktemp("convex-polytope")
    (folder / "numbers.yaml").write_text((ROOT / "experiments" / ZHU / "numbers.yaml").read_text())
    game = {name: value for name, value in TRANSFER.items() if name not in ("kind", "attack")}
    attacks = [{**TRANSFER["attack"], "kind": kind, "steps": 4} for kind in ("feature_collision", "convex_polytope")]
    presets = {"cpu": {**game, "every": 2, "grid": {"attack": attacks}}}
    for name in ("linear", "losses", "white_box"):
        presets["cpu"]["victim"] = "substitute" if name == "white_box" else "own"
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"game": "transfer", "presets": presets}))
    return folder


def test_figure_5_of_convex_polytope_is_played_judged_and_drawn(bezoar: Any, experiments: Path, tmp_path: Path) -> None:
    words = ("reproduce", "cp-fig5", "--experiments", experiments, "--results", tmp_path)
    first = bezoar(*words, "--json")
    assert first.exit_code == 0, first.stderr
    document = json.loads(first.stdout)
    assert (document["rows"], document["failed"]) == (4, [])
    claims = {one["text"]: one for one in document["claims"]}
    assert claims["Convex Polytope beats Feature Collision"]["because"].startswith("convex polytope less feature")
    assert {one["verdict"] for one in document["compared"]} == {"not measured"}, "the victims are others"
    page = tmp_path / "page"
    assert bezoar(*words, "--out", page).exit_code == 0
    assert "Triggerless poisons" in (page / "report.html").read_text()
    assert len(list((page / "figures").glob("*.png"))) == 1
    again = bezoar("report", tmp_path / "linear.jsonl", "--out", tmp_path / "report")
    assert again.exit_code == 0, again.stderr
    written = (tmp_path / "report" / "report.html").read_text()
    assert "While poisons are crafted" in written
    assert "2 transfer" in written
    (cost,) = json.loads(bezoar("reproduce", "cp-fig8", *words[2:], "--json").stdout)["claims"]
    assert cost["because"].startswith("a point less the cost: ")
    losses = json.loads(bezoar("reproduce", "cp-fig3", *words[2:], "--json").stdout)
    assert {one["standing"] for one in losses["claims"]} == {"not measured"}, "without dropout nothing was played"


def test_a_transfer_game_is_printed_and_written(bezoar: Any, tmp_path: Path) -> None:
    settings = {**{name: value for name, value in TRANSFER.items() if name != "kind"}, "game": "transfer"}
    (tmp_path / "game.yaml").write_text(yaml.safe_dump(settings))
    told = bezoar("run", tmp_path / "game.yaml", "--out", tmp_path / "out")
    assert told.exit_code == 0, told.stderr
    assert "targets that get the poisons' label" in told.stdout
    assert max(len(line) for line in told.stdout.splitlines()) <= 80
    assert (tmp_path / "out" / "report.html").is_file()
