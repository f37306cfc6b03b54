"""unCLIP's autoregressive prior, trained on pairs of embeddings (2204.06125, section 2.2).

What it learns from is a table: the CLIP embedding of a picture, that of its caption, and the
caption's tokens. It is made of the emoji world by a CLIP, or brought along as a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from suffuse.data.emoji import World
from suffuse.errors import SuffuseError
from suffuse.networks.ar_prior import ARPrior, ARPriorConfig, Told, components
from suffuse.systems.clip import Clip, load_clip
from suffuse.training.memory import to_device
from suffuse.training.plan import Plan
from suffuse.weights.ar_prior import save_ar_prior
from suffuse.weights.containers import open_tensors

FILE = "embeddings.safetensors"
AT_ONCE = 256  # scenes that are embedded, or held-out rows that are judged, together
KEPT = 0.99  # share of the variance that as many components hold as are kept (section 2.2)
HELD_OUT = 20  # one row in so many tells which checkpoint is best

Note = Callable[[str], None]


class Embedded(NamedTuple):
    """Pictures and captions in CLIP's space."""

    image: Tensor  # (N, D) float32, of length 1
    text: Tensor  # (N, D) float32, of length 1
    ids: Tensor  # (N, L) int64
    vocab: int  # tokens that there are
    clip: str | None  # hash of the CLIP that says so


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
    scenes: int = 65_536  # of the emoji world, where no data are named
    world: World = field(default_factory=World)


