"""unCLIP models of this project's own making, as folders.

    model_index.json            whose CLIP and which text-to-image model they were trained with
    prior/, prior_scheduler/    the prior, as Karlo's folders have it
    image_projection/           what brings embeddings into the decoder's U-Net
    pytorch_lora_weights.safetensors    what the decoder changes of its text-to-image model
    decoder/ and others         in place of these two a decoder of pixels, see `unclip_pixel`
    suffuse.json                how they are sampled

A decoder of latents is a few megabytes beside a model that somebody has anyway, so that model is
named and not copied, and so is the CLIP, of whichever kind; hashes say whether it is the one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from suffuse.errors import SuffuseError
from suffuse.networks.families import SDConfig
from suffuse.networks.lora import Adapter
from suffuse.networks.prior import DiffusionPrior
from suffuse.networks.unclip import ImageProjection
from suffuse.weights.clip import ClipParts, open_clip_parts
from suffuse.weights.containers import open_tensors
from suffuse.weights.fields import check_class, configured, number, real
from suffuse.weights.folder import INDEX, OWN, read_json, read_own
from suffuse.weights.load import BUNDLED_NAMES, bundled, open_parts
from suffuse.weights.lora import FILES, Lora, merge_loras, save_lora
from suffuse.weights.mapping import KeyMap, Row
from suffuse.weights.maps.prior import DIFFUSERS_PRIOR
from suffuse.weights.parts import Defaults, Info, Parts, Place, build, files_of
from suffuse.weights.pixel import PixelModel
from suffuse.weights.save import replace_folder, write_component, write_json
from suffuse.weights.unclip import PixelDecoderParts, check_states, open_decoder
from suffuse.weights.unclip_config import prior_config, prior_json
from suffuse.weights.unclip_pixel import (
    DECODER,
    FOLDERS,
    PARTS,
    OwnPixelDecoder,
    open_upsamplers,
    write_pixel_decoder,
)

UNCLIP = "SuffuseUnCLIP"
OWN_NAME = "suffuse-unclip"
BUNDLED = BUNDLED_NAMES[OWN_NAME]
PRIOR, PRIOR_SCHEDULER, PROJECTION = "prior", "prior_scheduler", "image_projection"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_OURS = {INDEX, OWN, PRIOR, PRIOR_SCHEDULER, PROJECTION, FILES[0], "README.md", *FOLDERS}
_PLAIN = KeyMap(tuple(Row(name, name) for name in ("null", "vector.*", "tokens.*", "tokens.{i}.*")))


@dataclass(frozen=True)
class Named:
    """A model that another was trained with.

    source: what it was opened by; None for the bundled one
    hash: of its weights
    """

    source: str | None
    hash: str | None

    def check(self, info: Info, where: Path, what: str) -> None:
        """Raises SuffuseError where the model that was opened is another one."""
        if self.hash is not None and info.hash() != self.hash:
            raise SuffuseError(
                f"{where}: was trained with the {what} {self.hash[:10]}, and "
                f"{self.source or 'the bundled one'} is {(info.hash() or 'unknown')[:10]}"
            )


@dataclass(frozen=True)
class PriorUse:
    """How a prior is sampled where nothing else is asked for."""

    steps: int = 25
    guidance: float = 2.0
    draws: int = 2  # of which the nearest to the text is kept


@dataclass(frozen=True, eq=False)
class OwnPrior:
    network: DiffusionPrior
    scheduler: Mapping[str, Any]
    use: PriorUse = PriorUse()


@dataclass(frozen=True, eq=False)
class OwnDecoder:
    """steps, guidance: recommended"""

    projection: ImageProjection
    adapter: Adapter
    base: Named
    config: SDConfig  # of the base's U-Net
    steps: int = 20
    guidance: float = 3.0


def save_unclip(
    folder: Path,
    clip: Named,
    prior: OwnPrior | None = None,
    decoder: OwnDecoder | OwnPixelDecoder | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a folder that `open_own` opens, with a prior, a decoder, or both.

    An earlier one in `folder` is replaced once the new one is complete. Raises SuffuseError when
    `folder` cannot be written or holds something else.
    """

    def fill(fresh: Path) -> None:
        index: dict[str, Any] = {"_class_name": UNCLIP, "clip": asdict(clip)}
        own: dict[str, Any] = {}
        if prior is not None:
            index["prior"] = ["diffusers", "PriorTransformer"]
            own["prior"] = asdict(prior.use)
            config = prior_json(prior.network.config)
            write_component(fresh / PRIOR, config, prior.network, DIFFUSERS_PRIOR, dtype)
            write_json(fresh / PRIOR_SCHEDULER / "scheduler_config.json", prior.scheduler)
        if decoder is not None:
            own |= {"steps": decoder.steps, "guidance": decoder.guidance}
        if isinstance(decoder, OwnPixelDecoder):
            index |= PARTS
            own |= {"upsamplers": len(decoder.upsamplers)} if decoder.upsamplers else {}
            write_pixel_decoder(fresh, decoder, dtype)
        elif decoder is not None:
            index["base"] = asdict(decoder.base)
            config = projection_json(decoder.projection)
            write_component(fresh / PROJECTION, config, decoder.projection, _PLAIN, dtype)
            lora = Lora(unet=decoder.adapter)
            save_lora(lora, fresh / FILES[0], decoder.config, dtype=dtype)
        write_json(fresh / OWN, own)
        write_json(fresh / INDEX, index)

    replace_folder(folder, fill, _OURS)


