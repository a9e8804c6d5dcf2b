"""What pages and figures claim: self-contained, escaped, never a number without its interval, whole or not there."""

from __future__ import annotations

import copy
import errno
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import pytest
import torch
from scipy import stats

from bezoar.errors import StoreError
from bezoar.games.repairing import Look
from bezoar.measure.estimates import proportion
from bezoar.models.resnet import SmallResNet
from bezoar.owner import Audit, Repair
from bezoar.records import Estimate, Inspection, Trusted
from bezoar.report import page as page_module
from bezoar.report.demo import demo_page
from bezoar.report.doses import doses
from bezoar.report.groups import differing, group, guarded
from bezoar.report.page import Percent, Section, Table, write_page
from bezoar.report.results import results_page
from bezoar.report.views import audit_page, repair_page
from bezoar.seed import Seed

CLASSES = ("<script>alert(1)</script>", "$5 & $6", "bird", "a name that is much too long for any figure")
IMAGES = torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).view(4, 3, 8, 8)


def share(hits: int, count: int = 50) -> dict[str, Any]:
    return proportion(torch.arange(count) < hits).as_json()


def loss(value: float) -> dict[str, Any]:
    return Estimate(value, value - 0.01, value + 0.01, 50, "images").as_json()


def robust_row(seed: int = 0, left: int = 3, steps: int = 60) -> dict[str, Any]:
    reading = {"step": 20, "clean_accuracy": share(46), "attack_success": share(left), "lost": loss(0.01)}
    first = {"step": 0, "clean_accuracy": share(47), "attack_success": share(49), "lost": loss(0.0)}
    game = {
        "kind": "robustness@1",
        "data": {"kind": "digits_in_the_wild@1"},
        "attack": {"kind": "badnets@1", "poisons": 30, "target": 0},
        "repairer": {"kind": "unlearning@1", "steps": steps, "detector": {"kind": "neural_cleanse@1", "cost": 0.01}},
        "trusted": 40,
        "budget": 0.02,
        "seed": seed,
    }
    result = {
        "suspect": {"clean_accuracy": share(47), "attack_success": share(49)},
        "twin": {"clean_accuracy": share(48), "attack_success": share(1)},
        "repaired": dict.fromkeys(("oracle", "final", "blind"), reading),
        "curve": [first, reading],
    }
    address = f"{seed:016d}{steps:016d}"
    return {"address": address, "game": game, "result": result, "seconds": 2.0, "provenance": {"torch": "2.6"}}


def detection_row() -> dict[str, Any]:
    model = {
        "seed": 0,
        "score": -1.0,
        "suspected_class": 0,
        "p_value": 0.001,
        "scores": [-1.0, -4.0, -4.1, -4.2],
        "evidence": {"norm": [12.0, 60.0, 61.0, 62.0]},
        "abstained": "",
    }
    row = robust_row()
    game = {**{k: v for k, v in row["game"].items() if k != "repairer"}, "kind": "detectability@1"}
    one = Estimate(1.0, 0.2, 1.0, 2, "models").as_json()
    result = {
        "auc": one,
        "right_class": one,
        "above_twin": one,
        "poisoned": [{"target": 0, **model}],
        "clean": [{**model, "p_value": 0.7}],
    }
    return {**row, "address": "d" * 32, "game": {**game, "detector": {"kind": "neural_cleanse@1"}}, "result": result}


def inspection(*, masked: bool = True, channels: int = 3) -> Inspection:
    generator = torch.Generator().manual_seed(0)
    triggers = torch.rand(4, channels, 8, 8, generator=generator) - (0 if masked else 0.5)
    masks = torch.rand(4, 1, 8, 8, generator=generator) if masked else None
    evidence = {"norm": torch.tensor([12.0, 60.0, 61.0, 62.0])}
    return Inspection(torch.tensor([-1.0, -4.0, -4.1, -4.2]), triggers, masks, evidence)


