"""The text encoder's first lesson: its answers, and that it learns them in both languages."""

import numpy as np
import torch

from suffuse.data.colours import COLOURS
from suffuse.data.emoji import World
from suffuse.data.layout import KINDS, sizes
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.systems.encoders import TextEncoder
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import load_tokenizer
from suffuse.training.loop import train
from suffuse.training.plan import Plan
from suffuse.training.reading import ReadingStage, answers, places, question_count

WORLD = World(objects=4, shapes=False)


def reader(tmp_path, scenes=64):
    captions = []
    for i in range(scenes):
        rng = np.random.default_rng(i)
        scene = WORLD.scene_at(i)
        captions += [scene.caption(language, rng) for language in ("en", "ko")]
    save_tokenizer(train_bpe(captions, 400), tmp_path, 48)
    tokenizer = load_tokenizer(tmp_path)
    torch.manual_seed(0)
    tower = ClipText(
        ClipTextConfig(400, width=32, layers=1, heads=2, context=48, intermediate=64, eos=1)
    )
    ids = TextEncoder(tokenizer, tower).ids(captions)[:, 0].view(scenes, 2, -1)
    return ReadingStage(tower, ids, WORLD)


def test_answers_say_what_the_scene_is():
    things, colours = len(WORLD.things), list(COLOURS)
    for i in range(50):
        scene = WORLD.scene_at(i)
        told = answers(scene, WORLD)
        assert told.shape == (question_count(WORLD),)
        present, rest = told.split([things, len(told) - things])
        indices = {thing.index for thing in scene.things}
        assert present.nonzero().flatten().tolist() == sorted(indices)
        above, below, kind = rest.split([len(colours), len(colours), len(rest) - 2 * len(colours)])
        assert colours[above.argmax()] == scene.background.names[0]
        assert colours[below.argmax()] == scene.background.names[-1]
        assert KINDS[kind[: len(KINDS)].argmax()] == scene.kind
        assert told[-4:].argmax() == scene.count - 1


def test_places_say_what_stands_in_each_ninth_of_the_picture():
    for i in range(50):
        scene = WORLD.scene_at(i)
        told = places(scene, WORLD)
        things, size = told.split([len(WORLD.things), len(sizes())], 1)
        assert told.sum() == 2 * scene.count  # no two things share a ninth
        for item in scene.placed:
            row = np.digitize(item.y + item.size / 2, [128 / 3, 256 / 3])
            column = np.digitize(item.x + item.size / 2, [128 / 3, 256 / 3])
            assert things[3 * row + column].argmax() == item.thing.index
            assert sizes()[size[3 * row + column].argmax()] == item.size


def test_places_are_asked_only_behind_the_text(tmp_path):
    """A token of the caption itself cannot know what comes after it."""
    stage = reader(tmp_path)
    batch = stage.batch(0, 8, seed=0)
    full = batch.ids.clone()
    full[:, 1:-1] = 5  # captions that fill the window: its last token alone is behind them
    full[:, -1] = 1
    told = batch.places.clone()
    told[:, :-1] = 1 - told[:, :-1]  # what is not asked cannot matter
    loss, _ = stage.loss(batch._replace(ids=full), torch.Generator())
    other, _ = stage.loss(batch._replace(ids=full, places=told), torch.Generator())
    assert loss == other


def test_the_answers_belong_to_the_captions(tmp_path):
    """Row i of a batch asks about the scene that row i describes."""
    stage = reader(tmp_path)
    batch = stage.batch(3, 16, seed=0)
    for ids, told, here in zip(*batch):
        found = (stage.ids.long() == ids).all(2).nonzero()[:, 0]
        scenes = [WORLD.scene_at(int(i)) for i in found]
        assert any(torch.equal(answers(scene, WORLD), told) for scene in scenes)
        assert any(torch.equal(places(scene, WORLD), here) for scene in scenes)


def test_it_learns_to_read(tmp_path):
    stage = reader(tmp_path)
    losses = []
    plan = Plan(steps=60, batch=32, lr=5e-3, warmup=5, save_every=1000)
    train(stage, plan, tmp_path / "run", report=lambda report: losses.append(report.loss))
    batch = stage.batch(1000, 64, seed=1)
    with torch.no_grad():
        loss, _ = stage.loss(batch, torch.Generator())
        blind = unread(stage.answers, batch.answers) + 9 * unread(stage.places, batch.places)
    assert loss < 0.7 * blind


def unread(all_told, told):
    """The loss of always giving each question's own share of yes."""
    share = all_told.float().mean(0).clamp(1e-6, 1 - 1e-6).expand_as(told)
    loss = torch.nn.functional.binary_cross_entropy(share, told, reduction="none")
    return loss.sum(-1).mean()
