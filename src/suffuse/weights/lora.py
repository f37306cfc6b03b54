"""Files of LoRA adapters: PEFT's and diffusers' naming, and kohya's.

A file names layers of the U-Net, of the text encoder, or of both. What it names and the model does
not have is an error with its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from suffuse.errors import SuffuseError
from suffuse.networks.families import SDConfig
from suffuse.networks.lora import Adapter, Layer, LowRank, layers_of, merge
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import some
from suffuse.weights.maps.lora import DOTTED, FLAT, Place, places
from suffuse.weights.parts import Parts
from suffuse.weights.tensorfile import TensorFile, show

Naming = Literal["peft", "kohya"]

# What folders call their one file: diffusers, PEFT.
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_METADATA = "lora_adapter_metadata"  # diffusers: PEFT's settings of each part as one JSON object


@dataclass(frozen=True, eq=False)
class Lora:
    """The adapters of one file; None for a part that it leaves alone."""

    unet: Adapter | None = None
    text: Adapter | None = None

    def parts(self) -> dict[str, Adapter]:
        found = {"unet": self.unet, "text": self.text}
        return {part: adapter for part, adapter in found.items() if adapter is not None}


def open_lora(path: str | PathLike[str], parts: Parts) -> Lora:
    """The adapters in a file (or in a folder that holds one), for the networks of `parts`.

    Raises SuffuseError naming what is unknown, missing or of another shape.
    """
    file = open_tensors(_file(Path(path).expanduser()))
    layers = {"unet": layers_of(parts.unet), "text": layers_of(parts.text)}
    known, paths = places({part: list(of) for part, of in layers.items()}, parts.unet_config)
    unknown = [name for name in file if name not in known]
    if unknown:
        raise SuffuseError(
            f"{file.path}: {len(unknown)} of its {len(file)} names are of no layer of this model "
            f"({some(unknown)}); it is a LoRA of another model, or of another kind"
        )
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name in file:
        place = known[name]
        found.setdefault((place.part, place.layer), {})[place.leaf] = file.read(name, torch.float32)
    settings = _settings(file)
    made: dict[str, dict[str, LowRank]] = {"unet": {}, "text": {}}
    with torch.random.fork_rng(devices=[]):  # fresh factors are drawn, and given up for the file's
        for (part, name), factors in found.items():
            path_, told = paths[part, name], settings.get(part)
            alpha = None if told is None else told.alpha(path_)
            where = f"{file.path}: {show(path_)}"
            made[part][name] = _change(layers[part][name], factors, alpha, where)
    adapters = {}
    for part, changes in made.items():
        if changes:  # in the order of the network, whatever the file's
            adapters[part] = Adapter({n: changes[n] for n in layers[part] if n in changes})
    return Lora(**adapters)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [path / name for name in FILES if (path / name).is_file()]
    files = files or sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        names = some(p.name for p in path.iterdir())
        raise SuffuseError(f"{path}: name one LoRA file of this folder (it holds {names})")
    return files[0]


def _change(layer: Layer, factors: Mapping[str, Tensor], alpha: Any, where: str) -> LowRank:
    """One layer's change out of A, B and perhaps alpha."""
    for leaf, what in (("A", "first (down)"), ("B", "second (up)")):
        if leaf not in factors:
            raise SuffuseError(f"{where}: its {what} factor is missing; the file is damaged")
    down, up = _fit(layer, factors["A"]), _fit(layer, factors["B"])
    rank = len(down)
    if "alpha" in factors:
        if factors["alpha"].numel() != 1:
            raise SuffuseError(f"{where}: its alpha is not one number; the file is damaged")
        alpha = factors["alpha"].item()
    elif alpha is not None:
        alpha = alpha(rank)
    change = LowRank(layer, max(rank, 1), alpha)
    wanted = (change.down.weight.shape, change.up.weight.shape)
    if (down.shape, up.shape) != wanted:
        raise SuffuseError(
            f"{where}: its factors are {tuple(factors['A'].shape)} and "
            f"{tuple(factors['B'].shape)}, the layer asks for {tuple(wanted[0])} and "
            f"{tuple(wanted[1])}; it is a LoRA of another model"
        )
    with torch.no_grad():
        change.down.weight.copy_(down)
        change.up.weight.copy_(up)
    return change


def _fit(layer: Layer, factor: Tensor) -> Tensor:
    """A 1 x 1 convolution's factor as a linear layer's, or the reverse; others pass unchanged."""
    if isinstance(layer, nn.Linear) and factor.shape[2:] == (1, 1):
        return factor.flatten(1)
    if isinstance(layer, nn.Conv2d) and factor.ndim == 2:
        return factor[:, :, None, None]
    return factor


# ---- what files say of alpha beside their tensors ------------------------------------------------


