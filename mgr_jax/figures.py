"""Results to figures: curves, confusion matrices, examples, accuracies, the network.

The scores of runs, the rows of a metrics.jsonl, arrays of features and lists of layers
enter; matplotlib figures and PNG files leave. Nothing here computes a score. evaluate
calls `write_figures`; the experiments draw with the rest.
"""

import dataclasses
import io
import itertools
import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mgr_jax.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mgr_jax.features import Feature

MAX_EXAMPLES = 24  # panels that still make one picture
MAX_NUMBERED_GENRES = 32  # confusion matrices with a number in each cell

# Okabe and Ito's blue and vermilion: apart for every kind of colour vision.
_TRAIN_COLOUR, _VALIDATION_COLOUR = "#0072B2", "#D55E00"
# Of the same palette: a series of accuracies each.
_SERIES_COLOURS = (_TRAIN_COLOUR, _VALIDATION_COLOUR, "#009E73", "#CC79A7")
_LAYER_COLOURS = ("#ffffff", "#b9d4ea", "#e3e3e3")  # the input, learned, not learned
_GREY = "#d0d0d0"
DPI = 150
_LEVELS = {"track": "tracks", "segment": "segments"}


def curves_figure(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss and accuracy over the epochs, side by side, the best epoch marked.

    Args:
      history: rows of metrics.jsonl. Of two rows with one epoch, which a run that was
        killed and continued can leave, the later counts; the best epoch is the last
        row with "best". A missing value leaves a gap.

    Returns:
      The figure.
    """
    from matplotlib.ticker import MaxNLocator

    rows = list({row["epoch"]: row for row in history}.values())
    epochs = [row["epoch"] for row in rows]
    best = max((row["epoch"] for row in rows if row.get("best")), default=None)
    figure = _figure(9.0, 3.6)
    loss, accuracy = figure.subplots(1, 2)
    for axes, quantity, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for side, colour, marker in (
            ("train", _TRAIN_COLOUR, "o"),
            ("validation", _VALIDATION_COLOUR, "s"),
        ):
            key = f"{side}_{quantity}"
            values = [factor * _float(row.get(key)) for row in rows]
            name = "training" if side == "train" else side
            axes.plot(epochs, values, marker, ls="-", c=colour, ms=3.5, label=name)
        if best is not None:
            axes.axvline(best, color="0.35", linestyle=":", label=f"best: epoch {best}")
        axes.set_xlabel("Epoch")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    loss.set_title("Cross entropy", loc="left")
    loss.set_ylabel("Loss (nats)")
    loss.update_datalim([(epochs[0], 0)])
    loss.autoscale_view(scalex=False)
    loss.set_ylim(bottom=0)
    accuracy.set_title("Accuracy of segments", loc="left")
    accuracy.set_ylabel("Accuracy (%)")
    accuracy.set_ylim(0, 100)
    loss.legend()
    return figure


def confusion_figure(
    confusion: Sequence[Sequence[int]], genres: Sequence[str], title: str
) -> "Figure":
    """A confusion matrix, each row in percent of its true genre's examples.

    Args:
      confusion: (genres, genres) counts, rows true, columns predicted.
      genres: names in that order; each row's label carries its count. Up to 32 have
        numbers in their cells.
      title: a line above it.

    Returns:
      The figure; the row of a genre without examples is grey.
    """
    from matplotlib import colormaps

    counts = np.asarray(confusion)
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        percent = 100 * counts / totals[:, np.newaxis]
    n = len(genres)
    cell = 0.62 if n <= 16 else 0.42 if n <= MAX_NUMBERED_GENRES else 0.14
    font = 10 if n <= 16 else 9 if n <= MAX_NUMBERED_GENRES else 6.5
    side = max(3.2, n * cell)
    figure = _figure(side + 2.6, side + 1.8)
    axes = figure.subplots()
    shades = colormaps["Blues"].with_extremes(bad=_GREY)
    image = axes.imshow(np.ma.masked_invalid(percent), cmap=shades, vmin=0, vmax=100)
    if n <= MAX_NUMBERED_GENRES:
        _write_cells(axes, counts, percent, font)
    else:
        figure.colorbar(image, label="% of the row", shrink=0.5, aspect=40)
    names = [_short(genre) for genre in genres]
    rows = [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    plain = {"fontsize": font, "parse_math": False}
    upright = n > MAX_NUMBERED_GENRES
    slant = {"rotation": 90 if upright else 45, "va": "center" if upright else "top"}
    slant |= {"rotation_mode": "anchor", "ha": "right"}
    axes.set_xticks(np.arange(n), names, **plain, **slant)
    axes.set_yticks(np.arange(n), rows, **plain)
    axes.tick_params(length=0)
    axes.set_xlabel("Predicted (cells: % of the row)")
    axes.set_ylabel("True (examples)")
    wrapped = textwrap.fill(title, int(12 * (side + 1)))
    axes.set_title(wrapped, loc="left", parse_math=False)
    return figure


def _write_cells(
    axes: "Axes", counts: np.ndarray, percent: np.ndarray, font: float
) -> None:
    """Percent in every cell that counts something; a zero stays blank."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        value = percent[row, column]
        text = "<1" if value < 0.5 else f"{value:.0f}"
        colour = "white" if value > 65 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, size=font)


