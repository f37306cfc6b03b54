"""guided-diffusion's files: golden values of every flavour, strictness, published models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import deviation, randomise
from torch import Tensor, nn
from torch.nn.functional import interpolate, log_softmax, one_hot

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.classifier import ClassifierConfig, classifier
from suffuse.networks.packing import pack
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.weights.adm import (
    Heads,
    classifier_shape,
    open_adm,
    open_classifier,
    published_as,
    unet_shape,
)
from suffuse.weights.adm_presets import PUBLISHED, improved, published
from suffuse.weights.containers import open_tensors
from suffuse.weights.inspect import describe
from suffuse.weights.load import open_parts
from suffuse.weights.mapping import KeyMap, export
from suffuse.weights.maps.adm import adm_classifier, adm_unet
from suffuse.weights.tensorfile import Entry, TensorFile

GOLDEN = Path(__file__).parents[1] / "parity" / "gd"
UNETS = {
    "64x64_diffusion": Heads(width=16, new_order=True),
    "256x256_diffusion_uncond": Heads(width=16),
    "512x512_diffusion": Heads(width=16),
    "improved_ddpm": Heads(count=4, up_count=2),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "unet" / "io.safetensors")


def vector(io: dict[str, Tensor], config: ADMConfig) -> Tensor | None:
    return one_hot(io["in.y"], config.classes).float() if config.classes else None


@pytest.mark.parametrize("name", UNETS)
@torch.no_grad()
def test_golden_unets(golden: dict[str, Tensor], name: str) -> None:
    model = open_adm(GOLDEN / "unet" / f"{name}.pt", UNETS[name])
    assert isinstance(model.config, ADMConfig)
    assert model.published is None
    context = model.unet.prepare(Cond(vector=vector(golden, model.config)))
    for label, suffix in (("in.t", ""), ("in.t_float", "_float_t")):
        got = model.unet(golden["in.x"], golden[label], context)
        assert deviation(got, golden[f"out.{name}{suffix}"]) < 1e-5


@torch.no_grad()
def test_shapes_are_read(golden: dict[str, Tensor]) -> None:
    found = {}
    for name, heads in UNETS.items():
        found[name] = open_adm(GOLDEN / "unet" / f"{name}.pt", heads).config
    plain = ADMConfig(width=32, channels=(32, 32), blocks=1, attends=(False, True), heads=(2, 2))
    assert found == {
        "64x64_diffusion": replace(plain, channels=(32, 64), heads=(2, 4), classes=10),
        "256x256_diffusion_uncond": plain,
        "512x512_diffusion": replace(plain, width=64, channels=(32, 64), heads=(2, 4), classes=10),
        "improved_ddpm": replace(
            plain, heads=(4, 4), up_heads=(2, 2), scale_shift=False, res_resample=False
        ),
    }


@torch.no_grad()
def test_the_order_of_qkv_and_heads_matter(golden: dict[str, Tensor]) -> None:
    """The file does not tell: a wrong word opens, and draws something else."""
    path = GOLDEN / "unet" / "64x64_diffusion.pt"
    for heads in (Heads(width=16), Heads(count=2, new_order=True)):
        model = open_adm(path, heads)
        context = model.unet.prepare(Cond(vector=vector(golden, model.config)))
        got = model.unet(golden["in.x"], golden["in.t"], context)
        assert deviation(got, golden["out.64x64_diffusion"]) > 0.02


@torch.no_grad()
def test_golden_upsampler() -> None:
    io = load_file(GOLDEN / "super_res" / "io.safetensors")
    model = open_adm(GOLDEN / "super_res" / "upsampler.pt", Heads(count=4))
    grown = interpolate(io["in.low_res"], size=(16, 16), mode="bilinear")
    cond = Cond(vector=one_hot(io["in.y"], 10).float(), concat=grown)
    got = model.unet(io["in.x"], io["in.t"], model.unet.prepare(cond))
    assert deviation(got, io["out.out"]) < 1e-5


@pytest.mark.parametrize("pool", ["attention", "adaptive"])
def test_golden_classifiers(pool: str) -> None:
    io = load_file(GOLDEN / "classifier" / "io.safetensors")
    path = GOLDEN / "classifier" / f"classifier_{pool}.pt"
    net, config = open_classifier(path, Heads(width=16))
    assert (config.pool, config.size, config.classes) == (pool, 16 * (pool == "attention"), 10)
    x = io["in.x"].clone().requires_grad_()
    logits = net(x, io["in.t"])
    assert deviation(logits.detach(), io[f"out.{pool}"]) < 1e-5
    chosen = log_softmax(logits, dim=-1)[range(len(x)), io["in.y"]].sum()
    (gradient,) = torch.autograd.grad(chosen, x)
    assert deviation(2.5 * gradient, io[f"out.{pool}_grad"]) < 1e-5
    with torch.no_grad():  # without gradients sums are made in place
        assert deviation(net(io["in.x"], io["in.t"]), io[f"out.{pool}"]) < 1e-5


def test_attention_pooling_has_one_size() -> None:
    net, _ = open_classifier(GOLDEN / "classifier" / "classifier_attention.pt", Heads(width=16))
    with pytest.raises(SuffuseError, match="16 x 16 pixels, not 24 x 16"):
        net(torch.zeros(1, 3, 16, 24), torch.tensor(3))


SMALL = ADMConfig(
    width=32, channels=(32, 64), blocks=2, attends=(False, True), heads=(1, 2), out_channels=5
)


@pytest.mark.parametrize("pool", ["spatial", "spatial_v2"])
@torch.no_grad()
def test_spatial_pooling(pool: Any, tmp_path: Path) -> None:
    """Of the means of whatever each input block and the middle made, seen from outside."""
    config = ClassifierConfig(SMALL, pool, 0, 2)
    net = classifier(config).eval()
    randomise(net, 2)
    weights = export(net, adm_classifier(config), torch.float32)
    torch.save(weights, tmp_path / "classifier.pt")
    again, found = open_classifier(tmp_path / "classifier.pt", Heads(width=32))
    assert found == config

    means: list[Tensor] = []
    stage = [again.stem, *(p for s in again.down for p in (*parts(s), s.resample) if p is not None)]
    for part in [*stage, again.mid.res[1]]:
        part.register_forward_hook(lambda _m, _i, out: means.append(out.mean(dim=(2, 3))))
    logits = again(torch.randn(2, 3, 8, 8), torch.tensor([3, 800]))
    h = torch.cat(means, dim=1) @ weights["out.0.weight"].T + weights["out.0.bias"]
    if pool == "spatial":
        h = h.clamp(min=0)
    else:
        h = h.unflatten(1, (32, -1))
        h = (h - h.mean(2, keepdim=True)) / (h.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        h = h.flatten(1) * weights["out.1.weight"] + weights["out.1.bias"]
        h = h * torch.sigmoid(h)
    last = "out.2" if pool == "spatial" else "out.3"
    want = h @ weights[f"{last}.weight"].T + weights[f"{last}.bias"]
    assert deviation(logits, want) < 1e-5


def parts(stage: Any) -> list[nn.Module]:
    """What ends each input block of a level: its attention, where it has one."""
    return list(stage.attn or stage.res)


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNETS)
def test_what_is_read_is_written(name: str) -> None:
    path = GOLDEN / "unet" / f"{name}.pt"
    model = open_adm(path, UNETS[name])
    assert isinstance(model.config, ADMConfig)
    keys = adm_unet(model.config, UNETS[name].new_order)
    same(export(model.unet, keys, torch.float32), torch.load(path))


@pytest.mark.parametrize("pool", ["attention", "adaptive"])
def test_what_is_read_is_written_of_classifiers(pool: str) -> None:
    path = GOLDEN / "classifier" / f"classifier_{pool}.pt"
    net, config = open_classifier(path, Heads(width=16))
    same(export(net, adm_classifier(config), torch.float32), torch.load(path))


def same(written: dict[str, Tensor], read: dict[str, Tensor]) -> None:
    assert written.keys() == read.keys()
    assert all(torch.equal(weight, read[name]) for name, weight in written.items())


UPSAMPLER = GOLDEN / "super_res" / "upsampler.pt"


def refused(change: Callable[[dict[str, Tensor]], object], path: Path, **heads: Any) -> str:
    weights = dict(torch.load(UPSAMPLER))
    change(weights)
    save_file(weights, path / "bad.safetensors")
    with pytest.raises(SuffuseError) as caught:
        open_adm(path / "bad.safetensors", Heads(**heads or {"count": 4}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "key", ["label_emb.weight", "out.2.bias", "middle_block.1.qkv.bias", "time_embed.0.bias"]
)
def test_faulty_keys_are_named(tmp_path: Path, key: str) -> None:
    if key == "label_emb.weight":  # without it the model is just one without labels
        message = refused(lambda w: w.update({key: torch.ones(10, 3)}), tmp_path)
    else:
        message = refused(lambda w: w.pop(key), tmp_path)
        assert f"1 weight is missing ('{key}')" in message
        message = refused(lambda w: w.update({key: torch.ones(7)}), tmp_path)
    assert f"'{key}' has the shape" in message
    message = refused(lambda w: w.update({"odd." + key: torch.ones(1)}), tmp_path)
    assert f"1 weight is unknown ('odd.{key}')" in message


def test_heads_must_be_told_and_fit(tmp_path: Path) -> None:
    with pytest.raises(SuffuseError, match=r"no published model.*give their count or their width"):
        open_adm(UPSAMPLER)
    assert "32 channels do not divide into 5 heads" in refused(len, tmp_path, count=5)
    assert "32 channels do not divide into heads of 24" in refused(len, tmp_path, width=24)
    for wrong in ({}, {"count": 4, "width": 16}):
        with pytest.raises(SuffuseError, match="either their count or their width"):
            Heads(**wrong)


def test_uneven_levels_are_refused(tmp_path: Path) -> None:
    def cut(weights: dict[str, Tensor]) -> None:
        for name in list(weights):
            if name.startswith("output_blocks.3."):
                del weights[name]

    assert "output blocks do not fall into levels" in refused(cut, tmp_path)


def test_one_is_not_the_other() -> None:
    with pytest.raises(SuffuseError, match="is a diffusion model, not a classifier"):
        open_classifier(UPSAMPLER)
    with pytest.raises(SuffuseError, match="is a classifier, not a diffusion model"):
        open_adm(GOLDEN / "classifier" / "classifier_adaptive.pt")
    with pytest.raises(SuffuseError, match=r"only a part of a model: U-Net \(guided-diffusion\)"):
        open_parts(UPSAMPLER)


def test_inspect_knows_them() -> None:
    unet = describe(UPSAMPLER)
    assert unet.format == "U-Net (guided-diffusion)"
    assert unet.components[0].name == "unet"
    assert unet.hints["in_channels"] == 6
    assert unet.hints["published"] == "no: its heads must be told"
    for pool in ("attention", "adaptive"):
        found = describe(GOLDEN / "classifier" / f"classifier_{pool}.pt")
        assert found.format == "noisy classifier (guided-diffusion)"
        assert [part.name for part in found.components] == ["classifier"]


# ---- what only ours does -----------------------------------------------------------------------


@torch.no_grad()
def test_no_class_is_a_row_of_zeros(golden: dict[str, Tensor]) -> None:
    unet = open_adm(GOLDEN / "unet" / "64x64_diffusion.pt", UNETS["64x64_diffusion"]).unet
    x, label = golden["in.x"], golden["in.t"]
    none = unet(x, label, unet.prepare(Cond()))
    assert deviation(unet(x, label, unet.prepare(Cond(vector=torch.zeros(2, 10)))), none) < 1e-6
    # Guidance asks for every picture with and without its class in one batch.
    classes = one_hot(golden["in.y"], 10).float()
    both = unet.prepare(Cond(vector=torch.cat((classes, torch.zeros(2, 10)))))
    got = unet(x, label, both)
    assert deviation(got[:2], golden["out.64x64_diffusion"]) < 1e-5
    assert deviation(got[2:], none) < 1e-5


@pytest.mark.parametrize("name", ["64x64_diffusion", "improved_ddpm"])
@torch.no_grad()
def test_a_shared_label_and_the_packed_twin(golden: dict[str, Tensor], name: str) -> None:
    unet = open_adm(GOLDEN / "unet" / f"{name}.pt", UNETS[name]).unet
    x, context = golden["in.x"], unet.prepare(Cond())
    own = unet(x, torch.tensor([40, 40]), context)
    assert deviation(unet(x, torch.tensor(40), context), own) < 1e-5
    assert deviation(pack(unet)(x, torch.tensor(40), context), own) < 1e-5
    with torch.enable_grad():
        assert deviation(unet(x, torch.tensor(40), context).detach(), own) < 1e-5


@pytest.mark.parametrize("label", [torch.tensor(40), torch.tensor([40, 700])])
def test_training_in_half_precision(label: Tensor) -> None:
    """Adaptive group norm mixes precisions: products are in bfloat16, norms in float32."""
    net = adm(SMALL)
    randomise(net, 1)
    x, context = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(1)), net.prepare(Cond())
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, label, context)
    want = net(x, label, context)
    assert deviation(half.float().detach(), want.detach()) < 0.1
    half.float().square().mean().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


@torch.no_grad()
def test_any_size_and_dropout() -> None:
    net = adm(replace(SMALL, dropout=0.5)).eval()
    randomise(net, 1)
    x, context = torch.randn(1, 3, 7, 10), net.prepare(Cond())
    still = net(x, torch.tensor(4), context)
    assert still.shape == (1, 5, 7, 10) and torch.equal(still, net(x, torch.tensor(4), context))
    assert not torch.equal(net.train()(x, torch.tensor(4), context), still)


# ---- published models --------------------------------------------------------------------------


def file_of(net: nn.Module, keys: KeyMap) -> TensorFile:
    """What a file of this network would look like: names and shapes, and nothing behind them."""
    entries = {}
    for name, weight in net.state_dict().items():
        theirs, op = keys.spellings(name)[0]
        shape = tuple(op.write(weight).shape)
        entries[theirs] = Entry(None, 0, torch.float32, shape, ())  # type: ignore[arg-type]
    return TensorFile(Path("file.pt"), "none", entries)


def millions(net: nn.Module) -> int:
    return round(sum(p.numel() for p in net.parameters()) / 1e6)


# Millions of parameters, as 2105.05233 and 2102.09672 give them.
SIZES = {
    "64x64_diffusion": 296, "128x128_diffusion": 422, "256x256_diffusion": 554,
    "256x256_diffusion_uncond": 553, "512x512_diffusion": 559, "64_256_upsampler": 312,
    "128_512_upsampler": 309, "imagenet64_uncond_100M_1500K": 121,
    "imagenet64_cond_270M_250K": 273, "cifar10_uncond_50M_500K": 53, "upsample_cond_500K": 280,
    "lsun_uncond_100M_1200K_bs128": 114,
}  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.names[0])
def test_published_models_are_known_by_their_shapes(row: Any) -> None:
    with torch.device("meta"):
        net = adm(row.config)
    file = file_of(net, adm_unet(row.config, row.new_order))
    assert published(unet_shape(file)) is row
    assert row.names[0] in published_as(file)
    assert millions(net) == pytest.approx(SIZES[row.names[0]], abs=1)


@pytest.mark.parametrize(("size", "depth", "want"), [(64, 4, 65), (128, 2, 43), (256, 2, 54)])
def test_published_classifiers(size: int, depth: int, want: int) -> None:
    net = replace(improved(size, 128, depth), classes=0, out_channels=1000)
    config = ClassifierConfig(net, "attention", size, net.heads[-1])
    with torch.device("meta"):
        built = classifier(config)
    assert millions(built) == want
    found = classifier_shape(file_of(built, adm_classifier(config)))
    assert replace(found, net=replace(found.net, heads=net.heads), pool_heads=8) == config


def test_open_tensors_reads_their_container() -> None:
    assert open_tensors(UPSAMPLER).container == "torch zip"
