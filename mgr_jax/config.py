"""Everything a run can be told: one frozen dataclass, from which the flags are made.

Flags or a run folder's config.json enter; a checked `Config` leaves, which every other
module takes. It imports nothing of the package but `uris`, so that everything may
import it.
"""

import contextlib
import dataclasses
import difflib
import errno
import json
import math
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mgr_jax import uris
from mgr_jax.uris import Uri

MODES = ("train_and_evaluate", "prepare", "train", "evaluate")
FMA_SUBSETS = ("small", "medium", "large")
PRECISIONS = ("float32", "bfloat16")

# The keys of features.FEATURES and models.MODELS, here so that --help can tell them
# before JAX is imported, which takes seconds.
FEATURE_NAMES = ("tempogram", "chroma", "spectrogram", "mel", "mfcc", "loudness")
MODEL_NAMES = ("cnn", "crnn")
# What is fitted without a network; baselines has it.
BASELINES = ("svm",)

# What can write shards: this process, or a runner of Apache Beam by its name there.
LOCAL = "local"
RUNNERS = (
    LOCAL, "DirectRunner", "BundleBasedDirectRunner", "PrismRunner", "FlinkRunner",
    "SparkRunner", "DataflowRunner", "PortableRunner",
)  # fmt: skip

# Fields that a run's results do not depend on, nor where they are.
_OF_ONE_CALL = ("mode", "overwrite", "runner")

# What a process is told of its job. It is no part of a run: any number may go on with it.
JOB_FIELDS = (
    "cpu_devices", "coordinator_address", "num_processes", "process_id", "lost_after_s",
)  # fmt: skip

# Characters that would break a line, or steer a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class UserError(Exception):
    """A mistake that one line explains; main prints that line without a traceback."""


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, whose file then takes the place of `path`, whole.

    A reader, or a kill, finds what was there before or what is there now.

    Raises:
      OSError: it cannot be written; the error names `path`, whose file stays.
    """
    scratch = path.with_name(f".writing-{path.name}")
    try:
        yield scratch
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def replace_text(path: pathlib.Path | Uri, text: str) -> None:
    """Writes a text file whole; see `replacing`."""
    if isinstance(path, Uri):
        path.write_text(text)
        return
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def is_disk_full(error: OSError) -> bool:
    """Whether a write found no room: on the disk, in the user's share, or in a file."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def as_text(path: str | os.PathLike[str]) -> str:
    """A path as text that can be stored, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def shown(path: str | os.PathLike[str]) -> str:
    """A path as one line that can be printed, whatever bytes its name is made of."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], as_text(path))


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether a text is no path but an address, such as gs://bucket/music."""
    return isinstance(uris.path(text), Uri)


def expanded(flag: str, path: str | os.PathLike[str]) -> pathlib.Path:
    """A path that a user gave, with ~ written out.

    Raises:
      UserError: it names the home of nobody, or is an address; the message names the
        flag, if any.
    """
    check_local(flag, path)
    try:
        return pathlib.Path(uris.path(path)).expanduser()
    except RuntimeError:
        given = f"--{flag}={path}" if flag else path
        raise UserError(
            f"{given}: ~ is not followed by a user of this machine; write the whole "
            "path"
        ) from None


def place(flag: str, path: str) -> pathlib.Path | Uri:
    """What a flag names: a folder of this machine, or an address in an object store.

    Raises:
      UserError: as `expanded`; or nothing that is installed knows such addresses.
    """
    found = uris.path(path)
    if not isinstance(found, Uri):
        return expanded(flag, found)
    try:
        _ = found.fs
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--{flag}={path}: cannot be reached ({reason})") from None
    return found


def check_local(flag: str, path: str | os.PathLike[str]) -> None:
    """Raises UserError for an address where only a path of this machine will do."""
    if is_address(path):
        given = f"--{flag}={path}" if flag else path
        raise UserError(
            f"{given}: must be a path of this machine; addresses are for the "
            "--data_dir and --features_dir of main alone"
        )


