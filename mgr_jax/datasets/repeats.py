"""Recordings that a data set holds more than once, and what harm that does.

Tracks and their measurements enter; groups of tracks that are one recording leave.
verify calls `find`.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from mgr_jax import audio
from mgr_jax.audio import AudioError
from mgr_jax.datasets import fingerprint
from mgr_jax.datasets.base import Track
from mgr_jax.datasets.measure import USABLE, Measurement

BYTES = "same bytes"
RECORDING = "same recording"


@dataclasses.dataclass(frozen=True)
class Repeat:
    """One recording that several tracks hold.

    Attributes:
      members: positions of the tracks, ascending.
      kind: BYTES where all their files are equal, else RECORDING.
      genres: the labels that they have; more than one is a contradiction.
      sides: curated protocol to the sides that they are on, where these are several:
        what is trained on is then tested on.
    """

    members: tuple[int, ...]
    kind: str
    genres: tuple[str, ...]
    sides: dict[str, tuple[str, ...]]

    @property
    def harm(self) -> str:
        """What it spoils, as a phrase; "" where only the recording counts double."""
        parts = []
        if len(self.genres) > 1:
            parts.append(f"under several genres: {', '.join(self.genres)}")
        parts += [
            f"on several sides of --split={protocol}: {', '.join(sides)}"
            for protocol, sides in self.sides.items()
        ]
        return "; ".join(parts)


def find(tracks: Sequence[Track], measurements: Sequence[Measurement]) -> list[Repeat]:
    """Groups the tracks that are one recording.

    Files of equal bytes are, and recordings that sound alike to `fingerprint.alike` and
    are the same sample by sample.

    Args:
      tracks: the data set's.
      measurements: of their files, in the same order.

    Returns:
      Groups of two tracks or more, in the order of their first.
    """
    groups = list(range(len(tracks)))
    first_of: dict[str, int] = {}
    for k, found in enumerate(measurements):
        if found.state in USABLE and found.sha256:
            groups[k] = first_of.setdefault(found.sha256, k)
    # Of equal files one stands for all.
    firsts = [k for k in first_of.values() if measurements[k].shape is not None]
    shapes = [measurements[k].shape for k in firsts]
    for i, j, _ in fingerprint.alike(shapes):
        ours, theirs = _root(groups, firsts[i]), _root(groups, firsts[j])
        if ours != theirs and _are_same(tracks[firsts[i]], tracks[firsts[j]]):
            groups[max(ours, theirs)] = min(ours, theirs)
    members: dict[int, list[int]] = {}
    for k in range(len(tracks)):
        members.setdefault(_root(groups, k), []).append(k)
    return [
        _repeat(tracks, measurements, group)
        for group in members.values()
        if len(group) > 1
    ]


def _root(groups: Sequence[int], k: int) -> int:
    """The first of the group that a track is in; a track may point to an earlier."""
    while groups[k] != k:
        k = groups[k]
    return k


def _are_same(ours: Track, theirs: Track) -> bool:
    try:
        both = [_start(track) for track in (ours, theirs)]
    except AudioError:  # it has changed since it was measured
        return False
    return fingerprint.same_samples(*both) >= fingerprint.SAME


def _start(track: Track) -> np.ndarray:
    """The samples of a recording's first 30 s, and a little more."""
    return np.concatenate(list(_until(track, fingerprint.COMPARED_SAMPLES)))


def _until(track: Track, samples: int) -> Iterator[np.ndarray]:
    held = 0
    for block in audio.stream(track.path):
        yield block
        held += len(block)
        if held >= samples:
            return


def _repeat(
    tracks: Sequence[Track], measurements: Sequence[Measurement], group: list[int]
) -> Repeat:
    protocols = {name for k in group for name in tracks[k].fixed_sides}
    sides = {
        protocol: tuple(
            dict.fromkeys(
                tracks[k].fixed_sides[protocol]
                for k in group
                if protocol in tracks[k].fixed_sides
            )
        )
        for protocol in sorted(protocols)
    }
    pairs = itertools.pairwise(measurements[k].sha256 for k in group)
    return Repeat(
        members=tuple(group),
        kind=BYTES if all(a == b for a, b in pairs) else RECORDING,
        genres=tuple(dict.fromkeys(tracks[k].genre for k in group)),
        sides={name: found for name, found in sides.items() if len(found) > 1},
    )
