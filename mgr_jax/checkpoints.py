"""Orbax checkpoints of a run: the newest, to go on from, and the best, to evaluate.

A state and the run's progress enter and leave. What a checkpoint needs to be used
travels with it: normalisation as arrays of the state, config and labels as JSON beside
it. Orbax makes a checkpoint appear as a whole or not at all; checksums beside it tell
one that was damaged later, or copied in part. train saves; train, evaluate and predict
restore. All processes of a job call each function together, and process 0 writes what
Orbax does not.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from mgr_jax import hosts
from mgr_jax.config import UserError, replace_text

NEWEST = "newest"
BEST = "best"

_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


class DamagedError(UserError):
    """A checkpoint that cannot be restored; the message names it and says why."""

    @property
    def remedied(self) -> UserError:
        """The same with the remedy, where no other checkpoint can stand in."""
        return UserError(
            f"{self}; put back a copy of the run's folder, or train it anew with "
            "--overwrite"
        )


class Checkpoints:
    """The two kinds of checkpoint of a run folder, one of each kept."""

    def __init__(self, workdir: pathlib.Path):
        """Opens `workdir`/checkpoints, which need not exist yet."""
        self._root = workdir.absolute() / "checkpoints"
        self._managers = {kind: _manager(self._root / kind) for kind in (NEWEST, BEST)}

    def save(self, kind: str, step: int, state: Any, about: dict[str, Any]) -> None:
        """Saves; a killed save leaves the previous checkpoint in force.

        Args:
          kind: NEWEST or BEST.
          step: optimiser steps done; a step that is saved already stays as it is.
          state: pytree of arrays.
          about: JSON-able; the run's progress, config and labels.

        Raises:
          OSError: it cannot be written; the previous checkpoint is in force.
        """
        import orbax.checkpoint as ocp

        manager = self._managers[kind]
        if step not in manager.all_steps():
            # Sums of another checkpoint must not judge this one.
            self._forget_sums(kind)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(hosts.shared(state)),
                about=ocp.args.JsonSave(about),
            )
            with _os_errors(self._root / kind):
                manager.save(step, args=items)
                manager.wait_until_finished()
        self.seal(kind)

    def seal(self, kind: str) -> None:
        """Writes a checkpoint's checksums, where a kill came before them.

        Raises:
          OSError: they cannot be written.
        """
        step = self._managers[kind].latest_step()
        if not hosts.is_first():
            return
        if step is not None and self._sums_step(kind) != step:
            sums = {"step": step, "sha256": _checksums(self._folder(kind, step))}
            replace_text(self._sums_path(kind), json.dumps(sums, indent=1) + "\n")

    def mend(self) -> None:
        """Does what a kill within or after a save left undone, for who goes on saving.

        Saves that were begun, and checkpoints that others took the place of, are
        deleted; there may be half of either.

        Raises:
          OSError: the folder cannot be written.
        """
        for kind, manager in self._managers.items():
            if hosts.is_first():
                for begun in (self._root / kind).glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(begun)
            for step in sorted(manager.all_steps())[:-1]:
                manager.delete(step)
            # Checksums that cannot be read are damage, of which `about` tells.
            if not self._sums_path(kind).exists():
                self.seal(kind)

    def about(self, kind: str) -> dict[str, Any] | None:
        """What was saved beside the state, None where there is no checkpoint.

        Raises:
          DamagedError: there is one, and it is not what was saved.
        """
        import orbax.checkpoint as ocp

        step = self._managers[kind].latest_step()
        if step is None:
            return None
        self._check(kind, step)
        args = ocp.args.Composite(about=ocp.args.JsonRestore())
        return self._restore(kind, step, args)["about"]

    def restore(self, kind: str, like: Any) -> Any:
        """Restores the state.

        Args:
          kind: NEWEST or BEST.
          like: a pytree of arrays of the same structure, shapes and types, or of
            jax.ShapeDtypeStruct that say where each array shall be.

        Returns:
          The saved pytree.

        Raises:
          UserError: there is no such checkpoint.
          DamagedError: there is one, and it is not what was saved, or not like `like`.
        """
        import orbax.checkpoint as ocp

        step = self._managers[kind].latest_step()
        if step is None:
            raise UserError(
                f"{self._root / kind}: holds no checkpoint; train first, or name the "
                "run's folder with --workdir"
            )
        self._check(kind, step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(hosts.awaited(like)))
        return hosts.local(self._restore(kind, step, args)["state"])

    def delete(self, kind: str) -> None:
        """Deletes the checkpoints of a kind, so that an earlier step can be saved."""
        manager = self._managers[kind]
        self._forget_sums(kind)
        for step in manager.all_steps():
            manager.delete(step)

    def close(self) -> None:
        """Waits for what is being written."""
        for manager in self._managers.values():
            manager.close()

    def _folder(self, kind: str, step: int) -> pathlib.Path:
        return self._root / kind / str(step)

    def _sums_path(self, kind: str) -> pathlib.Path:
        return self._root / f"{kind}.json"

    def _forget_sums(self, kind: str) -> None:
        if hosts.is_first():
            self._sums_path(kind).unlink(missing_ok=True)

    def _sums_step(self, kind: str) -> int | None:
        try:
            return json.loads(self._sums_path(kind).read_text())["step"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _check(self, kind: str, step: int) -> None:
        """Compares a checkpoint with its checksums, where a kill left it any."""
        folder = self._folder(kind, step)
        try:
            sums = json.loads(self._sums_path(kind).read_text())
            if sums["step"] != step:
                return
            expected = dict(sums["sha256"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{self._sums_path(kind)}: cannot be read ({error})"
            ) from None
        found = _checksums(folder)
        for name in expected:
            if found.get(name) != expected[name]:
                how = "is damaged" if name in found else "is missing"
                raise DamagedError(f"{folder / name}: {how}")

    def _restore(self, kind: str, step: int, args: Any) -> Any:
        try:
            return self._managers[kind].restore(step, args=args)
        # Orbax has no error of its own for what it cannot read.
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
            if hosts.is_loss(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise DamagedError(
                f"{self._folder(kind, step)}: cannot be restored ({reason})"
            ) from None


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """File below a folder to its SHA-256."""
    return {
        path.relative_to(folder).as_posix(): _checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _checksum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _os_errors(folder: pathlib.Path) -> Iterator[None]:
    """Turns the storage's errors into the OSError that they speak of."""
    try:
        yield
    except ValueError as error:
        found = _OS_ERROR.search(str(error))
        if not found:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(folder)) from None


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
