"""Opening unCLIP models: the bundled one and others of our making, Karlo's and their kin."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch

from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.systems import latent
from suffuse.systems.latent import LatentDiffusion, choose_device, choose_dtype
from suffuse.systems.unclip import UnCLIP
from suffuse.systems.unclip_decoder import LatentDecoder, PixelDecoder
from suffuse.systems.unclip_door import NoisedEmbedding
from suffuse.systems.unclip_prior import Embedder, Prior
from suffuse.systems.unclip_upsampler import Upsampler
from suffuse.weights.clip import open_clip_parts
from suffuse.weights.folder import INDEX, read_json, read_own
from suffuse.weights.load import bundled, locate_source
from suffuse.weights.lora import FILES as LORA_FILES
from suffuse.weights.parts import Defaults, Info, Place
from suffuse.weights.stable_unclip import STABLE, StableUnclipParts, open_stable_unclip
from suffuse.weights.tensorfile import show
from suffuse.weights.unclip import (
    KANDINSKY_PRIOR,
    KARLO,
    KarloParts,
    PriorParts,
    Towers,
    UpsamplerParts,
    check_widths,
    open_kandinsky_prior,
    open_karlo,
    open_sampling,
)
from suffuse.weights.unclip_own import (
    PRIOR,
    PRIOR_SCHEDULER,
    PROJECTION,
    UNCLIP,
    index_of,
    named_in,
    open_own_prior,
    open_projection,
)

BUNDLED = Path(__file__).resolve().parents[1] / "models" / "unclip"
OWN_NAME = "suffuse-unclip"

STABLE_STEPS, STABLE_GUIDANCE = 20, 10.0  # diffusers', where nothing else is recommended
PIPELINES = (
    UNCLIP,
    *KARLO,
    *STABLE,
    KANDINSKY_PRIOR,
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
    """Opens an unCLIP: the bundled one without a source, a folder, a Hub name.

    `device` and `dtype` are as for `load`. `noise_level`: how much noise stable unCLIP adds to
    embeddings, of a thousand; more makes freer variations. Raises SuffuseError.
    """
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    return open_unclip(_located(source, place), place, noise_level)


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
    folder = _located(source, place)
    name = _class_of(folder)
    if name == KANDINSKY_PRIOR:
        towers, prior = open_kandinsky_prior(folder, place)
        return Prior(_packed(prior), Embedder(towers))
    found = own_prior(folder, place) if name == UNCLIP else open_unclip(folder, place).prior
    if found is None:
        raise SuffuseError(f"{folder}: has no prior")
    return found


def _located(source: str | PathLike[str] | None, place: Place) -> Path:
    if source is not None:
        return locate_source(source, place)[0]
    if not (BUNDLED / INDEX).is_file():
        raise SuffuseError("this installation has no bundled unCLIP: name a model folder")
    return BUNDLED


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
    if noise_level:
        raise SuffuseError(f"{folder}: noise_level is for stable unCLIP, which this is not")
    if name == UNCLIP:
        return own_unclip(folder, place)
    if name not in KARLO:
        raise SuffuseError(f"{folder}: {show(name)} is no unCLIP, which are {', '.join(PIPELINES)}")
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


def own_prior(folder: Path, place: Place) -> Prior | None:
    """The prior of a folder of our making, None where it has none. Raises SuffuseError."""
    return _own_prior(folder, place, Embedder(own_towers(folder, place)))


def own_unclip(folder: Path, place: Place) -> UnCLIP:
    """The system of such a folder, with the models that it was trained with. Raises SuffuseError,
    also where these are not those any more."""
    index = index_of(folder)
    if "base" not in index:
        raise SuffuseError(f"{folder}: has no decoder, so it draws nothing: suffuse train decoder")
    base = named_in(index, "base", folder / INDEX)
    changes = folder / LORA_FILES[0]
    source = base.source or bundled()
    model = latent.load(source, str(place.device), place.dtype, loras=[str(changes)])
    base.check(model.info, folder, "text-to-image model")
    projection = open_projection(folder / PROJECTION, place)
    embedder = Embedder(own_towers(folder, place))
    prior = _own_prior(folder, place, embedder)
    widths = {"decoder": projection.embedding}
    check_widths(embedder.towers, None if prior is None else prior.parts, widths, str(folder))
    return UnCLIP(
        embedder,
        LatentDecoder(model, projection),
        prior,
        info=Info(_name(folder), "model folder", folder, (changes,)),
        defaults=read_own(folder).defaults,
    )


def own_towers(folder: Path, place: Place) -> Towers:
    """The CLIP that a folder of our making was trained with. Raises SuffuseError."""
    clip = named_in(index_of(folder), "clip", folder / INDEX)
    parts = open_clip_parts(clip.source, device=place.device, dtype=place.dtype)
    clip.check(parts.info, folder, "CLIP")
    model = parts.model
    return Towers(model.text, parts.tokenizer, model.image, parts.prepare, unit=True)


def _own_prior(folder: Path, place: Place, embedder: Embedder) -> Prior | None:
    if not (folder / PRIOR).is_dir():
        return None
    found = open_own_prior(folder, place)
    use, sampling = found.use, open_sampling(folder / PRIOR_SCHEDULER)
    parts = PriorParts(found.network, sampling, use.steps, use.guidance, use.draws)
    return Prior(_packed(parts), embedder)


def _name(folder: Path) -> str:
    return OWN_NAME if folder == BUNDLED else folder.resolve().name


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


def _packed(prior: PriorParts) -> PriorParts:
    return replace(prior, network=pack(prior.network))


def _both(parts: UpsamplerParts) -> UpsamplerParts:
    return replace(parts, first=pack(parts.first), last=pack(parts.last))


def _class_of(folder: Path) -> object:
    return read_json(folder / INDEX).get("_class_name")
