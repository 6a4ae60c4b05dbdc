"""A prepared folder that is in an object store, copied to this machine.

An address enters; a folder leaves that holds what training reads. TensorFlow reads
files, so they are fetched before the first epoch, once: a copy is kept below ~/.cache
(or $XDG_CACHE_HOME), and what has changed at the address is fetched again.
input_pipeline calls it.
"""

import hashlib
import os
import pathlib
import shutil

from mgr_jax import workdir
from mgr_jax.config import replacing
from mgr_jax.uris import Uri


def local_copy(folder: Uri, commit_file: str, spec_file: str) -> pathlib.Path:
    """Makes sure that a copy of a finished folder is there.

    Args:
      folder: what is copied.
      commit_file: the file that says that it is finished; it is fetched last.
      spec_file: the file that says what it was made from; a copy whose own differs is
        deleted.

    Returns:
      The copy. Shards of the same name and length are not fetched again.

    Raises:
      OSError: it cannot be read, or the copy cannot be written.
    """
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    copy = _home() / name / folder.name
    with workdir.held(copy, "fetches"):
        spec = folder / spec_file
        found = copy / spec_file
        if copy.exists() and not (
            found.exists() and found.read_bytes() == spec.read_bytes()
        ):
            shutil.rmtree(copy)
        copy.mkdir(parents=True, exist_ok=True)
        # The accounts of shards are prepare's own.
        changed = [
            path
            for path, is_folder in folder.listed()
            if not is_folder
            and not path.name.startswith("tracks-")
            and _differs(path, copy / path.name)
        ]
        if changed:
            print(f"fetching {len(changed)} files of {folder} to {copy}", flush=True)
            (copy / commit_file).unlink(missing_ok=True)
            changed = [path for path in changed if path.name != commit_file]
            changed.append(folder / commit_file)
            # Shards without their spec are not gone on with.
            changed.sort(key=lambda path: path.name != spec_file)
        for path in changed:
            with replacing(copy / path.name) as scratch:
                path.fetch(scratch)
    return copy


def _home() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "mgr_jax" / "features"


def _differs(source: Uri, copy: pathlib.Path) -> bool:
    if not copy.exists() or copy.stat().st_size != source.stat().st_size:
        return True
    # Lists are short, and may change without getting longer.
    is_shard = ".tfrecord-" in source.name
    return not is_shard and copy.read_bytes() != source.read_bytes()
