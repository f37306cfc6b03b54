"""Karlo's own files, before diffusers made folders of them: prior, statistics, decoder.

Sizes are read off the weights' shapes; a head is 64 numbers wide unless told.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.prior import BEHIND, DiffusionPrior, PriorConfig
from suffuse.networks.unclip import TextProjection
from suffuse.networks.unet import UNet
from suffuse.weights.adm import Heads, unet_shape
from suffuse.weights.containers import open_tensors
from suffuse.weights.first_stage import count, shape
from suffuse.weights.maps.karlo import karlo_prior, karlo_projection, karlo_unet
from suffuse.weights.parts import Place, build
from suffuse.weights.tensorfile import TensorFile
from suffuse.weights.unclip_config import HEAD_WIDTH

_BELOW = "model."


def open_karlo_prior(
    path: str | PathLike[str],
    statistics: str | PathLike[str],
    place: Place | None = None,
    head_width: int = HEAD_WIDTH,
) -> DiffusionPrior:
    """The prior of `prior-ckpt-step=….ckpt`, and `ViT-L-14_stats.th`, mean and deviation of image
    embeddings. Raises SuffuseError naming what is missing or unknown."""
    file = _inside(path, "transformer.resblocks.0.attn.c_qkv.weight", "prior")
    known = open_tensors(Path(statistics).expanduser())
    if len(known) != 2:
        raise SuffuseError(f"{known.path}: holds {len(known)} tensors, not a mean and a deviation")
    entries = dict(zip(("mean", "std"), known.entries.values()))
    file = replace(file, entries={**file.entries, **entries})
    width, embedding = shape(file, "clip_img_proj.weight", 2)
    config = PriorConfig(
        embedding=embedding,
        width=width,
        layers=count(file, "transformer.resblocks."),
        heads=width // head_width,
        tokens=shape(file, "positional_embedding", 3)[1] - BEHIND,
    )
    return build(lambda: DiffusionPrior(config), karlo_prior(config), file, place or Place())


def open_karlo_decoder(
    path: str | PathLike[str], place: Place | None = None, head_width: int = HEAD_WIDTH
) -> tuple[UNet, ADMConfig, TextProjection]:
    """U-Net, its configuration and its projections, of `decoder-ckpt-step=….ckpt`.

    Raises SuffuseError naming what is missing or unknown.
    """
    file, place = _inside(path, "clip_tok_proj.weight", "decoder"), place or Place()
    context, embedding = shape(file, "text_seq_proj.0.weight", 2)
    config = replace(unet_shape(file), context=context)
    config = Heads(width=head_width).divide(config, str(file.path))
    tokens, time = shape(file, "clip_tok_proj.weight", 2)[0] // context, config.embedding
    unet = build(lambda: adm(config), karlo_unet(config), file, place)
    projection = build(
        lambda: TextProjection(embedding, context, time, tokens),
        karlo_projection(tokens),
        file,
        place,
    )
    return unet, config, projection


def _inside(path: str | PathLike[str], sign: str, part: str) -> TensorFile:
    file = open_tensors(Path(path).expanduser()).within(_BELOW)
    if sign not in file:
        raise SuffuseError(f"{file.path}: is no {part} of Karlo's")
    return file
