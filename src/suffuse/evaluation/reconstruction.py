"""How much of a picture an autoencoder gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from suffuse.data.preprocess import Preprocess
from suffuse.errors import SuffuseError
from suffuse.evaluation.features import Network, look, open_network
from suffuse.evaluation.metrics import frechet, psnr, ssim
from suffuse.evaluation.pictures import to_levels, to_range
from suffuse.evaluation.statistics import Gaussian
from suffuse.networks.autoencoder import Autoencoder
from suffuse.networks.perceptual import Perceptual
from suffuse.weights.first_stage import open_first_stage
from suffuse.weights.folder import open_autoencoder
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Place
from suffuse.weights.perceptual import open_perceptual


def open_codec(
    source: str | PathLike[str], device: torch.device | str = "cpu"
) -> tuple[Autoencoder, Preprocess | None]:
    """An autoencoder, and how its training pictures were prepared where it says so.

    source: a model's folder or its autoencoder's, an original file, or a Hub name. Raises
    SuffuseError where it is none.
    """
    path = locate_source(source, Place())[0]
    found = open_autoencoder(path) if path.is_dir() else open_first_stage(path)
    told = Preprocess.load(path) if path.is_dir() else None
    return found.eval().requires_grad_(False).to(device), told


@dataclass(frozen=True)
class ReconstructionScores:
    """Means over pictures, which are compared at 8 bits, as files keep them.

    rfid: FID between the pictures and their reconstructions, lower is better
    psnr: decibels, ssim: up to 1; higher is better
    lpips: lower is better
    count: of the pictures
    """

    rfid: float
    psnr: float
    ssim: float
    lpips: float
    count: int


class Judges(NamedTuple):
    """What pictures are compared by: as sets, and in pairs."""

    network: Network
    perceptual: Perceptual


def open_judges(
    features: str | None,
    port: str,
    perceptual: str | None,
    linear: str | None,
    device: torch.device | str = "cpu",
) -> Judges:
    """See `open_network` and `open_perceptual`; None is our own network. Raises SuffuseError."""
    network = open_network(features, port, device)
    return Judges(network, open_perceptual(perceptual, linear).to(device))


@torch.inference_mode()
def evaluate_reconstruction(
    autoencoder: Autoencoder,
    batches: Iterable[np.ndarray],
    judges: Judges,
    progress: Callable[[int], None] = lambda done: None,
) -> ReconstructionScores:
    """Scores on batches (B, H, W, 3) uint8, of one size each, divisible by the factor.

    All networks are on one device.
    Latents are the means of what the encoder says, not drawn from it. Raises SuffuseError for
    another size, and for fewer than two pictures.
    """
    pairs = _Pairs(autoencoder, batches, judges.perceptual)
    # Both sets pass the network in one go, one after the other in each pair.
    seen = look(judges.network, _told(pairs, progress), batch=32)
    given, made = (rows.clone() for rows in (seen.points[0::2], seen.points[1::2]))
    if len(given) < 2:
        raise SuffuseError("reconstructions are scored from two pictures on")
    decibels, likeness, distance = torch.stack(pairs.scores).double().mean(0).tolist()
    rfid = frechet(Gaussian.of(given), Gaussian.of(made))
    return ReconstructionScores(rfid, decibels, likeness, distance, len(given))


class _Pairs:
    """Pictures and their reconstructions by turns; what they are worth is kept on the way."""

    def __init__(
        self, autoencoder: Autoencoder, batches: Iterable[np.ndarray], perceptual: Perceptual
    ):
        self.autoencoder, self.batches, self.perceptual = autoencoder, batches, perceptual
        self.device = autoencoder.last_layer.device
        self.scores: list[Tensor] = []  # (3,) each: PSNR, SSIM, LPIPS

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches:
            given = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)  # (B, 3, H, W)
            made = self.reconstruct(given)
            lpips = self.perceptual(to_range(given), to_range(made))
            scores = torch.stack([psnr(made, given), ssim(made, given), lpips], 1)  # (B, 3)
            self.scores += scores.cpu().unbind()
            for pair in zip(given.cpu(), made.cpu()):
                yield from (picture.permute(1, 2, 0).numpy() for picture in pair)

    def reconstruct(self, given: Tensor) -> Tensor:
        """Levels (B, 3, H, W) uint8 -> the same, through the autoencoder."""
        factor = self.autoencoder.config.factor
        height, width = given.shape[-2:]
        if height % factor or width % factor:
            raise SuffuseError(
                f"the autoencoder takes sides that {factor} divides, not {width} x {height}"
            )
        return to_levels(self.autoencoder.decode(self.autoencoder.encode(to_range(given)).mode))


def _told(pairs: Iterable[np.ndarray], progress: Callable[[int], None]) -> Iterator[np.ndarray]:
    for i, picture in enumerate(pairs):
        yield picture
        if i % 2:
            progress(i // 2 + 1)
