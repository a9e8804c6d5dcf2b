"""The radius curve: how many answers are vouched for within each radius."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from bezoar.records import Norm
from bezoar.report.canvas import INK, LINES, WIDTH, blank, dress, in_percent, legend, shortened
from bezoar.report.figures import DASHES

NORMS: dict[Norm, str] = {"2": "L2", "inf": "L∞"}


def radius_curves(lines: Mapping[str, Float[Tensor, "_"]], *, demanded: float, norm: Norm) -> Figure:
    """The share of images that are vouched for within at least each radius, as exact steps, one line a name.

    Args:
        lines: name -> radius of each image, float [n], 0 where nothing is vouched for (or where it does not count).
        demanded: the radius from which on an answer counts as certified; marked.
        norm: in which radii are measured.
    """
    figure = blank(WIDTH, 3.4)
    axes = figure.subplots()
    most = max([demanded, *(float(radius.max()) for radius in lines.values() if len(radius))])
    for number, (name, radius) in enumerate(lines.items()):
        held = np.sort(radius[radius > 0].detach().cpu().double().numpy())
        left = np.arange(len(held), -1, -1) / max(1, len(radius))
        # the share at r is that of radii >= r, so it falls just behind each of them
        axes.step(
            np.concatenate([[0.0], held, [1.05 * most]]),
            np.concatenate([left, [0.0]]) if len(held) else [0.0, 0.0],
            where="post",
            label=shortened(name, 40),
            color=LINES[number % len(LINES)],
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.8,
        )
    axes.axvline(demanded, color=INK, linewidth=1, linestyle=(0, (1, 2)), label=f"demanded radius {demanded:.3g}")
    dress(axes, across=f"radius in {NORMS[norm]}, pixels from 0 to 1", up="")
    axes.set_xlim(0, 1.05 * most)
    axes.set_ylim(-0.03, 1.03)
    in_percent(axes)
    legend(figure, axes, len(lines) + 1)
    return figure
