"""The autoregressive prior: its coordinates, its cache, and learning what there is to learn."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from suffuse.errors import SuffuseError
from suffuse.networks.ar_prior import ARPrior, ARPriorConfig, Coordinates, Told
from suffuse.networks.clip import ClipTextConfig, TextOutput
from suffuse.systems.ar_prior import sample
from suffuse.training.ar_prior import AR_PRIORS, ARPriorPreset, ARPriorStage, ar_prior_stage
from suffuse.training.embedded import EmbeddedSet
from suffuse.training.plan import Plan
from suffuse.weights.ar_prior import open_ar_prior, save_ar_prior
from suffuse.weights.parts import Info

CONFIG = ARPriorConfig(12, 6, 16, 4, vocab=20, tokens=5, width=32, layers=2, heads=4)


def told(rows, keep=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    text = torch.randn(rows, 12, generator=g)
    return Told(
        torch.randint(20, (rows, 5), generator=g),
        text / text.norm(dim=1, keepdim=True),
        torch.randint(4, (rows,), generator=g),
        torch.full((rows,), keep),
    )


def random_prior():
    torch.manual_seed(1)
    prior = ARPrior(CONFIG)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return prior.eval()


# ---- coordinates ---------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 12), st.sampled_from([16, 256, 1024]))
@settings(max_examples=20, deadline=None)
def test_coordinates_come_back_to_half_a_bucket(seed, kept, buckets):
    """What is lost is what the components that are left out hold, and half a bucket of each."""
    root = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))
    z = torch.randn(200, 12, generator=torch.Generator().manual_seed(seed + 1)) @ root + 3
    found = Coordinates(12, kept, buckets)
    found.fit(z)
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(kept), atol=1e-4, rtol=0)
    ids = found.ids(z)
    assert ids.min() >= 0 and ids.max() < buckets
    back = found.embedding(ids)
    assert torch.equal(found.ids(back), ids)
    inside = ((z - found.mean) @ found.basis.T - (back - found.mean) @ found.basis.T).abs()
    assert (inside <= (found.high - found.low) / buckets / 2 + 1e-4).all()
    spread = ((z - z.mean(0)) @ found.basis.T).var(0)
    assert (spread.diff() <= 1e-3 * spread[0]).all()  # those of most variance first
    left = ((z - z.mean(0)) ** 2).sum() - (((z - z.mean(0)) @ found.basis.T) ** 2).sum()
    values = torch.linalg.svdvals(z - z.mean(0))
    torch.testing.assert_close(left, (values[kept:] ** 2).sum(), atol=0.5, rtol=1e-3)


# ---- the network ---------------------------------------------------------------------------------


def test_with_a_cache_or_without():
    prior, given_ = random_prior(), told(3)
    ids = torch.randint(16, (3, 6), generator=torch.Generator().manual_seed(5))
    whole = prior(ids, given_)
    logits, cache = prior.begin(given_)
    torch.testing.assert_close(logits, whole[:, 0], atol=1e-5, rtol=1e-5)
    for k in range(5):
        logits = prior.go_on(ids[:, k], cache)
        torch.testing.assert_close(logits, whole[:, k + 1], atol=1e-5, rtol=1e-5)


def test_a_coordinate_knows_what_is_told_and_those_before_it():
    prior, ids = random_prior(), torch.zeros(1, 6, dtype=torch.long)
    first = prior(ids, told(1))
    later = prior(ids.index_fill(1, torch.tensor([3]), 7), told(1))
    assert torch.equal(first[:, :4], later[:, :4])
    assert (first[:, 4:] - later[:, 4:]).abs().min() > 0
    # Each part of what is told counts; a row that is told nothing hears none of it.
    base = told(1)
    for changed in (
        base._replace(ids=(base.ids + 1) % 20),
        base._replace(text=-base.text),
        base._replace(dots=(base.dots + 1) % 4),
    ):
        assert (prior(ids, changed) - first).abs().max() > 1e-4
        silent, other = base._replace(keep=~base.keep), changed._replace(keep=~base.keep)
        assert torch.equal(prior(ids, silent), prior(ids, other))


def test_sampling_is_that_of_the_probabilities():
    """Draws from a generator an image, the same alone; frequencies as the network says."""
    prior, one = random_prior(), told(1)
    many = [sample(prior, one.ids.expand(400, -1), one.text.expand(400, -1), range(400), 1.0)][0]
    alone = sample(prior, one.ids, one.text, [7], 1.0)
    torch.testing.assert_close(alone, many[7:8], atol=1e-5, rtol=0)
    torch.testing.assert_close(many.norm(dim=1), torch.ones(400))
    dots = []
    for seed in range(400):  # the first number of each is for the dot product: the upper half of 4
        g = torch.Generator().manual_seed(seed)
        dots.append(2 + int(torch.rand((), generator=g, dtype=torch.float64) * 2))
    both = Told(*(part.expand(2, *part.shape[1:]) for part in one))
    logits, _ = prior.begin(both._replace(dots=torch.tensor([2, 3])))
    share = dots.count(2) / 400
    firsts = torch.tensor([share, 1 - share]) @ logits.softmax(1).detach()
    drawn = torch.bincount(_first_buckets(prior, one, 400), minlength=16) / 400
    assert (drawn - firsts).abs().max() < 0.08


def _first_buckets(prior, one, rows):
    """The first coordinate's buckets, by a prior of which that alone is kept."""
    short = ARPrior(ARPriorConfig(12, 1, 16, 4, vocab=20, tokens=5, width=32, layers=2, heads=4))
    state = {k: v for k, v in prior.state_dict().items() if "coordinates" not in k}
    state["position.weight"] = state["position.weight"][:8]
    short.load_state_dict(state, strict=False)
    # One axis, whose sixteen buckets are told apart by the angle to another number.
    short.coordinates.mean.copy_(torch.eye(12)[1])
    z = sample(short.eval(), one.ids.expand(rows, -1), one.text.expand(rows, -1), range(rows), 1.0)
    return short.coordinates.ids(z / z[:, 1:2])[:, 0]


