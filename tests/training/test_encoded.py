"""Stage two's latents: kept, or made at the step that wants them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import folder, picture, tars

from suffuse.data.buckets import Buckets
from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.data.sources import open_stream
from suffuse.data.stream import EmojiStream
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.networks.clip import ClipTextConfig
from suffuse.networks.families import SDConfig
from suffuse.text.bpe import train_bpe
from suffuse.training.autoencoder import to_tensor
from suffuse.training.checkpoint import checkpoints
from suffuse.training.draw import Draw
from suffuse.training.encode import encode_scenes, measured_scale, scene_ids
from suffuse.training.encoded import sample_latents
from suffuse.training.loop import train
from suffuse.training.plan import Plan
from suffuse.training.presets import LATENTS
from suffuse.training.stages import latent_stage
from suffuse.weights.save import save_autoencoder

PRESET = replace(
    LATENTS["toy"],
    unet=SDConfig(
        in_channels=2,
        out_channels=2,
        channels=(8, 8),
        blocks=1,
        depth=(0, 1),
        heads=(2, 2),
        context=16,
        groups=4,
    ),
    text=ClipTextConfig(300, 16, 1, 2, context=64, intermediate=32, eos=1),
    plan=Plan(steps=4, batch=4, warmup=1, save_every=2, sample_every=99, log_every=9),
    scenes=16,
    captions=10,
    reading=None,
    preprocess=Preprocess(size=16, crop="random", flip=0.5),
)
SHARDS = [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12]]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """A folder as stage one leaves it, with an encoder that is sure of little."""
    torch.manual_seed(0)
    config = AutoencoderConfig(channels=(8,), blocks=1, groups=4, patch=4, latent=2, quant=False)
    net = AutoencoderKL(config)
    torch.nn.init.normal_(net.encoder.head.conv.weight, std=0.3)
    path = tmp_path_factory.mktemp("ae")
    save_autoencoder(net, path)
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {
        "folder": str(folder(root / "folder", 12, side=24)),
        "stream": str(tars(root / "tars", SHARDS, side=24)),
        "emoji": None,
    }


def made(codec, output, data, preset=PRESET, **options):
    options = {"cache": False, **options}
    return latent_stage(preset, codec, output, 0, data=data, **options)


def last(output):
    return torch.load(checkpoints(output)[-1], weights_only=True)


@pytest.mark.parametrize("kind", ["folder", "stream", "emoji"])
def test_a_run_that_was_stopped_is_the_same_run(kind, codec, places, tmp_path):
    how = {"data": places[kind], "streaming": kind == "stream"}
    whole = made(codec, tmp_path / "whole", **how)
    train(whole, PRESET.plan, tmp_path / "whole")
    stopped = made(codec, tmp_path / "parts", **how)
    batch = stopped.batch

    def fail(step, *rest):
        if step == 3:
            raise RuntimeError("the power fails")
        return batch(step, *rest)

    stopped.batch = fail
    with pytest.raises(RuntimeError, match="power"):
        train(stopped, PRESET.plan, tmp_path / "parts")
    resumed = made(codec, tmp_path / "parts", **how)
    assert resumed.scale == whole.scale
    train(resumed, PRESET.plan, tmp_path / "parts", resume=True)
    one, other = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert one["step"] == other["step"] == 4
    if kind == "emoji":  # a score is of the weights alone, a mean loss of the steps since a save
        assert one["best"] == other["best"] and one["by"] == other["by"] == "score"
    assert (one["position"] is None) == (kind != "stream") and one["position"] == other["position"]
    for part in ("nets", "ema"):
        for name, weight in one[part].items():
            assert torch.equal(weight, other[part][name]), name
    assert not (tmp_path / "whole" / "latents.safetensors").exists()
    assert (tmp_path / "whole" / "model" / "preprocessing.json").exists() == (kind != "emoji")


def test_latents_are_drawn_from_the_encoders_gaussian(codec, places, tmp_path):
    stage = made(codec, tmp_path, places["folder"])
    batch = stage.batch(1, 4, 0)
    again = stage.data.stream.batch(1, 4, 0)
    assert np.array_equal(batch.images.numpy(), again.pictures)
    noise = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = stage.data.autoencoder.encode(to_tensor(again.pictures))
    raw = stage.data.raw(batch.images, torch.Generator().manual_seed(5))
    assert torch.allclose(raw, found.mean + (found.logvar / 2).exp() * noise, atol=1e-6)
    assert (raw - found.mean).abs().mean() > 0.01
    # In the next epoch the same pictures are cropped and flipped otherwise.
    epochs = [stage.batch(step, 12, 0).images for step in (0, 1)]
    rows = [sorted(map(bytes, images.numpy())) for images in epochs]
    assert rows[0] != rows[1]


def test_captions_are_tokens_and_some_are_left_out(codec, places, tmp_path):
    stage = made(codec, tmp_path, places["folder"], replace(PRESET, dropout=0.0))
    said = stage.data.stream.batch(0, 8, 0).captions
    assert torch.equal(stage.batch(0, 8, 0).ids, stage.text.ids(said)[:, :1])
    stage.dropout = 0.5
    dropped = (torch.cat([stage.batch(i, 40, 0).ids for i in range(5)]) == stage.empty).all(-1)
    assert dropped.float().mean() == pytest.approx(0.5, abs=0.12)


def test_the_scale_is_of_the_first_pictures(codec, places, tmp_path):
    stage = made(codec, tmp_path, places["folder"])
    generator, raw = torch.Generator().manual_seed(0), []
    for step in range(16):
        pictures = torch.from_numpy(stage.data.stream.batch(step, 16, 0).pictures)
        raw.append(sample_latents(stage.data.autoencoder, pictures, generator))
    assert (torch.cat(raw) * stage.scale).std() == pytest.approx(1, rel=1e-5)
    stream = open_stream(places["stream"], PRESET.preprocess, streaming=True)
    measured_scale(stage.data.autoencoder, stream, 0)
    assert stream.position() is None  # training still begins at the beginning


def test_a_begun_run_keeps_its_scale(codec, places, tmp_path):
    first = made(codec, tmp_path, places["folder"])
    train(first, replace(PRESET.plan, steps=1), tmp_path)
    more = folder(tmp_path / "more", 5, side=40)
    assert made(codec, tmp_path, str(more)).scale == first.scale
    assert made(codec, tmp_path / "new", str(more)).scale != first.scale
    with pytest.raises(SuffuseError, match="begun with --no-cache-latents: resume it with that"):
        made(codec, tmp_path, places["folder"], cache=True)
    kept = json.loads((tmp_path / "scale.json").read_text())
    (tmp_path / "scale.json").write_text(json.dumps({**kept, "autoencoder": "another"}))
    with pytest.raises(SuffuseError, match="of another autoencoder than this run began with"):
        made(codec, tmp_path, places["folder"])
    (tmp_path / "scale.json").unlink()
    with pytest.raises(SuffuseError, match="begun without --no-cache-latents"):
        made(codec, tmp_path, places["folder"])


def test_two_halves_of_a_batch_have_the_loss_of_the_whole(codec, tmp_path):
    stage = made(codec, tmp_path, None)
    for weight in stage.unet.parameters():  # a silent head would hide the captions
        torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        whole = stage.loss(stage.batch(3, 4, 7), Draw(1, slice(0, 4), 4))[0].item()
        halves = [
            stage.loss(stage.batch(3, 4, 7, rows), Draw(1, rows, 4))[0].item()
            for rows in (slice(0, 2), slice(2, 4))
        ]
    assert np.mean(halves) == pytest.approx(whole, rel=1e-4)
    assert halves[0] != pytest.approx(halves[1], rel=1e-3)


def test_buckets_are_trained_on(codec, tmp_path):
    (tmp_path / "data").mkdir()
    for n in range(6):
        wide = n % 2
        picture(n, 48 if wide else 24, 24 if wide else 48).save(tmp_path / "data" / f"{n}.png")
    shapes = Preprocess(size=32, buckets=Buckets(step=8, ratio=2.0))
    preset = replace(PRESET, preprocess=shapes)
    stage = made(codec, tmp_path / "run", str(tmp_path / "data"), preset)
    seen = {tuple(stage.batch(step, 4, 0).images.shape[1:3]) for step in range(4)}
    assert len(seen) == 2 and all(high != wide for high, wide in seen)
    train(stage, PRESET.plan, tmp_path / "run")
    with pytest.raises(SuffuseError, match="kept have one shape: add --no-cache-latents"):
        made(codec, tmp_path / "kept", str(tmp_path / "data"), preset, cache=True)


def test_a_tokenizer_learns_from_the_first_captions_of_a_stream(codec, places, tmp_path):
    stage = made(codec, tmp_path, places["stream"], streaming=True)
    want = train_bpe([f"number {n}" for n in range(1, 11)], PRESET.text.vocab)
    assert stage.text.tokenizer.backend.get_vocab() == want.get_vocab()


def test_what_does_not_go_together_is_refused(codec, places, tmp_path):
    with pytest.raises(SuffuseError, match="a stream is read as it comes: add --no-cache-latents"):
        made(codec, tmp_path / "x", places["stream"], streaming=True, cache=True)
    with pytest.raises(SuffuseError, match="only data can be streamed"):
        made(codec, tmp_path / "x", None, streaming=True)
    assert not (tmp_path / "x").exists()


def test_lessons_are_the_captions_of_the_scenes_that_would_be_kept(codec, tmp_path):
    stage = made(codec, tmp_path, None)
    kept = encode_scenes(stage.data.autoencoder, stage.text, PRESET.world, 70, seed=3)
    assert torch.equal(scene_ids(stage.text, PRESET.world, 70, seed=3), kept.ids)
    assert isinstance(stage.data.stream, EmojiStream) and stage.data.stream.language == "both"


@pytest.mark.parametrize("cache", [True, False])
def test_the_score_is_the_loss_of_held_out_scenes(cache, codec, places, tmp_path):
    """The network starts silent: what is left is the mean square of v, alpha eps - sigma x0."""
    stage = made(codec, tmp_path, None, cache=cache)
    before, state = stage.score(stage.nets), torch.get_rng_state()
    assert stage.score(stage.nets) == before and torch.equal(torch.get_rng_state(), state)
    pictures = World(objects=6).batch(0, 64, split="test")[0]
    codec_net = stage.data.autoencoder if not cache else made(codec, tmp_path / "o", None).data
    codec_net = codec_net if not cache else codec_net.autoencoder
    with torch.no_grad():
        x0 = codec_net.encode(to_tensor(pictures)).mode.half().float() * stage.scale
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t = ((torch.arange(64) + 0.5) * 1000 / 64).long()
    bar = stage.levels.schedule.alpha_bar[t].float().view(-1, 1, 1, 1)
    want = (bar.sqrt() * eps - (1 - bar).sqrt() * x0).square().mean().item()
    assert before == pytest.approx(want, rel=1e-3)
    assert made(codec, tmp_path / "own", places["folder"]).score(stage.nets) is None
