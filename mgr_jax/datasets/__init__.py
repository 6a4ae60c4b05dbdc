"""Where tracks come from: the registry of data sets, one file and one line each.

A Config enters; checked and sorted tracks leave. prepare and main call it.
"""

import collections
import dataclasses
import re

from mgr_jax.config import Config, UserError, check_choices, real
from mgr_jax.datasets import fma, folder, gtzan, merged, synth
from mgr_jax.datasets.base import Dataset, Track

__all__ = ["DATASETS", "Dataset", "Track", "dataset_key", "load_tracks"]

DATASETS: dict[str, Dataset] = {
    "gtzan": gtzan.DATASET,
    "fma": fma.DATASET,
    "folder": folder.DATASET,
    "synth": synth.DATASET,
    "gtzan+fma": merged.DATASET,
}


def load_tracks(config: Config) -> list[Track]:
    """Lists the data set's tracks.

    Returns:
      Tracks sorted by id, of two genres at the least, no id twice.

    Raises:
      UserError: the data are missing, or no such list can be made of them.
    """
    check_choices(config, {"dataset": DATASETS})
    # TFDS keeps labels without the space around them.
    tracks = [
        dataclasses.replace(track, genre=track.genre.strip())
        for track in DATASETS[config.dataset].load(config)
    ]
    tracks.sort(key=lambda track: track.id)
    counts = collections.Counter(track.id for track in tracks)
    twice = [track_id for track_id, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"--dataset={config.dataset}: {len(twice)} tracks are listed more than "
            f"once in {config.data_path}, first {twice[0]}; remove one of each"
        )
    genres = {track.genre for track in tracks}
    if len(genres) < 2:
        raise UserError(
            f"--dataset={config.dataset}: {config.data_path} holds only the genre "
            f"{', '.join(genres)}, and telling genres apart takes two; for folder, "
            "--data_dir is the folder that holds the genres' folders"
        )
    return tracks


def dataset_key(config: Config) -> str:
    """Name of the folder that the data set's features are stored under.

    It depends on all that changes which tracks there are: "gtzan", "fma_small",
    "gtzan+fma_small", "synth_v2_160", "folder-my_music".
    """
    if config.dataset in ("fma", "gtzan+fma"):
        return f"{config.dataset}_{config.fma_subset}"
    if config.dataset == "folder":
        return "folder-" + re.sub(r"[^\w.-]+", "_", real(config.data_path).name)
    if config.dataset == "synth":
        return f"synth_v{synth.VERSION}_{config.synth_clips}"
    return config.dataset
