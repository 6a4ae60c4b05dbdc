"""Recognises music genres: prepares features, trains, evaluates.

    python -m mgr_jax.main --feature=spectrogram --dataset=fma --data_dir=DIR
    python -m mgr_jax.main --mode=evaluate --workdir=runs/RUN

The same command goes on with a run that was interrupted. Flags become a Config, and
each mode is one call with it; all else can be imported without this module.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

# TensorFlow only reads data here; its start-up notes would drown the program's words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging

from mgr_jax import config as config_lib
from mgr_jax import workdir
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS
from mgr_jax.features import FEATURES
from mgr_jax.models import MODELS
from mgr_jax.splits import PROTOCOLS

CHOICES = {
    "mode": config_lib.MODES,
    "feature": FEATURES,
    "dataset": DATASETS,
    "model": MODELS,
    "split": PROTOCOLS,
    "fma_subset": config_lib.FMA_SUBSETS,
}


def run(config: Config) -> None:
    """Does what a complete config says."""
    from mgr_jax import evaluate, prepare, train

    if config.mode == "evaluate":
        evaluate.evaluate(config)
        return
    if config.mode != "prepare":
        workdir.open_workdir(config)
    folder = prepare.prepare(config)
    if config.mode != "prepare":
        # What --overwrite had to delete is gone by now.
        train.train(dataclasses.replace(config, overwrite=False), folder)
    if config.mode == "train_and_evaluate":
        evaluate.evaluate(config)


def configure(flag_values: flags.FlagValues) -> Config:
    """The flags' Config, complete and checked; evaluate starts from the run's."""
    given = config_lib.from_flags(flag_values)
    choices = {k: v for k, v in CHOICES.items() if k != "split" or given.split}
    config_lib.check_choices(given, choices)
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


def main(argv: Sequence[str]) -> None:
    """Runs what the flags say; a user's mistake ends it with one line."""
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]}: flags are written --name=value; see --help")
        run(configure(flags.FLAGS))
    except UserError as error:
        _fail(error, status=1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror or error}", status=1)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on", status=130)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags as absl does, with one line for a flag that is not one."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}; see --help", status=2)


def _fail(message: object, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)
    config_lib.define_flags(CHOICES, flags.FLAGS)
    flags.adopt_module_key_flags(config_lib)
    app.run(main, flags_parser=parse)