def projection_json(p: ImageProjection) -> dict[str, Any]:
    return {
        "_class_name": "ImageProjection",
        "embedding": p.embedding,
        "context": p.context,
        "time": p.time,
        "tokens": p.count,
        "scale": p.scale,
        "hidden": p.hidden,
    }


def open_projection(folder: Path, place: Place) -> ImageProjection:
    """Raises SuffuseError naming what is missing or unknown."""
    raw, where = read_json(folder / "config.json"), str(folder / "config.json")
    needed = ("embedding", "context", "time", "tokens")
    sizes: dict[str, Any] = {name: number(raw, name, 0, where) for name in needed}
    sizes["hidden"] = None if raw.get("hidden") is None else number(raw, "hidden", 0, where)
    sizes["scale"] = real(raw, "scale", 0, where)
    make = lambda: ImageProjection(**sizes)  # noqa: E731
    return build(make, _PLAIN, open_tensors(folder / _WEIGHTS), place)


def open_own_prior(folder: Path, place: Place) -> OwnPrior:
    """The prior of such a folder. Raises SuffuseError naming what is missing or unknown."""
    where = folder / PRIOR / "config.json"
    if not where.is_file():
        raise SuffuseError(f"{folder}: has no prior: name a folder that `train prior` made")
    config = prior_config(read_json(where), str(where))
    weights = open_tensors(folder / PRIOR / _WEIGHTS)
    network = build(lambda: DiffusionPrior(config), DIFFUSERS_PRIOR, weights, place)
    use = configured(PriorUse(), read_own(folder).prior, f"{folder / OWN}: prior")
    scheduler = read_json(folder / PRIOR_SCHEDULER / "scheduler_config.json")
    return OwnPrior(network, scheduler, use)


@dataclass(frozen=True, eq=False)
class LatentDecoderParts:
    """base: the text-to-image model, its U-Net already changed to be the decoder"""

    base: Parts
    projection: ImageProjection


@dataclass(frozen=True, eq=False)
class OwnParts:
    """A whole model: its networks are in evaluation mode."""

    clip: ClipParts
    decoder: LatentDecoderParts | PixelDecoderParts
    upsamplers: tuple[PixelModel[Any], ...]
    prior: OwnPrior | None
    info: Info
    defaults: Defaults


def bundled_unclip() -> Path:
    """The folder of the unCLIP inside the package. Raises SuffuseError when it was left out."""
    if not (BUNDLED / INDEX).is_file():
        raise SuffuseError("this installation has no bundled unCLIP: name an unCLIP's folder")
    return BUNDLED


def open_own(folder: Path, place: Place, name: str | None = None) -> OwnParts:
    """Such a folder with the models that it was trained with.

    Raises SuffuseError where one of them is another by now, and for a folder without decoder.
    """
    if not any((folder / part).is_dir() for part in (PROJECTION, DECODER)):
        raise SuffuseError(f"{folder}: has a prior alone, and so draws nothing: train a decoder")
    clip = open_own_clip(folder, place)
    decoder: LatentDecoderParts | PixelDecoderParts
    if (folder / DECODER).is_dir():
        decoder, weights = open_decoder(folder, place)
        check_states(decoder.projection, clip.model.text, str(folder))
        files = files_of(weights)
    else:
        decoder = _latent(folder, place)
        files = (folder / PROJECTION / _WEIGHTS, folder / FILES[0])
    own = read_own(folder)
    return OwnParts(
        clip,
        decoder,
        open_upsamplers(folder, own.upsamplers, place),
        open_own_prior(folder, place) if (folder / PRIOR).is_dir() else None,
        Info(name or folder.resolve().name, "Suffuse folder", folder, files),
        own.defaults,
    )


def _latent(folder: Path, place: Place) -> LatentDecoderParts:
    drawing = named_in(index_of(folder), "base", folder)
    source = drawing.source or bundled()  # whatever SUFFUSE_MODEL says
    base = open_parts(source, device=place.device, dtype=place.dtype)
    drawing.check(base.info, folder, "text-to-image model")
    merge_loras(base, [(folder / FILES[0], 1.0)])
    return LatentDecoderParts(base, open_projection(folder / PROJECTION, place))


def open_own_clip(folder: Path, place: Place) -> ClipParts:
    """The CLIP that such a folder was trained with. Raises SuffuseError where it is another now."""
    named = named_in(index_of(folder), "clip", folder)
    clip = open_clip_parts(named.source, device=place.device, dtype=place.dtype)
    named.check(clip.info, folder, "CLIP")
    return clip


def index_of(folder: Path) -> Mapping[str, Any]:
    """The `model_index.json` of such a folder. Raises SuffuseError where it is none."""
    raw = read_json(folder / INDEX)
    check_class(raw, "_class_name", (UNCLIP,), str(folder / INDEX))
    return raw


def named(source: str | None, info: Info) -> Named:
    """A model as a folder names it: a path as it is from anywhere, a Hub's name as it is."""
    path = None if source is None else Path(source).expanduser()
    return Named(str(path.resolve()) if path is not None and path.exists() else source, info.hash())


def named_in(index: Mapping[str, Any], which: str, where: Path) -> Named:
    """The model that the index says a folder was trained with. Raises SuffuseError."""
    raw = index.get(which)
    told = raw if isinstance(raw, dict) else {}
    texts = (value is None or isinstance(value, str) for value in told.values())
    if set(told) != {"source", "hash"} or not all(texts):
        raise SuffuseError(f"{where}: does not say with which {which} it was trained")
    return Named(told["source"], told["hash"])
