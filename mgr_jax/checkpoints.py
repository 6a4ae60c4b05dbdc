"""Orbax checkpoints of a run: the newest, to go on from, and the best, to evaluate.

A state and the run's progress enter and leave. What a checkpoint needs to be used
travels with it: normalisation as arrays of the state, config and labels as JSON beside
it. train saves; train, evaluate and predict restore.
"""

import pathlib
from typing import Any

from mgr_jax.config import UserError

NEWEST = "newest"
BEST = "best"


class Checkpoints:
    """The two kinds of checkpoint of a run folder, one of each kept."""

    def __init__(self, workdir: pathlib.Path):
        """Opens `workdir`/checkpoints, which need not exist yet."""
        self._managers = {
            kind: _manager(workdir.absolute() / "checkpoints" / kind)
            for kind in (NEWEST, BEST)
        }

    def save(self, kind: str, step: int, state: Any, about: dict[str, Any]) -> None:
        """Saves; a killed save leaves the previous checkpoint in force.

        Args:
          kind: NEWEST or BEST.
          step: optimiser steps done; a step that is saved already stays as it is.
          state: pytree of arrays.
          about: JSON-able; the run's progress, config and labels.
        """
        import orbax.checkpoint as ocp

        manager = self._managers[kind]
        if step in manager.all_steps():
            return
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)
            ),
        )
        manager.wait_until_finished()

    def about(self, kind: str) -> dict[str, Any] | None:
        """What was saved beside the state, None where there is no checkpoint."""
        import orbax.checkpoint as ocp

        manager = self._managers[kind]
        step = manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(about=ocp.args.JsonRestore())
        return manager.restore(step, args=args)["about"]

    def restore(self, kind: str, like: Any) -> Any:
        """Restores the state.

        Args:
          kind: NEWEST or BEST.
          like: a pytree of arrays of the same structure, shapes and types.

        Returns:
          The saved pytree.

        Raises:
          UserError: there is no such checkpoint.
        """
        import orbax.checkpoint as ocp

        manager = self._managers[kind]
        step = manager.latest_step()
        if step is None:
            raise UserError(
                f"{manager.directory}: holds no checkpoint; train first, or name the "
                "run's folder with --workdir"
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return manager.restore(step, args=args)["state"]

    def close(self) -> None:
        """Waits for what is being written."""
        for manager in self._managers.values():
            manager.close()


def _manager(folder: pathlib.Path) -> Any:
    import orbax.checkpoint as ocp

    policies = ocp.checkpoint_managers.preservation_policy
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policies.LatestN(1),
            enable_async_checkpointing=False,
            create=True,
        ),
        item_names=("state", "about"),
    )
