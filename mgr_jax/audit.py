"""What a split protocol puts where, and what it lets leak: the audit of a data set.

Tracks and the flags enter; a text leaves that counts tracks and segments on each side
and names the tracks and artists that are on more than one. It needs no prepared
features. `python -m mgr_jax.splits --audit` calls `main`.
"""

import collections
import csv
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from mgr_jax import cli, splits
from mgr_jax import config as config_lib
from mgr_jax.config import FMA_SUBSETS, Config, UserError
from mgr_jax.datasets import DATASETS, Track, load_tracks
from mgr_jax.input_pipeline import (
    TRACKS_FILE,
    is_complete,
    prepared_folder,
    read_tracks,
)
from mgr_jax.splits import PROTOCOLS, SIDES

LISTED = 20
MOST_GENRES = 20
LEFT_OUT = "left out"

_ASSUMED_SEGMENTS = 5
_FLAGS = (
    "dataset", "data_dir", "features_dir", "fma_subset", "synth_clips", "split",
    "split_ratios", "segments_per_track", "seed",
)  # fmt: skip

# Name to side to a number of tracks, or of segments.
Tally = Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True)
class Audit:
    """What one protocol does with a data set.

    A track whose segments are on several sides counts as a track of each of them.

    Attributes:
      protocol: its name.
      tracks: side, or "left out", to its number of tracks.
      segments: side, or "left out", to its number of segments.
      genres: genre to side, or "left out", to tracks.
      shared_tracks: each track that is on several sides, to its segments on each.
      shared_artists: each artist on several sides, to its tracks on each.
      used: tracks that are on a side.
      nameless: those of them that name no artist, or none but themselves.
      warnings: the protocol's own.
    """

    protocol: str
    tracks: Mapping[str, int]
    segments: Mapping[str, int]
    genres: Tally
    shared_tracks: Tally
    shared_artists: Tally
    used: int
    nameless: int
    warnings: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether a track or a known artist is on several sides."""
        return bool(self.shared_tracks or self.shared_artists)


def audit(
    tracks: Sequence[Track],
    segment_counts: Mapping[str, int],
    protocol: str,
    ratios: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Audit:
    """Draws a protocol, and looks at what came of it.

    The arguments, and what it raises, are those of `splits.assign`. A track that alone
    has its own id for an artist names none: that is what GTZAN's tracks have that
    nobody found another track's artist in.
    """
    assignment = splits.assign(tracks, segment_counts, protocol, ratios, seed)
    places = {track.id: _places(assignment.sides[track.id]) for track in tracks}
    of_genre = collections.defaultdict(collections.Counter)
    of_artist = collections.defaultdict(collections.Counter)
    segments = collections.Counter()
    for track in tracks:
        segments.update(places[track.id])
        of_genre[track.genre].update(places[track.id].keys())
        of_artist[track.artist].update(places[track.id].keys() - {LEFT_OUT})
    used = [track for track in tracks if places[track.id].keys() - {LEFT_OUT}]
    by_artist = collections.Counter(track.artist for track in tracks)
    nameless = [
        track
        for track in used
        if not track.artist
        or (track.artist == track.id and by_artist[track.artist] == 1)
    ]
    alone = {track.artist for track in nameless}
    several_tracks, several_artists = splits.shared(assignment, tracks)
    return Audit(
        protocol=protocol,
        tracks=sum(of_genre.values(), collections.Counter()),
        segments=segments,
        genres=dict(of_genre),
        shared_tracks={key: places[key] for key in several_tracks},
        shared_artists={
            key: of_artist[key] for key in several_artists if key not in alone
        },
        used=len(used),
        nameless=len(nameless),
        warnings=assignment.warnings,
    )


def _places(sides: Sequence[str]) -> collections.Counter:
    """Side to segments on it; a track that is nowhere is left out with what it has."""
    counts = collections.Counter(side for side in sides if side)
    return counts or collections.Counter({LEFT_OUT: len(sides)})


def outcome(found: Audit) -> str:
    """An audit in one line: clean, or what leaks."""
    nameless = f"{found.nameless} of {_count(found.used, 'track')} name none"
    if found.leaks:
        line = (
            f"leaks: {_count(len(found.shared_tracks), 'track')}, "
            f"{_count(len(found.shared_artists), 'artist')}"
        )
        return f"{line} at the least ({nameless})" if found.nameless else line
    if found.nameless:
        return f"clean as far as artists are known ({nameless})"
    return "clean"


def as_text(found: Audit) -> str:
    """An audit for the terminal, several lines."""
    lines = [
        f"--split={found.protocol}: {PROTOCOLS[found.protocol].summary}",
        *_counts_table(found),
        *_shared_list("track", found.shared_tracks, "segments"),
        *_shared_list("artist", found.shared_artists, "tracks"),
    ]
    if found.nameless:
        lines.append(
            f"  {found.nameless} of {_count(found.used, 'track')} name no artist, so "
            "an artist that they share cannot be seen"
        )
    lines += [f"  warning: {warning}" for warning in found.warnings]
    return "\n".join([*lines, f"  {outcome(found)}"])


def _counts_table(found: Audit) -> list[str]:
    """Rows of sides' tracks, segments and, where they are few, tracks of each genre."""
    rows = [
        ("", *SIDES, LEFT_OUT),
        ("tracks", *_row(found.tracks)),
        ("segments", *_row(found.segments)),
    ]
    if len(found.genres) <= MOST_GENRES:
        rows += [
            (f"tracks of {_printable(genre)}", *_row(found.genres[genre]))
            for genre in sorted(found.genres)
        ]
    width = max(len(row[0]) for row in rows)
    return [
        f"  {row[0]:<{width}}" + "".join(f"{cell:>12}" for cell in row[1:])
        for row in rows
    ]


