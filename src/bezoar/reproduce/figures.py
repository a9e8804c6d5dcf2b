"""Figures 5, 6, 7 and 9 in the paper's layout, and what the text claims about them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bezoar.component import members
from bezoar.games.repairing import Point
from bezoar.measure.estimates import mean
from bezoar.records import Estimate
from bezoar.report.canvas import INK, LINES, WIDTH, blank, dress, in_percent, legend
from bezoar.report.doses import share
from bezoar.report.groups import Row
from bezoar.report.page import Picture, Section
from bezoar.report.plane import plane_sections
from bezoar.report.populations import attack_of, class_histograms, populations
from bezoar.reproduce.measured import Detected, Repaired, detected, kind_of, repaired
from bezoar.reproduce.numbers import Paper
from bezoar.reproduce.outcome import Outcome
from bezoar.reproduce.verdicts import Claim, Compared, counted, judged
from bezoar.roles import CodePoisoning

CALIBRATED, CLEANSE = "calibrated_inversion", "neural_cleanse"

SATURATED = 0.9
"""An attack's success has saturated where it is within a tenth of its highest."""

APART = 1.025
"""Lines over m stand so far beside each other, as a factor, that their intervals can be told apart."""

FEWEST_SEEDS = 3
"""With fewer, a difference between seeds decides nothing."""

STEEP = 0.15
"""How far off a printed success may be by chance where it rises steeply with m, as all of Figure 5's do."""


def figure5(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Figure 5: attack success and both detectors' ROC AUC over m, for each attack with several m."""
    found = detected(rows)
    swept = [name for name in dict.fromkeys(one.attack for one in found) if len(_doses(found, name)) > 1]
    pictures = [Picture(_over_doses(found, name), _caption(name)) for name in swept]
    claims = [claim for name in swept for claim in _over_m(found, name)]
    compared: list[Compared] = []
    for anchor in paper.figure5:
        one = _one(found, anchor.attack, anchor.m, CALIBRATED)
        name = f"{anchor.attack}, m = {anchor.m}"
        success, area = (None, None) if one is None else (share(one.success), one.area)
        compared.append(Compared(f"{name}: attack success", anchor.success, success, STEEP, comparable))
        compared.append(Compared(f"{name}: ROC AUC", anchor.area, area, paper.area_tolerance, comparable))
    return Outcome([Section("Figure 5", figures=pictures)], compared, claims)


def _doses(found: Sequence[Detected], attack: str) -> list[float]:
    return sorted({one.dose for one in found if one.attack == attack})


def _one(found: Sequence[Detected], attack: str, dose: int | float, detector: str) -> Detected | None:
    return next((one for one in found if (one.attack, one.dose, one.detector) == (attack, dose, detector)), None)


def _caption(attack: str) -> str:
    return (
        f"{attack}: what m poisoned images buy an attacker (solid) and how well each detector then tells its models "
        "from clean ones (dashed); bars are 95 % intervals over models."
    )


def _over_doses(found: Sequence[Detected], attack: str) -> Figure:
    figure = blank(WIDTH, 3.8)
    axes: Axes = figure.subplots()
    for number, (label, dash) in enumerate((("attack success", "-"), (CALIBRATED, "--"), (CLEANSE, ":"))):
        few = [one for one in found if one.attack == attack and one.detector == (label if number else CALIBRATED)]
        values = [one.area if number else share(one.success) for one in few]
        axes.errorbar(
            [one.dose * APART ** (number - 1) for one in few],
            [one.value for one in values],
            yerr=[[one.value - one.low for one in values], [one.high - one.value for one in values]],
            color=LINES[number],
            linestyle=dash,
            marker="o",
            capsize=3,
            label=label.replace("_", " "),
        )
    axes.set_xscale("log")
    doses = _doses(found, attack)
    axes.set_xticks(doses, [f"{dose:g}" for dose in doses])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.05)
    dress(axes, across="poisoned images m", up="attack success, ROC AUC", title=attack.replace("_", " "))
    legend(figure, axes, 3)
    return figure


def _over_m(found: Sequence[Detected], attack: str) -> list[Claim]:
    """What the text says of an attack over m."""
    own = {
        detector: [one for one in found if (one.attack, one.detector) == (attack, detector)]
        for detector in (CALIBRATED, CLEANSE)
    }
    claims: list[Claim] = []
    for detector, few in own.items():
        if len(few) > 1:
            rise = few[-1].above(few[0])
            what = f"m = {few[-1].dose:g} less m = {few[0].dose:g}"
            claims.append(judged(f"{attack}: detectability rises with m ({detector})", [(what, rise)]))
    few = own[CALIBRATED]
    if len(few) > 1:
        pairs = zip(few[-1].success, few[0].success, strict=True)
        rise = mean([high - low for high, low in pairs])
        claims.insert(0, _over_seeds(f"{attack}: attack success rises with m", "strongest less weakest", rise))
        highest = max(share(one.success).value for one in few)
        first = next(one for one in few if share(one.success).value >= SATURATED * highest)
        text = f"{attack}: success saturates before detectability does"
        after = [(f"ROC AUC at m = {few[-1].dose:g} less m = {first.dose:g}", few[-1].above(first))]
        late = Claim(text, "undecided", "success reaches nine tenths of its highest only at the largest m")
        claims.append(late if first is few[-1] else judged(text, after))
    pairs = [(one, _one(found, attack, one.dose, CLEANSE)) for one in few]
    ahead = [(f"m = {one.dose:g}", one.above(other)) for one, other in pairs if other is not None]
    claims.append(judged(f"{attack}: {CALIBRATED} detects better than {CLEANSE} at every m", ahead))
    return claims


