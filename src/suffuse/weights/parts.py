"""What a checkpoint comes down to: `Parts`, the networks and everything that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.families import SDConfig
from suffuse.networks.transformer import Activation
from suffuse.networks.unet import UNet
from suffuse.text.tokenizer import Tokenizer
from suffuse.weights.hashes import sha256
from suffuse.weights.mapping import KeyMap, fill
from suffuse.weights.scheduler import Sampling, from_config
from suffuse.weights.tensorfile import TensorFile

# Our names of what the network predicts, and diffusers'.
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


@dataclass(frozen=True)
class Hints:
    """What a file does not say, or says wrongly; None leaves it to the file or to convention."""

    heads: int | tuple[int, ...] | None = None  # of the U-Net, by level where they differ; in a
    # CLIP, of the tower for pictures
    text_heads: int | None = None
    activation: Activation | None = None  # of the text encoder, or of both towers of a CLIP
    prediction: str | None = None  # what the U-Net predicts: eps, v or x0
    scale: float | None = None  # of the latents
    tokenizer: Path | str | None = None  # a folder
    ema: bool | None = None  # the averaged weights or the last ones, where a file has both

    def __post_init__(self) -> None:
        if self.prediction is not None and self.prediction not in PREDICTIONS:
            known = ", ".join(PREDICTIONS)
            raise SuffuseError(f"unknown prediction {self.prediction!r}; known are {known}")


@dataclass(frozen=True)
class Defaults:
    """What a model's makers recommend, from `suffuse.json` beside its weights."""

    steps: int | None = None
    guidance: float | None = None
    card: str | None = None  # where the model card is
    objects: int | None = None  # emoji of the world that it was trained in


@dataclass(frozen=True)
class Info:
    """Where the parts come from."""

    name: str
    format: str
    path: Path | None = None  # None: made in memory
    files: tuple[Path, ...] = ()  # the weights that make the model what it is

    def hash(self) -> str | None:
        """SHA-256 of the single file, or of the U-Net's files in a folder, in hex.

        A1111 calls its first ten digits the model hash.
        """
        return self._hash

    @cached_property
    def _hash(self) -> str | None:
        return sha256(self.files) if self.files else None


def files_of(file: TensorFile) -> tuple[Path, ...]:
    """The files below a `TensorFile`: one, or its shards."""
    return tuple(sorted({entry.source.path for entry in file.entries.values()}))


@dataclass(frozen=True, eq=False)
class Parts:
    """A text-to-image model taken apart; its networks are in evaluation mode.

    The U-Net works on `(latent - latent_shift) * latent_scale`. Raises SuffuseError when the parts
    do not fit together.
    """

    unet: UNet
    unet_config: SDConfig
    autoencoder: Autoencoder
    text: ClipText
    tokenizer: Tokenizer
    sampling: Sampling  # schedule, prediction kind, default sampler, grid and options
    latent_scale: float
    latent_shift: float = 0.0
    latent_size: tuple[int, int] = (64, 64)  # height and width that the model was trained at
    defaults: Defaults = field(default_factory=Defaults)
    info: Info = Info("unnamed", "made in memory")

    def __post_init__(self) -> None:
        unet, latent, text = self.unet_config, self.autoencoder.config.latent, self.text.config
        if (unet.in_channels, unet.out_channels) != (latent, latent):
            raise SuffuseError(
                f"{self.info.path or self.info.name}: the U-Net takes {unet.in_channels} channels "
                f"and makes {unet.out_channels}, the autoencoder's latents have {latent}; "
                "inpainting and other models with extra inputs are not supported yet"
            )
        if unet.context != text.width:
            raise SuffuseError(
                f"{self.info.path or self.info.name}: the U-Net attends to {unet.context} numbers "
                f"a token, the text encoder makes {text.width}"
            )


def sampling_of(config: Mapping[str, Any], hints: Hints, where: str) -> Sampling:
    """What a scheduler's configuration means, with the prediction kind that was asked for.

    Raises SuffuseError when it cannot be honoured.
    """
    if hints.prediction is not None:
        config = {**config, "prediction_type": PREDICTIONS[hints.prediction]}
    try:
        sampling = from_config(config, stable_diffusion=True)
    except SuffuseError as problem:
        raise SuffuseError(f"{where}: {problem}") from None
    if hints.prediction is not None and sampling.kind == "flow":
        raise SuffuseError(f"{where}: a rectified flow, which cannot predict {hints.prediction!r}")
    return sampling


def with_heads(config: SDConfig, hints: Hints, where: str) -> SDConfig:
    """The configuration with the number of heads that was asked for.

    Raises SuffuseError when heads or norm groups do not divide the channels.
    """
    levels = len(config.channels)
    if hints.heads is not None:
        heads = (hints.heads,) * levels if isinstance(hints.heads, int) else tuple(hints.heads)
        config = replace(config, heads=heads)
    if len(config.heads) != levels:
        raise SuffuseError(f"{where}: {len(config.heads)} numbers of heads for {levels} levels")
    for width, heads_here in zip(config.channels, config.heads):
        if heads_here < 1 or width % heads_here or width % config.groups:
            raise SuffuseError(
                f"{where}: {width} channels do not divide into {heads_here} heads and "
                f"{config.groups} groups"
            )
    return config


def with_text_hints(config: ClipTextConfig, hints: Hints) -> ClipTextConfig:
    return replace(
        config,
        heads=hints.text_heads or config.heads,
        activation=hints.activation or config.activation,
    )


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Place:
    """Where weights go, and in which precision."""

    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32


def precision(place: Place) -> str | None:
    """The variant to prefer: the same numbers in half the bytes, where half precision is wanted."""
    return "fp16" if place.dtype == torch.float16 else None


class _Unfilled(TorchFunctionMode):
    """Modules made inside get no initial numbers.

    On the meta device there is nothing to fill, and torch would import its compiler to find that
    out: five seconds for a model that opens in one.
    """

    _RANDOM = frozenset((torch.Tensor.normal_, torch.Tensor.uniform_))

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in self._RANDOM or getattr(func, "__module__", None) == "torch.nn.init":
            return None  # the filled tensor, which no module asks for
        return func(*args, **(kwargs or {}))


def build(
    make: Callable[[], Network], keys: KeyMap, file: TensorFile, place: Place, below: str = ""
) -> Network:
    """A network with the file's weights, made without memory of its own before they come."""
    with torch.device("meta"), _Unfilled():
        network = make()
    fill(network, keys, file, below=below, device=place.device, dtype=place.dtype)
    return network.eval()
