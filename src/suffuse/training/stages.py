"""The stages that `suffuse train` knows, put together from their presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from suffuse.data.preprocess import Preprocess
from suffuse.data.sources import open_stream
from suffuse.data.stream import EmojiStream, Stream
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.networks.clip import ClipText
from suffuse.networks.families import initialise, stable_diffusion
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.request import Request
from suffuse.text.tokenizer import load_tokenizer
from suffuse.training.autoencoder import (
    AutoencoderStage,
    contact_sheet,
    to_tensor,
    unit_channels,
)
from suffuse.training.checkpoint import checkpoints
from suffuse.training.distributed import Team
from suffuse.training.encode import (
    Note,
    Pictures,
    check_way,
    fresh_latents,
    held_out_scenes,
    kept_latents,
    learned_tokenizer,
    scene_ids,
)
from suffuse.training.encoded import Latents, LatentSet
from suffuse.training.latent import LatentStage
from suffuse.training.loop import Report, train
from suffuse.training.presets import AutoencoderPreset, LatentPreset
from suffuse.training.reading import ReadingStage
from suffuse.weights.folder import open_autoencoder
from suffuse.weights.load import open_parts
from suffuse.weights.parts import Defaults, Info, Parts
from suffuse.weights.perceptual import open_perceptual
from suffuse.weights.save import save_autoencoder, save_parts
from suffuse.weights.scheduler import from_config, to_config

if TYPE_CHECKING:
    from PIL.Image import Image

MEASURED = 256  # scenes that tell how strong the channels of a latent are

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


def autoencoder_stage(
    preset: AutoencoderPreset,
    seed: int,
    *,
    data: str | None = None,
    streaming: bool = False,
    perceptual: str | None = None,
    init: Path | None = None,
    note: Note = lambda _: None,
) -> AutoencoderStage:
    """The autoencoder of `preset`, ready to train.

    data: pictures that `open_stream` finds; None for the emoji world
    perceptual: what compares them, for `open_perceptual`
    init: a trained stage one, or a model, whose autoencoder training goes on from

    Raises SuffuseError.
    """
    pictures = opened(data, preset.preprocess, streaming)
    stream: Stream = EmojiStream(preset.world) if pictures is None else pictures
    held_out = EmojiStream(preset.world, split="test") if pictures is None else None
    compares = None
    if preset.losses.compares:
        compares = open_perceptual(perceptual)
        note(f"pictures are compared by {compares.source}")

    def export(nets: nn.ModuleDict, folder: Path) -> None:
        codec = _only(nets, "autoencoder")
        if preset.config.shortcut and preset.noise is None:  # else latents stay as they are
            images = to_tensor(stream.batch(0, MEASURED, seed).pictures)
            codec = unit_channels(codec, images.to(next(codec.parameters()).device))
        save_autoencoder(codec, folder, perceptual=compares.source if compares else None)
        if data is not None:
            preset.preprocess.save(folder)

    if init is None and preset.noise is not None:
        raise SuffuseError("this preset trains a decoder alone: name its model with --init")
    stage = AutoencoderStage(
        preset.config,
        stream,
        preset.losses,
        perceptual=compares,
        average=preset.average,
        noise=preset.noise,
        held_out=held_out,
        seed=seed,
        export=export,
    )
    if init is not None:
        take(stage.net, open_autoencoder(init), init, "autoencoder")
    return stage


def latent_stage(
    preset: LatentPreset,
    autoencoder: Path,
    output: Path,
    seed: int,
    *,
    data: str | None = None,
    streaming: bool = False,
    cache: bool = True,
    compiled: bool = False,
    init: Path | None = None,
    words: Path | None = None,
    device: torch.device | str = "cpu",
    note: Note = lambda _: None,
) -> LatentStage:
    """The text-to-latent model of `preset` on the latents of the trained `autoencoder`.

    autoencoder: a folder that stage one or `save_parts` wrote
    data: pictures that `open_stream` finds; None for the emoji world
    cache: encode every picture once and keep the latents; else those of a step at that step
    init: a model whose U-Net, text encoder and tokenizer training goes on from
    words: a model whose text encoder and tokenizer it begins with

    Latents or their scale, and the tokenizer, are kept in `output` for a resumed run. Raises
    SuffuseError.
    """
    check_way(output, cache, streaming)
    torch.manual_seed(seed)
    codec = open_autoencoder(autoencoder).requires_grad_(False)
    if codec.config.latent != preset.unet.in_channels:
        raise SuffuseError(
            f"{autoencoder}: its latents have {codec.config.latent} channels, the preset's network "
            f"takes {preset.unet.in_channels}: train an autoencoder of the same preset"
        )
    pictures = opened(data, preset.preprocess, streaming)
    text = _text(preset, init or words, pictures, output, seed, note)
    unet = initialise(stable_diffusion(preset.unet))
    channels_last(unet)
    if init is not None:
        take(unet, open_parts(init).unet, init, "U-Net")
    held_out = held_out_scenes(codec, text, preset.world) if pictures is None else None
    prepared: Callable[..., Latents] = kept_latents if cache else fresh_latents
    latents = prepared(codec, text, preset, pictures, output, seed=seed, device=device, note=note)
    taught = preset.reading is not None and pictures is None
    if taught and init is None and words is None and not checkpoints(output):
        if isinstance(latents, LatentSet):
            lesson = latents.ids
        else:
            lesson = scene_ids(text, preset.world, preset.scenes, seed)
        _read(text.tower, lesson, preset, output / "reading", seed, note)
    text.tower.requires_grad_(preset.text_trained and not taught)
    sampling = from_config(dict(preset.scheduler))
    # A config that names another class leaves keys of the preset's own behind.
    sampling = replace(sampling, config=to_config(sampling))

    def system(nets: nn.ModuleDict) -> LatentDiffusion:
        return LatentDiffusion(
            Parts(
                unet=_only(nets, "unet"),
                unet_config=preset.unet,
                autoencoder=codec.to(next(nets.parameters()).device),
                text=_only(nets, "text"),
                tokenizer=text.tokenizer,
                sampling=sampling,
                latent_scale=latents.scale,
                latent_size=latents.size,
                defaults=Defaults(
                    steps=preset.steps,
                    guidance=preset.guidance,
                    objects=preset.world.objects if data is None else None,
                ),
                info=Info(f"training run, f = {codec.config.factor}", "made in memory"),
            )
        )

    def export(nets: nn.ModuleDict, folder: Path) -> None:
        save_parts(system(nets).parts, folder)
        if pictures is not None:
            preset.preprocess.save(folder)

    return LatentStage(
        unet,
        text,
        latents,
        sampling.schedule,
        kind=sampling.kind,
        dropout=preset.dropout,
        noising=preset.noising,
        held_out=held_out,
        compiled=compiled,
        sample=lambda nets, path: _sheet(system(nets), path),
        export=export,
    )


def opened(data: str | None, preprocess: Preprocess, streaming: bool) -> Pictures | None:
    """The pictures that `data` names. Raises SuffuseError."""
    if data is None and streaming:
        raise SuffuseError("only data can be streamed: name them with --data")
    return None if data is None else open_stream(data, preprocess, streaming=streaming)


def _text(
    preset: LatentPreset,
    source: Path | None,
    pictures: Pictures | None,
    output: Path,
    seed: int,
    note: Note,
) -> TextEncoder:
    """Text encoder and tokenizer of the model `source`, or fresh ones."""
    if source is None and not preset.text_trained:
        raise SuffuseError(
            "this preset leaves the text encoder as it is: name a model that has it with --text"
        )
    tower = ClipText(preset.text)
    if source is None:
        return TextEncoder(learned_tokenizer(preset, pictures, output, seed, note), tower)
    take(tower, open_parts(source).text, source, "text encoder")
    return TextEncoder(load_tokenizer(source / "tokenizer"), tower)


def take(net: nn.Module, given: nn.Module, source: Path, what: str) -> None:
    """Gives `net` the weights of `given`, which `source` holds. Raises SuffuseError."""
    try:
        net.load_state_dict(given.state_dict())
    except RuntimeError as error:
        raise SuffuseError(f"{source}: its {what} has another shape than the preset's") from error


def _read(
    tower: ClipText, ids: torch.Tensor, preset: LatentPreset, output: Path, seed: int, note: Note
) -> None:
    """Teaches `tower` to read; goes on where a stopped run was, and returns at once if it ended."""

    def told(report: Report) -> None:
        if report.step == report.steps:
            note(f"{report.numbers['right']:.1%} of the captions are read without a mistake")

    assert preset.reading is not None
    note("teaching the text encoder to read captions")
    stage = ReadingStage(tower, ids, preset.world, seed=seed)
    begun, alone = bool(checkpoints(output)), Team(alone=True)
    train(stage, preset.reading, output, seed=seed, resume=begun, report=told, team=alone)


def _only(nets: nn.ModuleDict, name: str) -> Any:
    return nets[name].eval()


def _sheet(system: LatentDiffusion, path: Path) -> None:
    pictures: list[Image] = []
    for i, prompt in enumerate(PROMPTS):
        pictures += system.generate(Request(prompt, seed=i))
    contact_sheet([np.stack([np.asarray(p) for p in pictures])], path)
