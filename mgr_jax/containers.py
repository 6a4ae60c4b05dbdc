"""Audio that libsndfile does not read, m4a, aac, wma and opus in mp4, through PyAV.

A path enters; float32 mono blocks at the file's own rate leave. audio calls it where
libsndfile knows no format and the extra `av` is installed. FFmpeg, which does the work,
may open other files and addresses that a file names: only formats that name none are
let in, and no protocol is.
"""

import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

# How the names of such files end.
EXTENSIONS = (".m4a", ".m4b", ".mp4", ".aac", ".wma", ".asf", ".webm", ".mka", ".ac3")

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,aac,asf,matroska,webm,ac3,eac3"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}


class ContainerError(Exception):
    """A file cannot be decoded; the text says why."""


def is_available() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def mono_blocks(path: pathlib.Path) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes the first audio stream of a file.

    Yields:
      The stream's rate in Hz, and the mean of its channels, float32 (frames,).

    Raises:
      ContainerError: it is no such file, cannot be read, holds no audio, or is damaged.
    """
    import av

    try:
        with path.open("rb") as raw, av.open(raw, options=dict(_OPTIONS)) as container:
            if not container.streams.audio:
                raise ContainerError("it holds no audio stream")
            # Planar floats: each frame is (channels, samples).
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams.audio[0]):
                yield from _blocks(to_float, frame)
            yield from _blocks(to_float, None)
    # PyAV's own errors are of these kinds, and of its own.
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ContainerError(reason.lower()) from None


def _blocks(to_float: Any, frame: Any) -> Iterator[tuple[int, np.ndarray]]:
    for part in to_float.resample(frame):
        yield part.sample_rate, part.to_ndarray().mean(axis=0, dtype=np.float32)
