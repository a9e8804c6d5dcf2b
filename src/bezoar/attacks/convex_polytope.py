"""Convex Polytope: poisons whose features surround the target's (Zhu et al., ICML 2019)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from bezoar.attacks.crafting import FeatureCrafting, Layers, Maps, Pull
from bezoar.attacks.feature_collision import collision
from bezoar.attacks.simplex import coefficients
from bezoar.component import register


@register("convex_polytope", paper="arXiv:1905.05897, Eq. 3 and 4")
class ConvexPolytope(FeatureCrafting):
    """Make a convex combination of the poisons' features meet the target's, one for each network and layer (spec 2).

    Whoever labels all poisons as the base class by a linear layer then labels the target so too (Proposition 1). The
    coefficients are solved exactly before every step and held fixed in it, which gives the gradient of the loss that is
    minimal over them. With ``layers: 2`` and ``last_layer: collision`` the features themselves are pulled by Feature
    Collision, as in the released code, where a broadcast makes it so.
    """

    last_layer: Literal["polytope", "collision"] = "polytope"

    def pull(self, outputs: Layers, wanted: Layers) -> Pull:
        """Half the squared distance to the polytope over the target's squared norm, summed over layers."""
        pulls = [polytope(seen, target) for seen, target in zip(outputs, wanted, strict=True)]
        if self.last_layer == "collision":
            last = collision(outputs[-1], wanted[-1])
            pulls[-1] = Pull(last.losses / 2, [one / 2 for one in last.gradients])
        losses = sum((one.losses for one in pulls[1:]), pulls[0].losses)
        return Pull(losses, [one.gradients[0] for one in pulls])


def polytope(seen: Maps, wanted: Float[Tensor, "t *d"]) -> Pull:
    """The loss of one layer (Eq. 3 with m = 1), minimal over the coefficients."""
    vectors, target = seen.flatten(2), wanted.flatten(1)
    chosen = coefficients(target[:, None] - vectors)[..., None]
    squared = target.square().sum(1)
    rest = (chosen * vectors).sum(1) - target
    gradient = chosen * rest[:, None] / squared[:, None, None]
    return Pull(rest.square().sum(1) / squared / 2, [gradient.view_as(seen)])