def real(path: str | os.PathLike[str]) -> pathlib.Path | Uri:
    """A path without links; one that leads to itself stays as it is."""
    if isinstance(path, Uri):
        return path
    return pathlib.Path(os.path.realpath(path))


def warn(message: str) -> None:
    """Tells the user of something that is odd but stops nothing, in one line."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _field(
    default: Any, help: str, *, low: float | None = None, high: float = math.inf
):
    return dataclasses.field(
        default=default, metadata={"help": help, "low": low, "high": high}
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Each field is a flag of the same name; its help text documents it.

    Raises:
      UserError: a number is out of its range; the message names the flag.
    """

    # fmt: off
    # What to do, and with what.
    mode: str = _field("train_and_evaluate", "What to do: {choices}. train prepares what is missing; evaluate needs only --workdir.")
    feature: str = _field("spectrogram", "What the network sees: {choices}. With --mode=prepare, several may be named, with commas: they share the decoding.")
    dataset: str = _field("synth", "Where the tracks come from: {choices}. folder takes your own ROOT/LABEL/**/*.mp3; synth needs no data.")
    model: str = _field("cnn", "What learns: {choices}. svm is a baseline on each bin's mean and deviation.")
    split: str = _field("", "How tracks are divided into training, validation and test: {choices}. Default: filtered for gtzan, official for fma, filtered+official for gtzan+fma, track for the others.")
    seed: int = _field(0, "Seeds the split, the initial weights, the order and the dropout.", low=0, high=2**31 - 1)

    # Where things are.
    data_dir: str = _field("", "Folder that holds the data set, or the data set's own. Only read, but for synth and the default --features_dir. May be an address, gs://... or s3://..., for gtzan, fma and folder. Default: $MGR_DATA_DIR, else ~/mgr_data.")
    features_dir: str = _field("", "Folder for the precomputed features; may be an address, too. Default: DATA_DIR/features.")
    workdir: str = _field("", "Folder of the run: checkpoints, results, figures. Default: runs/DATASET-FEATURE-MODEL-SPLIT-seedN.")
    overwrite: bool = _field(False, "Start anew: delete the run in --workdir, and prepared features that no longer fit the data.")

    # The data.
    fma_subset: str = _field("small", "Which subset of FMA: {choices}. Each holds the ones before it.")
    synth_clips: int = _field(160, "How many clips of 30 s synth renders, of 8 genres in turn.", low=8)
    segments_per_track: int = _field(5, "5-second segments taken from a track; 0 takes all that fit.", low=0)
    split_ratios: tuple[float, ...] = _field((0.7, 0.15, 0.15), "Shares of training, validation and test, for the protocols that draw them.", low=0, high=1)

    # Preparing.
    tracks_per_shard: int = _field(32, "Tracks in one shard: the unit in which preparing resumes.", low=1)
    decode_threads: int = _field(0, "Threads that decode audio; 0 takes one per core.", low=0)
    runner: str = _field(LOCAL, "What writes the shards: {choices}. local is this process, the others are Apache Beam's (pip install -e '.[beam]'), whose own options follow a -- at the end: --runner=DirectRunner -- --direct_num_workers=2.")
    max_skipped: float = _field(0.05, "Share of unreadable tracks above which preparing is an error.", low=0, high=1)

    # Training.
    num_epochs: int = _field(30, "Passes over the training set, at the most.", low=1)
    batch_size: int = _field(32, "Segments a step, over all devices.", low=1)
    learning_rate: float = _field(1e-3, "Highest learning rate of AdamW, reached after the warm-up.", low=0)
    warmup_epochs: float = _field(2.0, "Epochs of linear warm-up, before the cosine decay to zero.", low=0)
    weight_decay: float = _field(1e-2, "AdamW's decoupled weight decay, on kernels only.", low=0)
    label_smoothing: float = _field(0.1, "Share of the target spread evenly over all genres.", low=0, high=0.99)
    dropout: float = _field(0.5, "Share of units dropped before the dense and before the output layer.", low=0, high=0.99)
    random_gain_db: float = _field(0.0, "Turn each training segment up or down by up to this many dB, drawn anew each time.", low=0, high=60)
    patience: int = _field(15, "Stop after this many epochs without a better validation loss; 0 never stops.", low=0)
    shuffle_buffer_mb: int = _field(6144, "Memory for segments: where the training set fits, it is kept and shuffled as a whole; else in a window of this size. Where there is room left for the validation set, that is kept as well.", low=1)

    # Devices, and many processes as one job.
    cpu_devices: int = _field(0, "Devices that a CPU counts as, each of which takes its share of a batch; 0 is one a core, with 8 segments or more each. A process of a job of many has one. GPUs and TPUs are all taken in any case.", low=0)
    coordinator_address: str = _field("", "HOST:PORT, on process 0's host, at which the processes of one job meet. Default: what SLURM, Open MPI, Kubernetes or a TPU pod says.")
    num_processes: int = _field(0, "Processes of the job; 0 asks the environment, and is one where it says nothing.", low=0)
    process_id: int = _field(-1, "This process's number, from 0; -1 asks the environment.", low=-1)
    lost_after_s: int = _field(60, "Seconds without a sign of life after which a process of the job is lost, and the job ends.", low=5)

    # The networks.
    widths: tuple[int, ...] = _field((16, 32, 64), "Filters of the three convolutional blocks.", low=1)
    hidden_units: int = _field(64, "Units of the fully connected layer, or of crnn's LSTM.", low=1)
    precision: str = _field("float32", "What the convolutions compute in: {choices}. Parameters, statistics and loss are float32 in any case; bfloat16 is for GPUs and TPUs.")
    # fmt: on

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.metadata["low"] is not None:
                _check_range(field, getattr(self, field.name))
        if (
            len(self.split_ratios) != 3
            or not min(self.split_ratios)
            or not math.isclose(sum(self.split_ratios), 1, abs_tol=1e-6)
        ):
            raise UserError(
                f"--split_ratios={_text(self.split_ratios)}: give the shares of "
                "training, validation and test, three numbers above 0 that sum to 1"
            )
        if len(self.widths) != 3:
            raise UserError(
                f"--widths={_text(self.widths)}: the network has three blocks, so give "
                "three numbers"
            )

    @property
    def data_path(self) -> pathlib.Path | Uri:
        """--data_dir, or its default."""
        default = os.environ.get("MGR_DATA_DIR") or "~/mgr_data"
        return place("data_dir", self.data_dir or default)

    @property
    def features_path(self) -> pathlib.Path | Uri:
        """--features_dir, or its default."""
        if self.features_dir:
            return place("features_dir", self.features_dir)
        return self.data_path / "features"

    @property
    def run_name(self) -> str:
        """Name of the run's folder where --workdir is not given."""
        dataset = self.dataset
        if dataset in ("fma", "gtzan+fma"):
            dataset += f"_{self.fma_subset}"
        name = f"{dataset}-{self.feature}-{self.model}-{self.split}-seed{self.seed}"
        if self.random_gain_db:
            name += f"-random_gain_{self.random_gain_db:g}_db"
        return name if self.precision == PRECISIONS[0] else f"{name}-{self.precision}"

    @property
    def run_path(self) -> pathlib.Path:
        """--workdir, or its default."""
        check_local("workdir", self.workdir)
        return expanded("workdir", self.workdir or f"runs/{self.run_name}")


