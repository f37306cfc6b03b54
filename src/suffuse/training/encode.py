"""What stage two prepares once and keeps in the folder of its run: the tokenizer, and every picture
as a latent with its captions as tokens, or else the scale of latents that are made on the fly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from suffuse.data.emoji import SIDE, Scene, World
from suffuse.data.folder import FolderStream
from suffuse.data.sequence import SequenceStream
from suffuse.data.stream import EmojiStream, Stream
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder
from suffuse.systems.encoders import TextEncoder
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.training.autoencoder import to_tensor
from suffuse.training.checkpoint import checkpoints
from suffuse.training.clip_presets import ClipPreset
from suffuse.training.encoded import Batch, FreshLatents, LatentSet, sample_latents
from suffuse.training.presets import LatentPreset

Note = Callable[[str], None]
Pictures = FolderStream | SequenceStream

CAPTIONS = ("en", "en", "ko", "ko")  # how many of each language are kept of a scene
HELD_OUT = 64  # scenes that tell which checkpoint is best
MEASURED = 256  # pictures that tell the scale of latents, where not all are encoded before
SCALE = "scale.json"


def learned_tokenizer(
    preset: LatentPreset | ClipPreset,
    pictures: Pictures | None,
    output: Path,
    seed: int,
    note: Note,
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


def _of_pictures(pictures: Pictures, most: int) -> Iterator[str]:
    if isinstance(pictures, SequenceStream):  # the first ones, as it is read in order
        sequence = pictures.sequence
        rows = (row for shard in range(sequence.shards) for row in sequence.read(shard))
        for row in islice(rows, most):
            yield from row.captions
        return
    table = pictures.table
    for index in np.linspace(0, len(table) - 1, min(most, len(table)), dtype=int):
        yield from table.row(int(index)).captions


@torch.no_grad()
def encode_scenes(
    autoencoder: Autoencoder,
    text: TextEncoder,
    world: World,
    count: int,
    *,
    seed: int = 0,
    split: str = "train",
    size: int = 64,
) -> LatentSet:
    """The first `count` scenes of the sequence that `seed` starts, each with several captions."""
    latents, ids = [], []
    for start in range(0, count, size):
        rows = min(size, count - start)
        pictures, _, scenes = world.batch(start, rows, seed=seed, split=split)
        latents.append(autoencoder.encode(to_tensor(pictures)).mode.half().contiguous())
        ids.append(_said(text, scenes, (seed, start)))
    return LatentSet(torch.cat(latents), torch.cat(ids))


def scene_ids(text: TextEncoder, world: World, count: int, seed: int = 0, size: int = 64) -> Tensor:
    """The captions of the same scenes alone, (count, captions, window)."""
    ids = []
    for start in range(0, count, size):
        scenes = [world.scene_at(i, seed) for i in range(start, min(start + size, count))]
        ids.append(_said(text, scenes, (seed, start)))
    return torch.cat(ids)


def _said(text: TextEncoder, scenes: list[Scene], seed: tuple[int, int]) -> Tensor:
    """Captions as tokens, (scenes, captions, window). Raises SuffuseError for one too long."""
    rng = np.random.default_rng(seed)
    said = [scene.caption(lang, rng) for scene in scenes for lang in CAPTIONS]
    ids = text.ids(said)  # (scenes * captions, windows, window)
    if ids.shape[1] > 1:
        raise SuffuseError(f"a caption is longer than the window of {ids.shape[2]} tokens")
    return ids.view(len(scenes), len(CAPTIONS), -1).to(torch.int16)


def held_out_scenes(autoencoder: Autoencoder, text: TextEncoder, world: World) -> Batch:
    """Scenes that training never shows: raw latents, and one caption each, in both languages."""
    found = encode_scenes(autoencoder, text, world, HELD_OUT, split="test")
    rows = torch.arange(HELD_OUT)
    ids = found.ids[rows, rows % len(CAPTIONS)].long()[:, None]  # (N, 1, window)
    return Batch(found.latents.float(), ids)


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
        raise SuffuseError(
            "latents that are kept have one shape: add --no-cache-latents, or leave out "
            "preprocess.buckets"
        )
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
    pictures: Pictures | None,
    output: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    note: Note,
) -> LatentSet:
    """The latents of a run: those kept in `output`, if they are of the same data and networks."""
    assert not isinstance(pictures, SequenceStream)  # `check_way` saw to it
    path = output / "latents.safetensors"
    data = repr((seed, preset.scenes, preset.world)) if pictures is None else pictures.identity
    origin = {"of": fingerprint(autoencoder, data, text.tokenizer.backend.to_str())}
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
    keep({"latents": made.latents, "ids": made.ids}, path, origin)
    return made


def fresh_latents(
    autoencoder: Autoencoder,
    text: TextEncoder,
    preset: LatentPreset,
    pictures: Pictures | None,
    output: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    note: Note,
) -> FreshLatents:
    """Latents made on the fly. Their scale is measured before the first step and kept in `output`:
    the run goes on with it, whatever becomes of the data."""
    stream = EmojiStream(preset.world, "both") if pictures is None else pictures
    autoencoder.to(device)
    path, begun = output / SCALE, bool(checkpoints(output))
    data = hashlib.sha256(f"{seed} {stream.identity}".encode("utf-8", "surrogateescape"))
    origin = {"autoencoder": fingerprint(autoencoder), "data": data.hexdigest()}
    kept = _read(path)
    known = kept.get("autoencoder") == origin["autoencoder"]
    if begun and not known:
        raise SuffuseError(f"{path} is damaged, or of another autoencoder than this run began with")
    if not known or (not begun and kept["data"] != origin["data"]):
        note(f"measuring the scale of latents on the first {MEASURED} pictures")
        kept = {"scale": measured_scale(autoencoder, stream, seed, device), **origin}
        output.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")
        temporary.replace(path)
    side = (SIDE if pictures is None else preset.preprocess.size) // autoencoder.config.factor
    return FreshLatents(stream, autoencoder, text, kept["scale"], (side, side))


def measured_scale(
    autoencoder: Autoencoder, stream: Stream, seed: int, device: torch.device | str = "cpu"
) -> float:
    """1 / deviation of the latents of the first pictures (2112.10752, appendix G)."""
    look = copy(stream)  # what is read here does not move the place where training reads
    latents, generator = [], torch.Generator().manual_seed(seed)
    for step in range(MEASURED // 16):
        pictures = torch.from_numpy(look.batch(step, 16, seed).pictures).to(device)
        latents.append(sample_latents(autoencoder, pictures, generator).flatten().cpu())
    return float(1 / torch.cat(latents).std())


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def check_way(output: Path, cache: bool, streaming: bool) -> None:
    """Refuses to keep what comes as a stream, and to go on with latents made the other way: their
    scale would be another. Raises SuffuseError."""
    if cache and streaming:
        raise SuffuseError("a stream is read as it comes: add --no-cache-latents to --stream")
    fresh = (output / SCALE).exists()
    if checkpoints(output) and fresh == cache:
        how = "with" if fresh else "without"
        raise SuffuseError(
            f"the run in {output} was begun {how} --no-cache-latents: resume it {how} that"
        )
    if fresh and cache:  # of a run that ended before its first checkpoint
        (output / SCALE).unlink(missing_ok=True)


def keep(tensors: dict[str, Tensor], path: Path, origin: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, origin)
    temporary.replace(path)


def fingerprint(autoencoder: Autoencoder, *more: str) -> str:
    """What encoded pictures depend on, as one hash: the encoder's weights, and `more`."""
    digest = hashlib.sha256()
    for words in more:
        digest.update(words.encode("utf-8", "surrogateescape"))
    for weight in autoencoder.encoder.state_dict().values():
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