@dataclass(frozen=True)
class _Settings:
    """PEFT's configuration of one part, as far as it changes what an adapter does."""

    raw: Mapping[str, Any]
    where: str

    def alpha(self, path: str) -> Any:
        """A function from the rank to alpha, for the layer of that path."""
        value = self.raw.get("lora_alpha", 8)  # LoraConfig's default
        for pattern, other in dict(self.raw.get("alpha_pattern") or {}).items():
            if not re.fullmatch(r"\^?[\w.]+", pattern):  # PEFT would take any regular expression
                raise SuffuseError(f"{self.where}: alpha_pattern {show(pattern)} is not supported")
            if f".{path}".endswith(f".{pattern.removeprefix('^')}"):
                value = other
                break
        if type(value) not in (int, float):
            raise SuffuseError(f"{self.where}: lora_alpha = {show(value)} is not a number")
        # Rank-stabilised LoRA (2312.03732) divides by the root of the rank.
        root = bool(self.raw.get("use_rslora"))
        return lambda rank: value * rank**0.5 if root else value


def _settings(file: TensorFile) -> dict[str, _Settings]:
    """By part; empty where the file says nothing, and the factors are the whole change."""
    said: dict[str, dict[str, Any]] = {}
    beside = file.path.parent / "adapter_config.json"
    if _METADATA in file.metadata:
        for key, value in _json(str(file.metadata[_METADATA]), file.path).items():
            prefix, _, field = key.partition(".")
            part = {"unet": "unet", "text_encoder": "text"}.get(prefix)
            if part is not None:
                said.setdefault(part, {})[field] = value
    elif file.path.name == FILES[1] and beside.is_file():
        whole = _json(beside.read_text("utf-8"), beside)
        said = {"unet": whole, "text": whole}  # the file holds one of them
    return {part: _Settings(raw, str(file.path)) for part, raw in said.items()}


def _json(text: str, where: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SuffuseError(f"{where}: what it says of its LoRA is not readable as JSON")
    return content


# ---- use and save --------------------------------------------------------------------------------


def merge_loras(parts: Parts, loras: Iterable[tuple[str | PathLike[str], float]]) -> None:
    """Merges the adapters of these files, each with its scale, into the networks of `parts`.

    Call it before these are packed. Raises SuffuseError as `open_lora` does.
    """
    opened = [(open_lora(path, parts), scale) for path, scale in loras]
    merge(parts.unet, [(lora.unet, scale) for lora, scale in opened if lora.unet is not None])
    merge(parts.text, [(lora.text, scale) for lora, scale in opened if lora.text is not None])


def save_lora(
    lora: Lora,
    path: str | PathLike[str],
    config: SDConfig,
    naming: Naming = "peft",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one .safetensors file, whole or not at all.

    naming: "peft", which diffusers' `load_lora_weights` reads, or "kohya", which A1111's web UI,
        ComfyUI and diffusers read. PEFT's has no place for alpha: there it is multiplied into the
        second factor. Projections of transformers are written as the 1 x 1 convolutions that
        Stable Diffusion 1 has.

    Raises SuffuseError when the file cannot be written or a number does not fit `dtype`.
    """
    weights: dict[str, Tensor] = {}
    for part, adapter in lora.parts().items():
        changes = dict(adapter.items())
        paths = places({part: list(changes)}, config)[1]
        for name, change in changes.items():
            weights |= _named(Place(part, name, ""), paths[part, name], change, naming)
    kept = {n: w.detach().to("cpu", dtype).contiguous() for n, w in weights.items()}
    for name, weight in kept.items():
        if not bool(torch.isfinite(weight).all()):
            raise SuffuseError(
                f"cannot save {name!r} as {dtype}: it holds NaN or too large numbers"
            )
    _write(kept, Path(path), _about(lora) if naming == "kohya" else {"format": "pt"})


def _named(place: Place, path: str, change: LowRank, naming: Naming) -> dict[str, Tensor]:
    down, up = change.down.weight, change.up.weight
    if place.part == "unet" and place.layer.endswith((".proj_in", ".proj_out")):
        down, up = down[:, :, None, None], up[:, :, None, None]
    if naming == "kohya":
        flat = FLAT[place.part][0] + path.replace(".", "_")
        return {
            f"{flat}.lora_down.weight": down,
            f"{flat}.lora_up.weight": up,
            f"{flat}.alpha": torch.tensor(change.alpha),
        }
    dotted = DOTTED[place.part][0] + path
    scaled = up if change.alpha == change.rank else up * (change.alpha / change.rank)
    return {f"{dotted}.lora_A.weight": down, f"{dotted}.lora_B.weight": scaled}


def _about(lora: Lora) -> dict[str, str]:
    """What kohya's trainer writes of an adapter's shape, and other programs show."""
    changes = [change for adapter in lora.parts().values() for _, change in adapter.items()]
    ranks, alphas = {c.rank for c in changes}, {c.alpha for c in changes}
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
    }


def _write(weights: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, fresh, metadata)
        fresh.replace(path)
    except OSError as problem:
        raise SuffuseError(f"{path}: cannot be written ({problem.strerror})") from None
    finally:
        fresh.unlink(missing_ok=True)
