"""Opening unCLIP models: Karlo's folders, and those of their kin."""

from __future__ import annotations

from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path

import torch

from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.systems.latent import LatentDiffusion, choose_device, choose_dtype
from suffuse.systems.unclip import UnCLIP
from suffuse.systems.unclip_decoder import LatentDecoder, NoisedEmbedding, PixelDecoder
from suffuse.systems.unclip_prior import Embedder, Prior
from suffuse.systems.unclip_upsampler import Upsampler
from suffuse.weights.folder import INDEX, read_json
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Defaults, Place
from suffuse.weights.scheduler import from_config
from suffuse.weights.stable_unclip import STABLE, StableUnclipParts, open_stable_unclip
from suffuse.weights.tensorfile import show
from suffuse.weights.unclip import (
    KANDINSKY_PRIOR,
    KARLO,
    KarloParts,
    PriorParts,
    Towers,
    UpsamplerParts,
    open_kandinsky_prior,
    open_karlo,
)
from suffuse.weights.unclip_own import (
    BUNDLED,
    OWN_NAME,
    UNCLIP,
    OwnParts,
    OwnPrior,
    bundled_unclip,
    open_own,
)

STABLE_STEPS, STABLE_GUIDANCE = 20, 10.0  # diffusers', where nothing else is recommended
PIPELINES = (
    *KARLO,
    *STABLE,
    KANDINSKY_PRIOR,
    UNCLIP,
)  # classes in the `model_index.json` of such folders


def is_unclip(folder: Path) -> bool:
    """Whether a folder is for `load_unclip` or `load_prior`."""
    file = folder / INDEX
    return file.is_file() and read_json(file).get("_class_name") in PIPELINES


def load_unclip(
    source: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    noise_level: int = 0,
) -> UnCLIP:
    """Opens an unCLIP: the bundled one without a source, a folder of diffusers' or of our own, or
    the name of one on the Hub.

    `device` and `dtype` are as for `load`. `noise_level`: how much noise stable unCLIP adds to
    embeddings, of a thousand; more makes freer variations. Raises SuffuseError.
    """
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    folder = bundled_unclip() if source is None else locate_source(source, place)[0]
    return open_unclip(folder, place, noise_level)


def load_prior(
    source: str | PathLike[str],
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> Prior:
    """Opens the prior of an unCLIP, or Kandinsky 2.2's, which is a model of its own.

    Raises SuffuseError where there is none.
    """
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    folder = locate_source(source, place)[0]
    if _class_of(folder) != KANDINSKY_PRIOR:
        found = open_unclip(folder, place).prior
        if found is None:
            raise SuffuseError(f"{folder}: has no prior")
        return found
    towers, prior = open_kandinsky_prior(folder, place)
    return Prior(_packed(prior), Embedder(towers))


def open_unclip(folder: Path, place: Place, noise_level: int = 0) -> UnCLIP:
    """The system of a folder, packed for inference. Raises SuffuseError."""
    name = _class_of(folder)
    if name == KANDINSKY_PRIOR:
        raise SuffuseError(
            f"{folder}: is a prior alone, it makes embeddings and draws nothing: "
            "suffuse.systems.unclip_load.load_prior opens it"
        )
    if name in STABLE:
        return stable_unclip(open_stable_unclip(folder, place), noise_level)
    if name not in (*KARLO, UNCLIP):
        raise SuffuseError(f"{folder}: {show(name)} is no unCLIP, which are {', '.join(PIPELINES)}")
    if noise_level:
        raise SuffuseError(f"{folder}: noise_level is for stable unCLIP, this is none")
    if name == UNCLIP:
        return own_unclip(open_own(folder, place, OWN_NAME if folder == BUNDLED else None))
    return karlo(open_karlo(folder, place))


def karlo(parts: KarloParts) -> UnCLIP:
    """The system of a Karlo's parts."""
    embedder = Embedder(parts.towers)
    decoder = replace(parts.decoder, unet=pack(parts.decoder.unet))
    return UnCLIP(
        embedder,
        PixelDecoder(decoder, embedder),
        None if parts.prior is None else Prior(_packed(parts.prior), embedder),
        None if parts.upsampler is None else Upsampler(_both(parts.upsampler)),
        parts.info,
    )


def stable_unclip(parts: StableUnclipParts, noise_level: int = 0) -> UnCLIP:
    """The system of a stable unCLIP's parts."""
    embedder, base = Embedder(parts.towers), parts.base
    packed = replace(base, unet=pack(base.unet), autoencoder=pack(base.autoencoder))
    door = NoisedEmbedding(parts.mean, parts.std, parts.noising, noise_level)
    return UnCLIP(
        embedder,
        LatentDecoder(LatentDiffusion(packed), door),
        None if parts.prior is None else Prior(_packed(parts.prior), embedder),
        info=base.info,
        defaults=Defaults(STABLE_STEPS, STABLE_GUIDANCE),
    )


def own_unclip(parts: OwnParts) -> UnCLIP:
    """The system of a model of this project's making."""
    clip, base, prior = parts.clip, parts.base, parts.prior
    towers = Towers(clip.model.text, clip.tokenizer, clip.model.image, clip.prepare, unit=True)
    embedder = Embedder(towers)
    packed = replace(base, unet=pack(base.unet), autoencoder=pack(base.autoencoder))
    return UnCLIP(
        embedder,
        LatentDecoder(LatentDiffusion(packed), parts.projection),
        None if prior is None else Prior(_packed(_used(prior)), embedder),
        info=parts.info,
        defaults=parts.defaults,
    )


def _used(prior: OwnPrior) -> PriorParts:
    return PriorParts(prior.network, from_config(prior.scheduler), **asdict(prior.use))


def _packed(prior: PriorParts) -> PriorParts:
    return replace(prior, network=pack(prior.network))


def _both(parts: UpsamplerParts) -> UpsamplerParts:
    return replace(parts, first=pack(parts.first), last=pack(parts.last))


def _class_of(folder: Path) -> object:
    return read_json(folder / INDEX).get("_class_name")
