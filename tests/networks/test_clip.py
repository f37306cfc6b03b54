"""The text tower against transformers, with random weights copied by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText, ClipTextConfig

EOS, VOCAB, CONTEXT = 98, 99, 16  # id 98 is also the padding, as in Stable Diffusion 1
SMALL = ClipTextConfig(
    vocab=VOCAB, width=32, layers=4, heads=4, context=CONTEXT, intermediate=80, eos=2
)
ROWS = {
    "token": "embeddings.token_embedding",
    "position": "embeddings.position_embedding",
    "norm": "final_layer_norm",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def theirs(config: ClipTextConfig) -> torch.nn.Module:
    """transformers' model of the same shape, every parameter random (no zero, no one)."""
    shape = CLIPTextConfig(
        vocab_size=config.vocab,
        hidden_size=config.width,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        hidden_act=config.activation,
        layer_norm_eps=config.eps,
        projection_dim=config.projection or 0,
        bos_token_id=0,
        eos_token_id=config.eos,
        pad_token_id=1,
    )
    model = (CLIPTextModelWithProjection if config.projection else CLIPTextModel)(shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return model.eval()


def their_name(name: str) -> str:
    if name == "projection.weight":
        return "text_projection.weight"
    stem, leaf = name.rsplit(".", 1)
    if not stem.startswith("blocks."):
        return f"{ROWS[stem]}.{leaf}"
    _, i, part = stem.split(".", 2)
    return f"encoder.layers.{i}.{ROWS[part]}.{leaf}"


def ours(config: ClipTextConfig, model: torch.nn.Module) -> ClipText:
    state = {k.removeprefix("text_model."): v for k, v in model.state_dict().items()}
    tower = ClipText(config)
    used = {name: their_name(name) for name in tower.state_dict()}
    assert set(used.values()) == {k for k in state if not k.endswith("position_ids")}
    tower.load_state_dict({name: state[key] for name, key in used.items()})
    return tower.eval()


def sentences() -> torch.Tensor:
    ids = torch.randint(3, EOS, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate((4, 9, CONTEXT)):
        ids[row, length - 1 :] = EOS
    return ids


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


@pytest.mark.parametrize("eos", [2, EOS])
@pytest.mark.parametrize("projection", [None, 24])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_agrees_with_transformers(activation, projection, eos):
    config = replace(SMALL, activation=activation, projection=projection, eos=eos)
    model, ids = theirs(config), sentences()
    tower, want = ours(config, model), model(ids, output_hidden_states=True)
    got = tower(ids)
    assert off(got.last, want.last_hidden_state) < 1e-5
    pooled = want.text_embeds if projection else want.pooler_output
    assert got.pooled.shape == (3, projection or 32)
    assert off(got.pooled, pooled) < 1e-5

    final_norm = (model.text_model if projection else model).final_layer_norm
    for skip in range(3):
        got = tower(ids, skip=skip)
        hidden = want.hidden_states[-(skip + 1)]
        assert off(got.hidden, hidden) < 1e-5
        assert off(got.last, final_norm(hidden)) < 1e-5
        assert off(got.pooled, pooled) < 1e-5  # whatever the skip


@torch.no_grad()
def test_a_mistaken_activation_is_visible():
    model, ids = theirs(SMALL), sentences()
    want = model(ids).last_hidden_state
    wrong = ours(replace(SMALL, activation="gelu"), model)
    assert off(wrong(ids).last, want) > 1e-3


@torch.no_grad()
def test_largest_id_or_first_end():
    """Padding with "!" (id 0) or with the end itself: both rules read the first end."""
    tower = ClipText(SMALL)
    ids = sentences()
    zeros = ids.clone()
    for row, length in enumerate((4, 9, CONTEXT)):
        zeros[row, length:] = 0
    assert torch.equal(tower(ids).pooled, tower(zeros).pooled)
    assert torch.equal(ids.argmax(1), torch.tensor([3, 8, CONTEXT - 1]))


@torch.no_grad()
def test_runs_only_the_layers_needed():
    tower, ids, ran = ClipText(SMALL), sentences(), []
    for i, block in enumerate(tower.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    out = tower(ids, skip=2, pool=False)
    assert ran == [0, 1] and out.pooled is None
    tower(ids, skip=2)
    assert ran == [0, 1, 0, 1, 2, 3]


def test_causal_and_shorter_than_the_window():
    tower, ids = ClipText(SMALL).eval(), sentences()
    with torch.no_grad():
        torch.testing.assert_close(tower(ids[:, :5]).last, tower(ids).last[:, :5])


def test_every_parameter_gets_a_gradient():
    tower = ClipText(replace(SMALL, projection=24))
    out = tower(sentences())
    (out.last.square().sum() + out.pooled.square().sum()).backward()
    silent = [n for n, p in tower.named_parameters() if p.grad is None or not p.grad.any()]
    # Softmax does not see a constant added to every score, so a key's bias never learns.
    assert [n for n in silent if not n.endswith("attn.k.bias")] == []


def test_starts_small_and_on_the_meta_device():
    last = ClipText(SMALL)(sentences()).hidden
    assert last.abs().max() < 5
    with torch.device("meta"):
        assert all(p.is_meta for p in ClipText(SMALL).parameters())


def test_bad_shapes():
    with pytest.raises(SuffuseError, match="5 heads"):
        replace(SMALL, heads=5)
    with pytest.raises(SuffuseError, match="unknown activation 'relu'"):
        replace(SMALL, activation="relu")
    tower = ClipText(SMALL)
    with pytest.raises(SuffuseError, match="17 tokens given, its window is 16"):
        tower(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(SuffuseError, match="clip skip 4 is out of range"):
        tower(sentences(), skip=4)
