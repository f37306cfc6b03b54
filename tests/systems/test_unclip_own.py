"""unCLIP models of our own making: a prior and a decoder beside models that are named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import suffuse
from suffuse.errors import SuffuseError
from suffuse.networks.clip import Clip, ClipText, ClipTextConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.networks.lora import Adapter, LoraConfig, make_adapter
from suffuse.networks.prior import DiffusionPrior, PriorConfig
from suffuse.networks.unclip import ImageProjection
from suffuse.studio.shelf import describe, size_of
from suffuse.systems import together
from suffuse.systems.explain import recording
from suffuse.systems.request import Request
from suffuse.systems.unclip import LatentDecoder, UnCLIP
from suffuse.systems.unclip_load import load_prior, load_unclip
from suffuse.text.tokenizer import load_tokenizer
from suffuse.weights.clip import ClipParts, open_clip_parts, save_clip
from suffuse.weights.clip_input import ClipInput
from suffuse.weights.load import bundled, open_parts
from suffuse.weights.unclip_own import Named, OwnDecoder, OwnPrior, save_unclip

WIDTH = 12
SCHEDULER = {
    "_class_name": "UnCLIPScheduler",
    "prediction_type": "sample",
    "clip_sample_range": 5.0,
}
ASKED = {"steps": 3, "guidance": 2.0}


def adapter(parts) -> Adapter:
    made = make_adapter(parts.unet, LoraConfig(2))
    for _, change in made.items():
        torch.nn.init.normal_(change.up.weight, std=0.1)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt nothing, with a CLIP that has learnt nothing."""
    home = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    text = ClipTextConfig(1536, 16, 1, 2, 32, 32, eos=1, projection=WIDTH)
    image = ClipVisionConfig(32, 16, 16, 1, 2, 32, projection=WIDTH)
    model = Clip(ClipText(text), ClipVision(image)).eval()
    save_clip(
        ClipParts(model, load_tokenizer(bundled() / "tokenizer"), ClipInput(32, 32)), home / "clip"
    )
    clip = Named(str(home / "clip"), open_clip_parts(home / "clip").info.hash())
    config = PriorConfig(WIDTH, 16, 1, 2, tokens=32, states=16, text_scale=WIDTH**0.5)
    prior = DiffusionPrior(config)
    torch.nn.init.normal_(prior.out.weight)
    parts = open_parts()
    projection = ImageProjection(WIDTH, 192, 256, tokens=4, scale=WIDTH**0.5, hidden=8)
    torch.nn.init.normal_(projection.vector.weight)
    base = Named(None, parts.info.hash())
    decoder = OwnDecoder(projection, adapter(parts), base, parts.unet_config)
    save_unclip(home / "unclip", clip, OwnPrior(prior, SCHEDULER), decoder)
    save_unclip(home / "prior", clip, OwnPrior(prior, SCHEDULER))
    return home


@pytest.fixture(scope="module")
def system(folder: Path) -> UnCLIP:
    found = suffuse.load(folder / "unclip", "cpu", "float32")
    assert isinstance(found, UnCLIP)
    return found


def test_it_draws_what_its_prior_imagines(system: UnCLIP) -> None:
    resolved = system.resolve(Request("a red apple"))
    assert (resolved.steps, resolved.guidance, resolved.sampler) == (20, 3.0, "ddim")
    first, second = system.generate("a red apple", seed=1, n=2, **ASKED)
    assert first.size == system.size == (128, 128)
    assert system.generate("a red apple", seed=2, **ASKED) == [second]
    pair = [Request("a red apple", seed=2, **ASKED), Request("a blue cup", seed=5, **ASKED)]
    found = {i: step.result for i, step in together.stream(system, pair) if step.result}
    assert np.abs(np.asarray(found[0], float) - np.asarray(second, float)).max() <= 1
    steps = [step.steps for step in system.stream(Request("x", seed=1, **ASKED))]
    assert set(steps) == {25 + 3}