def make_demo(path: Path, detection: dict[str, Any] | None = None) -> str:
    marked = IMAGES.clone()
    marked[:, :, :2, :2] = 255
    demo_page(
        path,
        unlearning=robust_row(),
        pivotal_tuning=robust_row(left=9),
        detection=detection or detection_row(),
        clean=IMAGES,
        poisoned=marked,
        suspect=inspection(),
        twin=inspection(),
        classes=CLASSES,
        labels=CLASSES,
    )
    return path.read_text()


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which takes most of a page's time; `demo` is made before."""
    monkeypatch.setattr(page_module, "_data_uri", lambda _: "data:,")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_demo(tmp_path_factory.mktemp("demo") / "report.html")


def write(path: Path, table: Table) -> str:
    write_page(path, title="t", verdict="v", tone="open", sections=[Section("s", table=table)], provenance={})
    return path.read_text()


def test_a_page_needs_no_other_file_and_no_network(demo: str) -> None:
    assert not re.search(r"https?://|url\(|@import|<link|<script|<iframe", demo)
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', demo)
    assert len(sources) == 4  # pictures, scores, triggers, curves
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64")) for source in sources)


def test_what_users_name_is_escaped(demo: str) -> None:
    assert "<script" not in demo
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in demo


def test_the_demo_says_what_the_numbers_say(demo: str) -> None:
    # 49, 46 and 3 of 50, counted by hand
    assert "98.0\N{NO-BREAK SPACE}%" in demo
    assert "92.0\N{NO-BREAK SPACE}%" in demo
    assert "6.0\N{NO-BREAK SPACE}%" in demo
    assert "its clean twin is not suspected" in demo


@pytest.mark.parametrize(
    ("player", "change", "words"),
    [
        ("poisoned", {"p_value": 0.4}, "no class stands out"),
        ("poisoned", {"suspected_class": 2}, "suspects class &#39;bird&#39;"),
        ("poisoned", {"abstained": "nothing changed"}, "could not judge"),
        ("clean", {"p_value": 0.01}, "false alarm"),
    ],
)
def test_a_demo_that_failed_says_so(tmp_path: Path, player: str, change: dict[str, Any], words: str) -> None:
    row = detection_row()
    row["result"][player][0] |= change
    heading = re.search(r"<h1>(.*?)</h1>", make_demo(tmp_path / "report.html", row))
    assert heading is not None
    assert words in heading[1]


def test_every_estimate_in_a_table_shows_its_interval_and_its_n(tmp_path: Path) -> None:
    few, many = Estimate(0.5, 0.25, 0.75, 10, "images"), Estimate(0.25, 0.125, 0.5, 2000, "images")
    page = write(tmp_path / "page.html", Table(("name", "value"), [("a", many), ("b", many), ("c", Percent(few))]))
    assert page.count("[0.125, 0.500]") == 2
    assert "[25.0, 75.0]" in page
    assert page.count("n = 2,000 images") == 1  # what most rest on stands in the head
    assert page.count("n = 10 images") == 1


def test_an_interval_without_ends_and_a_missing_value_can_be_shown(tmp_path: Path) -> None:
    lone = Estimate(float("nan"), -float("inf"), float("inf"), 0, "models")
    page = write(tmp_path / "page.html", Table(("name", "value"), [("a", lone), ("b", Percent(lone))]))
    assert page.count("[\N{MINUS SIGN}∞, ∞]") == 2


def test_two_seeds_are_both_printed_and_no_mean_stands_for_them(tmp_path: Path) -> None:
    results_page(tmp_path / "page.html", [robust_row(0, left=3), robust_row(1, left=9)])
    page = (tmp_path / "page.html").read_text()
    assert "6.0\N{NO-BREAK SPACE}% and 18.0\N{NO-BREAK SPACE}%" in page
    assert "12.0\N{NO-BREAK SPACE}%" not in page
    assert "mean of" not in page


