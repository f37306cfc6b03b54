"""unCLIP's decoder of pixels: what a run leaves with its up-samplers, and what it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sight
import torch
from PIL import Image

import suffuse
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.prior import DiffusionPrior, PriorConfig
from suffuse.systems.unclip import PixelDecoder, UnCLIP
from suffuse.systems.upscalers import load_upscaler
from suffuse.training.loop import train
from suffuse.training.sr3 import sr3_stage
from suffuse.training.sr3_presets import SR3S
from suffuse.training.unclip_pixel_stage import pixel_decoder_stage
from suffuse.training.unclip_presets import DECODERS, PRIOR_SCHEDULER, PixelDecoderPreset
from suffuse.weights.clip import open_clip_parts
from suffuse.weights.unclip_config import decoder_config, decoder_json
from suffuse.weights.unclip_own import Named, OwnPrior, save_unclip

SAID = ["a red apple", "", "a dog left of a cat " * 30]


def toy(**changes: Any) -> PixelDecoderPreset:
    found = DECODERS["toy-pixels"]
    assert isinstance(found, PixelDecoderPreset)
    return replace(found, **changes)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP, a prior and two up-samplers that know nothing, and what training made of them."""
    home = tmp_path_factory.mktemp("pixels")
    clip = sight.saved(home / "clip")
    prior = DiffusionPrior(PriorConfig(16, 16, 1, 2, states=32, text_scale=4.0))
    torch.nn.init.normal_(prior.out.weight)
    named = Named(str(clip), open_clip_parts(clip).info.hash())
    save_unclip(home / "prior", named, OwnPrior(prior, PRIOR_SCHEDULER))
    up = SR3S["unclip-toy"]
    plan = replace(up.plan, steps=2, save_every=2)
    train(sr3_stage(up, 0), plan, home / "up")
    again = sr3_stage(replace(up, steps=3), 1)
    again.export(again.nets, home / "up2")
    decoder = pixel_decoder_stage(
        toy(), 0, clip=str(clip), prior=home / "prior", upsamplers=[home / "up/model", home / "up2"]
    )
    train(decoder, toy().plan, home / "run")
    return home


@pytest.fixture(scope="module")
def system(home: Path) -> UnCLIP:
    found = suffuse.load(home / "run/model", "cpu", "float32")
    assert isinstance(found, UnCLIP)
    return found


def test_what_is_left_draws_with_all_its_stages(system: UnCLIP, home: Path) -> None:
    sizes = [system.decoder.size, *(each.size for each in system.upsamplers)]
    assert sizes == [(16, 16), (32, 32), (64, 64)] and system.size == (64, 64)
    steps = list(system.stream(suffuse.Request("a red apple", seed=1, n=2)))
    assert {step.steps for step in steps} == {25 + 2 + 2 + 3}  # prior, decoder, up-samplers
    drawn = [step.result for step in steps if step.result is not None]
    assert [picture.size for picture in drawn] == [(64, 64)] * 2
    assert system.generate("a red apple", seed=2) == drawn[1:]
    (varied,) = system.generate(image=sight.picture(1), seed=1)
    assert varied.size == (64, 64)
    with Image.open(home / "run/samples/0000002.png") as sheet:
        assert sheet.size == (4 * 16, 2 * 16)


def test_its_up_samplers_enlarge_alone(system: UnCLIP, home: Path) -> None:
    """As `suffuse upscale` has them, of which a picture in one piece is a special case."""
    first = system.upsamplers[0]
    low = torch.rand(1, 3, 16, 16) * 2 - 1
    alone = load_upscaler(home / "up/model")
    got, want = first.upscale(low, [3]), alone.upscale(low, [3])
    assert got.shape == (1, 3, 32, 32) and want.shape == got.shape
    piece = replace(alone, tiling=first.whole.tiling).upscale(low, [3])
    assert torch.allclose(got, piece, atol=2e-3)  # the folder's copy is in half precision


