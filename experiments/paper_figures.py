"""The paper's figures, remade from a grid of runs: each is a block of the page.

Outcomes and groups of runs enter; pictures leave as HTML, each with a caption that
gives the paper's number for it, or a line that says why it is not there. paper_report
calls it.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import groups as groups_lib
from experiments.groups import LEVELS, Group
from mgr_jax import charts, figures, page
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import dataset_key
from mgr_jax.features import FEATURES

if TYPE_CHECKING:
    from experiments.grid import Outcome

_CONFUSIONS, _LOSSES = {"fma": "Fig. 5", "gtzan": "Fig. 7"}, {"gtzan": "Fig. 6"}


def blocks(outcomes: Sequence["Outcome"], groups: Sequence[Group]) -> Iterator[str]:
    """Every figure of the paper as a block of the page, or why it is not there."""
    yield from _networks(outcomes, groups)
    for number, feature in ((2, "tempogram"), (3, "chroma"), (4, "spectrogram")):
        yield _example(f"Fig. {number}", feature, outcomes)
    shown = groups_lib.default_protocol(groups)
    drawings = [
        *((k, _confusion(k, x)) for k, x in _wanted(shown, "spectrogram", _CONFUSIONS)),
        *((k, _losses(k, x)) for k, x in _wanted(shown, "tempogram", _LOSSES)),
    ]
    # The paper's own numbers first.
    drawings.sort(key=lambda drawing: (drawing[0].startswith("As"), drawing[0]))
    yield from (block for _, block in drawings)
    if shown:
        caption = "Fig. 8, drawn: accuracy by feature, and the paper's on its data"
        panels = [
            _panel(heading, part, level)
            for heading, part in groups_lib.by_protocol(shown).items()
            for level in reversed(LEVELS)
        ]
        yield _drawing(charts.accuracy_figure(panels), caption)


def _drawing(figure: Any, caption: str) -> str:
    return page.picture(figures.as_png(figure), caption)


def _wanted(
    groups: Sequence[Group], feature: str, numbers: Mapping[str, str]
) -> Iterator[tuple[str, Group]]:
    """A network's group for each data set, with its number in the paper."""
    like = " and ".join(sorted(numbers.values()))
    for one in groups:
        if one.config.feature == feature and one.model == "cnn":
            yield numbers.get(one.config.dataset, f"As {like}"), one


def _networks(outcomes: Sequence["Outcome"], groups: Sequence[Group]) -> Iterator[str]:
    from mgr_jax.models import MODELS

    genres = {
        dataset_key(x.config): len(x.outcomes[0].results["genres"]) for x in groups
    }
    for model in MODELS:
        configs = [o.config for o in outcomes if o.config.model == model]
        if not configs:
            continue
        data = dataset_key(configs[0])
        count = genres.get(data, 10)
        drawn = {
            of.feature: network_layers(of, count)
            for of in configs
            if dataset_key(of) == data
        }
        number = "Fig. 1" if model == "cnn" else "As Fig. 1"
        caption = f"{number}. {model.upper()}, as it is fitted to each feature"
        yield _drawing(charts.network_figure(drawn), caption)
        yield page.paragraph(
            f"For the {count} genres of {data}. Blue layers learn. Each convolution is "
            "followed by batch normalisation and, after pooling, by ReLU. The paper's "
            "own drawing did not survive; these sizes are this program's.",
            "note",
        )


def network_layers(of: Config, num_genres: int) -> list[charts.Layer]:
    """The layers of a network as it is built, read while it is traced with no data.

    Args:
      of: names the model and the feature.
      num_genres: number of outputs.

    Returns:
      Input first. What is no layer of its own, such as pooling, is told by the shapes
      that differ between one layer's output and the next one's input.
    """
    import flax.linen as nn
    import jax

    from mgr_jax import models

    shape = FEATURES[of.feature].shape()
    network = models.build(of, num_genres, shape)
    layers = [charts.Layer("input", (*shape, 1))]
    nesting = []

    def watch(call, args, kwargs, context):
        module, own = context.module, context.method_name == "__call__"
        if not own or isinstance(module, type(network)) or nesting:
            return call(*args, **kwargs)
        nesting.append(module)
        output = call(*args, **kwargs)
        nesting.pop()
        learned = getattr(module, "cell", module).variables.get("params", {})
        parameters = sum(leaf.size for leaf in jax.tree.leaves(learned))
        _add_layer(layers, module, args[0].shape[1:], output.shape[1:], parameters)
        return output

    def trace(x):
        with nn.intercept_methods(watch):
            return network.init(jax.random.key(0), x, train=False)

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *shape, 1), np.float32))
    layers[-1] = dataclasses.replace(layers[-1], name="dense, softmax")
    return layers


