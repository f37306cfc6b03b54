"""unCLIP's parts from diffusers folders: Karlo's, and the prior of Kandinsky 2.2.

UnCLIPPipeline draws from text, UnCLIPImageVariationPipeline from a picture, and
KandinskyV22PriorPipeline makes embeddings alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText
from suffuse.networks.clip_resnet import ClipResNet
from suffuse.networks.clip_vision import ClipVision
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.prior import DiffusionPrior
from suffuse.networks.unclip import TextProjection
from suffuse.networks.unet import UNet
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.weights.clip import open_clip_image
from suffuse.weights.clip_input import ClipInput
from suffuse.weights.containers import find_weights, open_tensors
from suffuse.weights.fields import Json, check_class, number, real
from suffuse.weights.folder import INDEX, open_text, read_json
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_KARLO
from suffuse.weights.maps.prior import DIFFUSERS_PRIOR, text_projection
from suffuse.weights.parts import Hints, Info, Place, build, files_of, precision
from suffuse.weights.scheduler import Sampling, from_config
from suffuse.weights.tensorfile import TensorFile
from suffuse.weights.unclip_config import decoder_config, prior_config, upsampler_config

KARLO = ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")
KANDINSKY_PRIOR = "KandinskyV22PriorPipeline"
_SCHEDULER = "scheduler_config.json"


@dataclass(frozen=True, eq=False)
class Towers:
    """A CLIP's towers as unCLIP uses them; of what is not there the two fields are None.

    unit: whether embeddings are brought to length 1, or left as the towers make them
    """

    text: ClipText | None = None
    tokenizer: Tokenizer | None = None
    image: ClipVision | ClipResNet | None = None
    prepare: ClipInput | None = None
    unit: bool = False

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        tower = self.image if self.text is None else self.text
        assert tower is not None and tower.config.projection is not None  # one of a CLIP
        return tower.config.projection


@dataclass(frozen=True, eq=False)
class PriorParts:
    """A prior, and how it is sampled: as Karlo's pipeline does unless told."""

    network: DiffusionPrior
    sampling: Sampling
    steps: int = 25
    guidance: float = 4.0
    draws: int = 1  # of which the nearest to the text is kept

    def __post_init__(self) -> None:
        if self.draws < 1 or self.steps < 1:
            raise SuffuseError("a prior needs at least one draw of at least one step")


@dataclass(frozen=True, eq=False)
class PixelDecoderParts:
    """Karlo's decoder: a U-Net over pixels, and what brings embeddings and captions into it."""

    unet: UNet
    config: ADMConfig
    projection: TextProjection
    sampling: Sampling
    size: tuple[int, int]  # height and width, pixels


@dataclass(frozen=True, eq=False)
class UpsamplerParts:
    """Two networks that enlarge: `last` takes the last step, `first` all others."""

    first: UNet
    last: UNet
    sampling: Sampling
    size: tuple[int, int]  # height and width that they enlarge to, pixels
    steps: int = 7


@dataclass(frozen=True, eq=False)
class KarloParts:
    """A Karlo taken apart; its networks are in evaluation mode.

    Raises SuffuseError when the parts do not fit together.
    """

    towers: Towers
    prior: PriorParts | None
    decoder: PixelDecoderParts
    upsampler: UpsamplerParts | None
    info: Info

    def __post_init__(self) -> None:
        widths = {"decoder": self.decoder.projection.image.embedding}
        check_widths(self.towers, self.prior, widths, str(self.info.path))
        check_states(self.decoder.projection, self.towers.text, str(self.info.path))


def check_states(projection: TextProjection, text: ClipText | None, where: str) -> None:
    """Raises SuffuseError where a decoder and a text tower are made for other captions."""
    reads = projection.states.in_features
    if text is not None and text.config.width != reads:
        raise SuffuseError(
            f"{where}: the decoder reads captions of {reads} numbers a token, the text encoder "
            f"makes {text.config.width}"
        )


