"""Karlo's networks: golden values of its own files, and diffusers' classes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from karlo_tiny import DECODER, UPSAMPLER
from safetensors.torch import load_file, save_file
from tiny import deviation, randomise
from torch import Tensor, nn

import suffuse
from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.clip import Clip, ClipText, ClipTextConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.networks.prior import DiffusionPrior, PriorConfig
from suffuse.networks.unclip import TextProjection
from suffuse.networks.unet import Context
from suffuse.systems.registry import kind_of
from suffuse.systems.unclip_load import karlo
from suffuse.weights.containers import open_tensors
from suffuse.weights.formats import recognise
from suffuse.weights.karlo_files import open_karlo_decoder, open_karlo_files, open_karlo_prior
from suffuse.weights.mapping import KeyMap, export
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_KARLO
from suffuse.weights.maps.karlo import (
    karlo_prior,
    karlo_projection,
    karlo_unet,
    karlo_upsampler,
)
from suffuse.weights.maps.openai_clip import OPENAI_CLIP
from suffuse.weights.parts import Place, build
from suffuse.weights.unclip_config import decoder_config, upsampler_config

GOLDEN = Path(__file__).parents[1] / "parity" / "karlo"
PRIOR, STATISTICS = GOLDEN / "prior" / "prior.ckpt", GOLDEN / "prior" / "ViT-L-14_stats.th"


@torch.no_grad()
def test_golden_prior() -> None:
    io = load_file(GOLDEN / "prior" / "io.safetensors")
    prior = open_karlo_prior(PRIOR, STATISTICS, head_width=12)
    given = (io[f"in.{name}"] for name in ("x", "t", "proj_embedding", "states", "mask"))
    got = prior(*given)
    assert deviation(got, io["out.out"]) < 1e-5
    assert deviation(prior.restore(got), io["out.denormalised"]) < 1e-5


@torch.no_grad()
def test_golden_decoder() -> None:
    io = load_file(GOLDEN / "decoder" / "io.safetensors")
    unet, config, projection = open_karlo_decoder(
        GOLDEN / "decoder" / "decoder.ckpt", head_width=16
    )
    assert (config.attends, config.heads, config.context) == ((False, True), (2, 4), 20)
    assert (projection.image.embedding, projection.image.count) == (24, 4)
    context = unet.prepare(Cond(tokens=io["in.states"], vector=io["in.class_embedding"]))
    assert deviation(unet(io["in.sample"], io["in.t"], context), io["out.out"]) < 1e-5


@torch.no_grad()
def test_a_decoder_is_diffusers(tmp_path: Path) -> None:
    theirs = UNet2DConditionModel(**DECODER).eval()
    randomise(theirs, 1)
    config = decoder_config(dict(theirs.config) | {"_class_name": "UNet2DConditionModel"}, "x")
    save_file(theirs.state_dict(), tmp_path / "unet.safetensors")
    file = open_tensors(tmp_path / "unet.safetensors")
    ours = build(lambda: adm(config), DIFFUSERS_KARLO, file, Place())
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    tokens, vector = torch.randn(2, 9, 20), torch.randn(2, 128)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    want = theirs(x, t, tokens, class_labels=vector, attention_mask=mask).sample
    context: Context = ours.prepare(Cond(tokens=tokens, mask=mask, vector=vector))
    assert deviation(ours(x, t, context), want) < 1e-5


@torch.no_grad()
def test_an_upsampler_is_diffusers(tmp_path: Path) -> None:
    theirs = UNet2DModel(**UPSAMPLER).eval()
    randomise(theirs, 2)
    config = upsampler_config(dict(theirs.config) | {"_class_name": "UNet2DModel"}, "x")
    save_file(theirs.state_dict(), tmp_path / "unet.safetensors")
    file = open_tensors(tmp_path / "unet.safetensors")
    ours = build(lambda: adm(config), DIFFUSERS_KARLO, file, Place())
    x, t, low = torch.randn(2, 3, 16, 16), torch.tensor([0, 500]), torch.randn(2, 3, 16, 16)
    want = theirs(torch.cat((x, low), dim=1), t).sample
    assert deviation(ours(x, t, ours.prepare(Cond(concat=low))), want) < 1e-5


def fused(parts: list[Tensor], heads: int) -> Tensor:
    """Tensors whose rows lie by head, as one that lies [head][part]."""
    return torch.stack([part.unflatten(0, (heads, -1)) for part in parts], 1).flatten(0, 2)


def written(net: nn.Module, keys: KeyMap, below: str, heads: dict[int, int]) -> dict[str, Tensor]:
    """Weights as Karlo's training wrote them; heads: how many, by the rows of a tensor."""
    theirs: dict[str, list[tuple[str, Tensor]]] = {}
    for name, weight in net.state_dict().items():
        ((key, op),) = keys.spellings(name)
        shared = "part " in op.name
        weight = weight if shared else op.write(weight)
        one = weight[..., None] if shared and weight.ndim == 2 and "blocks" not in name else weight
        theirs.setdefault(below + key, []).append((name, one))
    out = {}
    for key, parts in theirs.items():
        rows = [weight for _, weight in parts]  # q, k, v: the order of their names
        out[key] = rows[0] if len(rows) == 1 else fused(rows, heads[len(rows[0])])
    return out


