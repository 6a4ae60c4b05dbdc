"""Several runs to charts: accuracies with their intervals, and a network's layers.

Accuracies, intervals and lists of layers enter; matplotlib figures leave, which
figures makes empty and turns into PNG files. Nothing here computes a score. The
experiments draw with it.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mgr_jax import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A series of accuracies each, of Okabe and Ito's palette: apart for every kind of
# colour vision.
_SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_LAYER_COLOURS = ("#ffffff", "#b9d4ea", "#e3e3e3")  # the input, learned, not learned


@dataclasses.dataclass(frozen=True)
class Layer:
    """A stage of a network, as `network_figure` draws it.

    Attributes:
      name: "convolution".
      shape: of what it gives: (bins, frames, channels), (frames, units) or (units,).
      detail: what sizes it: "8 x 3, step 4 x 1".
      parameters: how many numbers it learns.
    """

    name: str
    shape: tuple[int, ...]
    detail: str = ""
    parameters: int = 0


def network_figure(networks: Mapping[str, Sequence[Layer]]) -> "Figure":
    """A network's layers from left to right, a row for each input it is fitted to.

    A box is as high as the logarithm of its bins (or units) and as wide as that of its
    frames, all rows on one scale.

    Args:
      networks: name of the row, such as a feature's, to its layers; at least one row.

    Returns:
      The figure.
    """
    columns = max(map(len, networks.values()))
    figure = figures.blank(1.32 * columns + 0.2, 2.35 * len(networks))
    rows = figure.subplots(len(networks), 1, squeeze=False)[:, 0]
    for axes, (name, layers) in zip(rows, networks.items(), strict=True):
        total = sum(layer.parameters for layer in layers)
        title = f"{name}: {total:,} parameters"
        axes.set_title(title, loc="left", fontsize=11, parse_math=False)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(-2.0, 1.15)
        axes.set_axis_off()
        sizes = [_box(layer.shape) for layer in layers]
        for k, (layer, size) in enumerate(zip(layers, sizes, strict=True)):
            _draw_layer(axes, k, layer, size)
        for k, (left, right) in enumerate(itertools.pairwise(sizes)):
            ends = (k + left[0] / 2 + 0.03, 0), (k + 1 - right[0] / 2 - 0.03, 0)
            style = {"arrowstyle": "->", "color": "0.4"}
            axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops=style)
    return figure


def _box(shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height of a layer's box; 2048 is the most that grows."""
    frames, bins = (*shape, 1)[:2] if len(shape) == 2 else (*shape, 1)[1::-1]
    width, height = (min(math.log2(1 + size) / 11, 1) for size in (frames, bins))
    return 0.08 + 0.72 * width, 0.2 + 2 * height