def test_more_seeds_have_a_mean_with_students_interval(tmp_path: Path) -> None:
    lefts = (9, 10, 11, 14)
    results_page(tmp_path / "page.html", [robust_row(seed, left=left) for seed, left in enumerate(lefts)])
    shares = [2.0 * left for left in lefts]
    half = stats.t.ppf(0.975, 3) * stdev(shares) / 2
    page = (tmp_path / "page.html").read_text()
    assert f"{mean(shares):.1f}\N{NO-BREAK SPACE}%" in page
    assert f"[{mean(shares) - half:.1f}, {mean(shares) + half:.1f}]" in page
    assert page.count(">seed ") == len(lefts)


def test_rows_are_grouped_by_what_tells_them_apart_and_a_kind_speaks_for_its_settings() -> None:
    other = robust_row(0)
    other["game"]["repairer"] = {"kind": "pivotal_tuning@1", "lr": 0.03}
    groups = group([robust_row(1), other, robust_row(0), robust_row(0, steps=90)], "repairer")
    assert [one.label for one in groups] == [
        "digits in the wild · badnets · unlearning · repairer.steps 60",
        "digits in the wild · badnets · pivotal tuning",
        "digits in the wild · badnets · unlearning · repairer.steps 90",
    ]
    assert [row["game"]["seed"] for row in groups[0].rows] == [0, 1]
    assert differing([{"kind": "a", "x": 1}, {"kind": "b", "y": 1}]) == ["kind"]


def test_groups_that_differ_by_a_revision_keep_different_labels() -> None:
    old = robust_row()
    old["game"]["repairer"]["kind"] = "unlearning@0"
    assert len({one.label for one in group([robust_row(), old], "repairer")}) == 2


def test_failed_games_are_listed_and_every_row_is_in_the_csv(tmp_path: Path) -> None:
    failed = {"address": "e" * 32, "game": robust_row(7)["game"], "error": "attack.poisons: too <many>"}
    results_page(tmp_path / "page.html", [robust_row(), detection_row(), failed])
    page = (tmp_path / "page.html").read_text()
    assert "attack.poisons: too &lt;many&gt;" in page
    assert "Detectability" in page
    table = pd.read_csv(tmp_path / "rows.csv")
    assert table["address"].tolist()[1:] == ["d" * 32, "e" * 32]
    assert table["result.repaired.blind.attack_success.value"][0] == pytest.approx(3 / 50)
    assert pd.read_parquet(tmp_path / "rows.parquet")["address"].tolist() == table["address"].tolist()


def test_no_rows_make_a_page_too(tmp_path: Path) -> None:
    results_page(tmp_path / "page.html", [])
    assert "none played yet" in (tmp_path / "page.html").read_text()


def test_a_row_of_another_version_is_named(tmp_path: Path) -> None:
    row = copy.deepcopy(robust_row())
    del row["result"]["repaired"]["blind"]
    with pytest.raises(StoreError, match=rf"{row['address']}.*blind.*play the game again"):
        results_page(tmp_path / "page.html", [row])
    assert not list(tmp_path.iterdir())


def undefended_row() -> dict[str, Any]:
    row = robust_row()
    del row["game"]["repairer"]
    return row


def test_games_that_differ_in_more_than_their_seed_are_no_seeds_of_one_another() -> None:
    rows = [undefended_row() for _ in range(4)]
    for number, row in enumerate(rows):
        row["game"] = {**row["game"], "seed": number % 2, "attack": {**row["game"]["attack"], "poisons": 50}}
        if number >= 2:
            row["game"]["attack"]["stage"] = "post_augment_frozen"
    before, after = doses(rows)
    assert (before.attack, after.attack) == ("badnets", "badnets · attack.stage post_augment_frozen")
    assert len(before.success) == len(after.success) == 2
    assert [one.attack for one in doses(rows[:2])] == ["badnets"]
    assert doses([]) == []


