"""Both stages by the documented commands, and what they leave behind."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command
from diffusers import UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, PreTrainedTokenizerFast

import suffuse
from suffuse.data.emoji import World
from suffuse.diffusion.schedule import Discrete
from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.families import SDConfig, initialise, stable_diffusion
from suffuse.systems.encoders import TextEncoder
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import load_tokenizer
from suffuse.training.encoded import LatentSet
from suffuse.training.latent import LatentStage
from suffuse.training.presets import AUTOENCODERS, LATENTS, preset

CAPTIONS = ["a dog on a blue background", "두 마리 개", "a cat", "a red circle above a cat"]


def _suffuse(*words, check=True):
    ended = command(words, Path(), {**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.status == 0 or not check, ended.err
    return ended


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Twenty steps of each stage: too few to draw, enough to walk every path."""
    root = tmp_path_factory.mktemp("runs")
    toy = ("--preset", "toy", "--steps", 20)
    _suffuse("train", "autoencoder", *toy, "-o", root / "ae")
    _suffuse("train", "latent", *toy, "-a", root / "ae" / "model", "-o", root / "latent")
    return root


@pytest.mark.slow
def test_the_model_opens_and_draws(runs):
    system = suffuse.load(runs / "latent" / "model", device="cpu", dtype="float32")
    request = system.resolve(suffuse.Request("a dog", seed=1))
    assert (request.steps, request.guidance, request.sampler) == (4, 3.0, "ddim")
    picture = system.generate(request)[0]
    assert picture.size == (128, 128)
    assert np.array_equal(np.asarray(picture), np.asarray(system.generate(request)[0]))


@pytest.mark.slow
def test_other_libraries_open_the_parts(runs):
    folder = runs / "latent" / "model"
    ours = suffuse.load(folder, device="cpu", dtype="float32").parts
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").float()
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").float()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    ids = torch.from_numpy(ours.tokenizer.windows(CAPTIONS[0]))
    theirs = tokenizer(CAPTIONS[0], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(ids, theirs)
    with torch.no_grad():
        states = text(theirs).last_hidden_state
        assert torch.allclose(ours.text(ids).last, states, atol=1e-5)
        x, t = torch.randn(1, 8, 16, 16), torch.tensor([500])
        encoder = TextEncoder(ours.tokenizer, ours.text)
        got = ours.unet(x, t, ours.unet.prepare(encoder.encode([CAPTIONS[0]])))
        want = unet(x, t, states).sample
    assert torch.allclose(got, want, atol=1e-5 * want.abs().max().item())


@pytest.mark.slow
def test_a_run_is_not_written_over_and_goes_on_from_a_model(runs):
    toy = ("--preset", "toy", "--steps", 2)
    again = _suffuse("train", "autoencoder", *toy, "-o", runs / "ae", check=False)
    assert again.status == 2 and "already holds a run" in again.err
    model = runs / "latent" / "model"
    _suffuse("train", "latent", *toy, "-a", model, "--init", model, "-o", runs / "more")
    again = _suffuse("train", "latent", *toy, "-a", model, "--resume", "-o", runs / "more")
    assert "encoding" not in again.err  # the scenes were kept
    kept = json.loads((runs / "more" / "model" / "suffuse.json").read_text())
    assert kept["patch"] == 8 and kept["shortcut"] is True


@pytest.mark.slow
def test_a_folder_of_pictures_becomes_a_model(tmp_path):
    """Captioned files to both stages by the commands, with a config and worker processes."""
    pictures, captions, _ = World(objects=4).batch(0, 12, "en")
    (tmp_path / "photos").mkdir()
    for i, (pixels, caption) in enumerate(zip(pictures, captions)):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
        (tmp_path / "photos" / f"{i}.txt").write_text(caption)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "short.yaml").write_text("plan: {save_every: 3, sample_every: 6, log_every: 2}\n")
    toy = ("--preset", "toy", "--steps", 6, "--config", tmp_path / "short.yaml")
    toy += ("--data", tmp_path / "photos")
    first, second = tmp_path / "ae", tmp_path / "latent"
    said = _suffuse("train", "autoencoder", *toy, "-o", first)
    assert said.out == f"{first / 'model'}\n"
    assert "skipped 1 broken picture: broken.png" in said.err
    assert f"tensorboard --logdir {first / 'tensorboard'}" in said.err
    assert sorted(p.name for p in (first / "checkpoints").iterdir()) == ["0000003.pt", "0000006.pt"]
    assert json.loads((first / "model" / "preprocessing.json").read_text())["size"] == 64
    record = json.loads((first / "run.json").read_text())
    assert (record["preset"], record["config"]["plan"]["save_every"]) == ("toy", 3)
    _suffuse("train", "latent", *toy, "-a", first / "model", "-o", second)
    system = suffuse.load(second / "model", device="cpu", dtype="float32")
    assert system.generate(suffuse.Request(captions[0], seed=1))[0].size == (64, 64)
    again = _suffuse("train", "latent", *toy, "-a", first / "model", "-o", second, "--resume")
    assert "encoding" not in again.err
    third = tmp_path / "fresh"
    new = ("--no-cache-latents", "--init", second / "model")
    said = _suffuse("train", "latent", *toy, *new, "-a", first / "model", "-o", third)
    assert "skipped 1 broken picture: broken.png" in said.err
    assert (third / "scale.json").exists() and not (third / "latents.safetensors").exists()
    record = json.loads((third / "run.json").read_text())
    assert record["init"] == str(second / "model") and record["text"] is None
    assert (record["cache_latents"], record["stream"]) == (False, False)
    assert record["config"]["plan"]["workers"] == 2