AR_PRIORS = {
    "emoji": ARPriorPreset(
        "captions to the bundled CLIP's embeddings",
        Plan(steps=6000, batch=128, lr=1e-3, warmup=200, cooldown=0.5, weight_decay=0.05),
        width=256,
        layers=6,
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
    """Rows as the network reads them."""

    coordinates: Tensor  # (B, K) int64
    told: Told


class ARPriorStage:
    """Cross-entropy of each coordinate's bucket, in nats, the mean over coordinates.

    The last rows of the data are held out.
    """

    def __init__(
        self, preset: ARPriorPreset, data: Embedded, *, seed: int = 0, note: Note = lambda _: None
    ):
        """Raises SuffuseError for fewer rows than coordinates."""
        torch.manual_seed(seed)
        self.rows, self.clip, self.dropout = len(data.image), data.clip, preset.dropout
        self.trained = self.rows - self.rows // HELD_OUT
        self.net = ARPrior(_config(preset, data, self.trained))
        self.net.fit(data.image[: self.trained], data.text[: self.trained])
        self.nets = nn.ModuleDict({"prior": self.net})
        places = self.net.coordinates
        self.coordinates = places.ids(data.image)  # (N, K)
        self.ids, self.text = data.ids, data.text
        self.dots = self.net.dot_ids((data.image * data.text).sum(1))
        lost = (places.embedding(self.coordinates) - data.image).square().sum()
        share = (lost / (data.image - data.image.mean(0)).square().sum()).item()
        note(
            f"{self.coordinates.shape[1]} of {data.image.shape[1]} coordinates in {preset.buckets} "
            f"buckets lose {share:.2%} of the variance"
        )

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        rng = np.random.default_rng((seed, step))
        mine = rows or slice(None)
        found = torch.from_numpy(rng.integers(self.trained, size=size)[mine])
        return self._batch(found, torch.from_numpy(rng.random(size)[mine] >= self.dropout))

    def _batch(self, rows: Tensor, keep: Tensor) -> Batch:
        told = Told(self.ids[rows], self.text[rows], self.dots[rows], keep)
        return Batch(self.coordinates[rows], told)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        logits = self.net(batch.coordinates, batch.told)  # (B, K, buckets)
        return cross_entropy(logits.flatten(0, 1), batch.coordinates.flatten()), {}

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of the rows that were held out, all told; None where there are none."""
        net: Any = nets["prior"].eval()
        losses = []
        for part in torch.arange(self.trained, self.rows).split(AT_ONCE):
            found = self._batch(part, torch.ones(len(part), dtype=torch.bool))
            batch: Batch = to_device(found, net.out.weight.device)
            logits = net(batch.coordinates, batch.told).transpose(1, 2)  # (B, buckets, K)
            losses.append(cross_entropy(logits, batch.coordinates, reduction="none"))
        return torch.cat(losses).mean().item() if losses else None

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """There is nothing to look at."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        prior: Any = nets["prior"]
        save_ar_prior(prior, folder, self.clip)


def _config(preset: ARPriorPreset, data: Embedded, trained: int) -> ARPriorConfig:
    kept = preset.coordinates
    if kept is None:
        _, _, variance = components(data.image[:trained])
        shares = variance.cumsum(0) / variance.sum()
        kept = int((shares < KEPT).sum()) + 1
    return ARPriorConfig(
        embedding=data.image.shape[1],
        coordinates=kept,
        buckets=preset.buckets,
        dots=preset.dots,
        vocab=data.vocab,
        tokens=data.ids.shape[1],
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
    data: Path | None = None,
    device: torch.device | str = "cpu",
    note: Note = lambda _: None,
) -> ARPriorStage:
    """The prior of `preset`, ready to train.

    clip: the CLIP in whose space it predicts; None for the bundled one
    data: a file of embeddings; None for the emoji world, whose are kept in `output`

    Raises SuffuseError.
    """
    if data is not None and clip is not None:
        raise SuffuseError("a file of embeddings brings its own CLIP's: name only one of the two")
    if data is None:
        found = _kept(load_clip(clip, str(device), "float32"), preset, output / FILE, seed, note)
    else:
        found = open_embedded(data)
    return ARPriorStage(preset, found, seed=seed, note=note)


# ---- embeddings ----------------------------------------------------------------------------------


def _kept(clip: Clip, preset: ARPriorPreset, path: Path, seed: int, note: Note) -> Embedded:
    """The emoji world's, from the file of a run that is resumed."""
    origin = f"{preset.world} {preset.scenes} {seed} {clip.info.hash()}"
    if path.is_file() and open_tensors(path).metadata.get("origin") == origin:
        return open_embedded(path)
    note(f"embedding {preset.scenes} scenes and their captions")
    found = embed_scenes(clip, preset.world, preset.scenes, seed)
    save_embedded(found, path, origin)
    return found


def embed_scenes(clip: Clip, world: World, scenes: int, seed: int = 0) -> Embedded:
    """The first scenes of the world's `seed`, each with a caption in either language."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, scenes, AT_ONCE):
        count = min(AT_ONCE, scenes - start)
        pictures, captions, _ = world.batch(start, count, language="both", seed=seed)
        images = clip.images([Image.fromarray(picture) for picture in pictures])
        cut: Note = lambda line: None  # noqa: E731  (captions of the world may be long)
        parts.append((images, clip.texts(captions, cut), clip.ids(captions, cut)))
    image, text, ids = (torch.cat(column) for column in zip(*parts))
    return Embedded(image, text, ids, clip.parts.model.text.config.vocab, clip.info.hash())


def save_embedded(data: Embedded, path: Path, origin: str = "") -> None:
    """A file that `open_embedded` opens, whole or not at all."""
    said = {"vocab": str(data.vocab), "clip": data.clip or "", "origin": origin}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    tensors = {"image": data.image, "text": data.text, "ids": data.ids}
    save_file({name: t.contiguous() for name, t in tensors.items()}, fresh, said)
    fresh.replace(path)


def open_embedded(path: Path) -> Embedded:
    """A safetensors file with `image` (N, D) and `text` (N, D) of CLIP, and `ids` (N, L).

    Embeddings are brought to length 1. Raises SuffuseError for anything else.
    """
    file = open_tensors(path)
    lacking = [name for name in ("image", "text", "ids") if name not in file]
    if lacking:
        raise SuffuseError(f"{path}: has no tensor {lacking[0]!r}; needed are image, text and ids")
    image, text = (normalize(file.read(n, torch.float32), dim=-1) for n in ("image", "text"))
    ids = file.read("ids", torch.int64)
    if image.dim() != 2 or image.shape != text.shape or ids.dim() != 2 or len(ids) != len(image):
        shapes = ", ".join(str(tuple(t.shape)) for t in (image, text, ids))
        raise SuffuseError(f"{path}: image (N, D), text (N, D) and ids (N, L) do not fit: {shapes}")
    if not bool((image.isfinite() & text.isfinite()).all()) or int(ids.min()) < 0:
        raise SuffuseError(f"{path}: holds embeddings that are not finite, or tokens below 0")
    said = str(file.metadata.get("vocab") or 0)
    vocab = max(int(said) if said.isdigit() else 0, int(ids.max()) + 1)
    return Embedded(image, text, ids, vocab, str(file.metadata.get("clip") or "") or None)
