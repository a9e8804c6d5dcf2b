"""Sanitizers: every number by a second route, and what each finds and does not find by nature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from bezoar.defenses import latents as latents_module
from bezoar.defenses.latents import by_class, latents
from bezoar.defenses.sanitizers import contradicting_neighbours, deep_knn
from bezoar.defenses.sanitizers.activation_clustering import ActivationClustering, between
from bezoar.defenses.sanitizers.contradicting_neighbours import ContradictingNeighbours, conflict
from bezoar.defenses.sanitizers.deep_knn import disagreement
from bezoar.defenses.sanitizers.spectral_signatures import SpectralSignatures, projections
from bezoar.errors import ModelFileError
from bezoar.lab import Lab
from bezoar.models.classifier import mode
from bezoar.records import Poison, as_float
from bezoar.seed import Seed
from bezoar.testing import toy


def cloud(rows: int, centre: float, name: str) -> Float[Tensor, "n d"]:
    """Features around (centre, 0, 0, ...), standard normal."""
    points = torch.randn(rows, 8, generator=(Seed(1) / name).generator())
    points[:, 0] += centre
    return points


def test_latents_are_the_features_in_evaluation_mode_whatever_the_batch(monkeypatch: pytest.MonkeyPatch):
    model, data = toy.suspect(), toy.dataset(50)
    monkeypatch.setattr(latents_module, "BATCH", 7)
    with mode(model, training=False), torch.no_grad():
        expected = model.features(as_float(data.images()))
    assert torch.allclose(latents(model, data, Lab()), expected, atol=1e-5)


def test_features_that_are_no_numbers_are_refused_in_words():
    model = toy.suspect()
    with torch.no_grad():
        next(iter(model.parameters())).fill_(torch.nan)
    with pytest.raises(ModelFileError, match="features are not all finite"):
        latents(model, toy.dataset(8), Lab())


def test_every_row_belongs_to_the_rows_of_its_class_and_an_absent_class_has_none():
    labels = torch.tensor([2, 0, 2, 2])
    assert [rows.tolist() for rows in by_class(labels)] == [[1], [0, 2, 3]]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 10.0])
def test_disagreement_is_what_scikit_learn_counts(ratio: float, monkeypatch: pytest.MonkeyPatch):
    """Second route: brute-force neighbours, one row at a time; unequal classes, and chunks of a few rows."""
    features = torch.cat([cloud(40, 0, "a"), cloud(25, 2, "b"), cloud(10, 4, "c")]).double()
    labels = torch.tensor([0] * 40 + [1] * 25 + [2] * 10)
    monkeypatch.setattr(deep_knn, "AT_ONCE", 75 * 4)
    found = disagreement(features, labels, ratio, Lab())
    finder = NearestNeighbors(algorithm="brute").fit(features.numpy())
    sizes = labels.bincount()
    for row in range(75):
        wanted = min(max(1, round(ratio * (int(sizes[labels[row]]) - 1))), 74)
        near = finder.kneighbors(features[row : row + 1].numpy(), wanted + 1, return_distance=False)[0]
        others = [int(labels[each]) != int(labels[row]) for each in near if each != row]
        assert float(found[row]) == pytest.approx(np.mean(others), abs=1e-6)


def test_a_row_that_the_papers_vote_removes_has_at_least_a_half():
    """With equal classes, as in the paper: its label is not the most frequent among its k neighbours."""
    features = torch.cat([cloud(30, centre, str(centre)) for centre in (0, 1, 2)])
    labels = torch.arange(90) // 30
    found = disagreement(features, labels, 1.0, Lab())
    distances = torch.cdist(features, features).fill_diagonal_(torch.inf)
    near = labels[distances.topk(29, largest=False).indices]
    votes = torch.stack([(near == label).sum(1) for label in range(3)], 1)
    removed = votes.gather(1, labels[:, None])[:, 0] < votes.max(1).values
    assert 0 < int(removed.sum()) < 90
    assert float(found[removed].min()) >= 0.5


def test_rows_as_near_as_the_last_neighbour_count_too():
    """Two copies at one place, of which one neighbour is wanted: neither is preferred."""
    features = torch.tensor([[0.0], [1.0], [1.0], [9.0]])
    assert disagreement(features, torch.tensor([0, 0, 1, 1]), 1.0, Lab())[0] == 0.5


def test_a_small_class_far_from_the_others_is_not_suspicious_for_being_small():
    features = torch.cat([cloud(60, 0, "large"), cloud(5, 50, "small")])
    assert disagreement(features, torch.tensor([0] * 60 + [1] * 5), 1.0, Lab()).max() == 0


def test_a_mislabelled_row_differs_from_all_its_neighbours():
    features = torch.cat([cloud(30, 0, "one"), cloud(30, 50, "other")])
    labels = torch.tensor([0] * 30 + [1] * 30)
    labels[3] = 1
    found = disagreement(features, labels, 0.5, Lab())
    assert (int(found.argmax()), float(found[3])) == (3, 1.0)


@pytest.mark.parametrize("neighbours", [1, 5, 100])
def test_a_conflict_is_what_scikit_learns_neighbours_say(neighbours: int, monkeypatch: pytest.MonkeyPatch):
    """Second route: brute-force neighbours, one row at a time, in chunks of a few rows."""
    points = torch.cat([cloud(40, 0, "a"), cloud(25, 2, "b"), cloud(10, 4, "c")]).double()
    labels = torch.tensor([0] * 40 + [1] * 25 + [2] * 10)
    monkeypatch.setattr(contradicting_neighbours, "AT_ONCE", 75 * 4)
    found = conflict(points, labels, neighbours, Lab())
    finder = NearestNeighbors(n_neighbors=75, algorithm="brute").fit(points.numpy())
    k = min(neighbours, 74)
    for row in range(75):
        far, near = (each[0][1:] for each in finder.kneighbors(points[row : row + 1].numpy()))  # the first is itself
        other = labels[near] != labels[row]
        same, rival = far[~other.numpy()][0], far[other.numpy()][0]
        expected = (k * float(other[:k].double().mean()) + same / (same + rival)) / (k + 1)
        assert float(found[row]) == pytest.approx(expected, abs=1e-6)


def test_the_larger_conflict_of_pixels_and_features_is_a_rows_suspicion(monkeypatch: pytest.MonkeyPatch):
    """Ten rows have labels that contradict their pixels and not their features; ten others the reverse."""
    data = toy.dataset()
    data.labels[:10] = (data.labels[:10] + 1) % 4
    shown = data.labels.clone()
    shown[10:20] = (shown[10:20] + 1) % 4
    features = cloud(64, 0, "features").float() / 10 + 9 * torch.eye(8)[shown]
    monkeypatch.setattr(contradicting_neighbours, "latents", lambda *_: features)
    found = ContradictingNeighbours(neighbours=3).suspicion(toy.suspect(), data, Lab(), Seed(0))
    pixels = data.images().flatten(1).double() / 255  # the scale does not matter
    both = [conflict(space, data.labels, 3, Lab()) for space in (pixels, features.double())]
    assert torch.allclose(found, torch.maximum(*both), atol=1e-6)
    assert bool((both[0] > both[1]).any())
    assert bool((both[1] > both[0]).any())


def test_a_conflict_has_a_value_where_rows_coincide_or_a_label_stands_alone():
    points = torch.tensor([[0.0], [0.0], [0.0], [3.0], [5.0]])
    found = conflict(points, torch.tensor([0, 0, 1, 1, 2]), 1, Lab())
    # two coincident neighbours of the first row, one of them with another label: s = 1/2 and r = 0 / 0
    assert found.tolist() == pytest.approx([0.5, 0.5, 1.0, (1 + 3 / 5) / 2, 1.0])
    assert conflict(points, torch.zeros(5, dtype=torch.int64), 1, Lab()).tolist() == [0.0] * 5
    assert conflict(points[:1], torch.tensor([0]), 1, Lab()).tolist() == [0.0]


def test_points_of_one_base_under_two_labels_are_ranked_above_clean_rows():
    clean = toy.dataset(60)
    rows = torch.arange(6).repeat(2)
    points = Poison(rows, clean.batch(rows), (clean.labels[rows] + torch.arange(12) // 6) % 4, added=True)
    found = ContradictingNeighbours().suspicion(toy.suspect(), points.apply(clean), Lab(), Seed(0))
    assert float(found[66:].min()) > float(found[6:60].max())


def test_projections_are_those_on_numpys_top_singular_vector():
    features = cloud(40, 0, "spectral") * torch.arange(1, 9)
    centred = features.double().numpy() - features.double().numpy().mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    assert values[-1] > values[-2]
    assert np.allclose(np.abs(projections(features).numpy()), np.abs(centred @ vectors[:, -1]))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch):
    """Lets sanitizers see features that a test wrote down, with the labels of the toy's data."""

    def show(features: Tensor) -> None:
        for name in ("spectral_signatures", "activation_clustering"):
            monkeypatch.setattr(f"bezoar.defenses.sanitizers.{name}.latents", lambda *_: features)

    return show