def test_it_varies_a_picture(system: UnCLIP) -> None:
    picture = Image.radial_gradient("L").resize((50, 30)).convert("RGBA")
    (plain,) = system.generate(image=picture, seed=1, **ASKED)
    (told,) = system.generate("a cat", image=picture, seed=1, **ASKED)
    assert plain.size == (128, 128)
    assert plain != told
    z = system.embed_image(picture)
    assert z.shape == system.embed_text("a cat").shape == system.imagine("a cat", 3).shape
    for each in (z, system.embed_text("a cat"), system.imagine("a cat", 3)):
        assert each.norm().item() == pytest.approx(1, abs=1e-5)


def test_the_decoder_is_the_base_and_its_changes(system: UnCLIP) -> None:
    decoder = system.decoder
    assert isinstance(decoder, LatentDecoder)
    plain = replace(decoder, model=suffuse.load(device="cpu", dtype="float32"))
    x, level = torch.zeros(1, *decoder.shape), decoder.grid(4).level(1)
    z = system.embed_text("a cat")
    with torch.inference_mode():
        ours, base = (d.denoiser(z, ["a cat"], 1.0)(x, level).raw for d in (decoder, plain))
    assert (ours - base).abs().max() > 1e-3


def test_the_studio_can_show_it(system: UnCLIP) -> None:
    view = describe(system, "own")
    assert (view.kind, view.takes, view.defaults.steps) == ("text", ["prompt", "image"], 20)
    assert size_of(system) > size_of(suffuse.load(device="cpu", dtype="float32"))


def test_it_is_not_explained(system: UnCLIP) -> None:
    asked = recording(system, Request("a red apple", seed=1, **ASKED))
    with pytest.raises(SuffuseError, match="is several networks in a row"), asked:
        pass


def test_a_prior_alone_draws_nothing(folder: Path) -> None:
    assert load_prior(folder / "prior", "cpu").parts.draws == 2
    with pytest.raises(SuffuseError, match="has a prior alone, and so draws nothing"):
        suffuse.load(folder / "prior")


def test_other_models_than_those_of_training_are_refused(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "unclip" / "model_index.json").read_text())
    for which, line in (("clip", "trained with the CLIP 00000"), ("base", "text-to-image model 0")):
        mixed = tmp_path / which
        mixed.mkdir()
        for part in (folder / "unclip").iterdir():
            (mixed / part.name).symlink_to(part)
        (mixed / "model_index.json").unlink()
        told = {**index, which: {**index[which], "hash": "0" * 64}}
        (mixed / "model_index.json").write_text(json.dumps(told))
        with pytest.raises(SuffuseError, match=line):
            load_unclip(mixed, "cpu")


def test_a_decoder_of_another_width_is_refused(system: UnCLIP) -> None:
    decoder = replace(system.decoder, projection=ImageProjection(20, 192, 256))
    with pytest.raises(SuffuseError, match="of 12 numbers, the decoder reads 20"):
        replace(system, decoder=decoder)


def test_a_prior_that_is_used_oddly_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "prior", tmp_path / "prior")
    own = tmp_path / "prior" / "suffuse.json"
    for said, line in (
        ({"steps": "many"}, "prior: steps: .*'many'"),
        ({"tempo": 1}, "there is no field tempo"),
        ([], r"prior = \[\] is not supported"),
    ):
        own.write_text(json.dumps({"prior": said}))
        with pytest.raises(SuffuseError, match=line):
            load_prior(tmp_path / "prior", "cpu")


def test_odd_configurations_are_refused_in_a_line(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "unclip", tmp_path / "unclip")

    def refused(file: str, change: dict[str, Any], line: str) -> None:
        path = tmp_path / "unclip" / file
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), **change}))
        with pytest.raises(SuffuseError, match=line) as caught:
            load_unclip(tmp_path / "unclip", "cpu")
        assert "\n" not in str(caught.value)
        path.write_text(before)

    refused("image_projection/config.json", {"embedding": 0}, "embedding = 0 is not supported")
    refused("image_projection/config.json", {"embedding": -1}, "embedding = -1 is not supported")
    refused("image_projection/config.json", {"scale": "a"}, "scale = 'a' is not supported")
    refused("model_index.json", {"clip": {"source": 5, "hash": None}}, "with which clip")
    refused("model_index.json", {"base": {"source": None, "hash": 7}}, "with which base")
    refused("suffuse.json", {"steps": "x"}, "steps = 'x' is not supported")