def _row(counts: Mapping[str, int]) -> list[int]:
    return [counts.get(side, 0) for side in (*SIDES, LEFT_OUT)]


def _shared_list(what: str, shared: Tally, unit: str) -> list[str]:
    """What is on several sides, by name, the first few."""
    if not shared:
        return [f"  no {what} is on several sides"]
    lines = [f"  {_count(len(shared), what)} on several sides, with {unit} on each:"]
    for name, counts in itertools.islice(shared.items(), LISTED):
        where = ", ".join(f"{side} {counts[side]}" for side in SIDES if counts[side])
        lines.append(f"    {_printable(name)}: {where}")
    if len(shared) > LISTED:
        lines.append(f"    and {len(shared) - LISTED} more (--audit_csv lists all)")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _printable(name: str) -> str:
    """A name that keeps to its line, whatever the data set put into it."""
    return name if name.isprintable() else repr(name)


def write_csv(path: str | pathlib.Path, audits: Sequence[Audit]) -> None:
    """Writes everything that is on several sides.

    A row each: protocol, kind ("track" or "artist"), name, and its segments (of a
    track) or tracks (of an artist) on every side.

    Args:
      path: the file to write.
      audits: what `audit` returned.

    Raises:
      OSError: it cannot be written.
    """
    with pathlib.Path(path).open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        rows = csv.writer(file)
        rows.writerow(["protocol", "kind", "name", *SIDES])
        for found in audits:
            kinds = {"track": found.shared_tracks, "artist": found.shared_artists}
            for kind, shared in kinds.items():
                for name, counts in shared.items():
                    where = [counts[side] for side in SIDES]
                    rows.writerow([found.protocol, kind, name, *where])


def count_segments(
    config: Config, tracks: Sequence[Track]
) -> tuple[dict[str, int], str]:
    """How many segments each track has, as far as that is known.

    Args:
      config: its features_path may hold prepared features of just these tracks.
      tracks: the data set's.

    Returns:
      Track id to segments, and a line that says where the numbers are from.
    """
    from mgr_jax.features import FEATURES

    ids = {track.id for track in tracks}
    for feature in FEATURES:
        folder = prepared_folder(dataclasses.replace(config, feature=feature))
        if is_complete(folder):
            _, counts = read_tracks(folder / TRACKS_FILE)
            if counts.keys() == ids:
                return counts, f"segments as prepared in {folder}"
    segments = config.segments_per_track or _ASSUMED_SEGMENTS
    line = f"{segments} segments a track are assumed, as no features are prepared"
    return dict.fromkeys(ids, segments), line


def run() -> None:
    """Prints the audits that the flags ask for.

    Raises:
      UserError: --audit is missing, the data are, or --split is none of theirs.
    """
    if not flags.FLAGS.audit:
        raise UserError("nothing to do: say --audit, and --dataset and --data_dir")
    config = config_lib.from_flags(flags.FLAGS)
    config_lib.check_choices(config, {"dataset": DATASETS, "fma_subset": FMA_SUBSETS})
    protocols = DATASETS[config.dataset].splits
    if config.split:
        config_lib.check_choices(config, {"split": protocols})
        protocols = (config.split,)
    tracks = load_tracks(config)
    counts, line = count_segments(config, tracks)
    genres = len({track.genre for track in tracks})
    print(f"{config.dataset}: {len(tracks)} tracks, {genres} genres; {line}")
    if any(track.artist in counts and track.artist != track.id for track in tracks):
        print("an artist is called by the id of one of its tracks")
    print()
    audits, outcomes = [], {}
    for protocol in protocols:
        try:
            found = audit(tracks, counts, protocol, config.split_ratios, config.seed)
        except UserError as error:
            if config.split:
                raise
            outcomes[protocol] = f"cannot be drawn: {error}"
            continue
        print(as_text(found) + "\n")
        audits.append(found)
        outcomes[protocol] = outcome(found)
    for protocol, line in outcomes.items():
        print(f"{config.dataset}, {protocol}: {line}")
    if flags.FLAGS.audit_csv:
        write_csv(flags.FLAGS.audit_csv, audits)


def main() -> None:
    """Defines the flags and runs: the program `python -m mgr_jax.splits`."""
    fields = (field.name for field in dataclasses.fields(Config))
    choices = {"dataset": DATASETS, "split": PROTOCOLS, "fma_subset": FMA_SUBSETS}
    config_lib.define_flags(
        choices, flags.FLAGS, leave_out=[name for name in fields if name not in _FLAGS]
    )
    flags.DEFINE_bool("audit", False, "Count what is on each side, and what leaks.")
    flags.DEFINE_string("audit_csv", "", "File for all that is on several sides.")
    # They are this program's own, for --help, though splits is the file that is run.
    for name in (*_FLAGS, "audit", "audit_csv"):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    cli.start(run)
