"""What sets of pictures are compared by: a named network, and a named way of showing it pictures.

Scores of different networks have nothing to do with each other, and those of one network move with
the resizing (2104.11222). So both are part of every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from suffuse.errors import SuffuseError
from suffuse.evaluation.statistics import Gaussian, Moments, Statistics
from suffuse.networks.inception import Inception
from suffuse.networks.perceptual import FeatureNet, Stack
from suffuse.weights import perceptual
from suffuse.weights.containers import open_tensors
from suffuse.weights.inception import digest, is_inception, open_inception
from suffuse.weights.load import locate_source
from suffuse.weights.maps.fid_inception import PUBLISHED
from suffuse.weights.parts import Place

OWN_SIDE = 128  # pixels; what our own network was taught on
_INCEPTION_SIDE = 299
_CHANNELS, _CELLS = 7, 8  # of our own network's map, sFID compares 8 x 8 places of 7 channels


@dataclass(frozen=True)
class Port:
    """How a public program brings levels 0..255 of any size to Inception.

    resize: "bilinear" between pixel centres, which skips pixels when it shrinks; "corner", the same
        from the corners of pixels, as TensorFlow 1 did; "bicubic" with antialiasing, clipped
    centre, spread: (level - centre) / spread is what the network gets
    """

    resize: Literal["bilinear", "corner", "bicubic"]
    centre: float
    spread: float


PORTS = {
    "pytorch-fid": Port("bilinear", 127.5, 127.5),
    # The graph itself: the first FID, ADM's evaluator, torch-fidelity, StyleGAN.
    "tensorflow": Port("corner", 128.0, 128.0),
    "clean-fid": Port("bicubic", 128.0, 128.0),
}


class Seen(NamedTuple):
    """What a network says of pictures.

    points: (B, D), a picture as a point
    places: (B, S), what is where, for sFID
    logits: (B, K) of classes, for the Inception Score, or None
    """

    points: Tensor
    places: Tensor
    logits: Tensor | None


class Network(nn.Module):
    """A network that pictures are compared by.

    source: what it is and where its weights come from, for people
    identity: two networks of one identity give the same numbers
    """

    source: str
    identity: str

    def prepare(self, picture: Tensor) -> Tensor:
        """(1, 3, H, W) levels 0..255 -> (1, 3, side, side) as `forward` takes it."""
        raise NotImplementedError

    def forward(self, pictures: Tensor) -> Seen:
        raise NotImplementedError


class InceptionNetwork(Network):
    """Inception-v3 behind one of the `PORTS`."""

    def __init__(self, net: Inception, sha256: str, port: str, name: str):
        super().__init__()
        if port not in PORTS:
            raise SuffuseError(f"unknown port {port!r}: choose one of {', '.join(PORTS)}")
        self.net, self.port = net, PORTS[port]
        published = "the published FID weights" if sha256.startswith(PUBLISHED) else "other weights"
        self.source = f"Inception-v3, {published} ({name}), pictures resized as {port} does"
        self.identity = f"inception {sha256[:16]} {port}"

    def prepare(self, picture: Tensor) -> Tensor:
        levels = resize(picture, _INCEPTION_SIDE, self.port.resize)
        return (levels - self.port.centre) / self.port.spread

    def forward(self, pictures: Tensor) -> Seen:
        seen = self.net(pictures)
        return Seen(seen.pooled, seen.spatial.flatten(1), seen.logits)


class StackNetwork(Network):
    """Our own feature network, or a VGG-16, which knows no classes."""

    def __init__(self, net: Stack, sha256: str):
        super().__init__()
        self.net = net
        self.source = f"{net.source}, pictures resized to {OWN_SIDE} x {OWN_SIDE}, bicubic"
        self.identity = f"stack {sha256[:16]} {OWN_SIDE}"

    def prepare(self, picture: Tensor) -> Tensor:
        return resize(picture, OWN_SIDE, "bicubic") / 127.5 - 1

    def forward(self, pictures: Tensor) -> Seen:
        maps = self.net.features(pictures)
        spatial = adaptive_avg_pool2d(maps[-2][:, :_CHANNELS], _CELLS).flatten(1)  # (B, S)
        if not isinstance(self.net, FeatureNet):
            return Seen(maps[-1].mean((2, 3)), spatial, None)
        points = self.net.embed(pictures)
        return Seen(points, spatial, self.net.head(points))


def open_network(
    source: str | PathLike[str] | None = None,
    port: str = "pytorch-fid",
    device: torch.device | str = "cpu",
) -> Network:
    """The network of a file, of the Hub ("owner/name/file"), or our own for None.

    The file holds Inception-v3's FID weights, our own feature network, or a VGG-16. Raises
    SuffuseError where there is none, or it holds something else.
    """
    file = open_tensors(locate_source(source or perceptual.BUNDLED, Place())[0])
    network: Network
    if is_inception(file):
        network = InceptionNetwork(open_inception(file), digest(file), port, file.path.name)
    else:
        network = StackNetwork(perceptual.open_features(file.path), digest(file))
    return network.eval().requires_grad_(False).to(device)


def resize(picture: Tensor, side: int, how: str) -> Tensor:
    """(1, 3, H, W) levels 0..255 -> (1, 3, side, side) float32; see `Port`."""
    levels = picture.float()
    if how == "corner":
        return _from_corners(_from_corners(levels, side, 2), side, 3)
    if how == "bicubic":
        if levels.shape[-2:] == (side, side):
            return levels
        made = interpolate(levels, (side, side), mode="bicubic", antialias=True)
        return made.clamp(0, 255)
    return interpolate(levels, (side, side), mode="bilinear", align_corners=False)


def _from_corners(x: Tensor, side: int, dim: int) -> Tensor:
    """Linear along one dimension, pixel i read at i * old / new."""
    old = x.shape[dim]
    at = torch.arange(side, device=x.device) * (old / side)
    low = at.floor().long()
    high = (low + 1).clamp_max(old - 1)
    shape = [1] * x.ndim
    shape[dim] = side
    share = (at - low).to(x).view(shape)
    return x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share


@dataclass(frozen=True)
class Look:
    """A set of pictures as a network sees it.

    points: (N, D) float32;  logits: (N, K) float32 or None;  statistics: of points and places
    """

    points: Tensor
    logits: Tensor | None
    statistics: Statistics


@torch.inference_mode()
def look(
    network: Network,
    pictures: Iterable[np.ndarray],
    *,
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> Look:
    """Shows the network every picture, (H, W, 3) uint8 of any size.

    progress: told how many are done. Raises SuffuseError for fewer than two pictures.
    """
    device = next(network.parameters()).device
    points, logits, places = [], [], Moments()
    for group in _groups(pictures, batch):
        ready = [network.prepare(_tensor(picture).to(device)) for picture in group]
        seen = network(torch.cat(ready))
        points.append(seen.points.float().cpu())
        places.add(seen.places.cpu())
        if seen.logits is not None:
            logits.append(seen.logits.float().cpu())
        progress(sum(map(len, points)))
    if sum(map(len, points)) < 2:
        raise SuffuseError("sets are compared from two pictures on, better from thousands")
    joined = torch.cat(points)
    gaussian = Gaussian.of(joined)
    statistics = Statistics(gaussian, places.gaussian(), network.identity, len(joined))
    return Look(joined, torch.cat(logits) if logits else None, statistics)


def _groups(pictures: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    left = iter(pictures)
    while group := list(islice(left, size)):
        yield group


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]  # (1, 3, H, W)
