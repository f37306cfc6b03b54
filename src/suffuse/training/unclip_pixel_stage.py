"""unCLIP's decoder of pixels, put together from its preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from suffuse.data.emoji import SIDE
from suffuse.data.stream import EmojiStream
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.networks.families import initialise
from suffuse.networks.pixel import adm
from suffuse.networks.unclip import TextProjection
from suffuse.systems.unclip_decoder import PixelDecoder
from suffuse.systems.unclip_load import towers_of
from suffuse.systems.unclip_prior import Embedder
from suffuse.training.stages import opened
from suffuse.training.unclip_pixel import Batch, PixelDecoderStage
from suffuse.training.unclip_presets import PixelDecoderPreset
from suffuse.training.unclip_stages import SHOWN, carried_prior, sheet
from suffuse.weights.clip import ClipParts, open_clip_parts
from suffuse.weights.parts import Place
from suffuse.weights.scheduler import from_config
from suffuse.weights.unclip import PixelDecoderParts
from suffuse.weights.unclip_own import named, save_unclip
from suffuse.weights.unclip_pixel import OwnPixelDecoder, open_behind


def pixel_decoder_stage(
    preset: PixelDecoderPreset,
    seed: int,
    *,
    clip: str | None = None,
    prior: Path | None = None,
    upsamplers: Sequence[Path] = (),
    data: str | None = None,
    streaming: bool = False,
    device: torch.device | str = "cpu",
) -> PixelDecoderStage:
    """The decoder of `preset`, ready to train.

    clip: whose embeddings it reads, as for `open_clip_parts`; None for the bundled one
    prior, upsamplers: folders of `train prior` and `train sr3`, which the decoder's gets copies of
    data: captioned pictures that `open_stream` finds; None for the emoji world

    Raises SuffuseError.
    """
    _check_size(preset, SIDE if data is None else preset.preprocess.size)
    torch.manual_seed(seed)
    seeing, place = open_clip_parts(clip, device=device), Place(device)
    parts = _fresh(preset, seeing)
    pictures = opened(data, preset.preprocess, streaming)
    stream, held_out = EmojiStream(preset.world, "both") if pictures is None else pictures, None
    if pictures is None:
        held_out = EmojiStream(preset.world, "both", "test").batch(0, preset.held_out, seed)
    carried = None if prior is None else carried_prior(prior, seeing, place)
    behind = [open_behind(folder, Place()) for folder in upsamplers]

    def export(parts: PixelDecoderParts, folder: Path) -> None:
        made = OwnPixelDecoder(parts, preset.steps, preset.guidance, behind)
        save_unclip(folder, named(clip, seeing.info), carried, made)

    def sample(parts: PixelDecoderParts, batch: Batch, path: Path) -> None:
        decoder = PixelDecoder(parts, Embedder(towers_of(seeing)))
        z = stage.embed(batch.seen[:SHOWN].to(decoder.device))
        sheet(decoder, batch.images[:SHOWN], z, preset, path)

    stage = PixelDecoderStage(
        parts,
        seeing,
        stream,
        without=preset.without,
        silent=preset.silent,
        held_out=held_out,
        sample=sample,
        export=export,
    )
    return stage


def _check_size(preset: PixelDecoderPreset, side: int) -> None:
    smallest = 2 ** (len(preset.unet.channels) - 1)
    if side % preset.size or preset.size % smallest:
        raise SuffuseError(
            f"size {preset.size} must divide the side of the pictures, {side} pixels, and be a "
            f"multiple of {smallest}"
        )


def _fresh(preset: PixelDecoderPreset, clip: ClipParts) -> PixelDecoderParts:
    """The decoder before the first step."""
    sampling = from_config(preset.scheduler)
    config = replace(preset.unet, in_channels=3, out_channels=6 if sampling.learned_var else 3)
    unet = initialise(adm(config))
    channels_last(unet)
    projection = TextProjection(
        clip.width,
        config.context,
        config.embedding,
        preset.tokens,
        states=clip.model.text.config.width,
        scale=clip.width**0.5,
    )
    return PixelDecoderParts(unet, config, projection, sampling, (preset.size, preset.size))