def examples_figure(
    examples: Mapping[str, np.ndarray], feature: "Feature", title: str = ""
) -> "Figure":
    """One example of a feature per genre, on common axes and one colour scale.

    Frequencies stand on a mel scale, tempi on a logarithmic one.

    Args:
      examples: genre -> (bins, frames) in the feature's units; the first 24 are drawn.
      feature: gives hop length, axis and the meaning of the values.
      title: a line above it; where none is given, one that says what is shown.

    Returns:
      The figure.

    Raises:
      ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("no examples to draw")
    shown = dict(list(examples.items())[:MAX_EXAMPLES])
    n = len(shown)
    # Few empty panels at the end; on a tie the wider grid, which is the lower one.
    columns = min(n, 2) if n <= 4 else min((4, 3), key=lambda count: -n % count)
    rows = math.ceil(n / columns)
    panel = (2.9, 2.0) if n > 1 else (5.4, 2.9)
    figure = _figure(panel[0] * columns + 0.8, panel[1] * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    keep, edges = _edges(feature.axis)
    images = {genre: np.asarray(image)[keep] for genre, image in shown.items()}
    values = np.concatenate([image.ravel() for image in images.values()])
    low, high = np.percentile(values, [1, 99.8])
    if values.min() > -1e-3 and values.max() < 1 + 1e-3:
        low, high = 0.0, 1.0  # a normalised feature; rounding may pass its ends
    for axes, (genre, image) in zip(panels.flat, images.items(), strict=False):
        seconds = np.arange(image.shape[1] + 1) * feature.hop_length / SAMPLE_RATE_HZ
        mesh = axes.pcolormesh(
            seconds, edges, image, cmap="magma", vmin=low, vmax=high, rasterized=True
        )
        axes.set_title(_short(genre), loc="left", fontsize=11, parse_math=False)
    _set_scale(panels[0, 0], feature.axis, edges)
    for axes in panels.flat[n:]:
        axes.set_visible(False)
        panels[rows - 2, axes.get_subplotspec().colspan.start].tick_params(
            labelbottom=True
        )
    figure.supxlabel("Time (s)", fontsize=11)
    figure.supylabel(_axis_label(feature.axis), fontsize=11)
    below, above = values.min() < low - 1e-3, values.max() > high + 1e-3
    extend = ("neither", "min", "max", "both")[int(below) + 2 * int(above)]
    figure.colorbar(
        mesh,
        ax=panels,
        label=feature.value_label,
        extend=extend,
        aspect=15 * rows,
        pad=0.02,
    )
    if not title:
        title = f"{feature.name}: one segment per genre"
        if n < len(examples):
            title += f" (the first {n} of {len(examples)} genres)"
    figure.suptitle(title, fontsize=12, parse_math=False)
    return figure


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
    figure = _figure(1.32 * columns + 0.2, 2.35 * len(networks))
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
    figure = _figure(4.6 * columns, 3.1 * rows + 0.4)
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
    figure = _figure(7.2, 4.4)
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


def _is_tempo(axis: Any) -> bool:
    return "BPM" in axis.unit or axis.unit.startswith("lag")


def _tempi(axis: Any) -> np.ndarray:
    """(bins,) beats a minute of a tempogram's rows, whether it counts BPM or lags."""
    if "BPM" in axis.unit:
        return np.asarray(axis.values, float)
    with np.errstate(divide="ignore"):
        return 60 / np.asarray(axis.values, float)