def _check_range(field: dataclasses.Field, value: Any) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    for number in value if isinstance(value, tuple) else (value,):
        if not low <= number <= high:
            bound = f"from {low} to {high}" if high < math.inf else f"{low} or more"
            raise UserError(f"--{field.name}={_text(value)}: must be {bound}")


def check_choices(config: Config, choices: Mapping[str, Iterable[str]]) -> None:
    """Raises UserError, with the right values, for a field that is none of them."""
    for name, allowed in choices.items():
        value, allowed = getattr(config, name), list(allowed)
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(
                f"--{name}={value}: choose one of {', '.join(allowed)}{hint}"
            )


def complete(config: Config, default_split: str, splits: Iterable[str]) -> Config:
    """Fills in what the data set decides, and spells out the folders.

    Args:
      config: as the user gave it.
      default_split: the data set's protocol, taken where --split is not given.
      splits: the protocols that the data set supports.

    Raises:
      UserError: the data set does not support --split.
    """
    config = dataclasses.replace(config, split=config.split or default_split)
    if config.split not in splits:
        raise UserError(
            f"--split={config.split}: --dataset={config.dataset} has no such protocol; "
            f"choose one of {', '.join(splits)}"
        )
    return dataclasses.replace(
        config,
        data_dir=str(config.data_path.absolute()),
        features_dir=str(config.features_path.absolute()),
        workdir=str(config.run_path.absolute()),
    )


