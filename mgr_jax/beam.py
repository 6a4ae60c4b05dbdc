"""Shards written on Apache Beam's runners: the only importer of Beam.

Jobs, the numbers of the shards that each lacks, and options of Beam's own enter; the
shards leave. Beam maps `shards.write_shard` over the numbers, on workers that read
the audio and write into the job's folder under the paths that this process knows them
by. An item may be tried again, or be done by two workers at once: what a worker writes
is renamed into place when it is whole, and the bytes are the same. prepare calls
`write_shards`; main has a command line checked first.
"""

import contextlib
import importlib.util
import io
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mgr_jax import shards
from mgr_jax.config import LOCAL, RUNNERS, Config, UserError, check_choices, warn
from mgr_jax.shards import Job

# The others try an item again by themselves.
_TRIES = {"DirectRunner": 4}

# Those that run on this machine alone, and take no options but Beam's own.
_HERE = ("DirectRunner", "BundleBasedDirectRunner")

# Beam's DirectRunner would fetch a program, Prism, and hand over to it, which takes no
# number of workers; it does not where triggers may be unsafe, and here are none. Its
# workers would tell of each of their steps.
_OPTIONS = {
    "DirectRunner": (
        "--allow_unsafe_triggers",
        "--default_sdk_harness_log_level=ERROR",
    )
}


def check(runner: str, options: Sequence[str]) -> None:
    """Checks what follows -- on a command line; without a Beam runner, nothing may.

    Raises:
      UserError: there is no such runner, Beam is not installed, or takes no such
        options.
    """
    check_choices(Config(runner=runner), {"runner": RUNNERS})
    if options and not options[0].startswith("-"):
        raise UserError(f"{options[0]}: flags are written --name=value; see --help")
    if runner != LOCAL:
        _parsed(runner, options)
    elif options:
        raise UserError(
            f"-- {shlex.join(options)}: these are options of Apache Beam; name one of "
            "its runners with --runner, or write flags before the --"
        )


def write_shards(jobs: Sequence[Job], runner: str, options: Sequence[str]) -> None:
    """Writes the shards that jobs lack on a Beam runner, and waits for the last.

    Args:
      jobs: what all shards share; they differ in feature and folder alone.
      runner: one of RUNNERS but LOCAL.
      options: of Beam, such as "--direct_num_workers=2".

    Raises:
      UserError: Beam has given up, or what its workers wrote is not in this machine's
        folder.
    """
    parsed = _parsed(runner, options)
    for left in reversed(range(_TRIES.get(runner, 1))):
        try:
            with _noticing_lost_workers():
                _run(shards.missing(jobs), parsed)
            break
        # Each runner raises its own.
        except Exception as error:
            failed = f"--runner={runner}: has failed ({_reason(error)})"
            if not left:
                raise UserError(
                    f"{failed}; the shards that are finished stay, and the same "
                    "command goes on"
                ) from error
            warn(f"{failed}; trying again what is missing")
    lost = [
        job.shard_path(k)
        for job in jobs
        for k in range(job.num_shards)
        if not shards.is_whole(job, k)
    ]
    if lost:
        raise UserError(
            f"--runner={runner}: {lost[0]} is not there, or not whole, "
            "though Beam has finished; name a folder that its workers and this machine "
            "share with --features_dir"
        )


def _run(missing: Mapping[int, Sequence[Job]], parsed: Any) -> None:
    import apache_beam as beam

    # Jobs hold all tracks: they travel once, the items name them by their folders.
    jobs = {str(job.folder): job for lacking in missing.values() for job in lacking}
    items = [(k, [str(job.folder) for job in missing[k]]) for k in missing]
    with beam.Pipeline(options=parsed) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(items)
            # What is made in one place would else be worked on in one place.
            | "Share" >> beam.Reshuffle()
            | "Write" >> beam.Map(_write, jobs)
        )


def _write(item: tuple[int, list[str]], jobs: Mapping[str, Job]) -> None:
    """What a worker does."""
    k, folders = item
    shards.write_shard([jobs[folder] for folder in folders], k)


def _reason(error: Exception) -> str:
    """The line that matters of what a runner says of an item that it has given up."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(" [while")[0] if lines else type(error).__name__


class _WorkerLost(BaseException):
    """Passes through all of Beam, as an interrupt does."""


@contextlib.contextmanager
def _noticing_lost_workers() -> Iterator[None]:
    """Raises where DirectRunner would wait for ever: for a process that was killed.

    A thread of Beam's waits for each worker's process, and ends with an error when that
    does. Only the main thread can be interrupted: by a signal of its own, for a job in
    the background of a shell ignores SIGINT.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lost: list[BaseException] = []
    before = threading.excepthook

    def tell(args: threading.ExceptHookArgs) -> None:
        if args.thread is not None and args.thread.name == "run_worker":
            lost.append(args.exc_value)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        elif type(args.exc_value).__name__ != "RpcError":  # of the broken connection
            before(args)

    def wake(*_: Any) -> None:
        raise _WorkerLost

    threading.excepthook = tell
    signal.signal(signal.SIGUSR1, wake)
    try:
        yield
    except _WorkerLost:
        raise lost[0] from None
    finally:
        threading.excepthook = before
        # Its default would end the process, were one still on its way.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _parsed(runner: str, options: Sequence[str]) -> Any:
    """Beam's PipelineOptions.

    Raises:
      UserError: Beam is not installed, or takes no such options.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            f"--runner={runner}: Apache Beam is not installed; pip install "
            f"'apache-beam>=2.70,<3' brings it, and --runner={LOCAL} does without"
        )
    from apache_beam.options.pipeline_options import PipelineOptions

    ours = _OPTIONS.get(runner, ())
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions([*ours, *options, f"--runner={runner}"])
            known = parsed.get_all_options()
            given = parsed.get_all_options(retain_unknown_options=True)
    except SystemExit:  # argparse, after its usage
        reason = said.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UserError(f"-- {shlex.join(options)}: {reason}") from None
    unknown = sorted(given.keys() - known.keys())
    if unknown and runner in _HERE:
        raise UserError(f"-- --{unknown[0]}: --runner={runner} has no such option")
    return parsed
