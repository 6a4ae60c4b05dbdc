"""How TensorFlow and tensorboardX are imported, each time in a process of its own."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, config_for


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_tensorflow_is_imported(number, tmp_path):
    """A module of its name, which is interrupted, stands in for good timing."""
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nos.kill(os.getpid(), {number})\nprint('imported to its end')\n"
    )
    found = run(
        "import signal\n"
        "from mgr_jax import cli, lean\n"
        "signal.signal(signal.SIGTERM, cli._interrupt)\n"
        "handlers = [signal.getsignal(n) for n in (2, 15)]\n"
        "try:\n"
        "    lean.tensorflow()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "print(handlers == [signal.getsignal(n) for n in (2, 15)])\n",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )
    assert found == ["imported to its end", "interrupted", "True"]


def test_tensorboardx_finds_no_torch_and_leaves_it_to_others(tmp_path):
    found = run(
        "import sys\n"
        "from mgr_jax import lean\n"
        "print(lean.tensorboardx().__name__, 'torch' in sys.modules)\n"
        "import torch\n"
        "print(torch.WHO)\n",
        PYTHONPATH=_with_a_torch(tmp_path),
    )
    assert found == ["tensorboardX False", "stand-in"]


def test_torch_that_is_imported_already_stays(tmp_path):
    found = run(
        "import sys, torch\n"
        "from mgr_jax import lean\n"
        "print(lean.tensorboardx().__name__, sys.modules['torch'] is torch)\n",
        PYTHONPATH=_with_a_torch(tmp_path),
    )
    assert found == ["tensorboardX True"]


def test_a_whole_run_imports_no_keras_torch_or_scikit_learn(music_folder, tmp_path):
    config = config_for(music_folder, tmp_path / "features", num_epochs=1)
    config = dataclasses.replace(config, workdir=str(tmp_path / "run"))
    found = run(
        "import sys\n"
        "from mgr_jax import main\n"
        "from mgr_jax.config import Config\n"
        f"main.run({config!r})\n"
        "names = 'tensorflow', 'keras', 'torch', 'sklearn'\n"
        "print([name in sys.modules for name in names])\n",
        PYTHONPATH=_with_a_torch(tmp_path),
    )
    assert found[-1] == "[True, False, False, False]"


def _with_a_torch(folder: pathlib.Path) -> str:
    """A path of modules that has a package of PyTorch's name."""
    (folder / "modules" / "torch").mkdir(parents=True)
    stand_in = "WHO = 'stand-in'\nclass Tensor:\n    pass\n"
    (folder / "modules" / "torch" / "__init__.py").write_text(stand_in)
    return f"{folder / 'modules'}{os.pathsep}{ROOT}"
