"""Activation clustering: the features of a poisoned class fall into two clusters, and the smaller one is the poison."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from torch import Tensor

from bezoar.component import register
from bezoar.defenses.latents import by_class, latents
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Sanitizer
from bezoar.seed import Seed

Matrix = NDArray[np.float64]

FEWEST = 4
"""In a class of fewer rows no clusters can be told."""

NOISE = 1e-6
"""Directions that vary so little against the widest are rounding of float32; whitening would blow them up."""


@register("activation_clustering", paper="arXiv:1811.03728")
class ActivationClustering(Sanitizer):
    """Which of two clusters of its class a row belongs to, and how much that says (Chen et al., SafeAI 2019).

    In each class the features before the last layer are reduced to ten components and divided by 2-means. The
    paper calls a class poisoned by how well the clusters are told apart (silhouette) or by how small the
    smaller is, and removes that cluster. Here the score of a row is its place between the two centres, (b - s)
    / (b + s) for distances b and s to the bigger and the smaller cluster's, times the class's silhouette, times
    1 - 2r for the share r of rows in the smaller cluster. So it is positive in the smaller cluster and negative
    in the bigger, and all but 0 in a class of one cluster, which 2-means cuts into halves that touch.

    The components are principal ones. The paper's are independent ones (``reduction: ica``), which are whitened: the
    direction in which poison lies apart is no wider than any other, and 2-means may take another one for the clusters.
    With obvious poison that happens about every other time (docs/decisions/0010), so it is not the default.
    """

    components: Annotated[int, Field(ge=1)] = 10
    reduction: Literal["pca", "ica"] = "pca"

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Float[Tensor, "n"]:
        """Between -1 and 1; the seed starts ICA and 2-means."""
        features = latents(victim, data, lab)
        scores = torch.zeros(len(data))
        classes = list(by_class(data.labels))
        for rows in lab.progress.track(classes, "clusters", len(classes)):
            each = (seed / "class" / int(data.labels[rows[0]])).integer() % 2**32  # as far as scikit-learn's seeds go
            reduced = self.reduced(features[rows].double().numpy(), each)
            scores[rows] = torch.from_numpy(between(reduced, each)).float()
        return scores

    def reduced(self, features: Matrix, seed: int) -> Matrix:
        """Features [m, d] as components [m, c], where c is no larger than the rank; none if all rows are alike."""
        widths = np.linalg.svd(features - features.mean(0), compute_uv=False)
        count = min(self.components, int((widths > NOISE * widths[0]).sum()), len(features) - 1)
        if count < 1:
            return np.zeros((len(features), 0))
        # rows in an order of their own, so that the order in which they come does not matter
        order = np.lexsort(features.T)
        method: Any = (PCA if self.reduction == "pca" else FastICA)(count, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # whitened components that turn on are as good
            method.fit(features[order])
        return cast(Matrix, method.transform(features))


def between(reduced: Matrix, seed: int) -> Matrix:
    """The score of each row of one class, from its components [m, c]."""
    if len(np.unique(reduced, axis=0)) < FEWEST or not reduced.shape[1]:
        return np.zeros(len(reduced))
    order = np.lexsort(reduced.T)
    starts: Any = 10  # scikit-learn's own annotation knows only "auto"
    means: Any = KMeans(2, n_init=starts, random_state=seed).fit(reduced[order])
    distances, labels = cast(Matrix, means.transform(reduced)), np.asarray(means.predict(reduced))
    sizes = np.bincount(labels, minlength=2)
    smaller = int(sizes.argmin())
    told: Any = silhouette_score(reduced, labels)
    weight = max(0.0, float(told)) * (1 - 2 * sizes[smaller] / len(reduced))
    return weight * (distances[:, 1 - smaller] - distances[:, smaller]) / distances.sum(1)
