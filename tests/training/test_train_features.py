"""The feature network's labels and its training."""

from __future__ import annotations

import torch
from PIL import Image

from suffuse.data.emoji import World
from suffuse.training.features import (
    FILE,
    GAIN,
    FeatureStage,
    label_names,
    labels,
    places,
    train_features,
)
from suffuse.training.plan import Plan
from suffuse.weights.perceptual import open_features, open_perceptual

WORLD = World(objects=4, shapes=False)


def test_labels_say_what_is_there():
    _, _, scenes = WORLD.batch(0, 40)
    names, told = label_names(WORLD), labels(scenes, WORLD)
    assert told.shape == (40, len(names)) and len(set(names)) == len(names)
    for scene, row in zip(scenes, told):
        said = {name for name, there in zip(names, row.tolist()) if there}
        want = {thing.en for thing in scene.things} | set(scene.background.names) | {scene.kind}
        assert said == want | ({scene.relation, scene.size} - {None})


def test_places_are_those_of_the_things():
    _, _, scenes = WORLD.batch(0, 40)
    told = places(scenes, WORLD, 8)  # cells of 16 pixels
    assert told.shape == (40, 8, 8)
    for scene, row in zip(scenes, told):
        there = set(row.flatten().tolist()) - {len(WORLD.things)}
        assert there == {thing.index for thing in scene.things}
        for thing, mask in zip(scene.things, scene.masks()):
            # The middle of a cell lies between four pixels; a thing that covers them covers it.
            covered = torch.from_numpy(mask[8::16, 8::16] & mask[7::16, 7::16]) > 0
            assert (row[covered] == thing.index).all()


def test_it_learns_and_what_it_learned_is_opened(tmp_path):
    stage = FeatureStage(WORLD, (8, 16, 24))
    optimizer = torch.optim.AdamW(stage.nets.parameters(), lr=5e-3)
    batch, losses = stage.batch(0, 6, seed=0), []
    for step in range(20):
        loss, numbers = stage.loss(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0] and 0 <= numbers["right"] <= 1
    part = stage.batch(0, 6, seed=0, rows=slice(2, 4))
    assert torch.equal(part.images, batch.images[2:4])
    assert torch.equal(part.labels, batch.labels[2:4])
    stage.sample(stage.nets, tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (8 * 128, 2 * 128)
    stage.export(stage.nets, tmp_path / "model")
    net = open_perceptual(tmp_path / "model" / FILE)
    # The gain that the head was taught with is in its weights: the file needs no more to tell.
    with torch.no_grad():
        taught = stage.net.head(GAIN * stage.net.embed(batch.images))
        told = open_features(tmp_path / "model" / FILE)(batch.images)
    assert torch.allclose(told, taught, atol=0.02 * taught.abs().max().item())  # half precision
    near = net(batch.images, (batch.images + 0.02).clamp(-1, 1))
    assert (near < net(batch.images, batch.images.flip(0))).all()


def test_the_function_leaves_a_file(tmp_path):
    plan = Plan(steps=2, batch=2, warmup=1, save_every=2, sample_every=2)
    path = train_features(str(tmp_path), WORLD, plan)
    assert open_perceptual(path).stack.config.labels == len(label_names(WORLD))
