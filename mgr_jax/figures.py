"""A run's results to figures: curves, confusion matrices, examples of the feature.

The scores of a run, the rows of its metrics.jsonl and arrays of features enter;
matplotlib figures and PNG files leave. Nothing here computes a score. evaluate calls
`write_figures`; charts and the experiments draw with the rest.
"""

import io
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
    figure = blank(9.0, 3.6)
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
    figure = blank(side + 2.6, side + 1.8)
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
    figure = blank(panel[0] * columns + 0.8, panel[1] * rows + 0.9)
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


def blank(width_in: float, height_in: float) -> "Figure":
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