def check_widths(
    towers: Towers, prior: PriorParts | None, others: dict[str, int], where: str
) -> None:
    """Raises SuffuseError where parts work with embeddings of different widths, or a prior and a
    text tower with other captions."""
    named = {"text encoder": towers.text, "image encoder": towers.image}
    found = {part: tower.config.projection for part, tower in named.items() if tower is not None}
    widths: dict[str, int | None] = {**found, **others}
    if prior is not None:
        widths["prior"] = prior.network.config.embedding
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{part} {width}" for part, width in widths.items())
        raise SuffuseError(f"{where}: its parts are of different CLIPs, by embedding width: {told}")
    if prior is None or towers.text is None or towers.tokenizer is None:
        return
    config, made = prior.network.config, (towers.tokenizer.window, towers.text.config.width)
    wanted = (config.tokens, config.states or config.embedding)
    if wanted != made:
        raise SuffuseError(
            f"{where}: the prior reads captions of {wanted[0]} tokens of {wanted[1]} numbers, the "
            f"text encoder makes {made[0]} of {made[1]}"
        )


# ---- folders -------------------------------------------------------------------------------------


def open_karlo(folder: Path, place: Place, name: str | None = None) -> KarloParts:
    """The parts of a Karlo folder; `name` where the folder's own says nothing.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    check_class(read_json(folder / INDEX), "_class_name", KARLO, str(folder / INDEX))
    decoder, file = open_decoder(folder, place)
    prior = open_prior(folder, place) if (folder / "prior").is_dir() else None
    info = Info(name or folder.resolve().name, "diffusers folder", folder, files_of(file))
    return KarloParts(open_towers(folder, place), prior, decoder, _upsampler(folder, place), info)


def open_prior(folder: Path, place: Place, scheduler: str = "prior_scheduler") -> PriorParts:
    """The prior in `prior/` of a folder, and how its scheduler samples it."""
    raw, where, file = _component(folder / "prior", place)
    config = prior_config(raw, where)
    network = build(lambda: DiffusionPrior(config), DIFFUSERS_PRIOR, file, place)
    return PriorParts(network, open_sampling(folder / scheduler))


def open_towers(folder: Path, place: Place, prefix: str = "") -> Towers:
    """The towers of a pipeline's folder: text encoder, tokenizer, and image encoder if it has one.

    prefix: of the first two folders' names. Raises SuffuseError for a text encoder that makes no
    embedding.
    """
    home = folder / f"{prefix}text_encoder"
    text = open_text(home, Hints(), place)
    if text.config.projection is None:
        raise SuffuseError(f"{home}: makes no embedding of a text")
    towers = Towers(text, load_tokenizer(folder / f"{prefix}tokenizer"))
    if not (folder / "image_encoder").is_dir():
        return towers
    image, prepare = open_image_tower(folder, place)
    return replace(towers, image=image, prepare=prepare)


def open_image_tower(folder: Path, place: Place) -> tuple[ClipVision, ClipInput]:
    """The picture tower of a pipeline's folder, and how pictures are prepared for it."""
    image = open_clip_image(folder / "image_encoder", device=place.device, dtype=place.dtype)
    homes = (folder / "feature_extractor", folder / "image_processor")
    home = next((home for home in homes if home.is_dir()), homes[0])
    prepare = ClipInput.load(home, image.config.image)
    if prepare.crop != image.config.image:
        raise SuffuseError(
            f"{home}: prepares pictures of {prepare.crop} pixels, the image encoder takes "
            f"{image.config.image}"
        )
    return image, prepare


def open_kandinsky_prior(folder: Path, place: Place) -> tuple[Towers, PriorParts]:
    """Towers and prior of a Kandinsky 2.2 prior's folder. Raises SuffuseError."""
    where = str(folder / INDEX)
    check_class(read_json(folder / INDEX), "_class_name", (KANDINSKY_PRIOR,), where)
    towers, prior = open_towers(folder, place), open_prior(folder, place, "scheduler")
    check_widths(towers, prior, {}, str(folder))
    return towers, prior


