"""Recognises music genres: prepares features, trains, evaluates.

    python -m mgr_jax.main --feature=spectrogram --dataset=fma --data_dir=DIR
    python -m mgr_jax.main --mode=evaluate --workdir=runs/RUN

The same command goes on with a run that was interrupted. Flags become a Config, and
each mode is one call with it; all else can be imported without this module.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from mgr_jax import cli, cores, workdir
from mgr_jax import config as config_lib
from mgr_jax.config import Config
from mgr_jax.datasets import DATASETS
from mgr_jax.splits import PROTOCOLS

CHOICES = {
    "mode": config_lib.MODES,
    "feature": config_lib.FEATURE_NAMES,
    "dataset": DATASETS,
    "model": (*config_lib.MODEL_NAMES, *config_lib.BASELINES),
    "split": PROTOCOLS,
    "fma_subset": config_lib.FMA_SUBSETS,
    "runner": config_lib.RUNNERS,
    "precision": config_lib.PRECISIONS,
}


def run(config: Config, beam_options: Sequence[str] = ()) -> None:
    """Does what a complete config says; preparing passes options on to Apache Beam."""
    from mgr_jax import beam, hosts, prepare

    beam.check(config.runner, beam_options)
    if config.mode == "prepare":
        features = config.feature.split(",")
        hosts.first(lambda: prepare.prepare_all(config, features, beam_options))
        return
    with contextlib.ExitStack() as held:
        hosts.first(lambda: held.enter_context(workdir.held_run(config)))
        _make_run(config, beam_options)


def _make_run(config: Config, beam_options: Sequence[str]) -> None:
    from mgr_jax import baselines, evaluate, hosts, train
    from mgr_jax.input_pipeline import prepared_folder

    if config.mode != "evaluate":
        hosts.first(lambda: _make_ready(config, beam_options))
        fit = baselines.fit if config.model in config_lib.BASELINES else train.train
        # What --overwrite had to delete is gone by now.
        fit(dataclasses.replace(config, overwrite=False), prepared_folder(config))
    if config.mode != "train":
        evaluate.evaluate(config)


def _make_ready(config: Config, beam_options: Sequence[str]) -> None:
    from mgr_jax import prepare

    workdir.open_workdir(config)
    prepare.prepare(config, beam_options)


def configure(flag_values: flags.FlagValues) -> Config:
    """The flags' Config, complete and checked; evaluate starts from the run's."""
    given = config_lib.from_flags(flag_values)
    choices = {k: v for k, v in CHOICES.items() if k != "split" or given.split}
    # Preparing alone takes several, of one decoding.
    several = given.feature.split(",") if given.mode == "prepare" else [given.feature]
    for feature in several:
        config_lib.check_choices(dataclasses.replace(given, feature=feature), choices)
    if given.mode == "evaluate" and given.workdir:
        return _of_run(flag_values, given.run_path)
    dataset = DATASETS[given.dataset]
    config = config_lib.complete(given, dataset.default_split, dataset.splits)
    if given.mode == "evaluate":
        return _of_run(flag_values, config.run_path)
    return config


def _of_run(flag_values: flags.FlagValues, folder: pathlib.Path) -> Config:
    """A run's own config, found where it is now, with the flags that may differ."""
    saved = workdir.read_config(folder)
    if flag_values["data_dir"].present:
        saved = dataclasses.replace(saved, features_dir="")
    config = config_lib.from_flags(flag_values, base=saved)
    workdir.check_same_run(saved, config)
    return dataclasses.replace(config, workdir=str(folder.absolute()))


def main(words: Sequence[str]) -> None:
    """Runs what the flags say, as one process or one of many; -- is for Apache Beam."""
    config = configure(flags.FLAGS)
    # A mistake is told before JAX is imported.
    from mgr_jax import hosts

    cores.show(config)
    with hosts.joined(config):
        run(config_lib.without_job(config), words)


if __name__ == "__main__":
    config_lib.define_flags(CHOICES, flags.FLAGS)
    flags.adopt_module_key_flags(config_lib)
    cli.start(main, takes_words=True)
