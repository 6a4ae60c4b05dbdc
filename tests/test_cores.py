"""How many devices a CPU is, each held in a process of its own: JAX looks only once."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mgr_jax import cores


@pytest.mark.parametrize(
    "batch_size, num_cores, devices",
    [
        (32, 1, 1),
        (32, 2, 2),
        (32, 3, 2),
        (32, 64, 4),
        (256, 64, 32),
        (7, 2, 1),
        (25, 4, 1),
        (48, 5, 4),
        (32, 0, 1),
    ],
)
def test_devices_share_a_batch_evenly_with_eight_rows_or_more(
    batch_size, num_cores, devices
):
    assert cores.fitting(batch_size, num_cores) == devices


def test_xla_is_told_the_width_where_steps_take_no_options():
    script = (
        "import os, jax\n"
        "from mgr_jax import config, cores\n"
        "cores.show(config.Config(num_processes={processes}))\n"
        "jax.jit(lambda x: x + 1)(1)\n"  # XLA knows the flag
        "print(os.environ.get('XLA_FLAGS', ''))\n"
    )
    width = "--xla_cpu_prefer_vector_width"
    assert f"{width}=512" in _run(script.format(processes=2))
    assert _run(script.format(processes=0)).strip() == ""
    # The user's own has the last word.
    flags = _run(script.format(processes=2), XLA_FLAGS=f"{width}=128").split()
    assert flags[-1] == f"{width}=128"


@pytest.mark.parametrize(
    "settings, sharers, environment, devices",
    [
        ({}, 1, {}, 4),
        ({}, 2, {}, 3),
        ({"cpu_devices": 5}, 1, {}, 5),
        ({}, 1, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
        ({}, 1, {"JAX_NUM_CPU_DEVICES": "2"}, 2),
        ({}, 1, {"SLURM_STEP_NUM_TASKS": "2"}, 1),
        ({"num_processes": 2}, 1, {}, 1),
        ({"num_processes": 2, "cpu_devices": 2}, 1, {}, 2),
    ],
)
def test_cores_are_devices_unless_something_else_was_asked_for(
    settings, sharers, environment, devices
):
    script = (
        "import jax\n"
        "from mgr_jax import config, cores\n"
        "cores.available = lambda: 6\n"
        f"cores.show(config.Config(batch_size=36, **{settings}), {sharers})\n"
        "print(jax.local_device_count())\n"
        "cores.show(config.Config(cpu_devices=7))\n"
        "print(jax.local_device_count())\n"
    )
    # What is shown once stays.
    assert _run(script, **environment).split() == [str(devices)] * 2


@pytest.mark.parametrize("alone", [True, False])
def test_a_cpu_takes_the_options_and_no_other_device_is_given_any(alone, monkeypatch):
    options = cores.compiler_options(alone=alone)
    assert jax.jit(jnp.sum, compiler_options=options)(jnp.arange(5)) == 10
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cores.compiler_options(alone=alone) is None


def _run(script: str, **environment: str) -> str:
    asked = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    plain = {name: value for name, value in os.environ.items() if name not in asked}
    root = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=plain | {"PYTHONPATH": root} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
