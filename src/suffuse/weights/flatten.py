"""From the objects of a torch file to named tensors: envelopes, nesting, and what lies beside.

Trainers wrap weights differently: `{"state_dict": …, "epoch": …}` (Lightning), `{"model": …}`,
`{"ema": …, "model": …, "opt": …}` (DiT), `{"model": …, "autoencoder": …}` (GLIGEN), or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from suffuse.errors import SuffuseError
from suffuse.weights.pickle_globals import NumpyArray, PickledTensor
from suffuse.weights.pickle_machine import Inert
from suffuse.weights.tensorfile import show

_DEPTH = 12  # deeper than any checkpoint nests its weights

# What training needs to go on and nobody else: moments as large as the weights, twice.
_TRAINING_STATE = {
    "opt", "optim", "optimizer", "optimizers", "optimizer_states", "optimizer_state_dict",
    "lr_schedulers", "lr_scheduler", "scheduler", "scaler", "grad_scaler", "callbacks", "loops",
    "native_amp_scaling_state", "amp_scaling_state", "rng_state",
}  # fmt: skip

# The pickled state of a torch module keeps its parameters one level down.
_MODULE_PARTS = {"_parameters", "_buffers", "_modules"}


@dataclass
class Flat:
    """Named tensors, the plain values beside them, and the names unwrapped to get there."""

    tensors: dict[str, PickledTensor] = field(default_factory=dict)
    metadata: dict[str, object] = field(default_factory=dict)
    envelope: tuple[str, ...] = ()


def flatten(objects: Any, where: str, inside: tuple[str, ...] | None = None) -> Flat:
    """Name every tensor by its path, joined with dots; list members by their index.

    `inside` chooses the envelope, for example ("ema",) or () for none. Left out, a `state_dict` is
    unwrapped where there is one, and so is any single dictionary that holds all the tensors;
    several side by side keep their names as prefixes. The state of optimizers is left out.
    Raises SuffuseError when there are no tensors, or no such envelope.
    """
    found = Flat()
    _collect_metadata(objects, found.metadata)
    if inside is None:
        weights, found.envelope = _unwrap(objects)
    else:
        weights, found.envelope = _descend(objects, inside, where), inside
    _collect(weights, "", found.tensors, set(), 0)
    if not found.tensors:
        raise SuffuseError(f"{where}: holds no weights, only {_summary(objects)}")
    return found


def _children(thing: Any) -> dict[str, Any]:
    """Named members of a container, an inert object's state among them; others have none."""
    if isinstance(thing, Inert):
        thing = thing.state
    if isinstance(thing, dict):
        return {k: v for k, v in thing.items() if isinstance(k, str)}
    if isinstance(thing, (list, tuple)):
        return {str(i): v for i, v in enumerate(thing)}
    return {}


def _collect(
    thing: Any, name: str, tensors: dict[str, PickledTensor], open_: set[int], depth: int
) -> None:
    if isinstance(thing, PickledTensor):
        tensors[name] = thing
        return
    if depth > _DEPTH or id(thing) in open_:  # a container may hold itself
        return
    open_.add(id(thing))
    for key, value in _children(thing).items():
        if depth == 0 and key in _TRAINING_STATE:
            continue
        hidden = isinstance(thing, Inert) and key in _MODULE_PARTS
        path = name if hidden else f"{name}.{key}" if name else key
        _collect(value, path, tensors, open_, depth + 1)


def _holds_tensors(thing: Any) -> bool:
    tensors: dict[str, PickledTensor] = {}
    _collect(thing, "", tensors, set(), 1)
    return bool(tensors)


def _unwrap(objects: Any) -> tuple[Any, tuple[str, ...]]:
    envelope: tuple[str, ...] = ()
    while len(envelope) < 3:
        children = _children(objects)
        if any(isinstance(c, PickledTensor) for c in children.values()):
            break
        if _holds_tensors(children.get("state_dict")):
            step = "state_dict"
        else:
            weights = [k for k in children if k not in _TRAINING_STATE]
            weights = [k for k in weights if _holds_tensors(children[k])]
            if len(weights) != 1 or not isinstance(children[weights[0]], dict):
                break
            step = weights[0]
        objects, envelope = children[step], (*envelope, step)
    return objects, envelope


def _descend(objects: Any, inside: tuple[str, ...], where: str) -> Any:
    for step in inside:
        children = _children(objects)
        if step not in children:
            raise SuffuseError(f"{where}: has no {show(step)}, only {_summary(objects)}")
        objects = children[step]
    return objects


def _collect_metadata(objects: Any, metadata: dict[str, object]) -> None:
    """Plain values at the top: epoch, global_step, version …, with numpy scalars as numbers."""
    for key, value in _children(objects).items():
        if isinstance(value, NumpyArray) and value.value.ndim == 0:
            metadata[key] = value.value.item()
        elif isinstance(value, (str, int, float, bool, np.generic)):
            metadata[key] = value


def _summary(objects: Any) -> str:
    names = list(_children(objects))
    return ", ".join(show(n, 40) for n in names[:8]) or f"a {type(objects).__name__}"