@pytest.mark.slow
def test_wrong_autoencoders_and_presets_are_refused(runs, tmp_path):
    missing = _suffuse("train", "latent", "-a", tmp_path, "-o", tmp_path / "x", check=False)
    assert missing.status == 2 and "missing" in missing.err
    unknown = _suffuse("train", "autoencoder", "--preset", "huge", "-o", tmp_path, check=False)
    assert unknown.status == 2 and "choose one of emoji, toy" in unknown.err


def test_presets_fit_together():
    for name, first in {
        "emoji": "emoji",
        "toy": "toy",
        "ldm-f8": "ldm-f8",
        "sd1": "ldm-f8",
    }.items():
        codec, latent = preset(AUTOENCODERS, first).config, preset(LATENTS, name)
        assert codec.latent == latent.unet.in_channels == latent.unet.out_channels
        assert codec.factor == 8 and latent.unet.context == latent.text.width
    with pytest.raises(SuffuseError, match="unknown preset 'big': choose one of emoji, toy"):
        preset(LATENTS, "big")


@pytest.fixture
def stage(tmp_path):
    torch.manual_seed(0)
    save_tokenizer(train_bpe(CAPTIONS, 300), tmp_path, 24)
    tokenizer = load_tokenizer(tmp_path)
    tower = ClipText(ClipTextConfig(300, 16, 1, 2, context=24, intermediate=32, eos=1))
    text = TextEncoder(tokenizer, tower)
    shape = SDConfig(
        in_channels=2,
        out_channels=2,
        channels=(8, 8),
        blocks=1,
        depth=(0, 1),
        heads=(2, 2),
        context=16,
        groups=4,
    )
    ids = text.ids(CAPTIONS)[:, 0].repeat(10, 4, 1).view(40, 4, -1).to(torch.int16)
    data = LatentSet(3 * torch.randn(40, 2, 4, 4).half(), ids)
    schedule = Discrete(torch.linspace(0.99, 0, 100, dtype=torch.float64))
    return LatentStage(initialise(stable_diffusion(shape)), text, data, schedule)


def test_a_batch_depends_on_seed_and_step_alone(stage):
    a, b, c = stage.batch(7, 8, 0), stage.batch(7, 8, 0), stage.batch(7, 8, 1)
    assert torch.equal(a.images, b.images) and torch.equal(a.ids, b.ids)
    assert not torch.equal(a.images, c.images)
    epoch = torch.cat([stage.batch(i, 8, 0).images for i in range(5)])
    assert len(torch.unique(epoch.flatten(1), dim=0)) == 40  # every scene once


def test_dropped_captions_are_the_null_of_sampling(stage):
    stage.dropout = 1.0
    tokens = stage.text.embed(stage.batch(0, 4, 0).ids).tokens
    assert torch.equal(tokens, stage.text.null().expand(4).tokens)
    stage.dropout = 0.3
    dropped = torch.cat([stage.batch(i, 40, 0).ids for i in range(30)]) == stage.empty
    assert dropped.all(-1).float().mean() == pytest.approx(0.3, abs=0.05)


def test_latents_reach_unit_variance(stage):
    assert (stage.data.latents.float() * stage.scale).std() == pytest.approx(1, rel=1e-3)


def test_a_silent_network_has_the_loss_of_its_target(stage):
    """At the start the network says 0, so the loss of v is its mean square: 1 by construction."""
    losses = []
    for i in range(20):
        loss, _ = stage.loss(stage.batch(i, 16, 0), torch.Generator().manual_seed(i))
        losses.append(loss.item())
    assert np.mean(losses) == pytest.approx(1, abs=0.1)


def test_gradients_reach_the_words(stage):
    for weight in stage.unet.parameters():  # a silent head passes nothing on
        torch.nn.init.normal_(weight, std=0.1)
    loss, _ = stage.loss(stage.batch(0, 4, 0), torch.Generator().manual_seed(0))
    loss.backward()
    assert stage.text.tower.token.weight.grad.abs().max() > 0
    assert stage.unet.cross[0].k.weight.grad.abs().max() > 0
