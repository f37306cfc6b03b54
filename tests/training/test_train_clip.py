"""CLIP's training: the loss of a whole batch, what a stage leaves, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import multiprocessing
from torch.nn.functional import normalize

from suffuse.data.captions import plain
from suffuse.data.emoji import World
from suffuse.errors import SuffuseError
from suffuse.networks.clip_resnet import ClipResNetConfig
from suffuse.training.checkpoint import checkpoints
from suffuse.training.clip import contrastive
from suffuse.training.clip_presets import CLIPS
from suffuse.training.clip_stage import clip_stage
from suffuse.training.distributed import Team
from suffuse.training.loop import Run, train
from suffuse.training.plan import Objective
from suffuse.weights.clip import ClipParts, open_clip_parts, save_clip


def _towers() -> tuple[torch.nn.Linear, torch.nn.Linear, torch.nn.Parameter]:
    torch.manual_seed(0)
    return torch.nn.Linear(6, 5), torch.nn.Linear(7, 5), torch.nn.Parameter(torch.tensor(2.0))


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 6, generator=generator), torch.randn(8, 7, generator=generator)


def _loss(image, text, scale, seen, said):
    return contrastive(normalize(image(seen), dim=1), normalize(text(said), dim=1), scale.exp())[0]


def test_the_loss_is_transformers():
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower["num_attention_heads"] = 2
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 50, "max_position_embeddings": 8},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        out = model(
            input_ids=torch.randint(0, 49, (6, 8)),
            pixel_values=torch.randn(6, 3, 32, 32),
            return_loss=True,
        )
    loss, numbers = contrastive(out.image_embeds, out.text_embeds, model.logit_scale.exp())
    assert torch.allclose(loss, out.loss, rtol=1e-5)
    right = out.logits_per_image.argmax(1) == torch.arange(6)
    assert numbers["right"] == pytest.approx(right.float().mean().item())


def _process(rank: int, path: str, found) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2
    )
    image, text, scale = _towers()
    seen, said = (each[rank * 4 : rank * 4 + 4] for each in _inputs())
    _loss(image, text, scale, seen, said).backward()
    grads = [p.grad for p in (*image.parameters(), *text.parameters(), scale)]
    for grad in grads:  # what DDP does
        torch.distributed.all_reduce(grad)
    if rank == 0:
        found.put([(grad / 2).numpy() for grad in grads])
    torch.distributed.destroy_process_group()


def test_the_gradient_of_two_processes_is_that_of_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    both = [
        context.Process(target=_process, args=(rank, str(tmp_path / "meet"), found))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    grads = found.get(timeout=120)
    for process in both:
        process.join()
    image, text, scale = _towers()
    _loss(image, text, scale, *_inputs()).backward()
    for got, p in zip(grads, (*image.parameters(), *text.parameters(), scale), strict=True):
        np.testing.assert_allclose(got, p.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_run_leaves_a_clip_that_opens(tmp_path, kind):
    preset = CLIPS["toy"]
    if kind == "resnet":
        preset = replace(preset, image=ClipResNetConfig(128, (1, 1, 1, 1), 4, 2, 16))
    stage = clip_stage(preset, tmp_path, 0)
    train(stage, preset.plan, tmp_path)
    made = open_clip_parts(tmp_path / "model")
    picture = torch.zeros(1, 3, 128, 128)
    kept = torch.load(checkpoints(tmp_path)[-1], weights_only=True)["ema"]
    stage.nets.load_state_dict(kept)
    with torch.no_grad():
        mean = stage.net.eval().image.pool(picture)
        assert torch.allclose(made.model.image.pool(picture), mean, atol=1e-2)  # half precision
    assert replace(made.prepare, rounded=False) == preset.input
    assert made.tokenizer.encode("a dog") == stage.text.tokenizer.encode("a dog")
    assert (tmp_path / "samples" / "0000004.png").exists()


def test_a_saved_resnet_is_the_same_to_the_last_bit(tmp_path):
    preset = replace(CLIPS["toy"], image=ClipResNetConfig(128, (1, 2, 1, 1), 4, 2, 16))
    stage = clip_stage(preset, tmp_path, 0)
    net = stage.net.train()
    net.image.pool(torch.randn(2, 3, 128, 128))  # statistics of its own
    save_clip(
        ClipParts(net.eval(), stage.text.tokenizer, preset.input), tmp_path / "saved", torch.float32
    )
    again = open_clip_parts(tmp_path / "saved").model.state_dict()
    for name, weight in net.state_dict().items():
        assert torch.equal(again[name], weight), name
    assert (tmp_path / "saved" / "open_clip_config.json").exists()


def test_a_rival_differs_and_is_allowed():
    world = World(objects=12)
    for i in range(60):
        scene = world.scene_at(i)
        rival = world.rival(scene, np.random.default_rng(i))
        words = [(plain(s, "en"), s.background.names, s.size) for s in (scene, rival)]
        assert words[0] != words[1]
        assert world.allowed(rival, "train") and rival.kind == scene.kind
        assert len(set(rival.things) - set(scene.things)) <= 1


def test_a_contrastive_batch_is_not_accumulated(tmp_path):
    preset = CLIPS["toy"]
    with pytest.raises(SuffuseError, match="whole batch"):
        clip_stage(replace(preset, plan=replace(preset.plan, accumulate=2)), tmp_path, 0)


def test_published_presets_ask_for_data(tmp_path):
    with pytest.raises(SuffuseError, match="--data"):
        clip_stage(CLIPS["vit-b-32"], tmp_path, 0)


def test_a_clip_goes_on_with_the_words_it_knows(tmp_path):
    """The captions of other data would teach another tokenizer: its numbers mean other words."""
    first = clip_stage(CLIPS["toy"], tmp_path / "first", 0)
    parts = ClipParts(first.net.eval(), first.text.tokenizer, CLIPS["toy"].input)
    save_clip(parts, tmp_path / "model", torch.float32)
    other = replace(CLIPS["toy"], world=World(objects=20), captions=50)
    stage = clip_stage(other, tmp_path / "second", 1, init=tmp_path / "model")
    captions = ["a red apple", "two dogs on a blue background"]
    assert torch.equal(stage.text.ids(captions), first.text.ids(captions))
    for name, weight in first.net.state_dict().items():
        assert torch.equal(stage.net.state_dict()[name], weight), name


def test_pictures_without_words_are_refused(tmp_path):
    for i in range(3):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / f"{i}.png")
    with pytest.raises(SuffuseError, match=r"none of the first pictures of .* has a caption"):
        clip_stage(CLIPS["toy"], tmp_path / "out", 0, data=str(tmp_path))


def test_gains_and_biases_do_not_decay(tmp_path):
    assert CLIPS["vit-b-32"].plan.decayed == "matrices"
    stage = clip_stage(CLIPS["toy"], tmp_path, 0)
    plan = replace(CLIPS["toy"].plan, decayed="matrices", weight_decay=0.2, steps=2, save_every=2)
    run = Run(stage, plan, tmp_path, 0, Team(), print)
    run.begin(False)
    groups = run.optimizers["nets"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert {w.ndim > 1 for w in groups[0]["params"]} == {True}
    assert {w.ndim > 1 for w in groups[1]["params"]} == {False}
    assert any(w is stage.net.logit_scale for w in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(run.weights["nets"])


def test_a_temperature_is_not_sharded(tmp_path):
    team = Team()
    team.size, team.sharded = 2, True
    with pytest.raises(SuffuseError, match="cannot be sharded: leave ACCELERATE_USE_FSDP out"):
        team.wrap(Objective(clip_stage(CLIPS["toy"], tmp_path, 0)))
