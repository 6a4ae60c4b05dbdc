"""TensorFlow and TFDS, imported where they are first needed, and without Keras.

Nothing enters; the modules leave. Half of the time that importing TensorFlow takes goes
to Keras, for which nothing here has a use. prepare, shards and input_pipeline call it.
"""

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from typing import Any

# Asks for the Keras of old, a package of its own; TensorFlow goes on without it.
_OLD_KERAS = "TF_USE_LEGACY_KERAS"


@functools.cache
def tensorflow() -> Any:
    """What `import tensorflow` gives; its `keras` is imported when it is asked for."""
    with _without_keras():
        return importlib.import_module("tensorflow")


@functools.cache
def tensorflow_datasets() -> Any:
    """What `import tensorflow_datasets` gives."""
    tensorflow()
    return importlib.import_module("tensorflow_datasets")


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
