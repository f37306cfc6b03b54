"""Fine-tuning at toy size: what may change changes, what may not does not, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file

import suffuse
from suffuse.errors import SuffuseError
from suffuse.networks.lora import BLOCKS, LoraConfig
from suffuse.training.draw import Draw
from suffuse.training.finetune import Subject, finetune_stage
from suffuse.training.finetune_presets import FINETUNES, Prior
from suffuse.training.loop import train
from suffuse.training.prior import keep_class_pictures
from suffuse.weights.embedding import open_embedding
from suffuse.weights.load import open_parts

PLAN = replace(FINETUNES["toy"].plan, steps=30, batch=2, sample_every=30, save_every=30)
LORA = replace(FINETUNES["toy"], plan=replace(PLAN, lr=1e-2), lora=LoraConfig(4, targets=BLOCKS))
FULL = replace(LORA, method="full", plan=replace(PLAN, lr=3e-3))
WORD = replace(LORA, method="word", plan=replace(PLAN, lr=0.1, weight_decay=0.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.pipeline(unet={"sample_size": 8}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One picture, as a subject has few; its caption beside it."""
    folder = tmp_path_factory.mktemp("data")
    rows, columns = np.mgrid[:24, :24]
    pixels = np.stack([rows * 10, columns * 10, (rows // 6 + columns // 6) % 2 * 255], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "one.png")
    (folder / "one.txt").write_text("a chequered picture")
    return folder


def made(preset, model, data, tmp_path, **subject):
    return finetune_stage(preset, model, str(data), tmp_path, 0, subject=Subject(**subject))


def error(stage, times=16):
    """The loss over many levels, always the same noise."""
    with torch.no_grad():
        batches = [(stage.batch(i, 4, 0), Draw(i, slice(0, 4), 4)) for i in range(times)]
        return float(np.mean([stage.loss(batch, draw)[0].item() for batch, draw in batches]))


def weights(parts):
    nets = (parts.unet, parts.text, parts.autoencoder)
    return [w.detach().clone() for net in nets for w in net.state_dict().values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_lora_learns_a_picture_and_leaves_the_base_alone(model, data, tmp_path):
    preset = replace(LORA, text_lora=LoraConfig(2, dropout=0.1))
    stage = made(preset, model, data, tmp_path)
    assert stage.prompts == ["a chequered picture"] * 4
    base, before = weights(stage.method.parts), error(stage)
    train(stage, preset.plan, tmp_path / "run")
    assert error(stage) < 0.8 * before
    assert same(weights(stage.method.parts), base) and same(weights(open_parts(model)), base)
    out = tmp_path / "run" / "model"
    assert (tmp_path / "run" / "samples" / "0000030.png").exists()
    # Both files are the trained model: they draw what the stage draws.
    drawn = []
    for name in ("pytorch_lora_weights.safetensors", "kohya.safetensors"):
        system = suffuse.load(model, "cpu", "float32", loras=[out / name])
        drawn.append(system.generate("a chequered picture", steps=3, seed=0)[0])
    with stage.method.using(stage.nets.eval()) as parts:
        want = suffuse.LatentDiffusion(parts).generate("a chequered picture", steps=3, seed=0)[0]
    for picture in drawn:
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(want).astype(int)).max() <= 1
    plain = suffuse.load(model, "cpu", "float32").generate("a chequered picture", steps=3, seed=0)
    assert np.abs(np.asarray(plain[0]).astype(int) - np.asarray(want).astype(int)).max() > 5


def test_a_copy_stands_in_without_disturbing_the_run(model, data, tmp_path):
    for preset, subject in ((LORA, {}), (WORD, {"word": "<rex>", "init": "dog"})):
        stage = made(preset, model, data, tmp_path, **subject)
        before, copy = error(stage, 2), made(preset, model, data, tmp_path, **subject).nets
        with torch.no_grad():
            for weight in copy.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator()))
        with stage.method.using(copy):
            assert abs(error(stage, 2) - before) > 1e-5
        assert error(stage, 2) == before


def test_full_fine_tuning_makes_a_model(model, data, tmp_path):
    stage = made(FULL, model, data, tmp_path)
    before, parts = error(stage), stage.method.parts
    base = [w.clone() for w in (*parts.text.parameters(), *parts.autoencoder.parameters())]
    train(stage, FULL.plan, tmp_path / "run")
    assert error(stage) < 0.8 * before
    assert same([*parts.text.parameters(), *parts.autoencoder.parameters()], base)
    opened = open_parts(tmp_path / "run" / "model")
    ours = [w.half().float() for w in stage.nets["unet"].state_dict().values()]
    assert same(ours, opened.unet.state_dict().values())
    both = made(replace(FULL, text_trained=True), model, data, tmp_path)
    both.loss(both.batch(0, 2, 0), torch.Generator().manual_seed(0))[0].backward()
    assert both.nets["text"].blocks[0].attn.q.weight.grad.abs().max() > 0


def test_a_word_is_learned_and_comes_back(model, data, tmp_path):
    preset = replace(WORD, tokens=2)
    stage = made(preset, model, data, tmp_path, word="<rex>", init="picture")
    assert all("<rex>" in prompt for prompt in stage.prompts)
    base, before = weights(stage.method.parts), error(stage)
    started = stage.nets["word"].vectors.detach().clone()
    like = stage.method.parts.tokenizer.encode("picture")
    table = stage.method.parts.text.token.weight
    assert torch.equal(started, table[[like[0], like[1 % len(like)]]])
    train(stage, preset.plan, tmp_path / "run")
    assert error(stage) < before and not torch.equal(started, stage.nets["word"].vectors)
    assert same(weights(stage.method.parts), base)
    out = tmp_path / "run" / "model"
    (name, vectors), *rest = load_file(out / "learned_embeds.safetensors").items()
    assert (name, vectors.shape, rest) == ("<rex>", (2, 32), [])
    assert torch.equal(vectors, stage.nets["word"].vectors.detach())
    assert torch.equal(open_embedding(out / "rex.safetensors").vectors, vectors)
    system = suffuse.load(model, "cpu", "float32", embeddings=[out])
    got = system.generate("a photo of <rex>", steps=3, seed=0)[0]
    with stage.method.using(stage.nets) as parts:
        want = suffuse.LatentDiffusion(parts).generate("a photo of <rex>", steps=3, seed=0)[0]
    assert np.abs(np.asarray(got).astype(int) - np.asarray(want).astype(int)).max() <= 1


def test_the_class_is_drawn_once_and_weighed(model, data, tmp_path):
    preset = replace(LORA, prior=Prior(count=3, weight=0.5), dropout=0.5)
    subject = {"prompt": "a photo of sks dog", "of_class": "a photo of a dog"}
    stage = made(preset, model, data, tmp_path, **subject)
    files = sorted((tmp_path / "class").iterdir())
    assert [f.name for f in files] == [f"{i:05d}.png" for i in range(3)]
    stamps = [f.stat().st_mtime_ns for f in files]
    batch = stage.batch(3, 4, 0)
    assert len(batch.pictures) == len(batch.ids) == 8
    encoded = stage.text.ids(["a photo of sks dog", "a photo of a dog", ""])
    assert all(torch.equal(row, encoded[1]) for row in batch.ids[4:])
    own = [bool((row == encoded[0]).all()) for row in batch.ids[:4]]
    assert [bool((row == encoded[2]).all()) for row in batch.ids[:4]] == [not o for o in own]
    loss, numbers = stage.loss(batch, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(numbers["own"] + 0.5 * numbers["prior"])
    files[1].unlink()  # as if the drawing had been stopped
    made(preset, model, data, tmp_path, **subject)
    again = [f.stat().st_mtime_ns for f in files]
    assert (again[0], again[2]) == (stamps[0], stamps[2]) and again[1] > stamps[1]
    with pytest.raises(SuffuseError, match="pictures of 'a photo of a dog', not of 'a cat'"):
        keep_class_pictures(open_parts(model), "a cat", 3, tmp_path / "class")


def test_the_batch_and_its_noise_are_shared_out(model, data, tmp_path):
    """Two processes with half the batch have the loss of one."""
    preset = replace(LORA, prior=Prior(count=3), dropout=0.3)
    subject = {"prompt": "sks", "of_class": "a dog", "class_folder": tmp_path / "kind"}
    stage = made(preset, model, data, tmp_path, **subject)
    whole = stage.loss(stage.batch(5, 4, 7), Draw(1, slice(0, 4), 4))[0].item()
    halves = [
        stage.loss(stage.batch(5, 4, 7, rows), Draw(1, rows, 4))[0].item()
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert np.mean(halves) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    ("preset", "subject", "message"),
    [
        (WORD, {"word": "<rex>"}, "needs a new word and an old one"),
        (WORD, {"word": "cat</w>", "init": "dog"}, "'cat</w>' cannot be a new word"),
        (LORA, {"word": "<rex>", "init": "dog"}, "only textual inversion learns a word"),
        (FINETUNES["dreambooth"], {"prompt": "sks dog"}, "prior preservation needs a prompt"),
        (LORA, {"of_class": "a dog"}, "no prior preservation"),
        (replace(LORA, lora=LoraConfig(targets=("x",))), {}, "no layer is named like x"),
    ],
)
def test_refuses(model, data, tmp_path, preset, subject, message):
    with pytest.raises(SuffuseError, match=message):
        made(preset, model, data, tmp_path, **subject)


def test_pictures_without_captions_need_a_prompt(model, data, tmp_path):
    (tmp_path / "one.png").write_bytes((data / "one.png").read_bytes())
    with pytest.raises(SuffuseError, match="have no captions: name a prompt"):
        made(LORA, model, tmp_path, tmp_path / "run")
    assert made(LORA, model, tmp_path, tmp_path / "run", prompt="a thing").prompts == ["a thing"]


def test_presets_hold_together():
    assert {p.method for p in FINETUNES.values()} == {"full", "lora", "word"}
    assert FINETUNES["dreambooth"].prior == Prior(count=200, weight=1.0)
    with pytest.raises(SuffuseError, match="weight of at least 0"):
        Prior(weight=-1)
