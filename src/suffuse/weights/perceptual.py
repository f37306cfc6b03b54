"""Opens what compares pictures: VGG-16 with or without LPIPS' weights, or our own network."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save_file

from suffuse.errors import SuffuseError
from suffuse.networks.perceptual import FeatureConfig, FeatureNet, Perceptual, Stack, Vgg
from suffuse.weights.containers import open_tensors
from suffuse.weights.load import locate_source
from suffuse.weights.mapping import fill
from suffuse.weights.maps.lpips import LINEAR, LPIPS, VGG
from suffuse.weights.parts import Place, build
from suffuse.weights.tensorfile import TensorFile

BUNDLED = Path(__file__).resolve().parents[1] / "models" / "features.safetensors"
_CONFIG = "suffuse.features"  # the entry of the file's metadata that holds the configuration


def open_perceptual(
    source: str | PathLike[str] | None = None, linear: str | PathLike[str] | None = None
) -> Perceptual:
    """The perceptual distance of a file.

    source: VGG-16's weights as torchvision or timm save them, a whole LPIPS file, or a network that
        `save_features` wrote; a path or a Hub name ("timm/vgg16.tv_in1k"). None is our own network,
        which comes with the package.
    linear: LPIPS' weights of the channels (`vgg.pth`), for a source that has none; without them all
        channels count alike

    Raises SuffuseError when there is no such file, or it holds something else.
    """
    stack, file = _open(source)
    if isinstance(stack, Perceptual):
        if linear is not None:
            raise SuffuseError(f"{file.path}: has weights of the channels already; name only one")
        return stack.eval()
    perceptual = Perceptual(stack)
    if linear is not None:
        given = open_tensors(locate_source(linear, Place())[0])
        fill(perceptual.weights, LINEAR, given)
        stack.source += f" with the weights of {given.path.name}"
    return perceptual.requires_grad_(False)


def open_features(source: str | PathLike[str] | None = None) -> Stack:
    """The network alone that `open_perceptual` compares with. Raises SuffuseError as it does."""
    found, _ = _open(source)
    return (found.stack if isinstance(found, Perceptual) else found).eval()


def _open(source: str | PathLike[str] | None) -> tuple[Stack | Perceptual, TensorFile]:
    file = open_tensors(locate_source(source or BUNDLED, Place())[0])
    if _CONFIG in file.metadata:
        return _own(file), file
    if "net.slice1.0.weight" in file:
        widths = _widths(file, "net.slice{slice}.{number}.weight")
        perceptual = build(lambda: Perceptual(Vgg(widths)), LPIPS, file, Place())
        perceptual.stack.source = f"LPIPS on VGG-16 ({file.path.name})"
        return perceptual.requires_grad_(False), file
    if "features.0.weight" in file:
        widths = _widths(file, "features.{number}.weight")
        vgg = build(lambda: Vgg(widths), VGG, file, Place())
        vgg.source = f"VGG-16 ({file.path.name})"
        return vgg, file
    raise SuffuseError(f"{file.path}: holds neither a VGG-16 nor a feature network of Suffuse")


def _widths(file: TensorFile, name: str) -> tuple[int, ...]:
    """The channels of the five blocks, by the first convolution of each."""
    firsts = [name.format(slice=i + 1, number=n) for i, n in enumerate((0, 5, 10, 17, 24))]
    lacking = [first for first in firsts if first not in file]
    if lacking:
        raise SuffuseError(f"{file.path}: is no VGG-16, it has no {lacking[0]}")
    return tuple(file.shape(first)[0] for first in firsts)


def _own(file: TensorFile) -> FeatureNet:
    try:
        raw = json.loads(str(file.metadata[_CONFIG]))
        config = FeatureConfig(raw["labels"], tuple(raw["widths"]), raw["groups"])
        net = FeatureNet(config)
        net.load_state_dict({name: file.read(name, torch.float32) for name in file})
    except (ValueError, KeyError, TypeError, RuntimeError) as problem:
        line = str(problem).splitlines()[0]
        raise SuffuseError(f"{file.path}: is damaged, or of another version ({line})") from None
    net.source = f"Suffuse's own feature network ({file.path.name})"
    return net


def save_features(net: FeatureNet, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the one file that `open_perceptual` opens, whole or not at all."""
    weights = {name: w.detach().to("cpu", dtype) for name, w in net.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    save_file({n: w.contiguous() for n, w in weights.items()}, fresh, _metadata(net))
    fresh.replace(path)


def _metadata(net: FeatureNet) -> dict[str, str]:
    return {"format": "pt", _CONFIG: json.dumps(asdict(net.config))}