def _draw_layer(axes: "Axes", k: int, layer: Layer, size: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    width, height = size
    colour = _LAYER_COLOURS[0 if k == 0 else 1 if layer.parameters else 2]
    corner = (k - width / 2, -height / 2)
    axes.add_patch(Rectangle(corner, width, height, fc=colour, ec="0.3", lw=0.8))
    shape = " x ".join(map(str, layer.shape))
    lines = [layer.name, shape, layer.detail]
    for row, text in enumerate(lines):
        style = {"weight": "bold"} if row == 1 else {}
        place = (k, -1.2 - 0.24 * row)
        axes.text(*place, text, ha="center", va="top", size=7.5, **style)


@dataclasses.dataclass(frozen=True)
class Bar:
    """One accuracy of `accuracy_figure`; shares, 0 to 1.

    Attributes:
      feature: its place on the x axis.
      series: what it belongs to, such as the model.
      mean: the accuracy.
      interval_95: [low, high].
    """

    feature: str
    series: str
    mean: float
    interval_95: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel of `accuracy_figure`.

    Attributes:
      title: a line above it.
      bars: what was measured.
      published: feature to an accuracy that others published, a share.
      constant: the accuracy of one and the same answer always, a share; None for none.
    """

    title: str
    bars: Sequence[Bar]
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    constant: float | None = None


def accuracy_figure(panels: Sequence[Panel], columns: int = 2) -> "Figure":
    """Accuracies as points with intervals, the features on the x axis.

    Args:
      panels: at least one; their series have the same colours all over.
      columns: panels side by side.

    Returns:
      The figure; its legend stands below.
    """
    series = list(dict.fromkeys(bar.series for panel in panels for bar in panel.bars))
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = figures.blank(4.6 * columns, 3.1 * rows + 0.4)
    figure.get_layout_engine().set(h_pad=0.09)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    handles = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, series)
        drawn = zip(*axes.get_legend_handles_labels()[::-1], strict=True)
        handles |= dict(drawn)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    grid[0, 0].set_ylim(0, 100)
    for axes in grid[:, 0]:
        axes.set_ylabel("Accuracy (%)")
    legend = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend(handles.values(), handles.keys(), **legend)
    return figure


def _draw_panel(axes: "Axes", panel: Panel, series: Sequence[str]) -> None:
    features = list(dict.fromkeys(bar.feature for bar in panel.bars))
    step = 0.6 / max(len(series), 2)
    for k, name in enumerate(series):
        bars = [bar for bar in panel.bars if bar.series == name]
        if not bars:
            continue
        shift = (k - (len(series) - 1) / 2) * step
        places = [features.index(bar.feature) + shift for bar in bars]
        means = np.array([100 * bar.mean for bar in bars])
        ends = 100 * np.array([bar.interval_95 for bar in bars]).T
        # A bootstrap's percentiles may leave the mean out by a hair.
        reach = np.abs(np.array([means - ends[0], ends[1] - means]).clip(0))
        look = {"fmt": "os^D"[k % 4], "color": _SERIES_COLOURS[k % 4], "capsize": 3}
        axes.errorbar(
            places, means, reach, ms=5, label=f"{name}, 95 % interval", **look
        )
    known = [name for name in features if name in panel.published]
    if known:
        places = [features.index(name) + 0.42 for name in known]
        values = [100 * panel.published[name] for name in known]
        axes.plot(places, values, "*", c="black", ms=9, label="the paper")
    if panel.constant is not None:
        label = "most frequent genre"
        axes.axhline(100 * panel.constant, c="0.45", ls=":", label=label)
    slant = {"rotation": 30, "ha": "right"} if len(features) > 4 else {}
    axes.set_xticks(range(len(features)), features, **slant)
    axes.set_xlim(-0.5, len(features) - 0.4)
    axes.set_title(panel.title, loc="left", fontsize=11, parse_math=False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of `lines_figure`; accuracies are shares, 0 to 1.

    Attributes:
      name: as the legend has it.
      x: ascending; () for a level line over the whole width.
      mean: as many accuracies, one for a level line.
      intervals_95: as many [low, high].
    """

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    intervals_95: Sequence[Sequence[float]]


def lines_figure(
    lines: Sequence[Line], x_label: str, title: str, constant: float | None = None
) -> "Figure":
    """Accuracies over a number, each with the band of its interval.

    Args:
      lines: at least one that has an x; up to four.
      x_label: quantity and unit.
      title: a line above it.
      constant: the accuracy of one and the same answer always; None for none.

    Returns:
      The figure.
    """
    figure = figures.blank(7.2, 4.4)
    axes = figure.subplots()
    ends = [x for line in lines for x in line.x]
    for k, line in enumerate(lines):
        x, mean, band = line.x, line.mean, line.intervals_95
        style = "o-"
        if not len(x):
            x, mean, band, style = (
                [min(ends), max(ends)],
                [*mean] * 2,
                [*band] * 2,
                "--",
            )
        low, high = 100 * np.array(band).T
        colour = _SERIES_COLOURS[k % 4]
        axes.plot(x, 100 * np.array(mean), style, color=colour, ms=4, label=line.name)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    if constant is not None:
        label = "most frequent genre"
        axes.axhline(100 * constant, c="0.45", ls=":", label=label)
    axes.set_xlabel(x_label)
    axes.set_ylabel("Accuracy (%)")
    axes.set_ylim(0, 100)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