def figure6(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Figure 6: clean accuracy against attack success while Pivotal Tuning repairs, one line for each m."""
    del paper, comparable  # the paper prints no number of this figure
    found = [one for one in repaired(rows) if one.repairer == "pivotal_tuning"]
    swept = [name for name in dict.fromkeys(one.attack for one in found) if len(_strengths(found, name)) > 1]
    pictures = [
        Picture(
            _paths([one for one in found if one.attack == name]),
            f"{name}: every line is one repair, from the poisoned model (right) on; dotted, the accuracy that it must "
            "keep.",
        )
        for name in swept
    ]
    return Outcome([Section("Figure 6", figures=pictures)], [], [_harder(found, name) for name in swept])


def _strengths(found: Sequence[Repaired], attack: str) -> list[float]:
    return sorted({one.dose for one in found if one.attack == attack})


def _harder(found: Sequence[Repaired], attack: str) -> Claim:
    """Whether more poison survives better, over the seeds that both strengths have."""
    few = [one for one in found if one.attack == attack]
    text = f"{attack}: robustness rises with m (more is left after Pivotal Tuning)"
    more = few[-1].left_more(few[0])
    return _over_seeds(text, f"m = {few[-1].dose:g} less m = {few[0].dose:g}, over {more.n} seeds", more)


def _over_seeds(text: str, what: str, difference: Estimate) -> Claim:
    """A claim about a mean difference between seeds; of fewer than three Student's interval may be a point."""
    if difference.n < FEWEST_SEEDS:
        return Claim(text, "undecided", f"{what}: {difference.value:+.2f}")
    return judged(text, [(what, difference)])


def _paths(found: Sequence[Repaired]) -> Figure:
    figure = blank(WIDTH, 4.0)
    axes: Axes = figure.subplots()
    for number, one in enumerate(found):
        colour = LINES[number % len(LINES)]
        for place, read in enumerate(one.read):
            points: list[Point] = read.curve
            across = [point.attack_success.value for point in points]
            up = [point.clean_accuracy.value for point in points]
            label = f"m = {one.dose:g}" if place == 0 else None
            axes.plot(across, up, color=colour, linewidth=1.2, marker=".", label=label)
            axes.plot(across[:1], up[:1], color=colour, marker="o", markersize=7, linestyle="")
            budget = read.row["game"]["budget"]
            axes.axhline(up[0] - budget, color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
    dress(axes, across="attack success", up="clean accuracy")
    in_percent(axes, "x")
    in_percent(axes)
    axes.set_xlim(-0.03, 1.03)
    legend(figure, axes, 4)
    return figure


def figure7(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Figure 7: what Pivotal Tuning leaves (the paper's reading) against the ROC AUC of calibrated inversion.

    As in the paper the adaptive attacks meet more trusted images than the others, in the same plane.
    """
    del paper, comparable  # its values are drawn, not printed
    chosen = [
        row
        for row in rows
        if "result" in row
        and kind_of(row["game"].get("repairer") or row["game"].get("detector") or {"kind": ""})
        in ("pivotal_tuning", CALIBRATED)
    ]
    found = repaired(chosen)
    swept = [name for name in dict.fromkeys(one.attack for one in found) if len(_strengths(found, name)) > 1]
    claims = [_harder(found, name) for name in swept]
    claims.append(_code_beats_data(found, detected(chosen)))
    return Outcome(plane_sections(chosen, "oracle", mixed=("trusted",)), [], claims)


def _code_beats_data(found: Sequence[Repaired], seen: Sequence[Detected]) -> Claim:
    """Whether an attacker who controls the training code is more robust and no easier to detect than any other."""
    text = "Parameter-controlled backdoors beat data poisoning: more is left, and they are no easier to detect"
    area = {(one.attack, one.dose): one.area.value for one in seen if one.detector == CALIBRATED}
    placed = [one for one in found if (one.attack, one.dose) in area]
    attacks = members("attacks")
    code = [one for one in placed if issubclass(attacks[one.attack], CodePoisoning)]
    cases = [
        (
            f"{one.attack} m = {one.dose:g}",
            best.left.value > one.left.value and area[best.attack, best.dose] <= area[one.attack, one.dose],
        )
        for best in code[:1]
        for one in placed
        if one not in code
    ]
    return counted(text, cases)


def figure9(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Figure 9: the scores of single classes, by both detectors (the paper's is on ImageNet)."""
    del paper, comparable  # its values are drawn, not printed
    few = [row for row in rows if "result" in row and "detector" in row["game"]]
    found = populations(few)
    ordered = [found[name] for name in (CALIBRATED, CLEANSE) if name in found]
    pictures = [
        Picture(
            class_histograms(ordered, attack),
            f"{attack}: scores of single classes of {len(ordered[0].poisoned[attack])} poisoned models.",
        )
        for attack in dict.fromkeys(attack_of(row) for row in few)
        if all(attack in one.poisoned for one in ordered)
    ]
    return Outcome([Section("Figure 9", figures=pictures)], [], [])
