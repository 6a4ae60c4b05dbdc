"""Split protocols: which tracks, or which segments, train, validate and test.

    python -m mgr_jax.splits --audit --dataset=gtzan --data_dir=DIR

Tracks and their numbers of segments enter; the side of each segment leaves. A draw
depends on the tracks and the seed alone, never on their order, nor (but for `segment`)
on how many segments each has, so every feature of a data set gets the same split.
Where a data set merges several, each source is drawn by itself, as it would be alone.
train calls it, evaluate through train, and audit, which is what the command runs.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mgr_jax.balance import balanced
from mgr_jax.config import UserError
from mgr_jax.datasets.base import Track

SIDES = ("train", "validation", "test")

# Where there is too little for every side, the order in which they get something:
# training, test, validation.
_FIRST_SERVED = (0, 2, 1)

Sides = dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to divide a data set.

    Attributes:
      name: value of --split.
      summary: what is kept apart, in one line.
      leaks: "" or, in one line, what is on both sides and by how much that raises an
        accuracy.
      draw: (tracks sorted by id, id to number of segments, ratios, generator) to track
        id to the side of each of its segments, "" for a segment that is not used.
    """

    name: str
    summary: str
    leaks: str
    draw: Callable[
        [Sequence[Track], Mapping[str, int], np.ndarray, np.random.Generator], Sides
    ]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The outcome of a protocol.

    Attributes:
      sides: track id to the side of each of its segments: "train", "validation", "test"
        or, where the protocol leaves the segment out, "". A track without segments
        has ().
      warnings: lines that the user should see.
      leaks: "" or what this division leaks, in one line. A protocol that would let an
        artist be on two sides leaks nothing where each artist has but one track.
    """

    sides: Sides
    warnings: tuple[str, ...] = ()
    leaks: str = ""


def assign(
    tracks: Sequence[Track],
    segment_counts: Mapping[str, int],
    protocol: str,
    ratios: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Assignment:
    """Divides tracks by a protocol.

    Args:
      tracks: in any order.
      segment_counts: track id to its number of segments; a track that is missing, or
        has none, takes no part.
      protocol: a name of `PROTOCOLS`.
      ratios: shares of training, validation and test, which sum to 1; the curated
        protocols (`CURATED`) take no notice of them.
      seed: of the draw, the same for each source; the curated protocols draw nothing.

    Raises:
      UserError: the ratios are no shares, the data lack what the protocol needs, or
        they are too few for each side to get something.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"--split={protocol}: choose one of {', '.join(PROTOCOLS)}")
    _check_ratios(ratios)
    used = [track for track in tracks if segment_counts.get(track.id, 0) > 0]
    used.sort(key=lambda track: track.id)
    if not used:
        raise UserError(f"--split={protocol}: no track has a segment; prepare the data")
    drawn = _draw_each_source(used, segment_counts, protocol, ratios, seed)
    wanted = [
        side
        for side, ratio in zip(SIDES, ratios, strict=True)
        if ratio > 0 or protocol in CURATED
    ]
    warnings = _check_sides(used, drawn, protocol, wanted)
    warnings += _check_sources(used, drawn)
    sides = {track.id: () for track in tracks} | drawn
    assignment = Assignment(sides, warnings, PROTOCOLS[protocol].leaks)
    if all(track.artist for track in used) and not any(shared(assignment, used)):
        return dataclasses.replace(assignment, leaks="")
    return assignment


def _draw_each_source(tracks, segment_counts, protocol, ratios, seed) -> Sides:
    """Divides each source's tracks with a generator of its own, and under its own
    genres, so that its part is what that data set alone would get.
    """
    parts = collections.defaultdict(list)
    for track in tracks:
        genre = track.source_genre or track.genre
        parts[track.source].append(dataclasses.replace(track, genre=genre))
    drawn = {}
    for source, part in parts.items():
        rng = np.random.default_rng(seed)
        try:
            drawn |= PROTOCOLS[protocol].draw(
                part, segment_counts, np.asarray(ratios, float), rng
            )
        except UserError as error:
            if not source:
                raise
            raise UserError(f"{error} (this is about {source}'s part)") from None
    return drawn


