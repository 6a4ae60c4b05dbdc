"""Music from code alone: a data set that needs no download, with known answers.

A Config enters; 30-second clips of 8 genres are rendered on first use, cached as WAV
under --data_dir, and leave as tracks. A genre is a rhythm (tempo and pattern), a
harmony (mode and progression) and a timbre (brightness), two of each, so what a feature
can hear is known before any network is trained: tempogram hears the rhythm alone,
chroma the harmony alone, spectrogram all three. A clip is a noise brush that keeps the
rhythm over an organ of octave stops that plays the chords, both through one filter:

- The brush gives all onsets. The organ swells in and out in its own time, a chord a
  second or so, so nothing of the harmony's pace follows the tempo.
- The organ's stops are octaves apart, so every partial of a note is of one pitch class
  and no timbre can add or hide a third. The brush is white and faint: chroma, which
  adds up power, does not hear it; onset strength, which adds up decibels, does.
- The timbre is a filter over the whole mix. It lifts or lowers a band for good, and so
  changes no difference of decibels in time, which is all that onset strength is.
- Everything else is drawn anew for each clip and from the same ranges for all genres.
"""

import dataclasses
import io
import itertools
import os
import pathlib
import sys

import numpy as np

from mgr_jax.audio import SAMPLE_RATE_HZ
from mgr_jax.config import Config, UserError, check_local
from mgr_jax.datasets.base import Dataset, Track

# Part of the cache's path. Raise it with any change to what `render` returns.
VERSION = 2

CLIP_S = 30
CLIP_SAMPLES = CLIP_S * SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """A tempo and a pattern.

    Attributes:
      tempo_bpm: lowest and highest tempo. The ranges of the two rhythms stay apart.
      beats: length of the bar.
      hits: (beat, accent in dB) of the brush's strokes in a bar.
    """

    tempo_bpm: tuple[float, float]
    beats: int
    hits: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Harmony:
    """A mode and a progression.

    Attributes:
      triad: semitones of a chord's notes over its root.
      roots: semitones of the chords' roots over the tonic, repeated without end.
    """

    triad: tuple[int, int, int]
    roots: tuple[int, ...]


RHYTHMS = {
    "march": Rhythm((92, 116), 4, ((0, 0), (1, -5), (2, -2), (3, -5), (3.5, -7))),
    "waltz": Rhythm((144, 180), 3, ((0, 0), (1, -5), (2, -5))),
}

# I-IV-V-IV in major triads, i-v-iv-v in minor ones: mirror images, so that from
# chord to chord both keep as many notes, and neither moves more than the other.
HARMONIES = {
    "major": Harmony((0, 4, 7), (0, 5, 7, 5)),
    "minor": Harmony((0, 3, 7), (0, 7, 5, 7)),
}

# Gain in dB above the filter's slope, lowest and highest. A dark clip's noise stays
# almost all within 80 dB of its loudest note: what lies deeper, librosa's onset
# strength cuts off, and tempogram would hear the timbre after all.
TIMBRES = {"bright": (-2.0, 2.0), "dark": (-14.0, -10.0)}

GENRES = tuple(map("-".join, itertools.product(RHYTHMS, HARMONIES, TIMBRES)))

# C, E and A flat. Over these, both harmonies use all twelve pitch classes, and how much
# there is of any single one tells at most 5 clips in 6 apart; yet a weighted sum of all
# does, which a small network finds in a hundred clips. Over all twelve tonics no such
# sum does: only intervals would tell, which pooling hides in the spectrogram.
TONICS = (0, 4, 8)

# An octave above the middle of the keyboard, where a semitone is wider than a bin of
# the 2048-point spectrum, and the upper stops are tens of bins apart.
LOWEST_PITCH = 72
STOPS = 4

SWELL_S = 0.2
STROKE_S = 0.4
ATTACK_S = 0.003

# What starts before a clip or outlasts it is rendered into this margin, and cut.
MARGIN_S = 4


@dataclasses.dataclass(frozen=True)
class Clip:
    """What was drawn for one clip.

    Attributes:
      genre: one of GENRES.
      tempo_bpm: beats a minute.
      tonic: pitch class, one of TONICS.
      detune_cents: of the whole organ.
      chord_s: mean duration of a chord.
      stop_db: fall in level from each stop to the one an octave above.
      stroke_db: peak of the brush's strongest stroke, relative to the organ.
      floor_db: level of its steady noise, relative to the organ.
      decay_s: time in which a stroke falls to 1 / e.
      shelf_db: gain of the filter above its slope; the timbre.
      level_db: RMS of the clip relative to full scale.
    """

    genre: str
    tempo_bpm: float
    tonic: int
    detune_cents: float
    chord_s: float
    stop_db: float
    stroke_db: float
    floor_db: float
    decay_s: float
    shelf_db: float
    level_db: float


