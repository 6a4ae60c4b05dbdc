"""Which side a whole artist goes to, so that every genre keeps near the ratios.

How many tracks of each genre each group holds enters; the side of each group leaves.
splits calls it, to keep an artist on one side.
"""

import numpy as np

_SIDES = 3  # training, validation, test

# What it costs that a genre is missing from a side, and that a side has nothing at all.
# The unit is a squared share of a genre, so that hardly any imbalance outweighs these.
_MISSING_COST = np.array([10_000.0, 30.0, 100.0])
_EMPTY_COST = 1_000.0

_MOST_SWEEPS = 20
_REDRAWS = 20


def balanced(
    sizes: np.ndarray, ratios: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws a side for each group, so that every genre comes near the ratios.

    A random draw is settled (see `_redraw`). That can get stuck where groups are few or
    large, so a genre that is a track or more off is drawn anew a number of times, and
    the best draw stays.

    Args:
      sizes: (groups, genres), tracks of each genre in each group.
      ratios: (3,), shares of training, validation and test.
      rng: of the draws.

    Returns:
      (groups,) the side of each: 0, 1 or 2, in the order of the ratios.
    """
    side_of = np.zeros(len(sizes), int)
    totals = sizes.sum(axis=0)
    genres = range(len(totals))
    _redraw(np.arange(len(sizes)), side_of, sizes, ratios, rng)
    for genre in [*genres] * _REDRAWS:
        held = _held(sizes, side_of)
        if np.abs(held[:, genre] - ratios * totals[genre]).max() < 1:
            continue
        other = side_of.copy()
        _redraw(np.flatnonzero(sizes[:, genre]), other, sizes, ratios, rng)
        costs = _cost(np.stack([_held(sizes, other), held]), totals, ratios)
        if costs[0] < costs[1]:
            side_of = other
    return side_of


def _redraw(
    groups: np.ndarray,
    side_of: np.ndarray,
    sizes: np.ndarray,
    ratios: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Draws the sides of some groups anew and settles them; changes `side_of`.

    To settle is to let one group after the other move to the side where it costs least,
    until none wants to move.
    """
    side_of[groups] = rng.choice(_SIDES, len(groups), p=ratios / ratios.sum())
    allowed = np.flatnonzero(ratios > 0)
    # Row s puts a group on the side allowed[s].
    onto = np.eye(_SIDES)[allowed][:, :, None]
    held, totals = _held(sizes, side_of), sizes.sum(axis=0)
    for _ in range(_MOST_SWEEPS):
        before = side_of[groups]
        for group in rng.permutation(groups):
            held[side_of[group]] -= sizes[group]
            costs = _cost(held + onto * sizes[group], totals, ratios)
            if costs[allowed == side_of[group]] > costs.min() + 1e-12:
                side_of[group] = allowed[costs.argmin()]
            held[side_of[group]] += sizes[group]
        if (side_of[groups] == before).all():
            break


def _held(sizes: np.ndarray, side_of: np.ndarray) -> np.ndarray:
    """Tracks on each side: (3, genres)."""
    return np.stack([sizes[side_of == side].sum(axis=0) for side in range(_SIDES)])


def _cost(held: np.ndarray, totals: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """How far from the ratios a division is.

    Args:
      held: (..., 3, genres) tracks on each side.
      totals: (genres,) tracks in all.
      ratios: (3,).

    Returns:
      (...,) cost: squared differences of shares, summed over sides and genres, and
      what is missing.
    """
    wanted = ratios > 0
    off = ((held / totals - ratios[:, None]) ** 2).sum(axis=(-2, -1))
    missing = (held == 0).sum(axis=-1) @ (_MISSING_COST * wanted)
    empty = (held.sum(axis=-1) == 0) @ (_EMPTY_COST * wanted)
    return off + missing + empty
