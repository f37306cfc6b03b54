"""The text encoder's first lesson: its answers, and that it learns them in both languages."""

import numpy as np
import torch

from suffuse.data.colours import COLOURS
from suffuse.data.emoji import World
from suffuse.data.layout import KINDS
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.systems.encoders import TextEncoder
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import load_tokenizer
from suffuse.training.loop import train
from suffuse.training.plan import Plan
from suffuse.training.reading import ReadingStage, answers, question_count

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
        present, first, last, rest = told.split([things, things, things, len(told) - 3 * things])
        indices = [thing.index for thing in scene.things]
        assert present.nonzero().flatten().tolist() == sorted(set(indices))
        assert (first.argmax(), last.argmax()) == (indices[0], indices[-1])
        above, below, kind = rest.split([len(colours), len(colours), len(rest) - 2 * len(colours)])
        assert colours[above.argmax()] == scene.background.names[0]
        assert colours[below.argmax()] == scene.background.names[-1]
        assert KINDS[kind[: len(KINDS)].argmax()] == scene.kind
        assert told[-4:].argmax() == scene.count - 1


def test_the_answers_belong_to_the_captions(tmp_path):
    """Row i of a batch asks about the scene that row i describes."""
    stage = reader(tmp_path)
    batch = stage.batch(3, 16, seed=0)
    for ids, told in zip(batch.ids, batch.answers):
        places = (stage.ids.long() == ids).all(2).nonzero()[:, 0]
        assert any(torch.equal(answers(WORLD.scene_at(int(i)), WORLD), told) for i in places)


def test_it_learns_to_read(tmp_path):
    stage = reader(tmp_path)
    losses = []
    plan = Plan(steps=60, batch=32, lr=5e-3, warmup=5, save_every=1000)
    train(stage, plan, tmp_path / "run", report=lambda report: losses.append(report.loss))
    batch = stage.batch(1000, 64, seed=1)
    with torch.no_grad():
        loss, _ = stage.loss(batch, torch.Generator())
        # What always giving each question's own share of yes would cost: nothing read.
        share = stage.answers.float().mean(0).clamp(1e-6, 1 - 1e-6)
        blind = (
            torch.nn.functional.binary_cross_entropy(
                share.expand_as(batch.answers), batch.answers, reduction="none"
            )
            .sum(1)
            .mean()
        )
    assert loss < 0.7 * blind
