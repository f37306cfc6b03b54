"""unCLIP's autoregressive prior (2204.06125, section 2.2): embeddings of pictures from captions.

It learns from what `embedded` keeps, in the space of a CLIP that stands still.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from suffuse.data.emoji import World
from suffuse.data.folder import FolderStream
from suffuse.data.preprocess import Preprocess
from suffuse.errors import SuffuseError
from suffuse.networks.ar_prior import ARPrior, ARPriorConfig, Told, components
from suffuse.systems.encoders import TextEncoder
from suffuse.training.embedded import EmbeddedSet, embed, kept, of_folder, scenes
from suffuse.training.memory import to_device
from suffuse.training.plan import Plan
from suffuse.training.stages import opened
from suffuse.weights.ar_prior import save_ar_prior
from suffuse.weights.clip import ClipParts, open_clip_parts
from suffuse.weights.containers import open_tensors

FILE = "embeddings.safetensors"
AT_ONCE = 256  # rows that go through a network together
KEPT = 0.99  # share of the variance that the components which are kept hold (section 2.2)
HELD_OUT = 256  # scenes that tell which checkpoint is best
MEASURED = 16_384  # captions whose dot products with their pictures make the buckets

Note = Callable[[str], None]


@dataclass(frozen=True)
class ARPriorPreset:
    about: str
    plan: Plan
    width: int
    layers: int
    heads: int
    coordinates: int | None = None  # None: as many as hold 99 % of the variance
    buckets: int = 1024
    dots: int = 64  # buckets of the dot product
    dropout: float = 0.1  # share of rows that are told nothing, for classifier-free guidance
    scenes: int = 49_152  # embedded once, before the first step, where no data are named
    world: World = field(default_factory=World)
    preprocess: Preprocess = field(default_factory=Preprocess)  # of data that are named


AR_PRIORS = {
    "emoji": ARPriorPreset(
        "captions to a CLIP's embeddings",
        Plan(steps=4000, batch=64, lr=1e-3, cooldown=0.5, weight_decay=0.05),
        width=128,
        layers=4,
        heads=4,
    ),
    "toy": ARPriorPreset(
        "to try things with",
        Plan(steps=100, batch=16, warmup=5, ema=0.9, save_every=50, sample_every=100),
        width=32,
        layers=1,
        heads=2,
        coordinates=8,
        buckets=16,
        dots=4,
        scenes=256,
        world=World(objects=6),
    ),
}


class Batch(NamedTuple):
    z: Tensor  # (B, D), image embeddings of length 1
    ids: Tensor  # (B, L) int64
    keep: Tensor  # (B,) bool, false where nothing is told


class ARPriorStage:
    """Cross-entropy of each coordinate's bucket, in nats, the mean over coordinates."""

    def __init__(
        self,
        preset: ARPriorPreset,
        clip: ClipParts,
        data: EmbeddedSet,
        *,
        held_out: EmbeddedSet | None = None,
        seed: int = 0,
        note: Note = lambda _: None,
    ):
        """Raises SuffuseError for embeddings of another width than the CLIP's, or fewer of them
        than coordinates."""
        if data.z.shape[1] != clip.width:
            raise SuffuseError(
                f"embeddings of {data.z.shape[1]} numbers are not those of {clip.info.name}, which "
                f"have {clip.width}"
            )
        torch.manual_seed(seed)
        self.clip, self.data, self.held_out = clip, data, held_out
        self.tower = clip.model.text.requires_grad_(False)
        self.dropout = preset.dropout
        self.net = ARPrior(_config(preset, clip, data))
        self._fit(note)
        self.nets = nn.ModuleDict({"prior": self.net})

    def _fit(self, note: Note) -> None:
        """The coordinates, and the buckets of dot products, of the data."""
        z, places = self.data.z.float(), self.net.coordinates
        places.fit(z)
        rows = torch.arange(len(z))[:MEASURED]
        ids = self.data.ids[rows, rows % self.data.ids.shape[1]].long()
        self.net.fit_dots((z[rows] * self._texts(ids)).sum(1))
        lost = (places.embedding(places.ids(z)) - z).square().sum()
        share = (lost / (z - z.mean(0)).square().sum()).item()
        note(
            f"{len(places.basis)} of {z.shape[1]} coordinates in {places.buckets} buckets lose "
            f"{share:.2%} of the variance"
        )

    @torch.no_grad()
    def _texts(self, ids: Tensor) -> Tensor:
        """Tokens (N, L) -> embeddings (N, D) of length 1, on the CPU."""
        device = self.tower.token.weight.device
        parts = [self.tower(part.to(device)).pooled for part in ids.split(AT_ONCE)]
        return normalize(torch.cat(parts).float(), dim=1).cpu()

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        rng = np.random.default_rng((seed, step))
        found = self.data.batch(step, size, seed, rows, rng)
        keep = torch.from_numpy(rng.random(size) >= self.dropout)[rows or slice(None)]
        return Batch(found.z, found.ids[:, 0], keep)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self._losses(self.net, batch).mean(), {}

    def _losses(self, net: ARPrior, batch: Batch) -> Tensor:
        """(B, K)"""
        # Half precision would put numbers into wrong buckets.
        with torch.no_grad(), torch.autocast(batch.z.device.type, enabled=False):
            pooled = self.tower(batch.ids).pooled
            assert pooled is not None
            text = normalize(pooled.float(), dim=1)
            found = net.coordinates.ids(batch.z)
            told = Told(batch.ids, text, net.dot_ids((batch.z * text).sum(1)), batch.keep)
        logits = net(found, told).transpose(1, 2)  # (B, buckets, K)
        return cross_entropy(logits, found, reduction="none")

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of what is held out, all told; None if nothing is."""
        if self.held_out is None:
            return None
        net: Any = nets["prior"].eval()
        losses = []
        for rows in torch.arange(len(self.held_out.z)).split(AT_ONCE):
            ids = self.held_out.ids[rows, rows % self.held_out.ids.shape[1]].long()
            batch = Batch(self.held_out.z[rows].float(), ids, torch.ones(len(rows)).bool())
            losses.append(self._losses(net, to_device(batch, net.out.weight.device)))
        return torch.cat(losses).mean().item()

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """An embedding is nothing to look at."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        prior: Any = nets["prior"]
        save_ar_prior(prior, folder, self.clip.info.hash())


