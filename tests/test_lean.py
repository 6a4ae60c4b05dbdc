"""TensorFlow without Keras, in processes of their own: a module is imported once."""

import dataclasses
import os
import subprocess
import sys

import pytest
from conftest import config_for


def run(script: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_tensorflow_is_imported_without_keras_which_comes_when_it_is_asked_for():
    found = run(
        "import os, sys\n"
        "from mgr_jax import lean\n"
        "tf, tfds = lean.tensorflow(), lean.tensorflow_datasets()\n"
        "print(tf.__name__, tfds.__name__, 'keras' in sys.modules)\n"
        "print('TF_USE_LEGACY_KERAS' in os.environ)\n"
        "print(tf.keras.Sequential.__name__, 'keras' in sys.modules)\n"
    )
    assert found == [
        "tensorflow tensorflow_datasets False",
        "False",
        "Sequential True",
    ]


@pytest.mark.parametrize("choice", ["0", "1"])
def test_a_choice_of_keras_is_left_as_it_is(choice):
    found = run(
        "import os, sys\n"
        "from mgr_jax import lean\n"
        "lean.tensorflow()\n"
        "print(os.environ['TF_USE_LEGACY_KERAS'], 'keras' in sys.modules)\n",
        TF_USE_LEGACY_KERAS=choice,
    )
    assert found == [f"{choice} {choice == '0'}"]


def test_a_whole_run_imports_no_keras(music_folder, tmp_path):
    config = config_for(music_folder, tmp_path / "features", num_epochs=1)
    config = dataclasses.replace(config, workdir=str(tmp_path / "run"))
    found = run(
        "import sys\n"
        "from mgr_jax import main\n"
        "from mgr_jax.config import Config\n"
        f"main.run({config!r})\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)\n"
    )
    assert found[-1] == "True False"
