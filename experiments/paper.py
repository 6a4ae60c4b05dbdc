"""Which feature tells genres apart best? The paper's table and figures, remade.

    python -m experiments.paper --data_dir=DIR
    python -m experiments.paper --datasets=synth --splits=track --seeds=3

Every feature, on every data set, under every split, with several seeds, and with the
baselines beside them. What is finished is not run again; the same command goes on after
an interruption. The answer is in OUT/report.html, and table.md, table.csv beside it.
"""

from absl import flags

from experiments import grid, paper_report
from mgr_jax import cli
from mgr_jax import config as config_lib
from mgr_jax.config import UserError

# These have a list of their own here.
_LISTED = ("mode", "dataset", "feature", "model", "split", "workdir")


def run() -> None:
    """Runs the grid, and writes its report."""
    given = flags.FLAGS
    out = config_lib.expanded("out", given.out).absolute()
    configs = grid.expand(
        config_lib.from_flags(given),
        out,
        datasets=given.datasets,
        features=given.features,
        models=given.models,
        splits=given.splits,
        seeds=given.seeds,
    )
    configs = grid.check_data(configs, named_splits=bool(given.splits))
    outcomes = grid.run_all(configs, out, given.jobs)
    paths = paper_report.write(out, outcomes)
    print(paper_report.terminal(outcomes))
    for path in paths:
        print(f"  {path}")
    failed = sum(outcome.status != grid.FINISHED for outcome in outcomes)
    if failed:
        raise UserError(
            f"{failed} of {len(outcomes)} runs failed; the report says which and why; "
            "the same command tries them again"
        )


if __name__ == "__main__":
    grid.define_flags(leave_out=_LISTED)
    flags.DEFINE_list("datasets", "gtzan,fma", "Data sets, between commas.")
    flags.DEFINE_list(
        "features", "tempogram,spectrogram,chroma,loudness", "Features, between commas."
    )
    flags.DEFINE_list("models", "cnn,svm", "Models, between commas; crnn is another.")
    flags.DEFINE_list(
        "splits", "", "Split protocols, between commas; default: all of the data set's."
    )
    flags.adopt_module_key_flags(grid)
    cli.start(run)
