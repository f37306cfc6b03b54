"""Opening unCLIP models: Karlo's folders, and those of their kin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.systems.latent import LatentDiffusion, choose_device, choose_dtype
from suffuse.systems.sr3 import SuperResolution
from suffuse.systems.unclip import UnCLIP
from suffuse.systems.unclip_decoder import LatentDecoder, PixelDecoder
from suffuse.systems.unclip_door import NoisedEmbedding
from suffuse.systems.unclip_prior import Embedder, Prior
from suffuse.systems.unclip_upsampler import Enlarger, Upsampler
from suffuse.weights.clip import ClipParts
from suffuse.weights.folder import INDEX, read_json
from suffuse.weights.karlo_files import is_karlo, open_karlo_files
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Defaults, Place
from suffuse.weights.pixel import PixelModel
from suffuse.weights.scheduler import from_config
from suffuse.weights.stable_unclip import STABLE, StableUnclipParts, open_stable_unclip
from suffuse.weights.tensorfile import show
from suffuse.weights.unclip import (
    KANDINSKY_PRIOR,
    KARLO,
    KarloParts,
    PixelDecoderParts,
    PriorParts,
    Towers,
    UpsamplerParts,
    check_widths,
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
    open_own_clip,
    open_own_prior,
)

STABLE_STEPS, STABLE_GUIDANCE = 20, 10.0  # diffusers', where nothing else is recommended
PIPELINES = (UNCLIP, *KARLO, *STABLE, KANDINSKY_PRIOR)  # classes in `model_index.json`


def is_unclip(folder: Path) -> bool:
    """Whether a folder is for `load_unclip` or `load_prior`."""
    file = folder / INDEX
    if not file.is_file():
        return is_karlo(folder)
    return read_json(file).get("_class_name") in PIPELINES


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
    folder, name = (bundled_unclip(), None) if source is None else locate_source(source, place)
    return open_unclip(folder, place, noise_level, name)


def load_prior(
    source: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> Prior:
    """Opens the prior of an unCLIP, or one alone: Kandinsky 2.2's, or what `train prior` made.

    Raises SuffuseError where there is none.
    """
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    folder = bundled_unclip() if source is None else locate_source(source, place)[0]
    kind = _class_of(folder)
    if kind == KANDINSKY_PRIOR:
        towers, prior = open_kandinsky_prior(folder, place)
        return Prior(_packed(prior), Embedder(towers))
    if kind == UNCLIP:
        clip = open_own_clip(folder, place)
        return _used(open_own_prior(folder, place), Embedder(towers_of(clip)))
    found = open_unclip(folder, place).prior
    if found is None:
        raise SuffuseError(f"{folder}: has no prior")
    return found


def open_unclip(
    folder: Path, place: Place, noise_level: int = 0, name: str | None = None
) -> UnCLIP:
    """The system of a folder, packed for inference; `name` where its own says nothing.

    Raises SuffuseError.
    """
    kind = _class_of(folder)
    if kind is None:
        return karlo(open_karlo_files(folder, place, name))
    if kind == KANDINSKY_PRIOR:
        raise SuffuseError(
            f"{folder}: is a prior alone, it makes embeddings and draws nothing: "
            "suffuse.systems.unclip_load.load_prior opens it"
        )
    if kind in STABLE:
        return stable_unclip(open_stable_unclip(folder, place, name), noise_level)
    if kind not in (*KARLO, UNCLIP):
        raise SuffuseError(f"{folder}: {show(kind)} is no unCLIP, which are {', '.join(PIPELINES)}")
    if noise_level:
        raise SuffuseError(f"{folder}: noise_level is for stable unCLIP, this is none")
    if kind == UNCLIP:
        return own_unclip(open_own(folder, place, OWN_NAME if folder == BUNDLED else name))
    return karlo(open_karlo(folder, place, name))


def karlo(parts: KarloParts) -> UnCLIP:
    """The system of a Karlo's parts."""
    embedder = Embedder(parts.towers)
    return UnCLIP(
        embedder,
        PixelDecoder(_unet_packed(parts.decoder), embedder),
        None if parts.prior is None else Prior(_packed(parts.prior), embedder),
        () if parts.upsampler is None else (Upsampler(_both(parts.upsampler)),),
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
    embedder = Embedder(towers_of(parts.clip))
    decoder: LatentDecoder | PixelDecoder
    if isinstance(parts.decoder, PixelDecoderParts):
        decoder = PixelDecoder(_unet_packed(parts.decoder), embedder)
    else:
        base = parts.decoder.base
        packed = replace(base, unet=pack(base.unet), autoencoder=pack(base.autoencoder))
        decoder = LatentDecoder(LatentDiffusion(packed), parts.decoder.projection)
    return UnCLIP(
        embedder,
        decoder,
        None if parts.prior is None else _used(parts.prior, embedder),
        _cascade(parts.upsamplers, decoder.size),
        parts.info,
        parts.defaults,
    )


def _cascade(models: Iterable[PixelModel[Any]], size: tuple[int, int]) -> tuple[Enlarger, ...]:
    """Upscalers one behind another; size: width and height of what the first is given."""
    made: list[Enlarger] = []
    for model in models:
        system = SuperResolution(replace(model, unet=pack(model.unet)))
        made.append(Enlarger(system, size))
        size = made[-1].size
    return tuple(made)


def towers_of(clip: ClipParts) -> Towers:
    """The towers of a CLIP whose embeddings are brought to length 1."""
    return Towers(clip.model.text, clip.tokenizer, clip.model.image, clip.prepare, unit=True)


def _used(prior: OwnPrior, embedder: Embedder) -> Prior:
    """A prior of our making in use. Raises SuffuseError where it is another CLIP's."""
    parts = PriorParts(prior.network, from_config(prior.scheduler), **asdict(prior.use))
    check_widths(embedder.towers, parts, {}, "unCLIP")
    return Prior(_packed(parts), embedder)


def _packed(prior: PriorParts) -> PriorParts:
    return replace(prior, network=pack(prior.network))


def _unet_packed(decoder: PixelDecoderParts) -> PixelDecoderParts:
    return replace(decoder, unet=pack(decoder.unet))


def _both(parts: UpsamplerParts) -> UpsamplerParts:
    return replace(parts, first=pack(parts.first), last=pack(parts.last))


def _class_of(folder: Path) -> object:
    """The class in a folder's index; None in one of Karlo's own files, which has none."""
    if not (folder / INDEX).is_file() and is_karlo(folder):
        return None
    return read_json(folder / INDEX).get("_class_name", "")
