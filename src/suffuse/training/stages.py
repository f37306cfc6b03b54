"""The stages that `suffuse train` knows, put together from their presets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from suffuse.data.emoji import World
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderKL
from suffuse.networks.blocks import channels_last
from suffuse.networks.clip import ClipText
from suffuse.networks.families import initialise, stable_diffusion
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.request import Request
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.training.autoencoder import (
    AutoencoderStage,
    contact_sheet,
    to_tensor,
    unit_channels,
)
from suffuse.training.latent import LatentSet, LatentStage, encode_scenes
from suffuse.training.loop import CHECKPOINT, Plan, Report, train
from suffuse.training.presets import AutoencoderPreset, LatentPreset
from suffuse.training.reading import ReadingStage
from suffuse.weights.folder import open_autoencoder
from suffuse.weights.load import open_parts
from suffuse.weights.parts import Defaults, Info, Parts
from suffuse.weights.save import save_autoencoder, save_parts
from suffuse.weights.scheduler import from_config

if TYPE_CHECKING:
    from PIL.Image import Image

MEASURED = 1024  # scenes that tell how strong the channels of a latent are

# What the samples of a run show: one of each kind, in both languages.
PROMPTS = (
    "a red apple on a blue background",
    "a dog",
    "노란색 배경에 빨간 사과",
    "two pandas on a green background",
    "a hamburger left of a robot on a pink background",
    "파란색 배경에 나비",
    "a big doughnut on turquoise",
    "a red circle above a cat on a white background",
)


def autoencoder_stage(preset: AutoencoderPreset, seed: int) -> AutoencoderStage:
    """The autoencoder of `preset`, ready to train; the channels it leaves are equally strong."""

    def export(nets: nn.ModuleDict, folder: Path) -> None:
        pictures = to_tensor(preset.world.batch(0, MEASURED, seed=seed)[0])
        save_autoencoder(unit_channels(_only(nets, "autoencoder"), pictures), folder)

    return AutoencoderStage(
        preset.config,
        preset.world,
        kl=preset.kl,
        perceptual=preset.perceptual,
        seed=seed,
        export=export,
    )


def latent_stage(
    preset: LatentPreset,
    autoencoder: Path,
    output: Path,
    seed: int,
    *,
    compiled: bool = False,
    init: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> LatentStage:
    """The text-to-latent model of `preset` on the latents of the trained `autoencoder`.

    autoencoder: a folder that stage one or `save_parts` wrote
    init: a model whose U-Net, text encoder and tokenizer training goes on from

    Encoded scenes and the tokenizer are kept in `output` for a resumed run. Raises SuffuseError.
    """
    torch.manual_seed(seed)
    codec = open_autoencoder(autoencoder).requires_grad_(False)
    if codec.config.latent != preset.unet.in_channels:
        raise SuffuseError(
            f"{autoencoder}: its latents have {codec.config.latent} channels, the preset's network "
            f"takes {preset.unet.in_channels}: train an autoencoder of the same preset"
        )
    tokenizer = _tokenizer(preset, init, output, seed, note)
    tower = ClipText(preset.text)
    text = TextEncoder(tokenizer, tower)
    unet = initialise(stable_diffusion(preset.unet))
    channels_last(unet)
    if init is not None:
        given = open_parts(init)
        unet.load_state_dict(given.unet.state_dict())
        tower.load_state_dict(given.text.state_dict())
    data = _latents(codec, text, preset, output, seed, note)
    if preset.reading is not None:
        _read(tower, data, preset.reading, preset.world, output / "reading", seed, note)
    sampling = from_config(dict(preset.scheduler))

    def system(nets: nn.ModuleDict) -> LatentDiffusion:
        factor = codec.config.factor
        return LatentDiffusion(
            Parts(
                unet=_only(nets, "unet"),
                unet_config=preset.unet,
                autoencoder=codec,
                text=_only(nets, "text"),
                tokenizer=tokenizer,
                sampling=sampling,
                latent_scale=data.scale,
                latent_size=(data.latents.shape[2], data.latents.shape[3]),
                defaults=Defaults(
                    steps=preset.steps, guidance=preset.guidance, objects=preset.world.objects
                ),
                info=Info(f"training run, f = {factor}", "made in memory"),
            )
        )

    return LatentStage(
        unet,
        text,
        data,
        sampling.schedule,
        kind=sampling.kind,
        dropout=preset.dropout,
        text_frozen=preset.text_frozen,
        timestep_power=preset.timestep_power,
        compiled=compiled,
        sample=lambda nets, path: _sheet(system(nets), path),
        export=lambda nets, folder: save_parts(system(nets).parts, folder),
    )


def _read(
    tower: ClipText,
    data: LatentSet,
    plan: Plan,
    world: World,
    output: Path,
    seed: int,
    note: Callable[[str], None],
) -> None:
    """Teaches `tower` to read; goes on where a stopped run was, and returns at once if it ended."""
    note("teaching the text encoder to read captions")
    begun = (output / CHECKPOINT).exists()
    stage = ReadingStage(tower, data.ids, world, seed=seed)
    train(stage, plan, output, seed=seed, resume=begun, report=lambda r: _told(r, note))


def _told(report: Report, note: Callable[[str], None]) -> None:
    if report.step == report.steps:
        note(f"{report.numbers['right']:.1%} of the captions are read without a mistake")


def _only(nets: nn.ModuleDict, name: str) -> Any:
    return nets[name].eval()


def _sheet(system: LatentDiffusion, path: Path) -> None:
    pictures: list[Image] = []
    for i, prompt in enumerate(PROMPTS):
        pictures += system.generate(Request(prompt, seed=i))
    contact_sheet([np.stack([np.asarray(p) for p in pictures])], path)


def _tokenizer(
    preset: LatentPreset, init: Path | None, output: Path, seed: int, note: Callable[[str], None]
) -> Tokenizer:
    if init is not None:
        return load_tokenizer(init / "tokenizer")
    folder = output / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        note("learning the tokenizer from captions")
        captions = _captions(preset.world, seed, preset.captions)
        save_tokenizer(train_bpe(captions, preset.text.vocab), folder, preset.text.context)
    return load_tokenizer(folder)


def _captions(world: World, seed: int, scenes: int) -> list[str]:
    said = []
    for i in range(scenes):
        rng = np.random.default_rng((seed, i))
        scene = world.scene(rng)
        said += [scene.caption("en", rng), scene.caption("ko", rng)]
    return said


def _latents(
    codec: AutoencoderKL,
    text: TextEncoder,
    preset: LatentPreset,
    output: Path,
    seed: int,
    note: Callable[[str], None],
) -> LatentSet:
    """The encoded scenes of the run: those kept in `output`, if they are the same."""
    path = output / "latents.safetensors"
    origin = {"of": _fingerprint(codec, text, preset, seed)}
    if path.exists():
        with safe_open(path, "pt") as kept:
            if kept.metadata() == origin:
                return LatentSet(kept.get_tensor("latents"), kept.get_tensor("ids"))
        note(f"{path} is of another autoencoder, tokenizer or seed: encoding anew")
    note(f"encoding {preset.scenes} scenes")
    data = encode_scenes(codec, text, preset.world, preset.scenes, seed=seed)
    output.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({"latents": data.latents, "ids": data.ids}, temporary, origin)
    temporary.replace(path)
    return data


def _fingerprint(codec: AutoencoderKL, text: TextEncoder, preset: LatentPreset, seed: int) -> str:
    """What the encoded scenes depend on, as one hash."""
    digest = hashlib.sha256(repr((seed, preset.scenes, preset.world)).encode())
    digest.update(text.tokenizer.backend.to_str().encode())
    for weight in codec.encoder.state_dict().values():
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()
