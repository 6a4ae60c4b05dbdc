"""Features, against librosa, and against the Fourier transforms alone.

    python -m experiments.bench.features_speed [--quick]

Noise enters; a table leaves, for each feature and for the paper's three together, for
batches of 1, 5 (a track's segments) and 64, by the library's functions; and for 32 on
all cores, as preparing and predicting compute them. The peer is librosa 0.11, segment
by segment, as it is used. The limit is the feature's own Fourier transforms, of frames
that lie ready, in JAX and float32, one by one. Their spectra go to memory; ours stay in
a cache, and of spectra two come from one transform.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.typing import DTypeLike

from experiments.bench import timing
from mgr_jax import cores, features, shards
from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES
from mgr_jax.features import FEATURES, SPECTROGRAM_HOP_LENGTH, TEMPOGRAM_WINDOW
from mgr_jax.filterbanks import MFCC_COEFFICIENTS, N_FFT
from mgr_jax.spectra import allow_float64

PAPER = ("tempogram", "chroma", "spectrogram")
BATCHES = (1, 5, 64)
TOGETHER = "all three"
_IN_A_ROW = 4
# Preparing goes on for minutes, with all cores awake.
_BATCHES_IN_A_ROW = 16


def run() -> None:
    """Measures what the flags say."""
    quick = flags.FLAGS.quick
    names = [*PAPER, TOGETHER] if quick else [*PAPER, TOGETHER, "mel", "mfcc"]
    rows = []
    for size in (5,) if quick else BATCHES:
        samples = music(size)
        for name in names:
            parts = PAPER if name == TOGETHER else (name,)
            ways = {
                "ours": functools.partial(_ours, parts, samples),
                "peer": functools.partial(_librosa, parts, samples),
                "limit": _done(transforms(parts, size)),
            }
            found = timing.seconds(ways, flags.FLAGS.rounds, _IN_A_ROW)
            each = {way: 1e3 * s / size for way, s in found.items()}
            rows.append(timing.Row(f"{name}, {size} at once", "ms a segment", **each))
    rows += [_prepared(name) for name in (*PAPER, TOGETHER)]
    timing.show("features of 5-s segments", "librosa", "FFTs alone", rows)


def _prepared(name: str) -> timing.Row:
    """A batch as preparing and predicting compute it: on all cores, to float16."""
    samples = music(shards.FEATURE_BATCH)
    parts = PAPER if name == TOGETHER else (name,)
    ways = {
        "ours": functools.partial(shards.compute, parts, samples),
        "peer": functools.partial(_librosa, parts, samples),
        "limit": _transforms_on_all_cores(parts, len(samples)),
    }
    in_a_row = _IN_A_ROW if flags.FLAGS.quick else _BATCHES_IN_A_ROW
    found = timing.seconds(ways, flags.FLAGS.rounds, in_a_row)
    each = {way: 1e3 * s / len(samples) for way, s in found.items()}
    return timing.Row(f"{name}, {len(samples)} on all cores", "ms a segment", **each)


def music(size: int) -> np.ndarray:
    """Segments with notes in them: a spectrum of noise has no tuning to estimate."""
    random = np.random.default_rng(0)
    t = np.arange(SEGMENT_SAMPLES) / SAMPLE_RATE_HZ
    hz = 55 * 2 ** (random.integers(0, 48, (size, 6, 1)) / 12)
    notes = np.sin(2 * np.pi * hz * t) * (np.sin(np.pi * 4 * t) > 0)
    noise = random.standard_normal((size, SEGMENT_SAMPLES))
    return (0.05 * notes.sum(axis=1) + 0.01 * noise).astype(np.float32)


def _ours(names: tuple[str, ...], samples: np.ndarray) -> None:
    jax.block_until_ready(together(names)(samples))


@functools.cache
def together(names: tuple[str, ...]) -> Callable:
    """One function for all the features that are named."""
    return features.together(names) if len(names) > 1 else FEATURES[names[0]].fn


def _librosa(names: tuple[str, ...], samples: np.ndarray) -> None:
    for one in samples:
        for name in names:
            of_librosa(name, one)


def of_librosa(name: str, y: np.ndarray) -> np.ndarray:
    """A feature by librosa: (samples,) to (bins, frames)."""
    import librosa

    if name == "spectrogram":
        spectrum = librosa.stft(
            y, n_fft=N_FFT, hop_length=SPECTROGRAM_HOP_LENGTH, center=False
        )
        return librosa.power_to_db(np.abs(spectrum) ** 2, top_db=None)
    if name == "mel":
        mel = librosa.feature.melspectrogram(y=y, sr=SAMPLE_RATE_HZ)
        return librosa.power_to_db(mel, top_db=None)
    if name == "mfcc":
        mel_db = of_librosa("mel", y)
        return librosa.feature.mfcc(S=mel_db, n_mfcc=MFCC_COEFFICIENTS)
    function = {
        "tempogram": librosa.feature.tempogram,
        "chroma": librosa.feature.chroma_stft,
    }[name]
    return function(y=y, sr=SAMPLE_RATE_HZ)


def _transforms_on_all_cores(names: tuple[str, ...], size: int) -> timing.Way:
    """As `transforms`, each core with its own part."""
    on_cpu = jax.default_backend() == "cpu"
    sharers = cores.available() if on_cpu else 1
    options = cores.compiler_options(alone=True)
    pool = concurrent.futures.ThreadPoolExecutor(sharers)
    parts = [
        _done(transforms(names, len(part), options=options))
        for part in np.array_split(np.arange(size), sharers)
    ]
    return lambda: list(pool.map(lambda part: part(), parts))


def _done(start: Callable[[], Any]) -> timing.Way:
    return lambda: jax.block_until_ready(start())


def transforms(
    names: tuple[str, ...],
    size: int,
    of_spectra: DTypeLike = np.float32,
    options: Mapping[str, Any] | None = None,
) -> Callable[[], Any]:
    """What starts the Fourier transforms of features, and nothing else; see the module.

    Args:
      names: of features.
      size: how many segments.
      of_spectra: dtype of the frames.
      options: how XLA compiles them.
    """
    random = np.random.default_rng(0)
    frames, stretches = {}, []
    for name in names:
        count = FEATURES[name].shape()[1]
        shape = (size, count, N_FFT)
        # What has the same frames can share their spectrum.
        hop = FEATURES[name].hop_length
        frames[hop] = random.standard_normal(shape).astype(of_spectra)
        if name == "tempogram":
            # There and back.
            shape = (2, size, count, 2 * TEMPOGRAM_WINDOW)
            stretches = [*random.standard_normal(shape).astype(np.float32)]

    @functools.partial(jax.jit, compiler_options=options)
    def all_of(frames):
        return [jnp.fft.rfft(x) for x in frames]

    with jax.enable_x64(True):
        ready = jax.device_put([*frames.values(), *stretches])
    return allow_float64(functools.partial(all_of, ready))


def main() -> None:
    """Defines the flags and runs."""
    timing.start(run, rounds=5)


if __name__ == "__main__":
    main()