def test_spectral_scores_are_squared_projections_from_the_median_of_each_class(seen):
    """Second route: numpy's singular vectors, class by class."""
    features = cloud(64, 0, "classes") * torch.tensor([5.0, *[1.0] * 7])
    seen(features)
    found = SpectralSignatures().suspicion(toy.suspect(), toy.dataset(64), Lab(), Seed(0))
    for label in range(4):
        own = features[label::4].double().numpy()
        along = (own - own.mean(0)) @ np.linalg.svd(own - own.mean(0))[2][0]
        assert np.allclose(found[label::4], (along - np.median(along)) ** 2, rtol=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_spectral_signatures_rank_a_cluster_of_poisons_first_up_to_nearly_half_of_its_class(share: float, seen):
    features = cloud(400, 0, "clean")
    labels = toy.dataset(400).labels
    target = (labels == 2).nonzero()[:, 0]
    poisons = target[: int(share * len(target))]
    features[poisons, 0] += 30
    seen(features)
    found = SpectralSignatures().suspicion(toy.suspect(), toy.dataset(400), Lab(), Seed(0))
    assert set(found.argsort(descending=True)[: len(poisons)].tolist()) == set(poisons.tolist())


@pytest.mark.parametrize("reduction", ["ica", "pca"])
def test_activation_clustering_is_positive_for_the_smaller_of_two_blobs_alone(reduction: str, seen):
    features = cloud(400, 0, "blobs")
    labels = toy.dataset(400).labels
    poisons = (labels == 2).nonzero()[:20, 0]
    features[poisons, 0] += 30
    seen(features)
    sanitizer = ActivationClustering(reduction=reduction)  # type: ignore[arg-type]
    found = sanitizer.suspicion(toy.suspect(), toy.dataset(400), Lab(), Seed(0))
    inside = labels == 2
    inside[poisons] = False
    assert found[poisons].min() > 0 > found[inside].max()
    assert found[poisons].min() > found[labels != 2].max()


def test_the_score_is_place_times_silhouette_times_how_small_the_cluster_is():
    """Second route: two blobs whose clusters are known, so that all three factors can be written down."""
    blobs = torch.cat([cloud(30, 0, "big"), cloud(10, 20, "small")]).double().numpy()
    sides = np.array([0] * 30 + [1] * 10)
    centres = np.stack([blobs[sides == side].mean(0) for side in (0, 1)])
    big, small = (np.linalg.norm(blobs - centre, axis=1) for centre in centres)
    expected = silhouette_samples(blobs, sides).mean() * (1 - 2 * 10 / 40) * (big - small) / (big + small)
    assert np.allclose(between(blobs, 0), expected)


def test_principal_components_are_no_more_than_the_rank():
    flat = cloud(30, 0, "flat").double().numpy()
    flat[:, 3:] = 0
    reduced = ActivationClustering(reduction="pca").reduced(flat, 0)
    assert reduced.shape == (30, 3)
    assert np.allclose(np.abs(reduced), np.abs(PCA(3).fit_transform(flat)))


def test_a_class_of_three_rows_has_no_clusters():
    assert between(cloud(3, 0, "few").double().numpy(), 0).tolist() == [0, 0, 0]
