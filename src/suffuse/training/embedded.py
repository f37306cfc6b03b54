"""What unCLIP's two stages train on: pictures as CLIP sees them, and captions.

Both towers of the CLIP stand still, so every picture is looked at once and its embedding kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from suffuse.data.captions import LANGUAGES, in_reading_order, plain
from suffuse.data.emoji import World
from suffuse.data.folder import FolderStream
from suffuse.networks.autoencoder import Autoencoder
from suffuse.systems.encoders import TextEncoder
from suffuse.training.autoencoder import to_tensor
from suffuse.training.encode import CAPTIONS, Note, keep
from suffuse.training.encoded import shuffled
from suffuse.weights.clip import ClipParts

AT_ONCE = 64


class Batch(NamedTuple):
    z: Tensor  # (B, D) float32, image embeddings of unit length
    ids: Tensor  # (B, 1, window) int64
    latents: Tensor  # (B, C, h, w) float32, raw; for the prior C = 0


@dataclass(frozen=True)
class EmbeddedSet:
    """z: (N, D) float16;  ids: (N, captions, window);  latents: (N, C, h, w) float16, raw"""

    z: Tensor
    ids: Tensor
    latents: Tensor

    def batch(
        self, step: int, size: int, seed: int, rows: slice | None, rng: np.random.Generator
    ) -> Batch:
        """In an order shuffled anew each epoch, one caption of each at random."""
        count, mine = len(self.z), rows or slice(None)
        which = rng.integers(self.ids.shape[1], size=size)[mine]
        places = np.arange(step * size, (step + 1) * size)[mine]
        found = [shuffled(count, seed, int(e))[p] for e, p in zip(places // count, places % count)]
        ids = self.ids[found, which].long()[:, None]  # (B, 1, window)
        return Batch(self.z[found].float(), ids, self.latents[found].float())


class Seen(NamedTuple):
    """Some pictures and what is said of each."""

    pictures: np.ndarray  # (B, H, W, 3) uint8
    captions: list[list[str]]


def scenes(world: World, count: int, seed: int, split: str = "train") -> Iterator[Seen]:
    """The first `count` scenes, each with captions in both languages. The first two are the
    plainest in reading order: of these the picture says every word."""
    for start in range(0, count, AT_ONCE):
        rows = min(AT_ONCE, count - start)
        pictures, _, drawn = world.batch(start, rows, seed=seed, split=split)
        rng = np.random.default_rng((seed, start))
        said = [
            [plain(in_reading_order(scene), language) for language in LANGUAGES]
            + [scene.caption(language, rng) for language in CAPTIONS]
            for scene in drawn
        ]
        yield Seen(pictures, said)


def of_folder(pictures: FolderStream, seed: int) -> Iterator[Seen]:
    """Every picture once, as the first epoch of `seed` crops it, with its caption."""
    for start in range(0, len(pictures), AT_ONCE):
        rows = slice(0, min(AT_ONCE, len(pictures) - start))
        found = pictures.batch(start // AT_ONCE, AT_ONCE, seed, rows)
        yield Seen(found.pictures, [[caption] for caption in found.captions])


@torch.no_grad()
def embed(
    clip: ClipParts, text: TextEncoder, seen: Iterator[Seen], codec: Autoencoder | None = None
) -> EmbeddedSet:
    """The pictures through CLIP, and through the autoencoder where there is one.

    text: whose tokens captions become; what is longer than its window is cut
    """
    z, ids, latents = [], [], []
    whole = torch.int16 if text.tokenizer.size <= 32_767 else torch.int32
    tower = clip.model
    device = tower.logit_scale.device
    for pictures, captions in seen:
        pixels = clip.prepare.batch([Image.fromarray(picture) for picture in pictures])
        z.append(tower.embed_images(pixels.to(device)).half().cpu())
        said = [caption for of_one in captions for caption in of_one]
        ids.append(text.ids(said)[:, 0].unflatten(0, (len(pictures), -1)).to(whole))
        if codec is None:
            latents.append(torch.empty(len(pictures), 0, 1, 1, dtype=torch.float16))
        else:
            images = to_tensor(pictures).to(device)  # CLIP and the autoencoder are on one device
            latents.append(codec.encode(images).mode.half().contiguous().cpu())
    return EmbeddedSet(torch.cat(z), torch.cat(ids), torch.cat(latents))


def kept(make: Any, path: Path, of: str, note: Note) -> EmbeddedSet:
    """What `make()` gave when it was last called for the same `of`, from a file; else anew."""
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata() == {"of": of}:
                return EmbeddedSet(*map(file.get_tensor, ("z", "ids", "latents")))
        note(f"{path} is of other data or another CLIP: looking at the pictures anew")
    made: EmbeddedSet = make()
    keep({"z": made.z, "ids": made.ids, "latents": made.latents}, path, {"of": of})
    return made