def _config(preset: ARPriorPreset, clip: ClipParts, data: EmbeddedSet) -> ARPriorConfig:
    kept = preset.coordinates
    if kept is None:
        _, _, variance = components(data.z)
        kept = int((variance.cumsum(0) / variance.sum() < KEPT).sum()) + 1
    return ARPriorConfig(
        embedding=clip.width,
        coordinates=kept,
        buckets=preset.buckets,
        dots=preset.dots,
        vocab=clip.model.text.config.vocab,
        tokens=data.ids.shape[2],
        width=preset.width,
        layers=preset.layers,
        heads=preset.heads,
    )


def ar_prior_stage(
    preset: ARPriorPreset,
    output: Path,
    seed: int,
    *,
    clip: str | None = None,
    data: str | None = None,
    device: torch.device | str = "cpu",
    note: Note = lambda _: None,
) -> ARPriorStage:
    """The prior of `preset`, ready to train.

    clip: in whose space it predicts; None for the bundled one
    data: pictures that `open_stream` finds, or a .safetensors file of embeddings: `z` (N, D) and
        `ids` (N, captions, L); None for the emoji world

    Embeddings of pictures are kept in `output` for a resumed run. Raises SuffuseError.
    """
    parts = open_clip_parts(clip, device=device)
    text = TextEncoder(parts.tokenizer, parts.model.text)
    if data is not None and data.endswith(".safetensors"):
        return ARPriorStage(preset, parts, _read(data, parts), seed=seed, note=note)
    pictures = None
    if data is None:
        held_out = embed(parts, text, scenes(preset.world, HELD_OUT, seed, "test"))
        seen, whose = scenes(preset.world, preset.scenes, seed), repr((preset.scenes, preset.world))
    else:
        pictures = opened(data, preset.preprocess, False)
        assert isinstance(pictures, FolderStream)
        held_out, seen, whose = None, of_folder(pictures, seed), pictures.identity
    origin = hashlib.sha256(
        f"{whose} {seed} {parts.info.hash()}".encode("utf-8", "surrogateescape")
    )

    def made() -> EmbeddedSet:
        note("looking at the pictures")
        found = embed(parts, text, seen)
        if pictures is not None and (notice := pictures.broken.notice()):
            note(notice)
        return found

    found = kept(made, output / FILE, origin.hexdigest(), note)
    return ARPriorStage(preset, parts, found, held_out=held_out, seed=seed, note=note)


def _read(path: str, clip: ClipParts) -> EmbeddedSet:
    """Embeddings that somebody made. Raises SuffuseError where they do not fit together, and for
    tokens that are not those of `clip`."""
    file = open_tensors(path)
    lacking = [name for name in ("z", "ids") if name not in file]
    if lacking:
        raise SuffuseError(f"{path}: has no tensor {lacking[0]!r}; needed are z and ids")
    z, ids = file.read("z", torch.float32), file.read("ids", torch.int64)
    if z.dim() != 2 or ids.dim() != 3 or len(z) != len(ids) or not len(z):
        shapes = f"{tuple(z.shape)}, {tuple(ids.shape)}"
        raise SuffuseError(f"{path}: z (N, D) and ids (N, captions, L) do not fit: {shapes}")
    if not bool(z.isfinite().all()):
        raise SuffuseError(f"{path}: holds embeddings that are not finite")
    window, vocab = clip.tokenizer.window, clip.model.text.config.vocab
    if ids.shape[2] != window or not 0 <= int(ids.min()) <= int(ids.max()) < vocab:
        raise SuffuseError(
            f"{path}: ids are no tokens of {clip.info.name}, which reads {window} of {vocab} kinds"
        )
    return EmbeddedSet(normalize(z, dim=1), ids, torch.empty(len(z), 0, 1, 1))