def shared(
    assignment: Assignment, tracks: Sequence[Track]
) -> tuple[list[str], list[str]]:
    """What an assignment leaks: ids of tracks, and artists, on more than one side."""
    sides_of_track = {
        track.id: set(assignment.sides[track.id]) - {""} for track in tracks
    }
    sides_of_artist = collections.defaultdict(set)
    for track in tracks:
        if track.artist:
            sides_of_artist[track.artist] |= sides_of_track[track.id]
    return tuple(
        sorted(key for key, sides in sides_of.items() if len(sides) > 1)
        for sides_of in (sides_of_track, sides_of_artist)
    )


def _check_ratios(ratios: Sequence[float]) -> None:
    good = len(ratios) == 3 and all(math.isfinite(r) and r >= 0 for r in ratios)
    if not (good and ratios[0] > 0 and math.isclose(sum(ratios), 1, abs_tol=1e-6)):
        raise UserError(
            f"--split_ratios={','.join(f'{r:g}' for r in ratios)}: give the shares of "
            "training, validation and test, three numbers that sum to 1, the first "
            "above 0, such as 0.7,0.15,0.15"
        )


def _check_sides(
    tracks: Sequence[Track], drawn: Sides, protocol: str, wanted: Sequence[str]
) -> tuple[str, ...]:
    """Refuses an empty side; warns of genres that cannot be learned or tested."""
    genres = {side: set() for side in SIDES}
    for track in tracks:
        for side in set(drawn[track.id]) - {""}:
            genres[side].add(track.genre)
    empty = [side for side in wanted if not genres[side]]
    if empty:
        remedy = (
            "get the whole data set or take another --split"
            if protocol in CURATED
            else "add some, take another --split, or give it a larger share in "
            "--split_ratios"
        )
        raise UserError(
            f"--split={protocol}: {len(tracks)} tracks leave nothing for "
            f"{' and '.join(empty)}; {remedy}"
        )
    everything = {track.genre for track in tracks}
    consequences = {"train": "not learned", "test": "not tested"}
    return tuple(
        f"--split={protocol}: no track of {', '.join(sorted(missing))} for {side}, so "
        f"{'it is' if len(missing) == 1 else 'they are'} {consequence}"
        for side, consequence in consequences.items()
        if side in wanted and (missing := everything - genres[side])
    )


def _check_sources(tracks: Sequence[Track], drawn: Sides) -> tuple[str, ...]:
    """Warns of genres that are learned from one of several sources alone.

    Sources differ in their recording chain, sampling rate and codec, and such a genre
    can be told by these.
    """
    sources_of = collections.defaultdict(set)
    for track in tracks:
        if "train" in drawn[track.id]:
            sources_of[track.genre].add(track.source)
    if len(set().union(*sources_of.values())) < 2:
        return ()
    alone = collections.defaultdict(list)
    for genre, sources in sorted(sources_of.items()):
        if len(sources) == 1:
            alone[min(sources)].append(genre)
    if not alone:
        return ()
    parts = " and ".join(
        f"{', '.join(genres)} {'comes' if len(genres) == 1 else 'come'} from {source} "
        "alone"
        for source, genres in sorted(alone.items())
    )
    return (
        f"in training, {parts}: a network may tell the source instead of the genre",
    )


def _by_segment(tracks, segment_counts, ratios, rng) -> Sides:
    genres = [t.genre for t in tracks for _ in range(segment_counts[t.id])]
    sides = iter(_stratified(genres, ratios, rng))
    return {
        t.id: tuple(next(sides) for _ in range(segment_counts[t.id])) for t in tracks
    }


def _by_track(tracks, segment_counts, ratios, rng) -> Sides:
    sides = _stratified([track.genre for track in tracks], ratios, rng)
    return _whole_tracks(tracks, segment_counts, sides)


