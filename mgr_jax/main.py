"""Recognises music genres: prepares features, trains, evaluates.

    python -m mgr_jax.main --feature=spectrogram --dataset=fma --data_dir=DIR
    python -m mgr_jax.main --mode=evaluate --workdir=runs/RUN

The same command goes on with a run that was interrupted. Flags become a Config, and
each mode is one call with it; all else can be imported without this module.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# TensorFlow only reads data here; its start-up notes would drown the program's words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging

from mgr_jax import config as config_lib
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
    folder = prepare.prepare(config)
    if config.mode == "prepare":
        return
    train.train(config, folder)
    if config.mode == "train_and_evaluate":
        evaluate.evaluate(config)


def configure(flag_values: flags.FlagValues) -> Config:
    """The flags' Config, complete and checked; evaluate starts from the run's."""
    given = config_lib.from_flags(flag_values)
    choices = {k: v for k, v in CHOICES.items() if getattr(given, k)}
    config_lib.check_choices(given, choices)
    dataset = DATASETS[given.dataset]
    config = config_lib.complete(given, dataset.default_split, dataset.splits)
    if config.mode != "evaluate":
        return config

    from mgr_jax import evaluate, train

    saved = dataclasses.replace(
        evaluate.read_config(config.run_path), workdir=config.workdir
    )
    config = config_lib.from_flags(flag_values, base=saved)
    config_lib.check_same_run(saved, config, train.MAY_CHANGE)
    return config


def main(argv: Sequence[str]) -> None:
    """Runs what the flags say; a user's mistake ends it with one line."""
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]}: flags are written --name=value; see --help")
        run(configure(flags.FLAGS))
    except UserError as error:
        _fail(error, status=1)


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