def _add_layer(
    layers: list[charts.Layer],
    module: Any,
    before: tuple[int, ...],
    after: tuple[int, ...],
    parameters: int,
) -> None:
    """Adds a module's call, and before it what made its input of the last output."""
    kind, last = type(module).__name__, layers[-1]
    if kind == "NormPool":
        total = last.parameters + parameters
        layers[-1] = dataclasses.replace(last, parameters=total)
        if after != before:
            layers.append(charts.Layer("max pool", after, _times(module.window)))
        return
    if before != last.shape:
        between = {2: "frames in order", 1: "mean over frames"}
        layers.append(charts.Layer(between[len(before)], before))
    names = {"Dense": "dense", "RNN": "LSTM"}
    name, detail = names.get(kind, kind), ""
    if kind in ("Conv", "StridedConv"):
        name, detail = "convolution", _times(module.kernel_size)
        if kind == "StridedConv" and max(module.strides) > 1:
            detail += f", step {_times(module.strides)}"
    layers.append(charts.Layer(name, after, detail, parameters))


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _example(number: str, feature: str, outcomes: Sequence["Outcome"]) -> str:
    """A training segment's feature, of the first data set whose shards are there."""
    configs = [o.config for o in outcomes if o.config.feature == feature]
    caption = f"{number}. {feature.capitalize()} of one training segment"
    reason = f"no run has --feature={feature}"
    firsts: dict[str, Config] = {}
    for of in configs:
        firsts.setdefault(dataset_key(of), of)
    for of in firsts.values():
        try:
            examples = _training_examples(of)
        except (UserError, OSError) as error:
            reason = str(error)
            continue
        genre = next((g for g in examples if g.lower() == "blues"), min(examples))
        one = {genre: examples[genre]}
        figure = figures.examples_figure(one, FEATURES[feature], title=feature)
        return _drawing(figure, f"{caption}: {genre}, {dataset_key(of)}")
    return page.paragraph(f"{caption} is not shown: {reason}.", "note")


def _training_examples(of: Config) -> dict[str, np.ndarray]:
    from mgr_jax import input_pipeline, train

    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(of))
    assignment = train.assignment_for(of, prepared)
    side = input_pipeline.load_side(prepared, assignment, "train")
    return input_pipeline.example_per_genre(side, prepared.genres)


def _confusion(number: str, one: Group) -> str:
    results = [outcome.results for outcome in one.outcomes]
    counts = sum(np.array(found["segment"]["confusion"]) for found in results)
    seeds = f"{len(results)} seeds" if len(results) > 1 else f"seed {one.config.seed}"
    mean = page.percent(one.summaries["segment"].mean)
    figure = figures.confusion_figure(
        counts, results[0]["genres"], f"Test segments, {seeds} together: {mean} right"
    )
    return _drawing(
        figure,
        f"{number}. Confusion matrix of spectrogram on {one.name}, {one.config.split}",
    )


def _losses(number: str, one: Group) -> str:
    of = one.config
    about = f"{number}. Loss of tempogram on {one.name}, {of.split}, seed {of.seed}"
    try:
        figure = figures.curves_figure(one.outcomes[0].history)
    except (OSError, ValueError) as error:
        return page.paragraph(f"{about} is not shown: {error}.", "note")
    return _drawing(figure, about)


def _panel(heading: str, part: Sequence[Group], level: str) -> charts.Panel:
    bars = []
    for one in part:
        summary = one.summaries[level]
        point = one.config.feature, one.model, summary.mean, summary.interval_95
        bars.append(charts.Bar(*point))
    published = {x.config.feature: x.paper for x in part if x.paper is not None}
    constant = part[0].majority if level == "track" else None
    title = f"{heading}: {LEVELS[level]}"
    return charts.Panel(title, bars, published, constant)
