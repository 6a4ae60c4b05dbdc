"""Figures, page and closing table, looked at through what they say."""

import dataclasses
import html.parser
import shutil
import subprocess
import types
from typing import Any

import numpy as np
import pytest

from mgr_jax import charts, page, report, scores
from mgr_jax import figures as figures_lib

NASTY_GENRE = '<b>rock & "roll"</b>'
LAG_S = np.arange(384) * 512 / 22_050


@dataclasses.dataclass(frozen=True)
class StandInFeature:
    """The attributes of a Feature that a report reads."""

    name: str
    axis: Any
    value_label: str
    hop_length: int = 512


def feature(name):
    with np.errstate(divide="ignore"):
        axis = {
            "tempogram": ("Tempo", "BPM", 60 / LAG_S),
            "lags": ("Lag", "lag (s)", LAG_S),
            "chroma": ("Pitch class", "pitch class", np.arange(12)),
            "spectrogram": ("Frequency", "Hz", np.arange(1025) * 22_050 / 2048),
            "mfcc": ("Coefficient", "", np.arange(20)),
        }[name]
    label, unit, values = axis
    axis = types.SimpleNamespace(label=label, unit=unit, values=values)
    hop_length = 1920 if name == "spectrogram" else 512
    return StandInFeature(name, axis, "power (dB)", hop_length)


def examples(genres, bins, frames=57):
    rng = np.random.default_rng(0)
    return {genre: rng.normal(size=(bins, frames)) for genre in genres}


def history(epochs=6):
    return [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "train_accuracy": 1 - 0.8 / epoch,
            "validation_loss": 1 + (epoch - 4) ** 2 / 10,
            "validation_accuracy": 0.5,
            "learning_rate": 1e-3,
            "segments_per_s": 100.0,
            "seconds": 1.0,
            "best": epoch <= 4,
        }
        for epoch in range(1, epochs + 1)
    ]


def results(genres, tracks=40, **changes):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(tracks) % len(genres), 5)
    logits = rng.normal(size=(len(labels), len(genres)))
    logits[np.arange(len(labels)), labels] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = scores.Predictions(
        np.repeat([f"t{k}" for k in range(tracks)], 5),
        np.tile(np.arange(5), tracks),
        labels,
        probabilities,
    )
    return {
        "feature": "spectrogram",
        "dataset": "fma",
        "model": "cnn",
        "protocol": "official",
        "protocol_leaks": "",
        "split_warnings": [],
        "seed": 3,
        "genres": list(genres),
        "best_epoch": 4,
        "epochs_run": 6,
        "parameters": 123456,
        "num_segments": {"train": 500, "validation": 100, "test": 5 * tracks},
        "num_tracks": {"train": 100, "validation": 20, "test": tracks},
        "versions": {"jax": "0.10.2"},
        "wall_s": {"train": 3723.0, "evaluate": 2.5},
        "command": "python -m mgr_jax.main --feature=spectrogram",
        "config": {"seed": 3, "widths": [16, 32, 64], "learning_rate": 1e-3},
        **scores.score(predictions, genres),
        **changes,
    }


def drawn(figure):
    """Draws, so that every text has its place; returns the renderer."""
    figure.canvas.draw()
    return figure.canvas.get_renderer()


