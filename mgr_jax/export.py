"""A trained run as one file that does without this program: samples to probabilities.

A predictor enters; a folder leaves with the network and its feature extraction as one
`jax.export` artifact for CPU, GPU and TPU, the labels, and a model card made of the
run's own results. predict calls it.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from mgr_jax import config as config_lib
from mgr_jax import page, tables
from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_S, SEGMENT_SAMPLES
from mgr_jax.config import UserError, replace_text
from mgr_jax.features import FEATURES
from mgr_jax.workdir import RESULTS_FILE, writing

if TYPE_CHECKING:
    from mgr_jax.predict import Predictor

MODEL_FILE = "model.jaxexport"
FACTS_FILE = "model.json"
CARD_FILE = "MODEL_CARD.md"

PLATFORMS = ("cpu", "cuda", "tpu")

_LICENCES = {
    "gtzan": "No licence of GTZAN's audio is known: that this model may be passed on, "
    "or sold, is not known either.",
    "fma": "Each track of FMA has a Creative Commons licence of its own, named in "
    "fma_metadata/tracks.csv; some allow of no commercial use, some of no derivatives.",
    "synth": "The clips are rendered by the program, and nobody's.",
    "folder": "The recordings are those of whoever trained this; ask them.",
}
_LICENCES["gtzan+fma"] = f"{_LICENCES['gtzan']} {_LICENCES['fma']}"


def export(predictor: "Predictor", folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes a run's model, labels and card into a folder.

    The model takes float32 (windows, 110250), mono at 22 050 Hz with full scale 1.0,
    of any number of windows, and gives float32 (windows, genres).

    Returns:
      The files.

    Raises:
      UserError: the run's model is no JAX function, or the folder cannot be written.
    """
    if predictor.model.probabilities is None:
        raise UserError(
            f"--export: --model={predictor.config.model} is no JAX function; train a "
            "network (cnn or crnn) and export that"
        )
    artifact = _artifact(predictor).serialize()
    facts = json.dumps(_facts(predictor), indent=2, ensure_ascii=False) + "\n"
    with writing(folder, "--export"):
        folder.mkdir(parents=True, exist_ok=True)
        with config_lib.replacing(folder / MODEL_FILE) as scratch:
            scratch.write_bytes(artifact)
        replace_text(folder / FACTS_FILE, facts)
        replace_text(folder / CARD_FILE, model_card(predictor))
    return [folder / name for name in (MODEL_FILE, FACTS_FILE, CARD_FILE)]


def _artifact(predictor: "Predictor") -> jax.export.Exported:
    feature = FEATURES[predictor.config.feature].fn

    @jax.jit
    def model(samples: jax.Array) -> jax.Array:
        # The shards that the network was trained on hold float16.
        return predictor.model.probabilities(feature(samples).astype(jnp.float16))

    (windows,) = jax.export.symbolic_shape("windows")
    samples = jax.ShapeDtypeStruct((windows, SEGMENT_SAMPLES), np.float32)
    return jax.export.export(model, platforms=PLATFORMS)(samples)


def _facts(predictor: "Predictor") -> dict[str, Any]:
    return {
        "labels": list(predictor.labels),
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "window_samples": SEGMENT_SAMPLES,
        "feature": predictor.config.feature,
        "model": predictor.config.model,
        "platforms": list(PLATFORMS),
        "mgr_jax": importlib.metadata.version("mgr_jax"),
    }


def model_card(predictor: "Predictor") -> str:
    """What a stranger has to know of a run before using its model, as Markdown."""
    config = predictor.config
    try:
        results = json.loads((config.run_path / RESULTS_FILE).read_text())
        tested = list(_results(results))
    except (OSError, ValueError, KeyError, TypeError):
        results, tested = {}, ["It has not been tested."]
    parts = [
        f"# {config.model} on {config.feature}, trained on {config.dataset}",
        f"Tells {len(predictor.labels)} genres apart by {SEGMENT_S:g} s of music: "
        f"{', '.join(predictor.labels)}.",
        "## Input and output",
        f"`{MODEL_FILE}` (a `jax.export` artifact for {', '.join(PLATFORMS)}) takes "
        f"float32 samples (windows, {SEGMENT_SAMPLES}): mono, {SAMPLE_RATE_HZ:,} Hz, "
        "full scale 1.0, at the level at which they were recorded. It gives the "
        f"probabilities of the labels in `{FACTS_FILE}`, float32 (windows, "
        f"{len(predictor.labels)}). A recording's are the mean over its windows.",
        "## Results",
        *tested,
        f"Made by `{_command(predictor)}`",
        "## Limits",
        *_limits(predictor, results),
        "## Licence of the data",
        _LICENCES.get(config.dataset, "Not known."),
    ]
    return "\n\n".join(parts) + "\n"


def _command(predictor: "Predictor") -> str:
    """The command that trained it, without the places of its maker's disk."""
    nowhere = {"data_dir": "", "features_dir": "", "workdir": ""}
    return config_lib.command(dataclasses.replace(predictor.config, **nowhere))


def _results(results: Mapping[str, Any]) -> Iterator[str]:
    sides = results["num_tracks"]
    yield (
        f"Test set of the `{results['protocol']}` split, read once, after the epoch "
        f"was chosen by validation: {sides['train']} tracks to train on, "
        f"{sides['validation']} to choose by, {sides['test']} to test."
    )
    rows = [
        (
            f"{level}s",
            results[level]["n"],
            page.percent(results[level]["accuracy"]),
            page.interval(results[level]["interval_95"]),
            f"{results[level]['macro_f1']:.3f}",
        )
        for level in ("track", "segment")
    ]
    header = ("test", "n", "right", "95 % interval", "macro F1")
    yield tables.as_markdown(tables.Table(header, rows)).rstrip()
    rows = [
        (genre, of["n"], *(f"{of[k]:.2f}" for k in ("precision", "recall", "f1")))
        for genre, of in results["track"]["per_genre"].items()
    ]
    header = ("genre", "tracks", "precision", "recall", "F1")
    yield tables.as_markdown(tables.Table(header, rows)).rstrip()
    majority = page.percent(results["majority_accuracy"])
    yield f"Always answering the most frequent genre scores {majority} of tracks."


def _limits(predictor: "Predictor", results: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "It knows no other genres than these, and answers with one of them whatever it "
        "hears, be it speech or silence."
    )
    if results.get("protocol_leaks"):
        yield f"The split leaks: {results['protocol_leaks']}."
    if FEATURES[predictor.config.feature].level.any():
        yield (
            "It goes by level, too: recordings that are turned up or down are judged "
            "differently."
        )
    if not predictor.model.progress["finished"]:
        yield "Its training has not come to its end."
