"""Decoders: what image embeddings do to a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

import suffuse
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.guidance import bind
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS, ddim_reverse
from suffuse.errors import SuffuseError
from suffuse.networks.unclip import ImageProjection
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.unclip_decoder import Decoder, LatentDecoder
from suffuse.systems.unclip_door import joined


@pytest.fixture(scope="module")
def bundled() -> LatentDiffusion:
    return suffuse.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def decoder(bundled: LatentDiffusion) -> LatentDecoder:
    torch.manual_seed(0)
    config = bundled.parts.unet_config
    projection = ImageProjection(16, config.context, config.embedding)
    torch.nn.init.normal_(projection.vector.weight)
    torch.nn.init.normal_(projection.tokens.weight)
    return LatentDecoder(bundled, projection.requires_grad_(False))


def drawn(decoder: Decoder, z: Tensor, texts: list[str], guidance: float) -> Tensor:
    grid, shape = decoder.grid(3), decoder.shape
    noise = Noise([7] * len(z), shape)
    denoiser = decoder.denoiser(z, texts, guidance)
    with torch.inference_mode():
        *_, last = SAMPLERS["ddim"](denoiser, noise(), grid, noise)
    return last.x


def test_embeddings_and_captions_both_matter(decoder: LatentDecoder) -> None:
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    texts = ["a red apple", ""]
    both = drawn(decoder, z, texts, 2.0)
    assert both.shape == (2, *decoder.shape)
    alone = [
        drawn(decoder, z[i : i + 1], [text], 2.0) for i, text in enumerate(("a red apple", ""))
    ]
    assert torch.allclose(both, torch.cat(alone), atol=1e-4)
    other = drawn(decoder, z[:1], ["a blue cup"], 2.0)
    swapped = drawn(decoder, z[1:], ["a red apple"], 2.0)
    assert (other - both[:1]).abs().max() > 1e-2
    assert (swapped - both[:1]).abs().max() > 1e-2


def test_what_is_absent_is_not_attended_to() -> None:
    words, tokens = Cond(tokens=torch.ones(3, 4, 8)), torch.ones(3, 2, 8)
    said, seen = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    found = joined(words, (tokens, torch.zeros(3, 5)), said, seen)
    assert found.mask is not None
    assert found.mask.tolist() == [[True] * 6, [False] * 4 + [True] * 2, [True] * 4 + [False] * 2]


def test_without_an_embedding_it_is_the_model_itself(decoder: LatentDecoder) -> None:
    """Guided by 0 there is only what stands for nothing, whatever the embedding."""
    silent = replace(decoder, projection=_silent(decoder.projection))
    got = drawn(silent, torch.randn(1, 16), [""], 0.0)
    parts = decoder.model.parts
    raw = bind(parts.unet, TextEncoder(parts.tokenizer, parts.text).encode([""]))
    grid, noise = decoder.grid(3), Noise([7], decoder.shape)
    denoiser = parts.sampling.bound(predict(raw, parts.sampling.kind))
    with torch.inference_mode():
        *_, last = SAMPLERS["ddim"](denoiser, noise(), grid, noise)
    assert torch.allclose(got, last.x, atol=1e-4)


def _silent(projection: ImageProjection) -> ImageProjection:
    """One whose vector is zero for no embedding."""
    made = ImageProjection(16, projection.context, projection.time)
    return made.requires_grad_(False)


def test_a_picture_becomes_x0_and_comes_back(decoder: LatentDecoder) -> None:
    assert decoder.size == (128, 128)
    picture = Image.linear_gradient("L").resize((300, 200)).convert("RGBA")
    x0 = decoder.encode(picture)
    assert x0.shape == (1, *decoder.shape)
    assert torch.equal(x0, decoder.encode(picture))
    back = decoder.picture(x0)
    assert back.size == decoder.size
    assert abs(back.convert("L").getpixel((64, 100)) - 200) < 40


def test_the_grid_leads_to_noise_and_back(decoder: LatentDecoder) -> None:
    grid = decoder.grid(5)
    assert grid.label.tolist() == [999, 749, 500, 250, 0]
    x0 = torch.randn(1, *decoder.shape, generator=torch.Generator().manual_seed(2))
    denoiser = decoder.denoiser(torch.zeros(1, 16), [""], 1.0)

    def steps() -> Iterator[Tensor]:
        with torch.inference_mode():
            yield from (step.x for step in ddim_reverse(denoiser, x0, grid))

    assert [x.shape for x in steps()] == [x0.shape] * 4


def test_what_does_not_fit_is_refused(bundled: LatentDiffusion, decoder: LatentDecoder) -> None:
    with pytest.raises(SuffuseError, match="of 16 numbers, not 20"):
        decoder.denoiser(torch.zeros(1, 20), [""], 1.0)
    with pytest.raises(SuffuseError, match="2 image embeddings for 1 captions"):
        decoder.denoiser(torch.zeros(2, 16), [""], 1.0)
    with pytest.raises(SuffuseError, match="makes 8 and 256"):
        LatentDecoder(bundled, ImageProjection(16, 8, 256))
