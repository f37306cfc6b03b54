"""Karlo, whole: the same pictures as diffusers' pipelines from the same seeds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import karlo_tiny
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import deviation

import suffuse
from suffuse.diffusion.noise import Noise
from suffuse.errors import SuffuseError
from suffuse.systems import together
from suffuse.systems.clip import load_clip
from suffuse.systems.manipulate import inverted
from suffuse.systems.manipulation import How
from suffuse.systems.request import Request
from suffuse.systems.unclip import UnCLIP
from suffuse.systems.unclip_load import load_prior
from suffuse.weights.parts import Place
from suffuse.weights.unclip import open_karlo
from suffuse.weights.unclip_pixel import OwnPixelDecoder, write_pixel_decoder

diffusers.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("karlo")
    karlo_tiny.karlo().save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def karlo(folder: Path) -> UnCLIP:
    found = suffuse.load(folder, "cpu", "float32")
    assert isinstance(found, UnCLIP)
    return found


def far(got: Image.Image, want: np.ndarray) -> float:
    """The largest difference, in levels of 255."""
    return float(np.abs(np.asarray(got, dtype=float) - 255 * want).max())


def quiet(pipe: diffusers.DiffusionPipeline) -> diffusers.DiffusionPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_decoder_is_saved_as_diffusers_has_it(folder: Path, tmp_path: Path) -> None:
    parts = open_karlo(folder, Place()).decoder
    write_pixel_decoder(tmp_path, OwnPixelDecoder(parts), torch.float32)
    for part in ("decoder", "text_proj"):
        file = "diffusion_pytorch_model.safetensors"
        ours, theirs = (load_file(home / part / file) for home in (tmp_path, folder))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        mine, said = (
            json.loads((home / part / "config.json").read_text()) for home in (tmp_path, folder)
        )
        assert mine == {name: said[name] for name in mine}


def test_the_same_pictures_as_diffusers(karlo: UnCLIP) -> None:
    """From the same seeds, and with the defaults of either: 25, 25 and 7 steps."""
    pipe = quiet(karlo_tiny.karlo())
    prompts, seeds = ["a red cat", "two dogs"], (2, 3)
    # A network that knows nothing, guided by 8, turns rounding into levels: here it is 2.
    want = pipe(
        prompts, generator=karlo_tiny.generators(*seeds), decoder_num_inference_steps=8,
        decoder_guidance_scale=2.0, output_type="np",
    ).images  # fmt: skip
    for prompt, seed, picture in zip(prompts, seeds, want):
        (got,) = karlo.generate(prompt, seed=seed, steps=8, guidance=2.0)
        assert got.size == (16, 16)
        assert far(got, picture) < 1
    plain = pipe("a red cat", generator=karlo_tiny.generators(1), output_type="np").images
    assert far(karlo.generate("a red cat", seed=1)[0], plain[0]) < 1


def test_the_same_variations_as_diffusers(tmp_path: Path) -> None:
    pipe = quiet(karlo_tiny.variations())
    pipe.save_pretrained(tmp_path)
    system = suffuse.load(tmp_path, "cpu", "float32")
    asked = {"decoder_num_inference_steps": 6, "decoder_guidance_scale": 2.0, "output_type": "np"}
    want = pipe(IMAGE, generator=karlo_tiny.generators(4), **asked).images
    (got,) = system.generate(image=IMAGE, seed=4, steps=6, guidance=2.0)
    assert far(got, want[0]) < 1
    with pytest.raises(SuffuseError, match="has no prior, it makes variations of pictures"):
        system.generate("a red cat")


IMAGE = Image.radial_gradient("L").resize((40, 30)).convert("RGB")


def test_stable_variations_are_diffusers(tmp_path: Path) -> None:
    """Stable Diffusion 2.1's unCLIP: a picture and a text, more or less noise on the embedding."""
    pipe = quiet(karlo_tiny.stable())
    pipe.save_pretrained(tmp_path)
    asked = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np"}
    for level in (0, 300):
        want = pipe(
            IMAGE, "a cat", generator=karlo_tiny.generators(4)[0], noise_level=level, **asked
        ).images
        system = suffuse.load(tmp_path, "cpu", "float32", noise_level=level)
        (got,) = system.generate("a cat", image=IMAGE, seed=4, steps=4, guidance=3.0)
        assert far(got, want[0]) < 1
    assert system.resolve(Request(image=IMAGE)).guidance == 10.0
    # Embeddings get no noise in manipulations, and so the U-Net is told of none.
    how = How(steps=2, rounds=1)
    pair, clean = inverted(system, [IMAGE.resize((64, 64))], how), suffuse.load(tmp_path, "cpu")
    assert torch.equal(pair.noise, inverted(clean, [IMAGE.resize((64, 64))], how).noise)
    with pytest.raises(SuffuseError, match="no text encoder in the space of its pictures"):
        system.embed_text("a cat")
    with pytest.raises(SuffuseError, match="noise_level must be from 0 to 999, not 1000"):
        suffuse.load(tmp_path, noise_level=1000)


def test_stable_pictures_of_a_text_are_diffusers(tmp_path: Path) -> None:
    pipe = quiet(karlo_tiny.stable(from_text=True))
    pipe.save_pretrained(tmp_path)
    system = suffuse.load(tmp_path, "cpu", "float32")
    asked = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np"}
    want = pipe("a cat", generator=karlo_tiny.generators(4)[0], **asked).images
    (got,) = system.generate("a cat", seed=4, steps=3, guidance=3.0)
    assert far(got, want[0]) < 1