def _edges(axis: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which rows can be drawn, and the lines between them (rows + 1,)."""
    if _is_tempo(axis):
        # Lags are evenly spaced, tempi are not; lag 0 is no tempo and is left out.
        bpm = _tempi(axis)
        keep = np.isfinite(bpm) & (bpm > 0)
        return keep, 60 / _between(60 / bpm[keep])
    values = np.asarray(axis.values)
    if axis.unit != "Hz":
        return np.ones(len(values), bool), np.arange(len(values) + 1) - 0.5
    return np.ones(len(values), bool), _between(values.astype(float)).clip(0)


def _between(values: np.ndarray) -> np.ndarray:
    """(n,) centres to (n + 1,) edges, half a step beyond both ends."""
    if len(values) == 1:
        return values[0] + np.array([-0.5, 0.5])
    middles = (values[1:] + values[:-1]) / 2
    first, last = 2 * values[0] - middles[0], 2 * values[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


def _set_scale(axes: "Axes", axis: Any, edges: np.ndarray) -> None:
    """Scale, limits and ticks of the vertical axis."""
    if axis.unit == "Hz":
        axes.set_yscale("function", functions=(_to_mel, _from_mel))
        axes.set_ylim(edges[0], min(edges[-1], SAMPLE_RATE_HZ / 2))
        ticks, names = [0, 500, 1000, 2000, 4000, 8000, 11025], None
    elif _is_tempo(axis):
        axes.set_yscale("log", base=2)
        axes.set_ylim(edges.min(), min(edges.max(), 480))
        ticks, names = [15, 30, 60, 120, 240], None
    elif axis.unit == "pitch class":
        ticks, names = [0, 2, 4, 5, 7, 9, 11], list("CDEFGAB")
    elif np.asarray(axis.values).dtype.kind == "U":
        # Rows named "kind, band", too many to name each: a kind's middle says the kind.
        kinds = np.array([row.split(",")[0] for row in axis.values])
        names = list(dict.fromkeys(kinds))
        ticks = [np.flatnonzero(kinds == kind).mean() for kind in names]
    else:
        return
    low, high = sorted(axes.get_ylim())
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(ticks, names or [str(tick) for tick in ticks])
    axes.minorticks_off()


def _axis_label(axis: Any) -> str:
    if _is_tempo(axis):
        return "Tempo (BPM)"
    named = not axis.unit or axis.unit.lower() in axis.label.lower()
    return axis.label if named else f"{axis.label} ({axis.unit})"


def _to_mel(hz: np.ndarray) -> np.ndarray:
    # O'Shaughnessy's formula, mirrored below zero: matplotlib asks for margins there.
    hz = np.asarray(hz, float)
    return np.sign(hz) * 2595 * np.log10(1 + np.abs(hz) / 700)


def _from_mel(mel: np.ndarray) -> np.ndarray:
    mel = np.asarray(mel, float)
    return np.sign(mel) * 700 * (10 ** (np.abs(mel) / 2595) - 1)


def write_figures(
    workdir: str | pathlib.Path,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    examples: Mapping[str, np.ndarray],
    feature: "Feature",
) -> list[pathlib.Path]:
    """Draws a run's figures into workdir/figures.

    Args:
      workdir: the run's folder.
      results: as in results.json; uses genres, and the confusion of both levels.
      history: rows of metrics.jsonl; without any there is no curves.png.
      examples: genre -> (bins, frames); without any there is no examples.png.
      feature: the examples' feature.

    Returns:
      The PNG files: curves, confusion_track, confusion_segment, examples.
    """
    folder = pathlib.Path(workdir) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    if history:
        figures["curves"] = curves_figure(history)
    for level, noun in _LEVELS.items():
        scores = results.get(level, {})
        if "confusion" in scores:
            title = (
                f"Test {noun}: {100 * scores['accuracy']:.1f} % "
                f"of {scores['n']:,} right"
            )
            figures[f"confusion_{level}"] = confusion_figure(
                scores["confusion"], results["genres"], title
            )
    if examples:
        figures["examples"] = examples_figure(examples, feature)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(as_png(figure))
    return paths


def as_png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file, `DPI` dots an inch, margins cut."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)
    return file.getvalue()


def _figure(width_in: float, height_in: float) -> "Figure":
    """An empty figure that belongs to nobody: no pyplot, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _short(name: str, width: int = 24) -> str:
    name = " ".join(str(name).split())
    return name if len(name) <= width else name[: width - 1] + "…"


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
