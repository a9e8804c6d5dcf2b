"""The referee's arithmetic, each number by two routes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bezoar.errors import DataError
from bezoar.measure.estimates import auc, mean, paired_loss, proportion, wilson
from bezoar.measure.outliers import MAD_TO_SIGMA, anomaly_index, outlier_p_value
from bezoar.measure.predictions import measure, predict
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Probe
from bezoar.seed import Seed


def hits(right: int, count: int) -> Tensor:
    return torch.arange(count) < right


@pytest.mark.parametrize(("right", "count"), [(0, 10), (1, 10), (10, 10), (37, 300), (299, 300), (1, 1)])
def test_a_share_has_wilson_s_interval(right: int, count: int):
    found = proportion(hits(right, count))
    other = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert found.value == pytest.approx(right / count)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert (found.n, found.unit) == (count, "images")
    assert found.low < found.high  # it collapses neither at 0 nor at 1


def test_groups_of_one_change_nothing():
    drawn = torch.rand(200, generator=Seed(0).generator()) < 0.8
    alone, grouped = proportion(drawn), proportion(drawn, Seed(1).permutation(200))
    # the cluster-robust variance has the factor n / (n - 1) that the binomial one lacks
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=2e-4)


@pytest.mark.parametrize("copies", [2, 10])
def test_identical_copies_count_once(copies: int):
    drawn = torch.rand(50, generator=Seed(0).generator()) < 0.7
    copied, groups = drawn.repeat(copies), torch.arange(50).repeat(copies)
    grouped, blind, once = proportion(copied, groups), proportion(copied), proportion(drawn)
    assert grouped.value == pytest.approx(once.value)
    assert grouped.high - grouped.low > 1.3 * (blind.high - blind.low)
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), abs=2e-3)
    perfect = proportion(torch.ones(50 * copies, dtype=torch.bool), groups)
    assert (perfect.low, perfect.high) == pytest.approx(wilson(1.0, 50))


def test_a_single_group_tells_as_much_as_one_image():
    found = proportion(hits(3, 6), torch.zeros(6, dtype=torch.int64))
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 1))


def test_nothing_counted_is_no_number():
    found = proportion(torch.zeros(0, dtype=torch.bool))
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0, 1, 0)


def test_a_paired_loss_is_a_difference_of_accuracies_with_agresti_and_min_s_interval():
    before, after = hits(90, 100), torch.cat([hits(80, 90), torch.ones(10, dtype=torch.bool)])
    found = paired_loss(before, after)
    assert found.value == pytest.approx(0.90 - 0.90)
    lost, won, total = 10 + 0.5, 10 + 0.5, 100 + 2
    difference = (lost - won) / total
    half = 1.959963984540054 * math.sqrt((lost + won) - (lost - won) ** 2 / total) / total
    assert (found.low, found.high) == pytest.approx((difference - half, difference + half))


def test_a_paired_loss_covers_its_truth():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        before, after = generator.random(150) < 0.9, generator.random(150) < 0.85
        found = paired_loss(torch.from_numpy(before), torch.from_numpy(after))
        covered += found.low <= 0.05 <= found.high
    assert covered / 400 > 0.92


def test_a_paired_loss_of_nothing_has_an_interval_and_copies_widen_it():
    same = torch.ones(40, dtype=torch.bool)
    assert paired_loss(same, same).value == 0
    assert paired_loss(same, same).low < 0 < paired_loss(same, same).high
    before, after = hits(36, 40), hits(30, 40)
    groups = torch.arange(10).repeat_interleave(4)
    alone, grouped = paired_loss(before, after), paired_loss(before, after, groups)
    assert grouped.value == alone.value == pytest.approx(0.15)
    assert grouped.high - grouped.low > alone.high - alone.low


def test_a_mean_has_student_s_interval():
    values = [0.2, 0.5, 0.1, 0.9]
    found = mean(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((np.mean(values), low, high, 4))
    assert (mean([0.5]).low, mean([0.5]).high) == (-math.inf, math.inf)
    assert math.isnan(mean([]).value)


@pytest.mark.parametrize("seed", range(4))
def test_an_auc_is_sklearn_s_and_reversed_scores_give_the_rest(seed: int):
    generator = np.random.default_rng(seed)
    poisoned = generator.normal(0.8, 1, 12).round(1).tolist()  # rounded, so that there are ties
    clean = generator.normal(0, 1, 9).round(1).tolist()
    found = auc(poisoned, clean)
    assert found.value == pytest.approx(roc_auc_score([1] * 12 + [0] * 9, poisoned + clean))
    assert found.low < found.value < found.high
    turned = auc([-score for score in poisoned], [-score for score in clean])
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))
    swapped = auc(clean, poisoned)
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((turned.value, turned.low, turned.high))


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 2), (10, 10), (10, 3)])
def test_an_auc_interval_does_not_collapse_at_perfect_separation(m: int, n: int):
    found = auc([2.0] * m, [1.0] * n)
    assert (found.value, found.high, found.n, found.unit) == (1, 1, m + n, "models")
    assert found.low < 0.95
    assert auc([1.0] * m, [2.0] * n).high == pytest.approx(1 - found.low)
    assert found.low < auc([2.0] * 2 * m, [1.0] * 2 * n).low  # more models, less doubt


def test_an_auc_interval_s_ends_solve_newcombe_s_equation():
    found, m, n = auc([3.0, 4.0, 5.0, 6.0, 2.5], [1.0, 2.0, 3.5]), 5, 3
    for theta in (found.low, found.high):
        inflated = (m + n) / 2 - 1
        variance = theta * (1 - theta) / (m * n)
        variance *= 1 + inflated * (1 - theta) / (2 - theta) + inflated * theta / (1 + theta)
        assert abs(found.value - theta) == pytest.approx(1.959963984540054 * math.sqrt(variance), rel=1e-6)


def test_an_auc_of_no_models_is_no_number():
    assert math.isnan(auc([], [1.0]).value)


@pytest.mark.parametrize("classes", [4, 10])
def test_a_clean_model_is_called_an_outlier_no_more_often_than_said(classes: int):
    drawn = torch.randn(1500, classes, generator=Seed(0).generator())
    p_values = np.array([outlier_p_value(scores) for scores in drawn])
    for alpha in (0.01, 0.05, 0.2):
        share = float((p_values <= alpha).mean())
        slack = 3 * math.sqrt(alpha * (1 - alpha) / 1500)
        assert alpha / 2 - slack < share <= alpha + slack  # honest, and not so careful that it says nothing


def test_a_planted_outlier_is_found_whatever_the_unit():
    scores = torch.tensor([0.1, 0.2, 0.15, 0.12, 0.18, 0.11, 5.0, 0.14, 0.13, 0.17])
    assert outlier_p_value(scores) < 1e-8
    assert outlier_p_value(scores * 1000 - 7) == pytest.approx(outlier_p_value(scores), rel=1e-2)
    assert outlier_p_value(-scores) > 0.2  # a low outlier is none


def test_an_outlier_s_p_value_is_a_t_test_of_one_against_the_others():
    scores = torch.tensor([1.0, 2.0, 4.0, 3.0, 8.0])
    others = np.array([1.0, 2, 3, 4])
    pooled = stats.ttest_ind([8.0], others, alternative="greater")  # Student's t with one value in one sample
    assert outlier_p_value(scores) == pytest.approx(5 * pooled.pvalue, rel=1e-6)


def test_few_or_equal_classes_have_no_outlier():
    assert outlier_p_value(torch.tensor([1.0, 2.0, 99.0])) == 1
    assert outlier_p_value(torch.ones(10)) == 1
    assert outlier_p_value(torch.tensor([1.0, 1, 1, 1, 2])) == 0


def test_an_anomaly_index_is_the_one_computed_by_hand():
    norms = torch.tensor([50.0, 40.0, 60.0, 10.0, 55.0])
    # median 50, deviations 0 10 10 40 5, of which the median is 10
    assert anomaly_index(norms).tolist() == pytest.approx([d / (10 * MAD_TO_SIGMA) for d in (0, 10, -10, 40, -5)])
    assert stats.median_abs_deviation(norms.numpy()) == 10
    assert anomaly_index(torch.tensor([5.0, 5.0, 5.0, 1.0])).tolist() == [0, 0, 0, 0]


class Lookup(Classifier):
    """Answers the class that the first pixel names."""

    def __init__(self, classes: int) -> None:
        super().__init__([str(label) for label in range(classes)], (0.0,), (1.0,))
        self.last = nn.Identity()
        self.first = nn.Identity()

    @property
    def head(self) -> nn.Module:
        return self.last

    def features(self, images: Tensor) -> Tensor:
        named = (images[:, 0, 0, 0] * 255).round().long()
        return nn.functional.one_hot(named, len(self.classes)).float()

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [images], self(images)


def naming(answers: Tensor) -> Tensor:
    """Images that make `Lookup` answer so."""
    images = torch.zeros(len(answers), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = answers.byte()
    return images


def world(labels: Tensor, answers: Tensor, groups: Tensor | None = None) -> Dataset:
    classes = tuple(str(label) for label in range(4))
    return Dataset.in_memory(naming(answers), labels, classes, groups)


def drawn(name: str, count: int = 400) -> Tensor:
    return torch.randint(4, (count,), generator=(Seed(0) / name).generator())


def test_predictions_are_the_largest_logits_in_any_batch_and_leave_modes_alone():
    answers, model = drawn("answers", 1300), Lookup(4).train()
    model.last.eval()
    assert torch.equal(predict(model, naming(answers)), answers)
    assert torch.equal(predict(model, world(answers, answers)), answers)
    assert (model.training, model.last.training) == (True, False)
    assert len(predict(model, naming(answers[:0]))) == 0


def test_right_is_what_equals_the_label():
    """X8 of the peers: a power in the place of an exclusive or made 0 true and 2 false negatives of 1 and 1."""
    labels, answers = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    probe = Probe(labels[:1], naming(labels[:1]), labels[1:2])
    found = measure(Lookup(4), world(labels, answers), probe)
    assert found.right.tolist() == [True, False, False, True]
    assert found.clean_accuracy.value == 0.5
    cells = [int(((answers == a) & (labels == b)).sum()) for a in (0, 1) for b in (0, 1)]
    assert cells == [1, 1, 1, 1]


def test_attack_success_leaves_out_images_of_the_wanted_class():
    labels, answers, target = drawn("labels"), drawn("answers"), 2
    rows = torch.arange(len(labels))
    found = measure(Lookup(4), world(labels, labels), Probe(rows, naming(answers), torch.full_like(rows, target)))
    by_hand = [int(answers[row]) == target for row in rows.tolist() if int(labels[row]) != target]
    assert found.attack_success.value == pytest.approx(np.mean(by_hand))
    assert found.attack_success.n == len(by_hand) < len(labels)
    assert found.clean_accuracy.value == 1


def test_the_paper_s_attack_success_follows_from_ours():
    """Spec, section 1: ASR_game = (1 - pi_t) ASR + pi_t (P[f(x~) = t | y = t] - 1)."""
    labels, answers, target = drawn("labels"), drawn("answers"), 1
    rows = torch.arange(len(labels))
    found = measure(Lookup(4), world(labels, labels), Probe(rows, naming(answers), torch.full_like(rows, target)))
    game = (answers == target).double().mean() - (labels == target).double().mean()
    share = float((labels == target).double().mean())
    kept = float((answers[labels == target] == target).double().mean())
    assert float(game) == pytest.approx((1 - share) * found.attack_success.value + share * (kept - 1))


def test_success_is_counted_however_little_the_model_is_worth():
    """X3 of the peers: an attack's success was written down as 0 once the accuracy had fallen."""
    labels = torch.zeros(20, dtype=torch.int64)
    rows, wanted = torch.arange(20), torch.full((20,), 3)
    found = measure(Lookup(4), world(labels, torch.ones(20).long()), Probe(rows, naming(wanted), wanted))
    assert (found.clean_accuracy.value, found.attack_success.value) == (0, 1)