@pytest.mark.parametrize(
    ("make", "place", "value"),
    [
        (undefended_row, "game.data", None),
        (undefended_row, "game.attack", None),
        (undefended_row, "game.seed", None),
        (undefended_row, "result.suspect", None),
        (robust_row, "game.seed", None),
        (robust_row, "game.budget", None),
        (robust_row, "result.curve", 3),
        (robust_row, "provenance", "mine"),
        (detection_row, "game.seed", None),
        (detection_row, "result.poisoned", []),
        (detection_row, "result.auc", {"value": 1.0}),
    ],
)
def test_a_row_that_lacks_something_is_named_among_sound_ones(
    tmp_path: Path, make: Any, place: str, value: Any
) -> None:
    """None: the field is not there."""
    row = copy.deepcopy(make())
    row["address"] = "odd"
    *outer, name = place.split(".")
    inner = row[outer[0]] if outer else row
    inner[name] = value
    if value is None:
        del inner[name]
    with pytest.raises(StoreError, match=r"row odd: .*play the game again"):
        results_page(tmp_path / "page.html", [make(), row])
    assert not list(tmp_path.iterdir())


def test_a_defect_of_the_drawing_is_not_blamed_on_a_row() -> None:
    def broken(rows: Any) -> int:
        return [1][len(rows) - 1]

    assert guarded(broken, [robust_row()]) == 1
    with pytest.raises(IndexError):
        guarded(broken, [robust_row(0), robust_row(1)])


def test_false_alarms_of_one_clean_model_keep_wilsons_width(tmp_path: Path) -> None:
    results_page(tmp_path / "page.html", [detection_row()])
    page = (tmp_path / "page.html").read_text()
    assert "n = 1 clean models" in page
    assert "[0.0, 79.3]" in page  # Wilson for 0 of 1: z^2 / (1 + z^2)


def test_a_full_disk_leaves_the_old_page_and_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"page\.html: No space left on device; free some space"):
        write_page(path, title="t", verdict="v", tone="good", sections=[], provenance={})
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_below_a_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_page(tmp_path / "taken" / "page.html", title="t", verdict="v", tone="good", sections=[], provenance={})


@pytest.mark.parametrize("verdict", ["suspicious", "nothing found", "inconclusive"])
def test_an_audit_page_shows_every_class_with_its_evidence(tmp_path: Path, verdict: Any) -> None:
    audit = Audit(verdict, "class 'x' needs less", 0.001, inspection(), proportion(torch.arange(4) < 3))
    trusted = Trusted(IMAGES, torch.tensor([0, 1, 2, 3]), CLASSES)
    audit_page(tmp_path / "page.html", audit, trusted=trusted, model_name="<b>m</b>.pt", provenance={})
    page = (tmp_path / "page.html").read_text()
    assert "Class 'x' needs less." in page.replace("&#39;", "'")
    assert "<b>m" not in page
    for text in (">bird<", ">60<", ">\N{MINUS SIGN}4.1<", "75.0\N{NO-BREAK SPACE}%"):
        assert text in page
    assert ("looks backdoored" in page) is (verdict == "suspicious")


def test_a_repair_that_kept_nothing_is_no_success(tmp_path: Path) -> None:
    look = Look(10, Estimate.from_json(share(30)), Estimate.from_json(loss(0.3)), accepted=False)
    model = SmallResNet(width=16, stages=1).build((3, 8, 8), CLASSES, Seed(0))
    pages: list[str] = []
    for step in (0, 10):
        path = tmp_path / f"{step}.html"
        repair_page(
            path, Repair(model, step, [look]), model_name="m.pt", repairer="unlearning", budget=0.02, provenance={}
        )
        pages.append(path.read_text())
    none, kept = pages
    assert "No step of the repair was acceptable" in none
    assert 'class="verdict open"' in none
    assert "Repaired, with 10 steps" in kept
    assert "costs 30.0 points" in kept