def test_a_folder_of_its_own_files_opens(tmp_path: Path) -> None:
    """Prior, decoder, both upsamplers and OpenAI's CLIP, each as its makers wrote it."""
    torch.manual_seed(0)
    shape = PriorConfig(64, 128, 1, 2, tokens=77)
    prior = DiffusionPrior(shape)
    low = ADMConfig(
        width=64, channels=(64, 128), blocks=1, attends=(False, True), heads=(1, 2), context=64
    )
    high = replace(
        low, in_channels=6, out_channels=3, attends=(False, False), heads=(1, 1), context=0,
        mid_attention=False,
    )  # fmt: skip
    decoder, projection = adm(low), TextProjection(64, 64, low.embedding)
    first, last = adm(high), adm(high)
    text = ClipTextConfig(49408, 64, 1, 1, 77, 256, projection=64)
    clip = Clip(ClipText(text), ClipVision(ClipVisionConfig(16, 8, 64, 1, 1, 256, projection=64)))
    for i, net in enumerate((prior, decoder, projection, first, last)):
        randomise(net, i)
    plain = written(prior, karlo_prior(shape), "model.", {128: 2})
    known = tuple(plain.pop(f"model.{name}") for name in ("mean", "std"))
    blocks = written(decoder, karlo_unet(low), "model.", {128: 2})
    doors = written(projection, karlo_projection(4), "model.", {})
    steps = [
        written(net, karlo_upsampler(high), below, {})
        for net, below in ((first, "model_first_steps."), (last, "model_last_step."))
    ]
    torch.save({"state_dict": plain}, tmp_path / "prior-ckpt-step=01000000-of-01000000.ckpt")
    torch.save({"state_dict": blocks | doors}, tmp_path / "decoder-ckpt-step=1.ckpt")
    torch.save({"state_dict": steps[0] | steps[1]}, tmp_path / "improved-sr-ckpt-step=1.2M.ckpt")
    torch.save(known, tmp_path / "ViT-L-14_stats.th")
    torch.save(export(clip, OPENAI_CLIP, torch.float32), tmp_path / "ViT-L-14.pt")
    assert kind_of(tmp_path) == "UnCLIP"
    parts = open_karlo_files(tmp_path, Place())
    assert karlo(parts).size == (256, 256)
    assert parts.prior is not None and parts.upsampler is not None
    pairs = {
        prior: parts.prior.network,
        decoder: parts.decoder.unet,
        projection: parts.decoder.projection,
        first: parts.upsampler.first,
        last: parts.upsampler.last,
        clip.text: parts.towers.text,
    }
    for made, opened in pairs.items():
        assert opened is not None
        for name, weight in opened.state_dict().items():
            assert torch.equal(weight, made.state_dict()[name]), name
    assert parts.towers.tokenizer is not None and parts.towers.tokenizer.pad == 0
    shutil.copy(tmp_path / "decoder-ckpt-step=1.ckpt", tmp_path / "decoder-ckpt-step=2.ckpt")
    with pytest.raises(SuffuseError, match="holds several of decoder-ckpt"):
        suffuse.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"class_embed_type": None}, "class_embed_type = None is not supported"),
        ({"norm_num_groups": 16}, "norm_num_groups = 16 is not supported"),
        ({"up_block_types": 3}, "up_block_types = 3 is not supported"),
        ({"down_block_types": None}, "down_block_types = None is not supported"),
        ({"attention_head_dim": 24}, "attention_head_dim = 24 is not supported"),
        ({"up_block_types": ["ResnetUpsampleBlock2D"] * 2}, "do not mirror"),
        ({"cross_attention_norm": "group_norm"}, "cross_attention_norm"),
    ],
)
def test_other_decoders_are_refused(change: dict[str, Any], line: str) -> None:
    raw = {"_class_name": "UNet2DConditionModel", **DECODER, **change}
    with pytest.raises(SuffuseError, match=line):
        decoder_config(raw, "config.json")


def test_its_files_are_recognised() -> None:
    for path, name in ((PRIOR, "prior"), (GOLDEN / "decoder" / "decoder.ckpt", "decoder")):
        found = recognise(open_tensors(path))
        assert found is not None and found.name == f"Karlo's {name} (original)"
        with pytest.raises(SuffuseError, match="only a part of a model: Karlo's"):
            suffuse.load(path)


def test_other_files_are_refused() -> None:
    with pytest.raises(SuffuseError, match="is no prior of Karlo's"):
        open_karlo_prior(GOLDEN / "decoder" / "decoder.ckpt", STATISTICS)
    with pytest.raises(SuffuseError, match="is no decoder of Karlo's"):
        open_karlo_decoder(PRIOR)
    with pytest.raises(SuffuseError, match="not a mean and a deviation"):
        open_karlo_prior(PRIOR, PRIOR)
