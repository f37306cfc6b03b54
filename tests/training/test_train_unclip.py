"""unCLIP's stages: what a run leaves, what is left out of training, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from suffuse.errors import SuffuseError
from suffuse.systems.unclip_prior import counted
from suffuse.training.checkpoint import checkpoints
from suffuse.training.clip_presets import CLIPS
from suffuse.training.clip_stage import clip_stage
from suffuse.training.loop import train
from suffuse.training.unclip_presets import DECODERS, PRIORS
from suffuse.training.unclip_stages import decoder_stage, prior_stage
from suffuse.weights.clip import ClipParts, open_clip_parts, save_clip
from suffuse.weights.load import open_parts
from suffuse.weights.parts import Place
from suffuse.weights.unclip_own import PROJECTION, open_own_prior, open_projection


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP that has learnt nothing, in a folder."""
    folder = tmp_path_factory.mktemp("clip")
    stage = clip_stage(CLIPS["toy"], folder, 0)
    parts = ClipParts(stage.net.eval(), stage.text.tokenizer, CLIPS["toy"].input)
    save_clip(parts, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def prior(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    stage = prior_stage(PRIORS["toy"], folder, 0, clip=str(clip))
    train(stage, PRIORS["toy"].plan, folder)
    return stage, folder


def test_a_prior_begins_at_the_mean_and_opens_again(prior, clip):
    stage, folder = prior
    made = open_own_prior(folder / "model", Place())
    assert made.network.config == stage.prior.config
    width = open_clip_parts(clip).width
    told = torch.zeros(1, width), torch.zeros(1, 32, 32), torch.ones(1, 32, dtype=torch.bool)
    out = made.network(torch.randn(1, width), torch.tensor([3]), *told)
    assert out.shape == (1, width) and out.abs().max() < 1  # normalised: the mean is 0
    assert made.use.draws == PRIORS["toy"].draws
    assert torch.allclose(made.network.std, stage.data.z.float().std(0), rtol=1e-3)


def test_captions_are_left_out_as_often_as_asked(prior):
    stage, _ = prior
    rows = [row for step in range(60) for row in stage.batch(step, 8, 0).ids]
    empty = sum(bool((row == stage.empty[0]).all()) for row in rows)
    assert 20 <= empty <= 80  # 10 % of 480


def test_what_counts_ends_with_the_text():
    ids = torch.tensor([[0, 7, 1, 1, 1], [0, 1, 1, 1, 1], [0, 5, 6, 7, 8]])
    assert counted(ids, 1).tolist() == [
        [True, True, True, False, False],
        [True, True, False, False, False],
        [True] * 5,
    ]


def test_a_decoder_leaves_the_model_as_it_was(prior, clip, tmp_path):
    _, prior_folder = prior
    preset = DECODERS["toy"]
    stage = decoder_stage(preset, tmp_path, 0, clip=str(clip), prior=prior_folder / "model")
    train(stage, preset.plan, tmp_path)
    before = open_parts().unet.state_dict()
    for name, weight in stage.unet.state_dict().items():
        assert torch.equal(weight, before[name]), name
    projection = open_projection(tmp_path / "model" / PROJECTION, Place())
    assert projection.count == 4 and projection.embedding == open_clip_parts(clip).width
    assert open_own_prior(tmp_path / "model", Place()).use.draws == 2
    assert (tmp_path / "samples" / "0000002.png").exists()


def test_embeddings_are_left_out_by_themselves(prior, clip, tmp_path):
    preset = replace(DECODERS["toy"], without=0.5, silent=0.5)
    stage = decoder_stage(preset, tmp_path, 0, clip=str(clip))
    found = [stage.batch(step, 8, 0) for step in range(40)]
    gone = np.array([row.isnan().all().item() for batch in found for row in batch.z])
    mute = np.array([(row == stage.empty[0]).all().item() for batch in found for row in batch.ids])
    assert 0.35 < gone.mean() < 0.65 and 0.35 < mute.mean() < 0.65
    assert 0.15 < (gone & mute).mean() < 0.35  # one says nothing about the other


def test_a_prior_of_another_clip_is_refused(prior, clip, tmp_path):
    _, prior_folder = prior
    other = clip_stage(CLIPS["toy"], tmp_path, 1)
    parts = ClipParts(other.net.eval(), other.text.tokenizer, CLIPS["toy"].input)
    save_clip(parts, tmp_path / "other")
    with pytest.raises(SuffuseError, match="was trained with the CLIP"):
        decoder_stage(
            DECODERS["toy"],
            tmp_path / "run",
            0,
            clip=str(tmp_path / "other"),
            prior=prior_folder / "model",
        )


def _lesson(tokens=32):
    plan = replace(DECODERS["toy"].plan, steps=2)
    return replace(DECODERS["toy"], tokens=tokens, lesson=plan, hidden=8)


def test_a_lesson_is_given_once_for_each_clip(clip, tmp_path):
    first, again = (decoder_stage(_lesson(), tmp_path, 0, clip=str(clip)) for _ in range(2))
    (kept,) = (tmp_path / "lesson").iterdir()
    for name, weight in first.nets.state_dict().items():
        assert torch.equal(again.nets.state_dict()[name], weight), name
    taught = torch.load(checkpoints(kept)[-1], weights_only=True)["nets"]
    assert torch.equal(taught["projection.vector.weight"], first.projection.vector.weight)
    untaught = decoder_stage(replace(_lesson(), lesson=None), tmp_path / "b", 0, clip=str(clip))
    before, after = (s.projection.tokens[0].weight for s in (untaught, first))
    assert not torch.equal(before, after)

    decoder_stage(_lesson(), tmp_path, 0)  # of another CLIP: the bundled one
    assert len(list((tmp_path / "lesson").iterdir())) == 2


def test_what_cannot_be_is_refused_before_the_work(clip, prior, tmp_path):
    with pytest.raises(SuffuseError, match="as many tokens as captions have here, 32, not 4"):
        decoder_stage(_lesson(4), tmp_path, 0, clip=str(clip))
    with pytest.raises(SuffuseError, match="was trained with the CLIP"):
        decoder_stage(_lesson(), tmp_path, 0, prior=prior[1] / "model")
    assert not list(tmp_path.iterdir())
