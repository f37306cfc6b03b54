"""OpenAI's `.pt` files: improved DDPM, ADM, their upsamplers, and noisy classifiers.

A file is a bare dictionary of weights. Sizes are read off their shapes; heads and the order of q, k
and v are those of the published model with these shapes, or must be told (`Heads`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.classifier import Classifier, ClassifierConfig, Pooling, classifier
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.unet import UNet
from suffuse.weights.adm_presets import published, scheduler
from suffuse.weights.containers import open_tensors
from suffuse.weights.first_stage import count, shape
from suffuse.weights.maps.adm import adm_classifier, adm_unet
from suffuse.weights.parts import Defaults, Info, Place, build, files_of
from suffuse.weights.pixel import PixelModel, check_groups
from suffuse.weights.tensorfile import TensorFile

HEAD_WIDTH = 64  # guided-diffusion's classifiers have no other
UPSAMPLES = 6  # channels in: x, and beside it the picture that is enlarged
STEPS = 250  # that guided-diffusion's README samples with


@dataclass(frozen=True)
class Heads:
    """How attention is divided, as guided-diffusion's flags say it.

    `count` heads at every level (`up_count` on the way up), or as many as are `width` channels
    wide. `new_order`: q, k and v stand before the heads in the file. Raises SuffuseError for both,
    or neither, of count and width.
    """

    count: int | None = None  # num_heads
    width: int | None = None  # num_head_channels
    up_count: int | None = None  # num_heads_upsample
    new_order: bool = False  # use_new_attention_order

    def __post_init__(self) -> None:
        if (self.count is None) == (self.width is None):
            raise SuffuseError("heads: give either their count or their width")

    def divide(self, config: ADMConfig, where: str) -> ADMConfig:
        """The configuration with these heads. Raises SuffuseError where they do not divide."""

        def heads(count: int | None) -> tuple[int, ...]:
            if count is not None:
                return (count,) * len(config.channels)
            return tuple(max(1, n // (self.width or n)) for n in config.channels)

        up = None if self.up_count is None else heads(self.up_count)
        made = replace(config, heads=heads(self.count), up_heads=up)
        attends = (*made.attends[:-1], True)  # the middle has the last level's
        for counts in (made.heads, up or made.heads):
            for n, has, here in zip(made.channels, attends, counts):
                if has and (here < 1 or n % here or (self.width and n % self.width)):
                    heads_said = f"heads of {self.width}" if self.width else f"{here} heads"
                    raise SuffuseError(f"{where}: {n} channels do not divide into {heads_said}")
        return made


def open_adm(
    path: str | PathLike[str], heads: Heads | None = None, place: Place | None = None
) -> PixelModel[UNet]:
    """The U-Net of a guided-diffusion or improved-diffusion file, upsamplers among them.

    Its schedule and its size are those of the published model with these shapes; any other is
    taken for one of the usual schedule, a thousand linear steps, and of unknown size.

    Raises SuffuseError naming what is missing or unknown, for a file that is none, and where heads
    are neither told nor known.
    """
    file = open_tensors(Path(path).expanduser())
    if "output_blocks.0.0.in_layers.0.weight" not in file:
        what = "a classifier" if "out.0.weight" in file else "no network of guided-diffusion"
        raise SuffuseError(f"{file.path}: is {what}, not a diffusion model")
    config = unet_shape(file)
    known = published(config)
    pixels = config.in_channels if config.in_channels != UPSAMPLES else UPSAMPLES // 2
    if heads is not None:
        config, new_order = heads.divide(config, str(file.path)), heads.new_order
    elif known is not None:
        scale = 1000 / known.steps if known.rescaled else 1.0
        config, new_order = replace(known.config, label_scale=scale), known.new_order
    else:
        raise SuffuseError(
            f"{file.path}: has the shapes of no published model, and a file does not say how many "
            "heads its attention has: give their count or their width"
        )
    return PixelModel(
        unet=build(lambda: adm(config), adm_unet(config, new_order), file, place or Place()),
        config=config,
        info=Info(file.path.stem, "guided-diffusion", file.path, files_of(file)),
        published=known.names[0] if known else None,
        scheduler=scheduler(known, learned=config.out_channels == 2 * pixels),
        size=(known.size, known.size) if known else None,
        classes=tuple(map(str, range(config.classes))),  # names are not in the file
        defaults=Defaults(steps=STEPS),
    )


def open_classifier(
    path: str | PathLike[str], heads: Heads | None = None, place: Place | None = None
) -> tuple[Classifier, ClassifierConfig]:
    """The classifier of a guided-diffusion file; heads are 64 channels wide unless told.

    Raises SuffuseError naming what is missing or unknown, or why the file is none.
    """
    file = open_tensors(Path(path).expanduser())
    if "output_blocks.0.0.in_layers.0.weight" in file or "out.0.weight" not in file:
        what = "a diffusion model" if "out.2.weight" in file else "no network of guided-diffusion"
        raise SuffuseError(f"{file.path}: is {what}, not a classifier")
    heads = heads or Heads(width=HEAD_WIDTH)
    config = classifier_shape(file)
    net = heads.divide(config.net, str(file.path))
    config = replace(config, net=net, pool_heads=net.heads[-1])
    keys = adm_classifier(config, heads.new_order)
    return build(lambda: classifier(config), keys, file, place or Place()), config


def published_as(file: TensorFile) -> str:
    """The published files that have a file's shapes, for people."""
    try:
        row = published(unet_shape(file))
    except SuffuseError:
        row = None
    return ", ".join(row.names) if row else "no: its heads must be told"


