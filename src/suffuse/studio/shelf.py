"""The models that a worker keeps in memory: opened when asked for, the least recently used go."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import suffuse
from suffuse.errors import SuffuseError
from suffuse.studio.views import DefaultsView, ModelView
from suffuse.systems.latent import LatentDiffusion, choose_device
from suffuse.systems.registry import System
from suffuse.systems.request import Request
from suffuse.systems.sr3 import SuperResolution
from suffuse.systems.unclip import UnCLIP

Key = tuple[Any, ...]


class Shelf:
    """Models by name, with what is laid on top of them.

    sources: what `suffuse.load` takes for each name
    memory: bytes of weights to keep; None = half of what the device has. The model in use stays
        whatever its size.
    """

    def __init__(
        self, sources: Mapping[str, str | None], device: str, memory: int | None = None
    ) -> None:
        self.device = choose_device(device)
        self._sources = sources
        self._memory = memory or memory_of(self.device) // 2
        self._systems: dict[Key, System] = {}  # the least recently used first
        self._sizes: dict[Key, int] = {}  # bytes, also of those that have gone

    def system(self, name: str, request: Request) -> System:
        """The model, with the request's LoRAs and learned words. Raises SuffuseError."""
        key = self._key(name, request)
        found = self._systems.pop(key, None)
        if found is None:
            if name not in self._sources:
                raise SuffuseError(f"there is no model {name!r} here any more: name another")
            self._make_room(self._sizes.get(key) or size_on_disk(self._sources[name]))
            found = self._open(name, request)
            self._sizes[key] = size_of(found)
            self._make_room(self._sizes[key])
        self._systems[key] = found
        return found

    def find(self, name: str) -> System | None:
        """The model as it is in memory, whatever is laid on top of it."""
        return next((s for key, s in self._systems.items() if key[0] == name), None)

    def names(self) -> tuple[str, ...]:
        """Of the models in memory."""
        return tuple(dict.fromkeys(key[0] for key in self._systems))

    def _open(self, name: str, request: Request) -> System:
        return suffuse.load(
            self._sources[name],
            device=str(self.device),
            loras=request.loras or (),
            embeddings=request.embeddings or (),
        )

    def _make_room(self, size: int) -> None:
        """Lets models go, the least recently used first, until `size` bytes more would fit."""
        while self._systems and size + sum(map(self._sizes.__getitem__, self._systems)) > (
            self._memory
        ):
            del self._systems[next(iter(self._systems))]
            self.tidy()

    def tidy(self) -> None:
        """Gives memory that nothing needs back to the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @staticmethod
    def _key(name: str, request: Request) -> Key:
        # A file that was trained further is another file.
        loras = tuple((*lora, _changed(lora.path)) for lora in request.loras or ())
        return name, loras, tuple((path, _changed(path)) for path in request.embeddings or ())


def memory_of(device: torch.device) -> int:
    """Bytes that the device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def size_of(system: System) -> int:
    """Bytes of its weights."""
    return sum(t.nbytes for part in _parts(system) for t in (*part.parameters(), *part.buffers()))


def size_on_disk(source: str | None) -> int:
    """Bytes of the files of a model not opened yet; 0 where nobody knows, as on the Hub."""
    if source is None:
        return 0
    path = Path(source).expanduser()
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def describe(system: System, name: str) -> ModelView:
    """What people may ask of the model."""
    kind: Literal["text", "pixels", "upscaler"] = "pixels"
    classes = [] if isinstance(system, LatentDiffusion) else _classes(system)
    takes: list[Any] = ["classes"] if classes else []
    if isinstance(system, LatentDiffusion):
        kind, takes = "text", ["prompt", "image", "mask"]
        factor = system.parts.autoencoder.config.factor
    elif isinstance(system, SuperResolution):
        kind, takes, factor = "upscaler", ["image", *takes], system.factor
    elif isinstance(system, UnCLIP):
        kind, factor = "text", system.factor
        takes += system.takes
    else:
        takes, factor = [*takes, "image", "mask"], system.factor
    return ModelView(
        name=name,
        default=False,
        known=True,
        kind=kind,
        hash=system.info.hash(),
        factor=factor,
        takes=takes,
        classes=classes,
        defaults=_defaults(system, "a" if kind == "text" else ""),
    )


def _defaults(system: System, prompt: str) -> DefaultsView:
    """What a request comes to that says nothing."""
    if isinstance(system, SuperResolution):
        return DefaultsView(steps=system.steps, sampler=system.sampling.sampler)
    try:
        found = system.resolve(Request(prompt))
    except SuffuseError:  # it does not know its own size
        return DefaultsView()
    return DefaultsView(**{field: getattr(found, field) for field in DefaultsView.model_fields})


def _classes(system: Any) -> list[str]:
    # Score SDEs have none, and no field for them.
    return list(system.classes.names) if hasattr(system, "classes") else []


def _parts(system: System) -> list[nn.Module]:
    if isinstance(system, LatentDiffusion):
        return [system.parts.unet, system.parts.autoencoder, system.parts.text]
    if isinstance(system, UnCLIP):
        return system.networks
    return [system.unet]


def _changed(path: str) -> int:
    try:
        return Path(path).expanduser().stat().st_mtime_ns
    except OSError:  # opening it says what is wrong
        return 0