# ---- training ------------------------------------------------------------------------------------

PRESET = ARPriorPreset(
    "", Plan(steps=1, batch=64), width=32, layers=1, heads=2, coordinates=4, buckets=8, dots=2
)


def corners(rows, seed=0):
    """Eight captions name three of an embedding's four signs; the fourth is left to chance."""
    g = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (rows, 4), generator=g)
    scale = torch.tensor([4.0, 3.0, 2.0, 1.0])  # so that components come in this order
    # The last number makes the dot product, of which the signs know nothing.
    last = 4 + 0.2 * torch.rand((rows, 1), generator=g)
    image = torch.cat([(2.0 * signs - 1) * scale, last], 1)
    caption = signs[:, :3] @ torch.tensor([4, 2, 1])
    ids = torch.stack([torch.ones(rows).long(), 2 + caption, torch.full((rows,), 19)], 1)
    return EmbeddedSet(
        image / image.norm(dim=1, keepdim=True), ids[:, None], torch.empty(rows, 0, 1, 1)
    ), signs


class Towers(torch.nn.Module):
    """A CLIP whose captions all lie on the last axis."""

    def __init__(self):
        super().__init__()
        self.config = ClipTextConfig(vocab=20, projection=5)
        self.token = torch.nn.Embedding(20, 5)
        self.text = self

    def forward(self, ids):
        return TextOutput(None, None, torch.eye(5)[4].expand(len(ids), 5))


def test_it_learns_what_captions_tell_and_no_more(tmp_path):
    clip = SimpleNamespace(model=Towers(), width=5, info=Info("towers", "made in memory"))
    data, signs = corners(1000)
    held_out, _ = corners(200, seed=1)
    lines = []
    stage = ARPriorStage(PRESET, clip, data, held_out=held_out, note=lines.append)
    assert "4 of 5 coordinates in 8 buckets lose" in lines[0]
    part = stage.batch(3, 8, 0, rows=slice(2, 5))
    for got, whole in zip(part, stage.batch(3, 8, 0)):
        assert torch.equal(got, whole[2:5])
    optimizer = torch.optim.AdamW(stage.nets.parameters(), lr=5e-3)
    for step in range(100):
        loss, _ = stage.loss(stage.batch(step, 48, 0), torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    stage.export(stage.nets, tmp_path / "model")
    net, clip = open_ar_prior(tmp_path / "model")
    assert clip is None
    # Nats an embedding: by chance each sign is one of two, and a caption tells three of them.
    nats = 4 * stage.score(torch.nn.ModuleDict({"prior": net}))
    assert nats < 2 * math.log(2) and nats == pytest.approx(math.log(2), abs=0.15)
    text = torch.eye(5)[4].expand(64, 5)
    z = sample(net, data.ids[:64, 0], text, range(64), guidance=1.5)
    same = (z[:, :4] > 0) == (signs[:64] > 0)
    assert same[:, :3].float().mean() > 0.95
    assert 0.25 < same[:, 3].float().mean() < 0.75


def test_tokens_of_another_clip_are_refused(tmp_path):
    z = torch.randn(8, 192)
    for ids in (torch.full((8, 1, 32), 60_000), torch.zeros(8, 1, 5, dtype=torch.int64)):
        save_file({"z": z, "ids": ids}, tmp_path / "z.safetensors")
        with pytest.raises(SuffuseError, match=r"ids are no tokens of .*, which reads 32 of 1536"):
            ar_prior_stage(AR_PRIORS["toy"], tmp_path, 0, data=str(tmp_path / "z.safetensors"))


def test_refusals(tmp_path):
    with pytest.raises(SuffuseError, match="too few for 8 coordinates"):
        Coordinates(12, 8, 16).fit(torch.randn(5, 12))
    with pytest.raises(SuffuseError, match="is no prior that"):
        open_ar_prior(tmp_path)
    for name in ("heads", "layers", "width", "vocab", "tokens"):
        with pytest.raises(SuffuseError, match="every size must be at least 1"):
            replace(CONFIG, **{name: 0})
    save_ar_prior(random_prior(), tmp_path / "prior")
    config = tmp_path / "prior" / "config.json"
    said = json.loads(config.read_text())
    for change, line in (
        ({"width": 40}, "has the shape"),
        ({"clip": 7}, "clip = 7 is not supported"),
    ):
        config.write_text(json.dumps({**said, **change}))
        with pytest.raises(SuffuseError, match=line):
            open_ar_prior(tmp_path / "prior")
    with pytest.raises(SuffuseError, match="captions of 5 tokens and embeddings of 12"):
        random_prior().begin(told(1)._replace(ids=torch.zeros(1, 4).long()))