# ---- shapes ------------------------------------------------------------------------------------


def unet_shape(file: TensorFile) -> ADMConfig:
    """The U-Net's configuration but for its heads. Raises SuffuseError naming a gap."""
    blocks, ends = count(file, "output_blocks."), []
    for i in range(blocks):
        last = f"output_blocks.{i}.{count(file, f'output_blocks.{i}.') - 1}."
        grows = last + "conv.weight" in file
        if grows or (not last.endswith(".0.") and last + "in_layers.0.weight" in file):
            ends.append(i + 1)
    levels = len(ends) + 1
    n = blocks // levels - 1
    sound = ends == [(n + 1) * i for i in range(1, levels)] and blocks == (n + 1) * levels
    if n < 1 or not sound or count(file, "input_blocks.") != blocks:
        raise SuffuseError(
            f"{file.path}: its {blocks} output blocks do not fall into levels of equal length"
        )
    classes = "label_emb.weight"
    return replace(
        _way_down(file, levels, n),
        out_channels=shape(file, "out.2.weight", 4)[0],
        classes=shape(file, classes, 2)[0] if classes in file else 0,
    )


def classifier_shape(file: TensorFile) -> ClassifierConfig:
    """The classifier's configuration but for its heads. Raises SuffuseError naming a gap."""
    blocks = count(file, "input_blocks.")
    n = _blocks_a_level(file, blocks)
    if n < 1 or blocks % (n + 1):
        raise SuffuseError(
            f"{file.path}: its {blocks} input blocks do not fall into levels of equal length"
        )
    levels = blocks // (n + 1)
    pool, out, size = _pool(file)
    net = replace(_way_down(file, levels, n), out_channels=file.shape(out)[0], classes=0)
    return ClassifierConfig(net, pool, size << (levels - 1))


def _blocks_a_level(file: TensorFile, blocks: int) -> int:
    """How many residual blocks a level has on the way down.

    Changes of resolution have no attention, so it is the longest run of blocks that have it; where
    convolutions change it, or where there is none, it is what lies before the first.
    """
    run = longest = 0
    for i in range(1, blocks):
        if f"input_blocks.{i}.0.op.weight" in file:
            return i - 1
        run = run + 1 if f"input_blocks.{i}.1.qkv.weight" in file else 0
        longest = max(longest, run)
    return longest


def _pool(file: TensorFile) -> tuple[Pooling, str, int]:
    """The kind of pooling, its last weight, and the side of the pictures that it sees."""
    if "out.2.positional_embedding" in file:
        places = shape(file, "out.2.positional_embedding", 2)[1]
        return "attention", "out.2.c_proj.weight", round((places - 1) ** 0.5)
    if "out.1.weight" in file:
        return "spatial_v2", "out.3.weight", 0
    if "out.3.weight" in file:
        return "adaptive", "out.3.weight", 0
    shape(file, "out.2.weight", 2)
    return "spatial", "out.2.weight", 0


def _way_down(file: TensorFile, levels: int, n: int) -> ADMConfig:
    """What U-Net and classifier have in common."""
    first = [f"input_blocks.{1 + (n + 1) * i}" for i in range(levels)]
    channels = tuple(shape(file, at + ".0.out_layers.3.weight", 4)[0] for at in first)
    check_groups(channels, 32, str(file.path))
    return ADMConfig(
        in_channels=shape(file, "input_blocks.0.0.weight", 4)[1],
        width=shape(file, "time_embed.0.weight", 2)[1],
        channels=channels,
        blocks=n,
        attends=tuple(at + ".1.qkv.weight" in file for at in first),
        heads=(),
        scale_shift=shape(file, first[0] + ".0.emb_layers.1.weight", 2)[0] != channels[0],
        res_resample=f"input_blocks.{n + 1}.0.op.weight" not in file,
    )