def open_sampling(folder: Path) -> Sampling:
    """What a scheduler's folder means. Raises SuffuseError naming the file."""
    try:
        return from_config(read_json(folder / _SCHEDULER))
    except SuffuseError as problem:
        if str(problem).startswith(str(folder)):
            raise
        raise SuffuseError(f"{folder / _SCHEDULER}: {problem}") from None


def open_decoder(folder: Path, place: Place) -> tuple[PixelDecoderParts, TensorFile]:
    """The decoder of a folder, Karlo's or ours, and the file of its U-Net. Raises SuffuseError."""
    raw, where, file = _component(folder / "decoder", place)
    config, size = decoder_config(raw, where), number(raw, "sample_size", 64, where)
    sampling = open_sampling(folder / "decoder_scheduler")
    made = config.in_channels * (2 if sampling.learned_var else 1)
    if config.out_channels != made:
        raise SuffuseError(
            f"{where}: out_channels is {config.out_channels}, for its scheduler it must be {made}"
        )
    unet = build(lambda: adm(config), DIFFUSERS_KARLO, file, place)
    projection = _projection(folder / "text_proj", config, place)
    return PixelDecoderParts(unet, config, projection, sampling, (size, size)), file


def _projection(folder: Path, decoder: ADMConfig, place: Place) -> TextProjection:
    raw, where, file = _component(folder, place)
    check_class(raw, "_class_name", ("UnCLIPTextProjModel",), where)
    embedding = number(raw, "clip_embeddings_dim", 768, where)
    tokens = number(raw, "clip_extra_context_tokens", 4, where)
    context, time = (number(raw, n, 1, where) for n in ("cross_attention_dim", "time_embed_dim"))
    if (context, time) != (decoder.context, decoder.embedding):
        raise SuffuseError(
            f"{where}: makes tokens of {context} numbers and a vector of {time}, the decoder reads "
            f"{decoder.context} and {decoder.embedding}"
        )
    # What UnCLIPTextProjModel has no field for, as in our priors.
    states = number(raw, "suffuse_states", embedding, where)
    scale = real(raw, "suffuse_scale", 1.0, where)
    made = lambda: TextProjection(embedding, context, time, tokens, states, scale)  # noqa: E731
    return build(made, text_projection(tokens), file, place)


def _upsampler(folder: Path, place: Place) -> UpsamplerParts | None:
    """The upsampler of a folder, None where it has none."""
    if not (folder / "super_res_first").is_dir():
        return None
    nets, sizes = [], set()
    for name in ("super_res_first", "super_res_last"):
        raw, where, file = _component(folder / name, place)
        config = upsampler_config(raw, where)
        if (config.in_channels, config.out_channels) != (6, 3):
            raise SuffuseError(
                f"{where}: takes {config.in_channels} channels and makes {config.out_channels}; an "
                "upsampler takes 6, x and the low resolution, and makes 3"
            )
        sizes.add(number(raw, "sample_size", 256, where))
        nets.append(_net(config, file, place))
    if len(sizes) > 1:
        raise SuffuseError(f"{folder}: its two upsamplers enlarge to different sizes, {sizes}")
    side = sizes.pop()
    sampling = open_sampling(folder / "super_res_scheduler")
    return UpsamplerParts(nets[0], nets[1], sampling, (side, side))


def _net(config: ADMConfig, file: TensorFile, place: Place) -> UNet:
    return build(lambda: adm(config), DIFFUSERS_KARLO, file, place)


def _component(folder: Path, place: Place) -> tuple[Json, str, TensorFile]:
    """Configuration, its file's name for messages, and weights of a component."""
    where = folder / "config.json"
    raw: dict[str, Any] = read_json(where)
    return raw, str(where), open_tensors(find_weights(folder, variant=precision(place)))
