"""Least squares on the simplex: the convex combination of a few vectors that comes nearest to another one.

For a target t and vectors a_1 ... a_k every c with c >= 0 and sum c = 1 gives ``t - sum c_j a_j = sum c_j (t - a_j)``,
so the squared distance is c'Hc with the Gram matrix H of the centred vectors t - a_j: small, and far better conditioned
than that of the vectors themselves. The optimum is either inside the simplex or inside one of its faces; on the face
with the support S it is H_SS^-1 1 / (1' H_SS^-1 1). With few vectors all faces are solved in one batch.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

EXACT = 8
"""Up to so many vectors all 2^k - 1 faces are solved; for more the optimum is approached."""

STEPS = 300
"""Steps of accelerated projected gradient for more vectors."""

RIDGE = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Added to the diagonal in parts of the mean of the diagonal, so that equal vectors have an inverse.

It has to be several roundings: with 1e-7 in float32 the whole face was lost for one target in fifty within the hull.
"""


def coefficients(centred: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n k"]:
    """Non-negative c that sum to one and minimise ``|| sum_j c_j v_j ||`` for each set of k centred vectors v.

    Any number of leading dimensions is solved at once, without leaving the device. Where several c are best, as with
    equal vectors, one of them is given.

    Args:
        centred: the target less each of the vectors.
    """
    wide = centred if centred.device.type == "mps" else centred.double()  # Apple's GPUs have no float64
    gram = wide @ wide.mT
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    gram = gram / scale.clamp_min(torch.finfo(gram.dtype).tiny)
    solve = exact if gram.shape[-1] <= EXACT else approached
    return solve(gram).to(centred)


def exact(gram: Float[Tensor, "*n k k"]) -> Float[Tensor, "*n k"]:
    """The minimiser of c'Hc on the simplex: the best of all faces whose own minimiser lies within them.

    Args:
        gram: H, with a diagonal around one.
    """
    count = gram.shape[-1]
    faces = torch.tensor(_faces(count), dtype=gram.dtype, device=gram.device)
    ridge = RIDGE[gram.dtype] * torch.eye(count, dtype=gram.dtype, device=gram.device)
    outside = torch.diag_embed(1 - faces)
    inside = (gram + ridge)[..., None, :, :] * (faces[:, :, None] * faces[:, None, :])
    # rows and columns off the face become the identity's, so that one factorisation serves faces of every size
    factor = torch.linalg.cholesky_ex(inside + outside).L
    solved = torch.cholesky_solve(faces[..., None].expand(*factor.shape[:-1], 1), factor)[..., 0] * faces
    candidates = solved / solved.sum(-1, keepdim=True)
    squared = torch.einsum("...i,...ij,...j->...", candidates, gram[..., None, :, :].expand_as(factor), candidates)
    feasible = (candidates >= 0).all(-1) & squared.isfinite()  # a corner always is
    best = squared.where(feasible, torch.inf).argmin(-1)
    return candidates.take_along_dim(best[..., None, None], -2)[..., 0, :]


@cache
def _faces(count: int) -> list[tuple[float, ...]]:
    """Every non-empty support as ones and zeros."""
    return [face for face in product((0.0, 1.0), repeat=count) if any(face)]


def approached(gram: Float[Tensor, "*n k k"], steps: int = STEPS) -> Float[Tensor, "*n k"]:
    """The minimiser of c'Hc on the simplex by accelerated projected gradient (Beck & Teboulle, FISTA, 2009)."""
    curvature = torch.linalg.eigvalsh(gram)[..., -1:].clamp_min(torch.finfo(gram.dtype).tiny)
    here = torch.full(gram.shape[:-1], 1 / gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ahead, momentum = here, 1.0
    for _ in range(steps):
        slope = (gram @ ahead[..., None])[..., 0]
        following = onto_simplex(ahead - slope / curvature)
        growth = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / growth * (following - here)
        here, momentum = following, growth
    return here


def onto_simplex(points: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
    """The nearest points with non-negative coordinates that sum to one (Held, Wolfe & Crowder, 1974)."""
    ordered = points.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    places = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device)
    kept = (ordered - excess / places > 0).sum(-1, keepdim=True)
    return (points - excess.take_along_dim(kept - 1, -1) / kept).clamp_min(0)
