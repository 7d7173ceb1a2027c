"""Routing to look at: a picture of the run, a heat map for a tracker."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from olmoe_ft.training.router.loads import load_of

HIGHEST = 4.0  # end of the colour scale, in balanced loads; the same in all pictures, so that they can be compared


def routing_picture(rows: list[dict[str, Any]], probe: dict[str, np.ndarray]) -> Figure:
    """Load of the probe batch at the start and at the end of the run, and how the choices moved apart in between."""
    experts = int(probe["experts"])
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    before, after, drift = figure.subplots(1, 3)
    loads = [load_of(probe[name], experts) for name in ("start", "end")]
    draw_load(before, loads[0], "load before, on the probe batch")
    draw_load(after, loads[1], "load after, on the probe batch")
    layers = len(probe["start"])
    colors = colormaps["viridis"].resampled(layers)
    for layer in range(layers):
        points = [row for row in rows if row["layer"] == layer and row["drift_agreement"] is not None]
        steps, shares = [0, *(row["step"] for row in points)], [1.0, *(row["drift_agreement"] for row in points)]
        drift.plot(steps, shares, color=colors(layer), label=f"layer {layer}")
    unrelated = probe["start"].shape[2] / experts
    drift.axhline(unrelated, color="grey", linestyle=":", label="unrelated routers")
    drift.set(
        title="choices that agree with the start", xlabel="optimizer step", ylabel="share of top-k", ylim=(0, 1.02)
    )
    drift.xaxis.set_major_locator(MaxNLocator(integer=True))
    drift.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_load(axes: Axes, load: np.ndarray, title: str) -> AxesImage:
    """A heat map of (layers, experts) shares over the balanced one: white 1, blue idle, red busy."""
    scale = TwoSlopeNorm(vcenter=1.0, vmin=0.0, vmax=HIGHEST)
    image = axes.imshow(load * load.shape[1], cmap="RdBu_r", norm=scale, aspect="auto", interpolation="nearest")
    axes.set(title=title, xlabel="expert", ylabel="layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.figure.colorbar(image, ax=axes, label="load / balanced load", extend="max")
    return image


class LoadMap:
    """The heat map of one record after the other, on one scale; drawn anew only where it changes."""

    def __init__(self, layers: int, experts: int) -> None:
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        self.canvas, self.axes = FigureCanvasAgg(figure), figure.subplots()
        self.image = draw_load(self.axes, np.zeros((layers, experts)), "expert load at step 0")
        self.canvas.draw()
        figure.set_layout_engine("none")  # the positions are settled

    def pixels(self, load: np.ndarray, step: int) -> np.ndarray:
        """A load of (layers, experts) as a picture (height, width, RGBA)."""
        self.image.set_data(load * load.shape[1])
        self.axes.set_title(f"expert load at step {step}")
        self.canvas.draw()
        return np.array(self.canvas.buffer_rgba())