def _by_artist(tracks, segment_counts, ratios, rng) -> Sides:
    if not any(track.artist for track in tracks):
        raise UserError(
            "--split=artist: no track has an artist; sort a folder's files as "
            "ROOT/LABEL/ARTIST/*.ext, or take --split=track"
        )
    genres = sorted({track.genre for track in tracks})
    # A track of no known artist stands alone; no artist is called ("", id).
    artists = [track.artist or ("", track.id) for track in tracks]
    rows = {artist: row for row, artist in enumerate(dict.fromkeys(artists))}
    sizes = np.zeros((len(rows), len(genres)))
    for track, artist in zip(tracks, artists, strict=True):
        sizes[rows[artist], genres.index(track.genre)] += 1
    side_of = balanced(sizes, ratios, rng)
    sides = [SIDES[side_of[rows[artist]]] for artist in artists]
    return _whole_tracks(tracks, segment_counts, sides)


def _curated(tracks, segment_counts, ratios, rng, *, name: str) -> Sides:
    if not any(name in track.fixed_sides for track in tracks):
        raise UserError(
            f"--split={name}: this data set has no such split; take --split=track, or "
            "--split=artist where artists are known"
        )
    sides = [track.fixed_sides.get(name, "") for track in tracks]
    return _whole_tracks(tracks, segment_counts, sides)


def _whole_tracks(tracks, segment_counts, sides: Sequence[str]) -> Sides:
    return {
        track.id: (side,) * segment_counts[track.id]
        for track, side in zip(tracks, sides, strict=True)
    }


def _stratified(
    genres: Sequence[str], ratios: np.ndarray, rng: np.random.Generator
) -> list[str]:
    """Draws a side for each item, every genre divided by the ratios.

    What rounding one genre gives or takes is made up for in the next, so that the
    whole keeps the ratios too.
    """
    genre_of = np.asarray(genres)
    sides = np.empty(len(genres), dtype=object)
    owed = np.zeros(len(SIDES))
    for genre in sorted(set(genres)):
        items = rng.permutation(np.flatnonzero(genre_of == genre))
        owed += ratios * len(items)
        counts = _rounded(owed, len(items))
        owed -= counts
        sides[items] = np.repeat(SIDES, _serve(counts, ratios))
    return sides.tolist()


def _rounded(owed: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that sum to `total`, as near `owed` as can be (largest remainder).

    Args:
      owed: (3,), sums to about `total`; a number may be less than 1 below 0.
      total: what to hand out.
    """
    counts = np.floor((owed - 1).clip(min=0)).astype(int)
    for _ in range(total - counts.sum()):
        # Ties go to the side that is served first, whatever floats make of them.
        counts[max(_FIRST_SERVED, key=lambda s: round(owed[s] - counts[s], 9))] += 1
    return counts


def _serve(counts: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Gives a side that rounding left with nothing one of what another can spare."""
    counts = counts.copy()
    order = [side for side in _FIRST_SERVED if ratios[side] > 0]
    for rank, side in enumerate(order):
        donor = max(order, key=lambda s: counts[s])
        can_spare = 2 - (donor in order[rank + 1 :])
        if counts[side] == 0 and counts[donor] >= can_spare:
            counts[donor] -= 1
            counts[side] += 1
    return counts


# The last three take a side for each track from the data set itself.
CURATED = ("filtered", "official", "filtered+official")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "segment",
            "segments drawn at random, each genre by the ratios",
            "pieces of one track are on both sides: 8 to 15 points above a track "
            "split, as measured elsewhere",
            _by_segment,
        ),
        Protocol(
            "track",
            "tracks drawn at random, each genre by the ratios",
            "tracks by one artist are on both sides: 25 to 30 points above an "
            "artist-disjoint split on GTZAN, as measured elsewhere",
            _by_track,
        ),
        Protocol(
            "artist",
            "artists drawn at random, each genre as near the ratios as can be",
            "",
            _by_artist,
        ),
        Protocol(
            "filtered",
            "GTZAN without faults and repeated artists (Kereliuk et al. 2015)",
            "",
            functools.partial(_curated, name="filtered"),
        ),
        Protocol(
            "official",
            "the split that FMA's metadata gives (set.split)",
            "",
            functools.partial(_curated, name="official"),
        ),
        Protocol(
            "filtered+official",
            "GTZAN's tracks by filtered and FMA's by official",
            "",
            functools.partial(_curated, name="filtered+official"),
        ),
    )
}

if __name__ == "__main__":
    from mgr_jax import audit

    audit.main()