def test_where_no_class_is_wanted_any_error_is_a_success_and_every_image_counts():
    labels, answers = drawn("labels"), drawn("answers")
    rows = torch.arange(len(labels)).flip(0)  # a probe may be in another order than the test set
    found = measure(Lookup(4), world(labels, labels), Probe(rows, naming(answers), torch.full_like(rows, -1)))
    by_hand = [int(answers[place]) != int(labels[row]) for place, row in enumerate(rows.tolist())]
    assert found.fooled.tolist() == by_hand
    assert found.attack_success.value == pytest.approx(np.mean(by_hand))
    assert found.attack_success.n == len(labels)


def test_probes_with_and_without_a_wanted_class_are_each_counted_by_their_own_rule():
    labels, answers = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([3, 0, 3, 2, 2])
    wanted = torch.tensor([-1, -1, 3, 3, 2])  # the last shows what is wanted and is left out
    found = measure(Lookup(4), world(labels, labels), Probe(torch.arange(5), naming(answers), wanted))
    assert found.fooled.tolist() == [True, False, True, False]


def test_probes_made_of_one_object_are_one_cluster():
    labels, rows = torch.zeros(40, dtype=torch.int64), torch.arange(40)
    wanted, groups = torch.ones(40, dtype=torch.int64), torch.arange(40) // 4
    answers = (groups % 2).long()
    alone = measure(Lookup(4), world(labels, labels), Probe(rows, naming(answers), wanted)).attack_success
    found = measure(Lookup(4), world(labels, labels, groups), Probe(rows, naming(answers), wanted)).attack_success
    assert found.value == alone.value == 0.5
    assert found.high - found.low > alone.high - alone.low


def test_a_share_of_no_images_is_refused():
    labels = torch.zeros(5, dtype=torch.int64)
    rows = torch.arange(5)
    with pytest.raises(DataError, match="of 5 test images none shows another class"):
        measure(Lookup(4), world(labels, labels), Probe(rows, naming(rows % 2), labels))


def test_a_probe_of_rows_that_are_not_there_is_refused():
    with pytest.raises(DataError, match="beyond the end of the test set"):
        measure(
            Lookup(4),
            world(drawn("a", 5), drawn("a", 5)),
            Probe(torch.tensor([5]), naming(drawn("b", 1)), drawn("c", 1)),
        )