def factors(genre: str) -> tuple[str, str, str]:
    """A genre's (rhythm, harmony, timbre), keys of RHYTHMS, HARMONIES and TIMBRES."""
    rhythm, harmony, timbre = genre.split("-")
    return rhythm, harmony, timbre


def describe(index: int, seed: int = 0) -> Clip:
    """What is known of a clip without rendering it.

    Args:
      index: number of the clip; its genre is GENRES[index % 8].
      seed: another seed gives another data set.

    Returns:
      The parameters that `render` uses.
    """
    return _draw(index, _generator(index, seed))


def render(index: int, seed: int = 0) -> np.ndarray:
    """Renders one clip, a function of its arguments alone.

    Args:
      index: number of the clip; its genre is GENRES[index % 8].
      seed: another seed gives another data set.

    Returns:
      float32 (661500,), 30 s of mono at 22 050 Hz, on the grid of 16-bit samples, so
      that a 16-bit file holds just these numbers.
    """
    rng = _generator(index, seed)
    clip = _draw(index, rng)
    mix = _filtered(_organ(clip, rng) + _brush(clip, rng), clip.shelf_db)
    mix *= _gain(clip.level_db) / np.sqrt(np.mean(mix**2))
    samples = np.clip(np.rint(mix * 32768), -32768, 32767)
    return (samples / 32768).astype(np.float32)


def load(config: Config) -> list[Track]:
    """The first --synth_clips clips; those that the cache lacks are rendered.

    --seed does not change them: it seeds runs on the same data.

    Args:
      config: its data_path holds the cache, `synth/vVERSION/GENRE/INDEX.wav`.

    Returns:
      Tracks, clip i of genre i % 8, each an artist of its own.

    Raises:
      UserError: the cache cannot be written.
    """
    check_local("data_dir", config.data_path)
    folder = config.data_path / "synth" / f"v{VERSION}"
    tracks = [_track(folder, index) for index in range(config.synth_clips)]
    try:
        missing = [i for i, track in enumerate(tracks) if not track.path.is_file()]
        if missing:
            _fill(folder, [(index, tracks[index].path) for index in missing])
    except OSError as error:
        raise UserError(
            f"--data_dir={config.data_path}: cannot write synth's clips to {folder} "
            f"({error.strerror or error}); name a folder that can be written"
        ) from None
    return tracks


def _track(folder: pathlib.Path, index: int) -> Track:
    genre, name = GENRES[index % len(GENRES)], f"synth-{index:05d}"
    return Track(name, folder / genre / f"{index:05d}.wav", genre, artist=name)


def _fill(folder: pathlib.Path, clips: list[tuple[int, pathlib.Path]]) -> None:
    """Renders (index, path) clips; a killed run leaves whole clips only."""
    import soundfile
    import tqdm

    print(f"rendering {len(clips)} synth clips to {folder}", file=sys.stderr)
    for index, path in tqdm.tqdm(clips, unit="clip", disable=None):
        wav = io.BytesIO()
        samples = (render(index) * 32768).astype(np.int16)
        soundfile.write(wav, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Named for the process, so that two runs at once do not share it.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(wav.getvalue())
        temporary.replace(path)


def _generator(index: int, seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, index]))