def tick_texts(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def assert_apart_and_inside(labels, figure):
    """No two of the labels overlap, and none is cut by the figure's edge."""
    renderer = drawn(figure)
    boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
    assert boxes
    for k, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for other in boxes[k + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 0 or height <= 0, "labels overlap"


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


# --- curves


def test_curves_show_both_sides_and_the_last_best_epoch():
    loss, accuracy = figures_lib.curves_figure(history()).axes
    np.testing.assert_allclose(
        line(loss, "training").get_ydata(), [2 / epoch for epoch in range(1, 7)]
    )
    np.testing.assert_allclose(line(accuracy, "validation").get_ydata(), [50.0] * 6)
    for axes in (loss, accuracy):
        assert line(axes, "best: epoch 4").get_xdata()[0] == 4
        assert axes.get_xlabel() == "Epoch"
    assert loss.get_ylabel() == "Loss (nats)"
    assert accuracy.get_ylabel() == "Accuracy (%)"
    assert accuracy.get_ylim() == (0, 100)


def test_curves_count_an_epoch_that_was_run_twice_once():
    rows = [*history(3), {**history(3)[2], "train_loss": 0.25}]
    loss = figures_lib.curves_figure(rows).axes[0]
    assert line(loss, "training").get_xdata().tolist() == [1, 2, 3]
    assert line(loss, "training").get_ydata()[-1] == 0.25


def test_curves_of_one_epoch_and_of_missing_values():
    figure = figures_lib.curves_figure([{"epoch": 1, "train_loss": 2.0}])
    drawn(figure)
    loss = figure.axes[0]
    assert loss.get_ylim()[1] > 2.0
    assert np.isnan(line(loss, "validation").get_ydata()[0])
    left, right = loss.get_xlim()
    assert [tick for tick in loss.get_xticks() if left <= tick <= right] == [1]


# --- confusion


def test_confusion_is_in_percent_of_each_row():
    figure = figures_lib.confusion_figure(
        [[3, 1, 0], [0, 0, 0], [1, 0, 999]], ["jazz", "metal", "rock"], "A title"
    )
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "A title"
    assert tick_texts(axes.xaxis) == ["jazz", "metal", "rock"]
    assert tick_texts(axes.yaxis) == ["jazz (4)", "metal (0)", "rock (1000)"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (0, 2): "<1", (2, 2): "100"}
    image = axes.images[0].get_array()
    np.testing.assert_allclose(image[0], [75, 25, 0])
    assert image.mask[1].all(), "a genre without examples has no percentages"


@pytest.mark.parametrize("count", [4, 16, 33])
def test_confusion_labels_neither_overlap_nor_are_cut(count):
    names = [f"Old-Time Historic {k}" for k in range(count)]
    counts = np.full((count, count), 7)
    figure = figures_lib.confusion_figure(
        counts, names, "Test tracks: 12.5 % of 800 right"
    )
    drawn(figure)
    (axes, *bar) = figure.axes
    assert_apart_and_inside(axes.yaxis.get_ticklabels(), figure)
    assert_apart_and_inside([axes._left_title, axes.yaxis.label], figure)
    # Slanted names have boxes that overlap though the names do not: see that each
    # stays below the matrix and inside the figure.
    floor = axes.get_window_extent().y0
    for label in axes.xaxis.get_ticklabels():
        box = label.get_window_extent()
        assert box.y1 <= floor and box.y0 >= 0 and box.x0 >= 0
    assert len(axes.texts) == (count * count if count <= 32 else 0)
    assert len(bar) == (0 if count <= 32 else 1)


def test_genre_names_are_drawn_as_they_are():
    genres = ["$x^2$ $5", "long " * 20]
    (axes,) = figures_lib.confusion_figure([[1, 0], [0, 1]], genres, "$a$ $b$").axes
    first, second = axes.xaxis.get_ticklabels()
    assert first.get_text() == "$x^2$ $5"
    assert not first.get_parse_math()
    assert not axes._left_title.get_parse_math()
    assert second.get_text().endswith("…") and len(second.get_text()) < 30
    drawn(axes.figure)


# --- examples


def panels(figure):
    return [axes for axes in figure.axes if axes.collections and axes.get_title("left")]


def test_examples_have_a_titled_panel_a_genre_in_seconds():
    genres = [f"genre {k}" for k in range(5)]
    figure = figures_lib.examples_figure(examples(genres, 1025), feature("spectrogram"))
    drawn(figure)
    assert [axes.get_title("left") for axes in panels(figure)] == genres
    assert figure.get_supxlabel() == "Time (s)"
    assert figure.get_supylabel() == "Frequency (Hz)"
    assert "spectrogram" in figure.get_suptitle()
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "power (dB)"
    first = panels(figure)[0]
    assert first.get_xlim() == pytest.approx((0, 57 * 1920 / 22_050))
    assert first.get_ylim() == pytest.approx((0, 11_025))
    assert tick_texts(first.yaxis) == [
        *("0", "500", "1000", "2000", "4000", "8000", "11025")
    ]
    assert_apart_and_inside(first.yaxis.get_ticklabels(), figure)
    # The panel above an empty place carries the time axis.
    assert [
        bool(axes.xaxis.get_tick_params()["labelbottom"]) for axes in figure.axes[:5]
    ] == [
        False,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("name", ["tempogram", "lags"])
def test_a_tempo_stands_at_its_tick(name):
    image = np.zeros((384, 216))
    row = int(np.argmin(abs(LAG_S - 0.5)))  # 120 BPM is one beat each half second
    image[row] = 1
    figure = figures_lib.examples_figure({"disco": image}, feature(name))
    drawn(figure)
    (axes,) = panels(figure)
    assert figure.get_supylabel() == "Tempo (BPM)"
    assert tick_texts(axes.yaxis) == ["15", "30", "60", "120", "240"]
    assert axes.yaxis.get_ticklocs().tolist() == [15, 30, 60, 120, 240]
    mesh = axes.collections[0]
    edges = mesh.get_coordinates()[:, 0, 1]
    lit = int(np.argmax(np.asarray(mesh.get_array())[:, 0]))
    low, high = sorted(edges[lit : lit + 2])
    assert low < 120 < high
    assert axes.get_ylim()[0] < axes.get_ylim()[1] <= 480, "fast is up"


def test_a_frequency_stands_at_its_tick():
    image = np.zeros((1025, 57))
    image[round(1000 * 2048 / 22_050)] = 1
    figure = figures_lib.examples_figure({"test tone": image}, feature("spectrogram"))
    mesh = panels(figure)[0].collections[0]
    lit = int(np.argmax(np.asarray(mesh.get_array())[:, 0]))
    edges = mesh.get_coordinates()[:, 0, 1]
    assert edges[lit] < 1000 < edges[lit + 1]


def test_chroma_rows_have_note_names():
    image = np.zeros((12, 216))
    image[9] = 1
    figure = figures_lib.examples_figure({"tuning fork": image}, feature("chroma"))
    drawn(figure)
    (axes,) = panels(figure)
    assert figure.get_supylabel() == "Pitch class"
    notes = dict(zip(tick_texts(axes.yaxis), axes.yaxis.get_ticklocs(), strict=True))
    assert notes == {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
    edges = axes.collections[0].get_coordinates()[:, 0, 1]
    assert edges[9] < notes["A"] < edges[10]
    assert axes.collections[0].get_clim() == (0, 1)


def test_an_axis_without_a_unit_is_drawn_by_row():
    figure = figures_lib.examples_figure(examples(["pop"], 20), feature("mfcc"))
    assert figure.get_supylabel() == "Coefficient"
    assert panels(figure)[0].get_ylim() == pytest.approx((-0.5, 19.5))


def test_silence_and_too_many_genres_still_make_a_picture():
    silent = {f"genre {k}": np.full((12, 5), -100.0) for k in range(161)}
    figure = figures_lib.examples_figure(silent, feature("chroma"))
    assert len(panels(figure)) == figures_lib.MAX_EXAMPLES
    assert "first 24 of 161" in figure.get_suptitle()
    with pytest.raises(ValueError, match="no examples"):
        figures_lib.examples_figure({}, feature("chroma"))


# --- files


def test_figures_are_written_as_pictures(tmp_path):
    import matplotlib.image

    genres = ["jazz", "metal", NASTY_GENRE, "hip/hop"]
    paths = figures_lib.write_figures(
        tmp_path, results(genres), history(), examples(genres, 12), feature("chroma")
    )
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "figures/curves.png",
        "figures/confusion_track.png",
        "figures/confusion_segment.png",
        "figures/examples.png",
    ]
    for path in paths:
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 300
        assert np.std(pixels[..., :3]) > 0.05, f"{path.name} is blank"


def test_what_there_is_nothing_of_is_not_drawn(tmp_path):
    assert figures_lib.write_figures(tmp_path, {}, [], {}, feature("chroma")) == []


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.tags, self.texts, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def nasty_page(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    genres = ["jazz", NASTY_GENRE, "metal", "absent"]
    made = results(genres[:3])
    for level in ("segment", "track"):
        made[level]["per_genre"]["absent"] = {
            "n": 0,
            "precision": None,
            "recall": None,
            "f1": None,
        }
        made[level]["confusion"] = np.diag([14, 13, 13, 0]).tolist()
    made["genres"] = genres
    made["protocol_leaks"] = "pieces of <one> track on both sides"
    made["split_warnings"] = ["only 3 tracks & no artists"]
    made["command"] = "python -m mgr_jax.main '--data_dir=/a <b>/\"c\"'"
    made["config"]["data_dir"] = "https://example.org/<script>alert(1)</script>"
    figures = figures_lib.write_figures(
        workdir, made, history(), examples(genres, 12), feature("chroma")
    )
    path = report.write_html(workdir, made, history(), figures)
    assert path == workdir / "report.html"
    return made, path.read_text(encoding="utf-8")


def test_page_needs_nothing_from_outside(nasty_page):
    _, text = nasty_page
    parsed = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(parsed.tags)
    for name, value in parsed.attributes:
        if name in ("src", "href", "srcset", "data", "action"):
            assert value.startswith("data:image/png;base64,")
        assert not name.startswith("on")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert parsed.tags.count("img") == 4
    assert parsed.open == []


def test_page_escapes_what_comes_from_data(nasty_page):
    _, text = nasty_page
    assert "<b>rock" not in text
    assert "&lt;b&gt;rock &amp; &quot;roll&quot;&lt;/b&gt;" in text
    assert "<one>" not in text and "/a <b>" not in text
    parsed = Page(text)
    assert NASTY_GENRE in parsed.text
    assert "only 3 tracks & no artists" in parsed.text


def test_page_says_what_was_measured_and_how(nasty_page):
    made, text = nasty_page
    said = Page(text).text
    for level in ("track", "segment"):
        low, high = made[level]["interval_95"]
        assert f"{100 * made[level]['accuracy']:.1f} %" in said
        assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in said
        assert f"n = {made[level]['n']}" in said
        assert made[level]["interval_method"] in said
    assert "official" in said
    assert "This protocol leaks: pieces of <one> track on both sides" in said
    assert made["command"] in said
    assert "4 of 6" in said
    assert "1 h 2 min" in said
    assert "16, 32, 64" in said
    assert "jax 0.10.2" in said
    assert "absent 0 - - -" in said
    assert "nan" not in said.lower().split() and "None" not in said


def test_page_and_table_bear_missing_keys(tmp_path):
    path = report.write_html(tmp_path, {}, [], [])
    assert Page(path.read_text(encoding="utf-8")).open == []
    assert "accuracy" in report.summary_table({}, [])


def test_page_bears_a_file_name_that_is_not_utf_8(tmp_path):
    made = results(["jazz", "metal"], command="--data_dir=/bad\udcff/name")
    path = report.write_html(tmp_path, made, [], [])
    assert "/bad?/name" in path.read_text(encoding="utf-8")


def test_summary_fits_a_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "fma"
    made = results(
        ["jazz", "metal", "rock"], protocol_leaks="one track, both sides " * 20
    )
    made["track"].update(n=800, accuracy=0.51, interval_95=[0.475, 0.545], macro_f1=0.4)
    names = ("results.json", "report.html", "predictions.csv")
    figures = [run / "figures" / f"{k}.png" for k in range(4)]
    text = report.summary_table(made, [*(run / name for name in names), *figures])
    lines = text.splitlines()
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 80
    assert text.isascii()
    assert lines[0] == (
        "dataset fma, feature spectrogram, model cnn, protocol official, seed 3"
    )
    assert lines[1].startswith("this protocol leaks: one track, both sides")
    tracks = next(line for line in lines if line.startswith("tracks"))
    assert tracks.split() == [
        *("tracks", "800", "51.0", "%"),
        *("47.5", "to", "54.5", "%", "0.400"),
    ]
    assert "best epoch 4 of 6" in text
    assert lines[-4:] == [
        "  runs/fma/results.json",
        "  runs/fma/report.html",
        "  runs/fma/predictions.csv",
        "  runs/fma/figures",
    ]


def test_no_pyplot_state_is_left_behind():
    import sys

    program = (
        "import sys\n"
        "from mgr_jax import charts, figures as figures_lib, report, scores\n"
        "assert not {'matplotlib', 'sklearn'} & set(sys.modules), 'imported at start'\n"
        "figures_lib.confusion_figure([[1, 0], [0, 1]], ['a', 'b'], 't')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- the blocks of a page


def policy(text):
    attributes = Page(text).attributes
    return next(v for k, v in attributes if k == "content" and "default-src" in v)


def test_only_a_page_with_a_script_lets_one_run():
    plain = page.frame("a <title>", "<p>body</p>")
    assert policy(plain) == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    assert "<script" not in plain
    scripted = page.frame("t", "", script="let a = {};")
    assert policy(scripted) == policy(plain) + "; script-src 'unsafe-inline'"
    assert "<script>let a = {};</script>" in scripted
    assert "a &lt;title&gt;" in plain


def test_a_width_is_the_pages_own():
    assert "max-width:62rem" in page.frame("t", "")
    assert "body{margin:0 auto;padding:1.2rem;max-width:78rem" in page.frame(
        "t", "", width_rem=78
    )


def test_only_markup_of_our_own_is_not_escaped():
    assert page.escape("<b>") == "&lt;b&gt;"
    assert page.code("a <b>") == '<code class="copy">a &lt;b&gt;</code>'
    assert "<code" in page.table(["h"], [[page.code("a <b>")]])
    assert page.bullets(["<i>"]) == "<ul><li>&lt;i&gt;</li></ul>"
    assert page.paragraph("<i>", "note") == '<p class="note">&lt;i&gt;</p>'


def test_a_sortable_table_carries_the_values_behind_its_cells():
    text = page.table(
        ["name", "n"],
        [["a", "1,000"], ["b", "-"]],
        sort_by=[["a", 1000], ["b", None]],
    )
    assert 'class="numbers sortable"' in text
    assert '<td data-sort="1000">1,000</td>' in text
    assert '<td data-sort="">-</td>' in text
    assert "data-sort" not in page.table(["name"], [["a"]])


CLICKS = """
const say = (what) => {
  const sorts = [...document.querySelectorAll("thead th")]
    .map((header) => header.getAttribute("aria-sort"));
  document.body.append(`${what}:${names().join("")}:${sorts.join(",")} `);
};
const names = () => [...document.querySelectorAll("tbody th")]
  .map((cell) => cell.textContent);
const [first, second] = document.querySelectorAll("thead th");
second.click(); say("up");
second.click(); say("down");
first.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"})); say("enter");
first.dispatchEvent(new KeyboardEvent("keydown", {key: "a"})); say("other");
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_click_or_enter_on_a_header_sorts_in_a_browser(tmp_path):
    rows = [["b", "9"], ["C", "1,000"], ["a", "-"], ["d", "10"]]
    table = page.table(
        ["name", "n"], rows, sort_by=[["b", 9], ["C", 1000], ["a", None], ["d", 10]]
    )
    path = tmp_path / "page.html"
    path.write_text(page.frame("t", table, page.SORT_SCRIPT + CLICKS))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for said in (
        "up:bdCa:none,ascending",
        "down:Cdba:none,descending",
        "enter:abCd:ascending,none",
        "other:abCd:ascending,none",
    ):
        assert said in done.stdout


# --- the network and the accuracies


def test_a_network_is_drawn_layer_by_layer_with_its_shapes():
    layers = [
        charts.Layer("input", (1025, 57, 1)),
        charts.Layer("convolution", (257, 29, 16), "8 x 4, step 4 x 2", 512),
        charts.Layer("dense, softmax", (10,), parameters=650),
    ]
    figure = charts.network_figure({"spectrogram": layers, "b": layers[:2]})
    drawn(figure)
    first, second = figure.axes
    assert first.get_title("left") == "spectrogram: 1,162 parameters"
    assert second.get_title("left") == "b: 512 parameters"
    said = [text.get_text() for text in first.texts]
    for text in ("input", "1025 x 57 x 1", "257 x 29 x 16", "8 x 4, step 4 x 2", "10"):
        assert text in said
    tall = [patch.get_height() for patch in first.patches[:3]]
    wide = [patch.get_width() for patch in first.patches[:3]]
    assert tall[0] > tall[1] > tall[2] and wide[0] > wide[1] > wide[2]
    boxes = [text.get_window_extent() for text in first.texts if text.get_text()]
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_accuracies_stand_in_percent_with_their_intervals_and_the_papers():
    bars = [
        charts.Bar("tempogram", "cnn", 0.5, [0.4, 0.55]),
        charts.Bar("chroma", "cnn", 0.3, [0.2, 0.4]),
        charts.Bar("chroma", "svm", 0.2, [0.1, 0.3]),
    ]
    panel = charts.Panel("gtzan", bars, {"chroma": 0.42, "mel": 0.9}, 0.1)
    figure = charts.accuracy_figure([panel, charts.Panel("b", bars[:1])])
    drawn(figure)
    axes, other = figure.axes
    assert tick_texts(axes.xaxis) == ["tempogram", "chroma"]
    assert axes.get_ylim() == (0, 100)
    cnn = axes.containers[0]
    np.testing.assert_allclose(cnn.lines[0].get_ydata(), [50, 30])
    (ends,) = cnn.lines[2]
    np.testing.assert_allclose(ends.get_segments()[0][:, 1], [40, 55])
    assert line(axes, "the paper").get_ydata().tolist() == [42]
    assert line(axes, "most frequent genre").get_ydata()[0] == 10
    assert len(other.containers) == 1
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(legend) == {
        "cnn, 95 % interval",
        "svm, 95 % interval",
        "the paper",
        "most frequent genre",
    }


def test_one_example_has_the_title_it_is_given():
    figure = figures_lib.examples_figure(
        examples(["blues"], 12), feature("chroma"), title="Fig. 3"
    )
    assert figure.get_suptitle() == "Fig. 3"
    assert [axes.get_title("left") for axes in panels(figure)] == ["blues"]


@pytest.mark.parametrize(("inches", "is_wide"), [(4, False), (9, True)])
def test_a_figure_that_a_phone_cannot_show_whole_says_so(inches, is_wide):
    figure = figures_lib.blank(inches, 3)
    figure.subplots().plot([0, 1])
    assert ('class="wide"' in page.picture(figures_lib.as_png(figure), "F")) is is_wide
