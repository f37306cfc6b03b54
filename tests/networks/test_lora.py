"""LoRA on our networks: it starts as nothing, adds up, and leaves what it changes as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.families import SDConfig, stable_diffusion
from suffuse.networks.lora import (
    ATTENTION,
    BLOCKS,
    Adapter,
    Attached,
    LoraConfig,
    LowRank,
    has_attached,
    layers_of,
    make_adapter,
    merge,
)
from suffuse.networks.packing import pack
from suffuse.networks.words import NewWord, Spoken, extend

CONFIG = SDConfig(
    channels=(16, 32), blocks=1, depth=(1, 0), heads=(2, 2), context=16, groups=8, mid_depth=1
)
TOWER = ClipTextConfig(50, width=16, layers=2, heads=2, context=8, intermediate=32, eos=1)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return stable_diffusion(CONFIG).eval()


@pytest.fixture
def given_x():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    return x, torch.tensor([3, 700]), Cond(tokens=torch.randn(2, 5, 16, generator=generator))


def answer(net, x, label, cond):
    with torch.no_grad():
        return net(x, label, net.prepare(cond))


def trained(net, seed=2, **config):
    """An adapter that has learned something."""
    adapter = make_adapter(net, LoraConfig(**{"targets": ("*",), **config}))
    generator = torch.Generator().manual_seed(seed)
    for _, change in adapter.items():
        change.up.weight.data = 0.1 * torch.randn(change.up.weight.shape, generator=generator)
    return adapter.eval()


def test_a_fresh_adapter_changes_nothing(unet, given_x):
    before = answer(unet, *given_x)
    adapter = make_adapter(unet, LoraConfig(rank=2, targets=("*",)))
    assert len(adapter) == len(layers_of(unet))
    with Attached(unet, adapter):
        assert torch.equal(answer(unet, *given_x), before)


def test_patterns_choose_layers(unet):
    names = [name for name, _ in make_adapter(unet, LoraConfig()).items()]
    assert all(name.rsplit(".", 2)[1] in ("self_attn", "cross_attn") for name in names)
    assert len(names) == 8 * (1 + 1 + 2)  # two attentions of four layers each, down, middle, up
    blocks = [name for name, _ in make_adapter(unet, LoraConfig(targets=BLOCKS)).items()]
    assert set(layers_of(unet)) - set(blocks) == {"stem", "time.fc1", "time.fc2", "head.conv"}
    tower = ClipText(TOWER)
    assert len(make_adapter(tower, LoraConfig(targets=ATTENTION))) == 4 * TOWER.layers
    with pytest.raises(SuffuseError, match=r"no layer is named like to_q: layers are stem"):
        make_adapter(unet, LoraConfig(targets=("to_q",)))


@pytest.mark.parametrize(
    ("values", "message"), [({"rank": 0}, "at least 1, not 0"), ({"dropout": 1.0}, "dropout must")]
)
def test_refuses(values, message):
    with pytest.raises(SuffuseError, match=message):
        LoraConfig(**values)


def test_attached_and_merged_are_the_same_function(unet, given_x):
    one, two = trained(unet, rank=2, alpha=3.0), trained(unet, seed=3, rank=4)
    before = answer(unet, *given_x)
    weights = {name: w.clone() for name, w in unet.state_dict().items()}
    with Attached(unet, one, 0.7), Attached(unet, two, -0.5) as second:
        both = answer(unet, *given_x)
        second.scale = 0.0
        alone = answer(unet, *given_x)
    assert torch.equal(answer(unet, *given_x), before)
    assert (both - before).abs().max() > 0.1 and (both - alone).abs().max() > 0.1
    done = merge(unet, [(one, 0.7), (two, -0.5)])
    assert torch.allclose(answer(unet, *given_x), both, atol=1e-5 * float(both.abs().max()))
    # A packed twin carries what was merged.
    packed = answer(pack(unet), *given_x)
    assert torch.allclose(packed, both, atol=1e-5 * float(both.abs().max()))
    done.undo()
    assert all(torch.equal(w, weights[name]) for name, w in unet.state_dict().items())
    assert torch.equal(answer(unet, *given_x), before)


@pytest.mark.parametrize("layouts", [False, True])
def test_a_packed_twin_has_what_was_attached(unet, given_x, layouts):
    """Also in layers that packing replaces; as it was then, whatever becomes of the adapter."""
    before = answer(unet, *given_x)
    one, two, idle = (trained(unet, seed=seed, rank=2) for seed in (2, 3, 4))
    with Attached(unet, one, 0.7) as first, Attached(unet, two, -0.5), Attached(unet, idle, 0.0):
        want = answer(unet, *given_x)
        twin = pack(unet, layouts=layouts)
        assert torch.equal(answer(unet, *given_x), want)
        first.scale = 0.0
        got = answer(twin, *given_x)
    assert torch.allclose(got, want, atol=1e-5 * float(want.abs().max()))
    assert torch.equal(answer(unet, *given_x), before)
    assert torch.equal(answer(twin, *given_x), got) and not has_attached(twin)


def test_on_other_devices_a_twin_is_made_for_adapters_alone(unet):
    unet.to("meta")
    assert pack(unet) is unet
    with Attached(unet, make_adapter(unet, LoraConfig())):
        twin = pack(unet)
        assert has_attached(unet) and not has_attached(twin)
    assert twin.stem.weight is unet.stem.weight


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.booleans(), st.data())
def test_a_layer_beside_its_change_is_the_layer_merged(rank, kernel, stride, linear, data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    if linear:
        layer, x = nn.Linear(6, 4), torch.randn(3, 6)
    else:
        layer = nn.Conv2d(6, 4, kernel, stride=stride, padding=kernel // 2)
        x = torch.randn(2, 6, 7, 5)
    change = LowRank(layer, rank, alpha=data.draw(st.floats(0.5, 8)))
    nn.init.normal_(change.up.weight)
    net = nn.Sequential(layer)
    with Attached(net, Adapter({"0": change})), torch.no_grad():
        beside = net(x)
    merge(net, [(Adapter({"0": change}), 1.0)])
    assert change.change().shape == layer.weight.shape
    assert torch.allclose(net(x), beside, atol=1e-4)


def test_gradients_reach_the_factors_alone(unet, given_x):
    unet.requires_grad_(False)
    adapter = trained(unet, dropout=0.3).train()
    x, label, cond = given_x
    with Attached(unet, adapter):
        unet(x, label, unet.prepare(cond)).square().mean().backward()
    assert all(w.grad is None for w in unet.parameters())
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in adapter.parameters())


def test_the_base_may_be_in_half_precision(unet, given_x):
    adapter = trained(unet)
    with Attached(unet, adapter):
        wide = answer(unet, *given_x)
        unet.to(torch.bfloat16)
        x, label, cond = given_x
        narrow = answer(unet, x, label, Cond(tokens=cond.tokens.to(torch.bfloat16)))
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - wide).abs().max() < 0.1 * wide.abs().max()


def test_an_adapter_of_another_network_is_refused(unet):
    other = stable_diffusion(SDConfig(**{**vars(CONFIG), "context": 24}))
    with pytest.raises(SuffuseError, match=r"cross_attn.k' by a matrix of \(16, 24\)"):
        Attached(unet, make_adapter(other, LoraConfig()))
    with pytest.raises(SuffuseError, match=r"'blocks\.0\.attn\.q', which this network does"):
        merge(unet, [(make_adapter(ClipText(TOWER), LoraConfig()), 1.0)])


def test_a_new_word_is_the_row_it_stands_for():
    torch.manual_seed(0)
    tower = ClipText(TOWER).eval()
    ids = torch.tensor([[0, 7, 9, 1, 1]])
    before = tower(ids).last
    old = tower.token.weight.detach().clone()
    extend(tower, 50, old[[7, 9]].flip(1), eos=1)
    assert torch.equal(tower.token.weight[:50], old) and tower.config.vocab == 52
    assert torch.equal(tower(ids).last, before)
    new = torch.tensor([[0, 50, 51, 1, 1]])
    assert not torch.allclose(tower(new).last, before, atol=1e-3)
    word = NewWord(50, old[[7, 9]])
    with Spoken(tower, word) as spoken:
        assert torch.allclose(tower(new).last, before, atol=1e-6)
        tower.requires_grad_(False)
        tower(new).last.square().sum().backward()
        spoken.on = False
        assert not torch.allclose(tower(new).last, before, atol=1e-3)
    assert word.vectors.grad.abs().min() > 0
    with pytest.raises(SuffuseError, match="this text encoder's have 16 numbers"):
        extend(tower, 52, torch.zeros(1, 8), eos=1)