def _draw(index: int, rng: np.random.Generator) -> Clip:
    """Draws a clip's parameters: the first numbers that its generator gives."""
    genre = GENRES[index % len(GENRES)]
    rhythm, _, timbre = factors(genre)
    return Clip(
        genre=genre,
        tempo_bpm=rng.uniform(*RHYTHMS[rhythm].tempo_bpm),
        # In turn: drawn, it would by chance be commoner in one rhythm or timbre, and
        # chroma, which hears it, would seem to hear those.
        tonic=TONICS[index // len(GENRES) % len(TONICS)],
        detune_cents=rng.uniform(-12, 12),
        chord_s=rng.uniform(0.75, 1.15),
        stop_db=rng.uniform(3, 7),
        stroke_db=rng.uniform(-19, -13),
        floor_db=rng.uniform(-43, -38),
        decay_s=rng.uniform(0.025, 0.06),
        shelf_db=rng.uniform(*TIMBRES[timbre]),
        level_db=rng.uniform(-26, -16),
    )


def _organ(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """The chords, (samples,) with an RMS of 1."""
    harmony = HARMONIES[factors(clip.genre)[1]]
    period = _stops(clip.stop_db)
    organ = _silence()
    start_s = -rng.uniform(0, clip.chord_s)
    for chord in itertools.count(int(rng.integers(len(harmony.roots)))):
        if start_s >= CLIP_S:
            break
        duration_s = clip.chord_s * rng.uniform(0.85, 1.15)
        root = clip.tonic + harmony.roots[chord % len(harmony.roots)]
        for interval in harmony.triad:
            pitch = LOWEST_PITCH + (root + interval) % 12
            pitch -= 12 * (rng.random() < 0.15)
            pitch_hz = 440 * 2 ** ((pitch - 69 + clip.detune_cents / 100) / 12)
            note = _note(period, pitch_hz, duration_s + SWELL_S, rng.random())
            note *= _gain(rng.uniform(-3, 3))
            _add(organ, note, start_s + rng.uniform(-0.03, 0.03))
        start_s += duration_s
    organ = _cut(organ)
    return organ / np.sqrt(np.mean(organ**2))


def _stops(fall_db: float) -> np.ndarray:
    """One period of the organ's tone, (65536,): sines an octave apart."""
    phase = 2 * np.pi * np.arange(1 << 16) / (1 << 16)
    return sum(_gain(-fall_db * k) * np.sin(2**k * phase) for k in range(STOPS))


def _note(
    period: np.ndarray, pitch_hz: float, duration_s: float, phase: float
) -> np.ndarray:
    """A tone read from its period, (samples,), swelling in and out."""
    samples = np.arange(round(duration_s * SAMPLE_RATE_HZ))
    position = (phase + samples * (pitch_hz / SAMPLE_RATE_HZ)) * len(period)
    note = period[position.astype(np.int64) % len(period)]
    # From -50 dB, steep where it is soft: a rise that onset strength, in decibels,
    # finds spread over the swell instead of at its beginning.
    rise = np.arange(round(SWELL_S * SAMPLE_RATE_HZ)) / (SWELL_S * SAMPLE_RATE_HZ)
    swell = _gain(-50 * (1 - rise) ** 2)
    note[: len(swell)] *= swell
    note[-len(swell) :] *= swell[::-1]
    return note


def _brush(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """White noise, (samples,), that strokes in the rhythm and never quite stops."""
    rhythm = RHYTHMS[factors(clip.genre)[0]]
    beat_s = 60 / clip.tempo_bpm
    time_s = np.arange(round(STROKE_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    stroke = np.minimum(time_s / ATTACK_S, 1) * np.exp(-time_s / clip.decay_s)
    envelope = _silence() + _gain(clip.floor_db)
    first_beat = -rhythm.beats * rng.random()
    for bar_beat in np.arange(first_beat, CLIP_S / beat_s, rhythm.beats):
        for beat, accent_db in rhythm.hits:
            level_db = clip.stroke_db + accent_db + rng.uniform(-2, 2)
            hit_s = (bar_beat + beat) * beat_s + rng.uniform(-0.01, 0.01)
            # One weak stroke in ten is left out.
            if accent_db > -4 or rng.random() < 0.9:
                _add(envelope, _gain(level_db) * stroke, hit_s)
    return _cut(envelope) * rng.standard_normal(CLIP_SAMPLES)


def _filtered(mix: np.ndarray, shelf_db: float) -> np.ndarray:
    """A mix (samples,) with `shelf_db` of gain above 5.7 kHz and none below 2 kHz."""
    frequency_hz = np.fft.rfftfreq(len(mix), 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(frequency_hz, 1) / 2000)
    slope = np.clip(octaves / 1.5, 0, 1)
    gain = _gain(shelf_db * slope**2 * (3 - 2 * slope))
    return np.fft.irfft(np.fft.rfft(mix) * gain, len(mix))


def _gain(level_db):
    """Decibels, a number or an array, to a factor of amplitude."""
    return 10 ** (level_db / 20)


def _silence() -> np.ndarray:
    return np.zeros(CLIP_SAMPLES + 2 * MARGIN_S * SAMPLE_RATE_HZ)


def _add(track: np.ndarray, sound: np.ndarray, start_s: float) -> None:
    """Adds a sound to what `_silence` made, at a time within the clip or its margin."""
    start = round((MARGIN_S + start_s) * SAMPLE_RATE_HZ)
    track[start : start + len(sound)] += sound


def _cut(track: np.ndarray) -> np.ndarray:
    margin = MARGIN_S * SAMPLE_RATE_HZ
    return track[margin : margin + CLIP_SAMPLES]


DATASET = Dataset("synth", load, default_split="track", splits=("track", "segment"))