def test_it_is_trained_on_what_it_is_told_when_it_draws(home: Path) -> None:
    """The same doors for the same picture and caption, for none of either, and for what is cut."""
    stage = pixel_decoder_stage(toy(), 3, clip=str(home / "clip"))
    projection = stage.parts.projection
    for weight in projection.parameters():
        torch.nn.init.normal_(weight)
    held = stage.held_out
    assert held is not None
    found = held._replace(ids=stage.text.ids([*SAID, SAID[0]])[:, 0])
    found = found._replace(told=torch.tensor([True, True, True, False]))
    mine = stage.cond(projection, found)
    decoder = PixelDecoder(stage.parts, sight_of(home))
    z = torch.cat([stage.embed(found.seen[:3]), projection.image.null[None]])
    with pytest.warns(UserWarning, match="longer than"):
        theirs = decoder._cond(z.detach(), [*SAID, SAID[0]])
    assert torch.equal(mine.mask, theirs.mask) and not mine.mask.all()
    for door in ("vector", "tokens"):
        assert torch.allclose(getattr(mine, door), getattr(theirs, door), atol=1e-4)
    pictures = stage.stream.batch(0, 4, 0).pictures
    batch = stage.batch(0, 4, 0)
    looked = decoder.embedder.images([Image.fromarray(each) for each in pictures])
    assert torch.allclose(stage.embed(batch.seen), looked, atol=1e-5)
    half = np.asarray(Image.fromarray(pictures[0]).resize((16, 16), Image.Resampling.BICUBIC))
    drawn = ((batch.images[0] + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(drawn - half).max() <= 1.01


def sight_of(home: Path) -> Any:
    from suffuse.systems.unclip_load import towers_of
    from suffuse.systems.unclip_prior import Embedder

    return Embedder(towers_of(open_clip_parts(home / "clip")))


def test_embeddings_and_captions_are_left_out_apart(home: Path) -> None:
    stage = pixel_decoder_stage(toy(without=0.3), 0, clip=str(home / "clip"))
    found = [stage.batch(step, 16, 0) for step in range(12)]
    gone = torch.cat([~batch.told for batch in found])
    mute = torch.cat([(batch.ids == stage.empty).all(1) for batch in found])
    assert 0.2 < gone.float().mean() < 0.4 and 0.38 < mute.float().mean() < 0.62
    assert 0.06 < (gone & mute).float().mean() < 0.25  # one says nothing about the other
    part = stage.batch(5, 16, 0, slice(4, 8))
    for mine, whole in zip(part, found[5]):
        assert torch.equal(mine, whole[4:8])


def test_it_learns(home: Path) -> None:
    stage = pixel_decoder_stage(toy(), 0, clip=str(home / "clip"))
    batch = stage.batch(0, 4, 0)
    optimizer = torch.optim.AdamW(stage.nets.parameters(), lr=1e-2)
    losses = []
    for step in range(16):
        loss, _ = stage.loss(batch, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert stage.nets["projection"].image.vector.weight.abs().max() > 0  # began silent
    score = stage.score(stage.nets)
    assert score is not None and score < losses[0]


def test_folders_of_pictures_and_what_is_refused(home: Path, tmp_path: Path) -> None:
    for i in range(3):
        sight.picture(i, (48, 40)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("some blobs")
    made = pixel_decoder_stage(toy(), 0, clip=str(home / "clip"), data=str(tmp_path))
    batch = made.batch(0, 4, 0)
    assert batch.images.shape == (4, 3, 16, 16) and batch.seen.shape == (4, 3, 32, 32)
    assert made.score(made.nets) is None
    made.sample(made.nets, tmp_path / "sheet.png")
    other = sight.saved(tmp_path / "other", seed=2)
    for preset, given, message in (
        (toy(size=24), {}, "size 24 must divide the side of the pictures, 128"),
        (toy(scheduler={"_class_name": "DDPMScheduler"}), {}, "learns its variance"),
        (toy(), {"upsamplers": [home / "prior"]}, "is no upscaler, which `suffuse train sr3`"),
        (toy(), {"clip": str(other), "prior": home / "prior"}, "trained with the CLIP"),
    ):
        with pytest.raises(SuffuseError, match=message):
            pixel_decoder_stage(preset, 0, **{"clip": str(home / "clip"), **given})


def test_a_resnet_is_seen_by_too(tmp_path: Path) -> None:
    """The bundled CLIP, which Karlo's layout has no place for."""
    stage = pixel_decoder_stage(toy(held_out=1), 0)
    loss, _ = stage.loss(stage.batch(0, 2, 0), torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(1, abs=0.3)  # a silent head
    stage.export(stage.nets, tmp_path / "model")
    found = suffuse.load(tmp_path / "model", "cpu", "float32")
    (picture,) = found.generate(image=sight.picture(1), seed=1)
    assert picture.size == (16, 16)


def test_its_configuration_is_diffusers() -> None:
    small = ADMConfig(
        3, 6, 64, (64, 128), 2, (False, True), (1, 4), context=24, dropout=0.1
    )  # heads of 64 and of 32
    for config in (small, DECODERS["dalle2"].unet):  # type: ignore[union-attr]
        raw = decoder_json(config, (64, 64))
        assert decoder_config(raw, "here") == replace(config, dropout=0.0)
    with pytest.raises(SuffuseError, match="diffusers has no fields for"):
        decoder_json(replace(small, mid_attention=False), (64, 64))


def test_the_papers_sizes() -> None:
    """2204.06125, table 3: 700 M and 300 M; the decoder's 3.5 B have a text transformer of 1.2 B in
    them (GLIDE's, 2112.10741, section 4)."""
    sizes = {"dalle2-256": 0.70, "dalle2-1024": 0.30}
    nets = {name: SR3S[name].unet for name in sizes}
    nets["dalle2"], sizes["dalle2"] = DECODERS["dalle2"].unet, 2.3  # type: ignore[union-attr]
    for name, billions in sizes.items():
        config = nets[name]
        assert isinstance(config, ADMConfig)
        with torch.device("meta"):
            count = sum(weight.numel() for weight in adm(config).parameters())
        assert count / 1e9 == pytest.approx(billions, rel=0.08), name