def check_same_run(saved: Config, now: Config, may_change: Iterable[str]) -> None:
    """Raises UserError where a run's settings are not those it was begun with."""
    before, after = dataclasses.asdict(saved), dataclasses.asdict(now)
    changed = [k for k in after if before[k] != after[k] and k not in may_change]
    if changed:
        what = ", ".join(f"--{k} was {before[k]}, is {after[k]}" for k in changed)
        raise UserError(
            f"{now.run_path}: holds a run with other settings ({what}); name another "
            "--workdir, or start it anew with --overwrite"
        )


def without_job(config: Config) -> Config:
    """The config as a run keeps it, whose processes may be others each time."""
    fields = {field.name: field.default for field in dataclasses.fields(Config)}
    return dataclasses.replace(config, **{name: fields[name] for name in JOB_FIELDS})


def command(config: Config) -> str:
    """The command line that gives this config: the flags that are not at default.

    Those that only say how it was come by are left out.
    """
    words = ["python -m mgr_jax.main"]
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if value != field.default and field.name not in _OF_ONE_CALL:
            words.append(shlex.quote(f"--{field.name}={_text(value)}"))
    return " ".join(words)


def define_flags(
    choices: Mapping[str, Iterable[str]],
    flag_values: Any,
    leave_out: Iterable[str] = (),
) -> None:
    """Defines one flag a field in absl's `flag_values`.

    Args:
      choices: field to the values that its help names.
      flag_values: absl's FLAGS.
      leave_out: fields that get no flag.
    """
    from absl import flags

    kinds = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }
    for field in dataclasses.fields(Config):
        if field.name in leave_out:
            continue
        known = ", ".join(choices.get(field.name, ()))
        help = field.metadata["help"].replace("{choices}", known)
        default = field.default
        if isinstance(default, tuple):
            default = _text(default)
        define = kinds[type(field.default)]
        define(field.name, default, help, flag_values=flag_values)


def from_flags(flag_values: Any, base: Config | None = None) -> Config:
    """A Config of the flags' values.

    Args:
      flag_values: absl's FLAGS after parsing.
      base: where given, only the flags that stood on the command line replace its
        fields.
    """
    given = {}
    for field in dataclasses.fields(Config):
        if field.name not in flag_values:
            continue
        flag = flag_values[field.name]
        if base is None or flag.present:
            given[field.name] = _typed(field, flag.value)
    return dataclasses.replace(base or Config(), **given)


def _typed(field: dataclasses.Field, value: Any) -> Any:
    if not isinstance(field.default, tuple):
        return value
    kind = type(field.default[0])
    try:
        return tuple(kind(part) for part in value)
    except ValueError:
        raise UserError(
            f"--{field.name}={','.join(map(str, value))}: give {kind.__name__} numbers "
            f"between commas, such as {_text(field.default)}"
        ) from None


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def to_json(config: Config) -> str:
    """The config as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The Config that `to_json` wrote; fields it does not name take their default.

    Raises:
      UserError: the text is not such a JSON object.
    """
    try:
        values = json.loads(text)
        fields = {field.name: field for field in dataclasses.fields(Config)}
        return Config(**{k: _typed(fields[k], v) for k, v in values.items()})
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"not a config.json of this program ({error})") from None
