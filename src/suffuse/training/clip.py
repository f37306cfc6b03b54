"""CLIP's stage: pictures and their captions find each other in a batch (2103.00020, section 2.3).

In the emoji world half of a batch are the rivals of the other half, which differ from them in a
word, and both towers have a lesson beside: what is in a picture is known, so the picture tower also
names it. A network that must only tell pictures apart takes long to find out that there are things
in them. The heads of that lesson are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from suffuse.data.captions import LANGUAGES, plain
from suffuse.data.emoji import World
from suffuse.data.stream import Stream
from suffuse.networks.clip import LARGEST_SCALE, Clip
from suffuse.systems.encoders import TextEncoder
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.features import places
from suffuse.training.reading import answers, question_count

HELD_OUT = 192  # scenes that tell which checkpoint is best
# The lesson reads a vector of length 1, which few weights could make a sure answer of.
GAIN = 16.0
PLACED = 10.0  # weight of what stands where


class Batch(NamedTuple):
    pictures: Tensor  # (B, H, W, 3) uint8
    ids: Tensor  # (B, window) int64
    answers: Tensor | None = None  # (B, questions) of 0 and 1
    places: Tensor | None = None  # (B, cells, cells) int64


class Captioned:
    """Pictures of a stream; captions that are longer than the window are cut."""

    def __init__(self, stream: Stream, text: TextEncoder):
        self.stream, self.text = stream, text

    def batch(self, step: int, size: int, seed: int, rows: slice | None) -> Batch:
        found = self.stream.batch(step, size, seed, rows)
        return Batch(torch.from_numpy(found.pictures), self.text.ids(found.captions)[:, 0])


class Rivals:
    """Scenes of the emoji world, each beside its rival, with all that is known of them.

    cells: places across and down that the lesson asks about
    """

    def __init__(self, world: World, text: TextEncoder, cells: int):
        self.world, self.text, self.cells = world, text, cells

    def batch(self, step: int, size: int, seed: int, rows: slice | None) -> Batch:
        """Places of the batch come in twos: an even one and the rival behind it."""
        scenes, captions = [], []
        for i in range(step * size, (step + 1) * size)[rows or slice(None)]:
            rng = np.random.default_rng((seed, i // 2))
            scene = self.world.scene(rng)
            if i % 2:
                scene = self.world.rival(scene, rng)
            scenes.append(scene)
            language = LANGUAGES[int(rng.integers(len(LANGUAGES)))]
            captions.append(scene.caption(language, rng))
        told = torch.stack([answers(scene, self.world) for scene in scenes])
        pictures = torch.from_numpy(np.stack([scene.draw() for scene in scenes]))
        ids = self.text.ids(captions)[:, 0]
        return Batch(pictures, ids, told, places(scenes, self.world, self.cells))


class ClipStage:
    """The symmetric cross-entropy of a whole batch, over all processes."""

    def __init__(
        self,
        net: Clip,
        text: TextEncoder,
        data: Captioned | Rivals,
        *,
        mean: tuple[float, ...],
        spread: tuple[float, ...],
        export: Callable[[Clip, Path], None] = lambda net, folder: None,
    ):
        """text: `net.text` with its tokenizer;  mean, spread: of the pictures, see `ClipInput`"""
        self.net, self.text, self.data = net, text, data
        self.mean, self.spread = torch.tensor(mean), torch.tensor(spread)
        self.stream = data.stream if isinstance(data, Captioned) else None
        self._export = export
        self.nets = nn.ModuleDict({"clip": net})
        if isinstance(data, Rivals):
            things, width = len(data.world.things), net.text.config.projection or 0
            named = nn.Linear(width, question_count(data.world))
            nn.init.constant_(named.bias, -3.0)  # nearly every answer is no
            self.nets["named"] = named
            self.nets["placed"] = nn.LazyConv2d(things + 1, 1)
            with torch.no_grad():  # the lazy layer learns how many channels there are
                side = net.image.config.image
                self.nets["placed"](net.eval().image.cells(torch.zeros(1, 3, side, side))[0])
            net.train()

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        return self.data.batch(step, size, seed, rows)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        cells, pooled = self.net.image.cells(self.pixels(batch.pictures))
        image = nn.functional.normalize(pooled, dim=1)
        text = self.net.embed_texts(batch.ids)
        with torch.no_grad():
            self.net.logit_scale.clamp_(max=LARGEST_SCALE)
        loss, numbers = contrastive(image, text, self.net.logit_scale.exp())
        if batch.answers is None or batch.places is None:
            return loss, numbers
        named: Any = self.nets["named"]
        asked = binary_cross_entropy_with_logits(
            named(GAIN * image), batch.answers, reduction="none"
        )
        placed = cross_entropy(self.nets["placed"](cells), batch.places)
        numbers |= {"contrast": loss.item(), "named": asked.sum(1).mean().item()}
        numbers["placed"] = placed.item()
        return loss + asked.sum(1).mean() + PLACED * placed, numbers

    def pixels(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W), as the picture tower takes them."""
        mean, spread = self.mean.to(pictures.device), self.spread.to(pictures.device)
        pixels = (pictures.float() / 255 - mean) / spread
        return pixels.permute(0, 3, 1, 2)  # channels last in memory

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The share of held-out scenes whose caption is not the nearest of all; None for pictures
        of a folder, of which nothing is held out."""
        if not isinstance(self.data, Rivals):
            return None
        scenes = [self.data.world.scene_at(i, 1, "test") for i in range(HELD_OUT)]
        net: Any = nets["clip"].eval()
        device = net.logit_scale.device
        pictures = torch.from_numpy(np.stack([scene.draw() for scene in scenes]))
        image = net.embed_images(self.pixels(pictures.to(device)))
        wrong = []
        for language in LANGUAGES:
            captions = [plain(scene, language) for scene in scenes]
            text = net.embed_texts(self.text.ids(captions)[:, 0].to(device))
            found = (image @ text.T).argmax(1).tolist()
            wrong += [captions[i] != captions[j] for i, j in enumerate(found)]
        return sum(wrong) / len(wrong)

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Captions of held-out scenes, and under each the pictures that it finds first."""
        if not isinstance(self.data, Rivals):
            return
        scenes = [self.data.world.scene_at(i, 1, "test") for i in range(HELD_OUT)]
        net: Any = nets["clip"].eval()
        device = net.logit_scale.device
        pictures = np.stack([scene.draw() for scene in scenes])
        image = net.embed_images(self.pixels(torch.from_numpy(pictures).to(device)))
        asked = [plain(scene, LANGUAGES[i % 2]) for i, scene in enumerate(scenes[:8])]
        text = net.embed_texts(self.text.ids(asked)[:, 0].to(device))
        found = (text @ image.T).topk(4).indices.cpu().numpy()  # (8, 4)
        contact_sheet([pictures[:8], *(pictures[column] for column in found.T)], path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        net: Any = nets["clip"].eval()
        self._export(net, folder)


def contrastive(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The symmetric cross-entropy of this process's (B, D) embeddings among those of all.

    Every process computes the loss of the whole batch, and gradients flow back to the process that
    an embedding comes from. DDP averages what processes find, so that the gradient of each weight
    is that of one process with the whole batch.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        image, text = (torch.cat(all_gather(each)) for each in (image, text))
    logits = scale * image @ text.T  # (N, N): pictures down, texts across
    own = torch.arange(len(logits), device=logits.device)
    loss = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    with torch.no_grad():
        right = (logits.argmax(1) == own).float().mean()
    return loss, {"right": right.item()}