def test_kandinskys_prior_is_diffusers(tmp_path: Path) -> None:
    pipe = quiet(karlo_tiny.kandinsky_prior())
    pipe.save_pretrained(tmp_path)
    prior = load_prior(tmp_path, "cpu", "float32")
    want = pipe("two dogs", generator=karlo_tiny.generators(3)).image_embeds
    assert deviation(prior.imagine(["two dogs"], [3]), want) < 1e-4
    picture = prior.embedder.images([IMAGE])
    assert picture.shape == want.shape
    with pytest.raises(SuffuseError, match="is a prior alone"):
        suffuse.load(tmp_path)


def test_a_picture_is_the_same_in_any_company(karlo: UnCLIP) -> None:
    asked = {"steps": 3, "guidance": 2.0}
    alone = [karlo.generate("a red cat", seed=seed, **asked)[0] for seed in (7, 8)]
    assert karlo.generate("a red cat", seed=7, n=2, **asked) == alone
    assert alone[0] != alone[1]
    pair = [Request(prompt, seed=seed, **asked) for prompt, seed in (("a red cat", 8), ("x", 1))]
    found = {i: step.result for i, step in together.stream(karlo, pair) if step.result}
    assert far(found[0], np.asarray(alone[1]) / 255) <= 1
    negative = karlo.generate("a red cat", "two dogs", seed=7, **asked)
    assert negative != alone[:1]


def test_all_stages_are_steps(karlo: UnCLIP) -> None:
    steps = list(karlo.stream(Request("two dogs", seed=1, steps=4)))
    assert [step.i for step in steps] == list(range(25 + 4 + 7))
    assert {step.steps for step in steps} == {36}
    assert [step.result is not None for step in steps] == [False] * 35 + [True]
    assert [steps[i].preview().size for i in (0, 26, 30)] == [(8, 8), (8, 8), (16, 16)]


def test_noise_may_be_given(karlo: UnCLIP) -> None:
    """That of the prior, as `prior_latents` there."""
    noise = torch.randn(1, 1, karlo_tiny.WIDTH)
    asked = {"steps": 3, "guidance": 2.0}
    given, drawn, other = (
        karlo.generate("two dogs", seed=3, noise=start, **asked) for start in (noise, None, -noise)
    )
    assert given != drawn != other
    with pytest.raises(SuffuseError, match="noise is"):
        karlo.generate("two dogs", seed=3, noise=torch.randn(1, 3, 8, 8))


def test_the_nearest_of_two_draws_is_kept(karlo: UnCLIP) -> None:
    """DALL-E 2's way; Karlo's is a single draw."""
    prior = karlo.prior
    assert prior is not None
    twice = replace(prior, parts=replace(prior.parts, draws=2, steps=5))
    captions = prior.embedder.captions(["two dogs"])
    noise = Noise([3], twice.shape)
    *_, last = twice.sample(noise(), noise, captions, captions, twice.grid)
    assert last.x.shape == (1, 2, karlo_tiny.WIDTH)
    draws = prior.parts.network.restore(last.x[0])
    nearest = torch.cosine_similarity(draws, captions.text).argmax()
    assert torch.allclose(twice.chosen(last.x, captions)[0], draws[nearest])
    both = twice.imagine(["two dogs", "a cat"], [3, 4])
    alone = torch.cat([twice.imagine(["two dogs"], [3]), twice.imagine(["a cat"], [4])])
    assert torch.allclose(both, alone, atol=1e-4)


def test_long_captions_are_cut_with_a_warning(karlo: UnCLIP) -> None:
    with pytest.warns(UserWarning, match="longer than the 75 tokens .* cut after"):
        z = karlo.embed_text("a cat and " * 40 + "two dogs")
    assert z.shape == (1, karlo_tiny.WIDTH)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a", "width": 64}, "draws 16 x 16 pixels: its width is 16"),
        ({"prompt": "a", "steps": 1}, "steps must be at least 2"),
        ({"prompt": "a", "clip_skip": 1}, "clip_skip is not for unCLIP models"),
        ({"image": Image.new("RGB", (8, 8))}, "has no image encoder, so it cannot vary"),
    ],
)
def test_what_it_cannot_do_is_said(karlo: UnCLIP, asked: dict[str, Any], line: str) -> None:
    with pytest.raises(SuffuseError, match=line):
        karlo.resolve(Request(**asked))


def test_parts_of_different_clips_are_refused(folder: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    shutil.rmtree(mixed / "prior")
    karlo_tiny.prior(width=40).save_pretrained(mixed / "prior")
    with pytest.raises(SuffuseError, match="text encoder 32, decoder 32, prior 40"):
        suffuse.load(mixed)
    shutil.rmtree(mixed / "prior")
    karlo_tiny.prior(tokens=20).save_pretrained(mixed / "prior")
    with pytest.raises(SuffuseError, match="captions of 20 tokens of 32 numbers"):
        suffuse.load(mixed)


def test_a_judge_may_be_given(karlo: UnCLIP) -> None:
    asked = {"seed": 5, "steps": 2, "guidance": 2.0}
    judge = load_clip()
    drawn = [karlo.generate("a cat", **{**asked, "seed": seed})[0] for seed in (5, 6)]
    scores = [float(judge.images([p])[0] @ judge.texts(["a cat"])[0]) for p in drawn]
    (kept,) = karlo.generate("a cat", best_of=2, judge=judge, **asked)
    best = drawn[int(np.argmax(scores))]
    assert np.array_equal(np.asarray(kept), np.asarray(best))
