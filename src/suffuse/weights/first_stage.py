"""CompVis' autoencoders, alone in a file or inside a model's: KL and VQ of every factor.

The file holds no configuration; sizes are read off the weights' shapes.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder, AutoencoderConfig, autoencoder
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import complain
from suffuse.weights.maps.ldm_vae import ldm_vae
from suffuse.weights.parts import Place, build
from suffuse.weights.tensorfile import TensorFile

INSIDE = "first_stage_model."  # its prefix in a model's file


def open_first_stage(path: str | PathLike[str], place: Place | None = None) -> Autoencoder:
    """The autoencoder of an original latent-diffusion or VQGAN file, or of a single-file model.

    Raises SuffuseError naming what is missing or unknown, or why the file is none.
    """
    file = open_tensors(Path(path).expanduser())
    below = INSIDE if any(name.startswith(INSIDE) for name in file) else ""
    if below + "quantize.embed.weight" in file:
        raise SuffuseError(f"{file.path}: Gumbel codebooks (GumbelVQ) cannot be opened yet")
    if below + "encoder.down.0.block.0.conv1.weight" not in file:
        raise SuffuseError(f"{file.path}: holds no autoencoder in the original layout")
    config = autoencoder_shape(file, below)
    return build(lambda: autoencoder(config), ldm_vae(config), file, place or Place(), below)


def autoencoder_shape(file: TensorFile, below: str) -> AutoencoderConfig:
    """The configuration of the autoencoder below a prefix. Raises SuffuseError naming a gap."""
    levels = range(count(file, below + "encoder.down."))
    codebook = below + "quantize.embedding.weight"
    config = AutoencoderConfig(
        channels=tuple(
            shape(file, f"{below}encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in levels
        ),
        blocks=count(file, below + "encoder.down.0.block."),
        latent=shape(file, below + "decoder.conv_in.weight", 4)[1],
        image=shape(file, below + "encoder.conv_in.weight", 4)[1],
        mid_attention=below + "encoder.mid.attn_1.q.weight" in file,
        quant=below + "quant_conv.weight" in file,
        codes=shape(file, codebook, 2)[0] if codebook in file else 0,
    )
    return config.attending([f"{below}encoder.down.{i}.attn.0.q.weight" in file for i in levels])


def count(file: TensorFile, below: str) -> int:
    """How many numbers, from 0 on without a gap, follow this prefix."""
    cut = len(below)
    seen = {name[cut:].split(".", 1)[0] for name in file if name.startswith(below)}
    found = 0
    while str(found) in seen:
        found += 1
    return found


def shape(file: TensorFile, name: str, dims: int) -> tuple[int, ...]:
    """The shape of a weight that must be there. Raises SuffuseError when it is another."""
    if name not in file:
        complain(file, [name], [])
    found = file.shape(name)
    if len(found) != dims:
        raise SuffuseError(f"{file.path}: {name} has {len(found)} dimensions, not {dims}")
    return found
