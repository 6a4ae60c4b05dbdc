"""TensorFlow, TFDS and tensorboardX, imported where they are first needed, and alone.

Nothing enters; the modules leave. Half of the time that importing TensorFlow takes goes
to Keras, and tensorboardX imports PyTorch where it is installed, which takes as long
again: nothing here has a use for either. An interrupt waits until TensorFlow is there.
prepare, shards, input_pipeline and events call it.
"""

import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Asks for the Keras of old, a package of its own; TensorFlow goes on without it.
_OLD_KERAS = "TF_USE_LEGACY_KERAS"


@functools.cache
def tensorflow() -> Any:
    """What `import tensorflow` gives; its `keras` is imported when it is asked for."""
    with _without_keras(), _without_signals():
        return importlib.import_module("tensorflow")


@functools.cache
def tensorflow_datasets() -> Any:
    """What `import tensorflow_datasets` gives."""
    tensorflow()
    return importlib.import_module("tensorflow_datasets")


@functools.cache
def tensorboardx() -> Any:
    """What `import tensorboardX` gives."""
    with _without_torch():
        return importlib.import_module("tensorboardX")


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Holds interrupts back: one that meets C++ as a module loads ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python has them in the main thread alone
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in numbers
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # as if it were not installed
    try:
        yield
    finally:
        del sys.modules["torch"]


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    if _OLD_KERAS in os.environ:
        yield
        return
    os.environ[_OLD_KERAS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_OLD_KERAS, None)
