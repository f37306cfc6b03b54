"""Checkpoints that are whole or absent, and the way back from them.

OUTPUT/checkpoints holds the last few and the best, named by their step. One is written under a
temporary name, forced to the disk and renamed. If the newest cannot be read the one before it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.training.distributed import like

FOLDER, OLD = "checkpoints", "checkpoint.pt"  # the second is what version 0.1.0 wrote
State = dict[str, Any]
Note = Callable[[str], None]


def checkpoints(output: Path) -> list[Path]:
    """Those of a run, oldest first."""
    old = output / OLD
    return [old] * old.exists() + sorted((output / FOLDER).glob("[0-9]*.pt"))


def check_output(output: Path, resume: bool) -> None:
    """Refuses to write over a run, and to resume where there is none. Raises SuffuseError."""
    exists = bool(checkpoints(output))
    if exists and not resume:
        raise SuffuseError(f"{output} already holds a run: add --resume, or name another --output")
    if resume and not exists:
        raise SuffuseError(f"there is nothing to resume: no checkpoint in {output / FOLDER}")


def save(output: Path, state: State) -> Path:
    """Writes `state` as the checkpoint of its step. Raises OSError, nothing being changed then."""
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{state['step']:07d}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own when a write fails half-way
        temporary.unlink(missing_ok=True)
        raise OSError(_line(error)) from error
    if os.name == "posix":  # the new name must reach the disk as well
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return path


def prune(output: Path, last: int, best: int | None) -> None:
    """Deletes all but the `last` newest checkpoints and that of step `best`."""
    for path in checkpoints(output)[:-last]:
        if path.name != OLD and int(path.stem) != best:
            path.unlink(missing_ok=True)


def newest(output: Path, note: Note) -> tuple[State, Path, list[Path]]:
    """The last checkpoint that can be read, where it is, and the newer ones that cannot.

    Raises SuffuseError if none can.
    """
    damaged: list[Path] = []
    for path in reversed(checkpoints(output)):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or "step" not in state:
                raise ValueError("it is not a checkpoint")
        except (RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as error:
            note(f"{path} cannot be read ({_line(error)}): trying an older one")
            damaged.append(path)
            continue
        if "optimizer" in state:
            state["optimizers"] = {"nets": state.pop("optimizer")}
        return state, path, damaged
    raise SuffuseError(f"no checkpoint in {output / FOLDER} can be read: begin anew elsewhere")


def set_aside(damaged: list[Path]) -> None:
    """Renames what cannot be read, so that it counts as a checkpoint no more."""
    for path in damaged:
        path.rename(path.with_name(path.name + ".damaged"))


def restore_nets(state: State, path: Path, nets: nn.Module, ema: nn.Module) -> None:
    """Raises SuffuseError if the checkpoint is of other networks."""
    try:
        nets.load_state_dict(state["nets"])
        ema.load_state_dict(state["ema"])
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SuffuseError(f"{path} is of another preset or config: {reason}") from error


def restore_optimizer(
    state: State, path: Path, name: str, optimizer: torch.optim.Optimizer
) -> None:
    """Raises SuffuseError if the checkpoint has no such optimizer or one of another size."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    try:
        kept = state["optimizers"][name]
        for index, entry in kept["state"].items():
            kept["state"][index] = {
                key: like(value, weights[index]) for key, value in entry.items()
            }
        optimizer.load_state_dict(kept)
    except (ValueError, KeyError, IndexError) as error:
        raise SuffuseError(f"{path} has no state for the optimizer of {name!r}") from error


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:100]


def check_asked(state: State, path: Path, asked: dict[str, int]) -> None:
    """Raises SuffuseError where going on would not be the same run."""
    begun = state.get("asked", asked)
    if begun != asked:
        flags = " ".join(f"--{name} {value}" for name, value in begun.items())
        raise SuffuseError(f"the run of {path} was begun with {flags}: resume it with these")
