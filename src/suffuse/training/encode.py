"""What stage two prepares once and keeps in the folder of its run: the tokenizer, and every picture
as a latent with its captions as tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from suffuse.data.emoji import World
from suffuse.data.folder import FolderStream
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder
from suffuse.systems.encoders import TextEncoder
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.training.autoencoder import to_tensor
from suffuse.training.latent import LatentSet, encode_scenes
from suffuse.training.presets import LatentPreset

Note = Callable[[str], None]


def learned_tokenizer(
    preset: LatentPreset, pictures: FolderStream | None, output: Path, seed: int, note: Note
) -> Tokenizer:
    """Learned from captions of `pictures`, or of the emoji world; kept in `output`/tokenizer."""
    folder = output / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        note("learning the tokenizer from captions")
        if pictures is None:
            captions = _of_scenes(preset.world, seed, preset.captions)
        else:
            captions = _of_pictures(pictures, preset.captions)
        save_tokenizer(train_bpe(captions, preset.text.vocab), folder, preset.text.context)
    return load_tokenizer(folder)


def _of_scenes(world: World, seed: int, scenes: int) -> Iterator[str]:
    for i in range(scenes):
        rng = np.random.default_rng((seed, i))
        scene = world.scene(rng)
        yield scene.caption("en", rng)
        yield scene.caption("ko", rng)


def _of_pictures(pictures: FolderStream, most: int) -> Iterator[str]:
    table = pictures.table
    for index in np.linspace(0, len(table) - 1, min(most, len(table)), dtype=int):
        yield from table.row(int(index)).captions


@torch.no_grad()
def encode_pictures(
    autoencoder: Autoencoder,
    text: TextEncoder,
    pictures: FolderStream,
    *,
    seed: int = 0,
    size: int = 16,
    device: torch.device | str = "cpu",
) -> LatentSet:
    """Every picture once, cropped as the first epoch of `seed` crops it, with one caption.

    Captions that are longer than the window of the text encoder are cut, as Stable Diffusion's
    were. Raises SuffuseError for buckets: latents are kept in one shape.
    """
    if pictures.preprocess.buckets is not None:
        raise SuffuseError("stage two keeps latents of one shape: leave out preprocess.buckets")
    latents, ids = [], []
    whole = torch.int16 if text.tokenizer.size <= 32_767 else torch.int32
    for start in range(0, len(pictures), size):
        rows = slice(0, min(size, len(pictures) - start))
        found = pictures.batch(start // size, size, seed, rows)
        images = to_tensor(found.pictures).to(device)
        latents.append(autoencoder.encode(images).mode.half().contiguous().cpu())
        ids.append(text.ids(found.captions)[:, :1].to(whole))  # (rows, 1, window)
    return LatentSet(torch.cat(latents), torch.cat(ids))


def kept_latents(
    autoencoder: Autoencoder,
    text: TextEncoder,
    preset: LatentPreset,
    pictures: FolderStream | None,
    output: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    note: Note,
) -> LatentSet:
    """The latents of a run: those kept in `output`, if they are of the same data and networks."""
    path = output / "latents.safetensors"
    data = repr((seed, preset.scenes, preset.world)) if pictures is None else pictures.identity
    origin = {"of": _fingerprint(autoencoder, text, data)}
    if path.exists():
        with safe_open(path, "pt") as kept:
            if kept.metadata() == origin:
                return LatentSet(kept.get_tensor("latents"), kept.get_tensor("ids"))
        note(f"{path} is of another autoencoder, tokenizer, data or seed: encoding anew")
    if pictures is None:
        note(f"encoding {preset.scenes} scenes")
        made = encode_scenes(autoencoder.cpu(), text, preset.world, preset.scenes, seed=seed)
    else:
        note(f"encoding {len(pictures)} pictures")
        autoencoder.to(device)
        made = encode_pictures(autoencoder, text, pictures, seed=seed, device=device)
        if notice := pictures.broken.notice():
            note(notice)
    _keep({"latents": made.latents, "ids": made.ids}, path, origin)
    return made


def _keep(tensors: dict[str, Tensor], path: Path, origin: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, origin)
    temporary.replace(path)


def _fingerprint(autoencoder: Autoencoder, text: TextEncoder, data: str) -> str:
    """What the encoded pictures depend on, as one hash."""
    digest = hashlib.sha256(data.encode("utf-8", "surrogateescape"))
    digest.update(text.tokenizer.backend.to_str().encode())
    for weight in autoencoder.encoder.state_dict().values():
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
