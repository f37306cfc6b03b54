"""Karlo's own files, before diffusers made folders of them: prior, decoder, upsampler, CLIP.

Sizes are read off the weights' shapes; a head is 64 numbers wide unless told. What no file says is
Karlo's: its schedules, and that it draws 64 x 64 pixels and enlarges them to 256 x 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.prior import BEHIND, DiffusionPrior, PriorConfig
from suffuse.networks.unclip import TextProjection
from suffuse.networks.unet import UNet
from suffuse.weights.adm import Heads, unet_shape
from suffuse.weights.clip import open_clip_parts
from suffuse.weights.containers import open_tensors
from suffuse.weights.first_stage import count, shape
from suffuse.weights.maps.karlo import (
    karlo_prior,
    karlo_projection,
    karlo_unet,
    karlo_upsampler,
)
from suffuse.weights.parts import Hints, Info, Place, build, files_of
from suffuse.weights.scheduler import Sampling, from_config
from suffuse.weights.tensorfile import TensorFile
from suffuse.weights.unclip import (
    KarloParts,
    PixelDecoderParts,
    PriorParts,
    Towers,
    UpsamplerParts,
)
from suffuse.weights.unclip_config import HEAD_WIDTH

_BELOW, _SMALL, _LARGE = "model.", (64, 64), (256, 256)
_CLIP, _STATISTICS = "ViT-L-14.pt", "ViT-L-14_stats.th"
_PRIOR = {"prediction_type": "sample", "clip_sample_range": 5.0}
_DECODER = {"variance_type": "learned_range"}


def is_karlo(folder: Path) -> bool:
    """Whether a folder holds Karlo's own files, its decoder at least."""
    return bool(sorted(folder.glob("decoder-ckpt*.ckpt")))


def open_karlo_files(folder: Path, place: Place, name: str | None = None) -> KarloParts:
    """The parts of such a folder: `decoder-ckpt*.ckpt` and `ViT-L-14.pt`, and if they are there
    `prior-ckpt*.ckpt` with `ViT-L-14_stats.th`, and `improved-sr-ckpt*.ckpt`.

    Raises SuffuseError naming what is missing or unknown.
    """
    path = _only(folder, "decoder-ckpt*.ckpt")
    assert path is not None  # or it would be no such folder
    unet, config, projection = open_karlo_decoder(path, place)
    decoder = PixelDecoderParts(unet, config, projection, _sampling(_DECODER), _SMALL)
    clip = open_clip_parts(
        folder / _CLIP,
        device=place.device,
        dtype=place.dtype,
        hints=Hints(activation="quick_gelu"),
    )
    towers = Towers(clip.model.text, clip.tokenizer, clip.model.image, clip.prepare)
    prior, found = None, _only(folder, "prior-ckpt*.ckpt")
    if found is not None:
        network = open_karlo_prior(found, folder / _STATISTICS, place)
        prior = PriorParts(network, _sampling(_PRIOR))
    larger = _only(folder, "improved-sr-ckpt*.ckpt")
    upsampler = None if larger is None else open_karlo_upsampler(larger, place)
    files = files_of(open_tensors(path))
    info = Info(name or folder.resolve().name, "Karlo's own files", folder, files)
    return KarloParts(towers, prior, decoder, upsampler, info)


def _only(folder: Path, pattern: str) -> Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise SuffuseError(f"{folder}: holds several of {pattern} ({names}); leave one")
    return found[0] if found else None


def _sampling(said: Mapping[str, object]) -> Sampling:
    return from_config({"_class_name": "UnCLIPScheduler", **said})


def open_karlo_upsampler(path: Path, place: Place | None = None) -> UpsamplerParts:
    """Both networks of `improved-sr-ckpt-step=….ckpt`. Raises SuffuseError."""
    nets, place = [], place or Place()
    for below in ("model_first_steps.", "model_last_step."):
        file = open_tensors(path).within(below)
        if "out.2.weight" not in file:
            raise SuffuseError(f"{path}: is no upsampler of Karlo's, it has no {below[:-1]}")
        config = unet_shape(file)
        config = replace(config, heads=(1,) * len(config.channels), mid_attention=False)
        nets.append(_net(config, file, place))
    return UpsamplerParts(nets[0], nets[1], _sampling({}), _LARGE)


def _net(config: ADMConfig, file: TensorFile, place: Place) -> UNet:
    return build(lambda: adm(config), karlo_upsampler(config), file, place)


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
        heads=max(1, width // head_width),
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
