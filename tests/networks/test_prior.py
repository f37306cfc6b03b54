"""The prior and the projections of unCLIP, against diffusers'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import PriorTransformer
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from safetensors.torch import save_file
from tiny import deviation, randomise
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.prior import DiffusionPrior, PriorConfig
from suffuse.networks.unclip import ImageProjection, TextProjection
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import KeyMap, export, fill
from suffuse.weights.maps.prior import DIFFUSERS_PRIOR, text_projection

CONFIG = PriorConfig(embedding=20, width=24, layers=2, heads=2, tokens=9)


def filled(ours: nn.Module, keys: KeyMap, theirs: nn.Module, folder: Path) -> nn.Module:
    """Our module with the weights of theirs, which come back by export as they were."""
    randomise(theirs.eval(), 0)
    save_file(theirs.state_dict(), folder / "weights.safetensors")
    fill(ours, keys, open_tensors(folder / "weights.safetensors"))
    back = export(ours, keys, torch.float32)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], weight) for name, weight in theirs.state_dict().items())
    return ours.eval()


def test_a_prior_is_diffusers(tmp_path: Path) -> None:
    theirs = PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, embedding_dim=20,
        num_embeddings=9,
    )  # fmt: skip
    ours = filled(DiffusionPrior(CONFIG), DIFFUSERS_PRIOR, theirs, tmp_path)
    assert isinstance(ours, DiffusionPrior)
    x, text, states = torch.randn(3, 20), torch.randn(3, 20), torch.randn(3, 9, 20)
    mask = torch.arange(9) < torch.tensor([[9], [4], [0]])
    for label in (torch.tensor([0, 417, 999]), torch.tensor(7)):
        with torch.no_grad():
            want = theirs(x, label, text, states, mask).predicted_image_embedding
            got = ours(x, label, text, states, mask)
        assert deviation(got, want) < 1e-5
    assert deviation(ours.restore(x), theirs.post_process_latents(x).detach()) < 1e-6
    assert deviation(ours.normalise(ours.restore(x)), x) < 1e-4


def test_projections_are_diffusers(tmp_path: Path) -> None:
    theirs = UnCLIPTextProjModel(
        clip_extra_context_tokens=3, clip_embeddings_dim=20, time_embed_dim=16,
        cross_attention_dim=12,
    )  # fmt: skip
    ours = filled(TextProjection(20, 12, 16, tokens=3), text_projection(3), theirs, tmp_path)
    assert isinstance(ours, TextProjection)
    z, text, states = torch.randn(2, 20), torch.randn(4, 20), torch.randn(4, 9, 20)
    both = torch.cat((ours.image.null.expand(2, -1), z))
    with torch.no_grad():
        want = theirs(
            image_embeddings=z, prompt_embeds=text, text_encoder_hidden_states=states,
            do_classifier_free_guidance=True,
        )  # fmt: skip
        got = ours(both, text, states)
    assert deviation(got[0], want[0]) < 1e-5
    assert deviation(got[1], want[1]) < 1e-5


def test_a_prior_learns_what_captions_say() -> None:
    """Its first guess is the mean; training finds the embedding that goes with a caption."""
    torch.manual_seed(0)
    prior = DiffusionPrior(replace(CONFIG, text_scale=20**0.5))
    text = nn.functional.normalize(torch.randn(8, 20), dim=1)
    states, mask = torch.randn(8, 9, 20), torch.ones(8, 9, dtype=torch.bool)
    wanted, noised = torch.randn(8, 20), torch.randn(8, 20)
    told = torch.full((8,), 900), text, states, mask
    assert not prior(noised, *told).any()
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = (prior(noised, *told) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_an_image_enters_a_trained_network_gently() -> None:
    projection = ImageProjection(20, 12, 16, scale=20**0.5)
    z = nn.functional.normalize(torch.randn(256, 20), dim=1)
    tokens, vector = projection(z)
    assert tokens.shape == (256, 4, 12)
    assert not vector.any()
    assert 0.8 < float(tokens.detach().std()) < 1.2
    kept = projection.keep(z, torch.arange(256) < 1)
    assert torch.equal(kept[0], z[0])
    assert torch.equal(kept[1:], projection.null.expand(255, -1))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SuffuseError, match="width 24 does not divide into 5 heads"):
        replace(CONFIG, heads=5)
    prior = DiffusionPrior(CONFIG)
    mask = torch.ones(1, 8, dtype=torch.bool)
    with pytest.raises(SuffuseError, match="captions of 9 tokens, not 8"):
        z = torch.zeros(1, 20)
        prior(z, torch.tensor(0), z, torch.zeros(1, 8, 20), mask)
