"""Single files against CompVis' golden values, and against the folders of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from diffusers import DDIMScheduler
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors.torch import load_file, save_file
from test_folder import DEEP, LINEAR, SINGLE, WIDE, same_modules
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.weights.containers import open_tensors
from suffuse.weights.load import open_parts
from suffuse.weights.mapping import export
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.maps.ldm_unet import ldm_unet
from suffuse.weights.maps.ldm_vae import ldm_vae
from suffuse.weights.parts import Hints, Parts
from suffuse.weights.single_file import UNET

GOLDEN = Path(__file__).parents[1] / "parity" / "ldm" / "sd1_checkpoint"
# What the golden file cannot say.
HINTS: dict[str, Any] = {"heads": 4, "text_heads": 4, "tokenizer": tiny.TOKENIZER}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "io.safetensors")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The golden checkpoint's weights, those of the average left out, as pruned files have them."""
    file = open_tensors(GOLDEN / "model.ckpt")
    return {name: file.read(name) for name in file if not name.startswith("model_ema.")}


def eps(parts: Parts, golden: dict[str, Tensor]) -> Tensor:
    context = parts.unet.prepare(Cond(tokens=golden["out.context"]))
    return parts.unet(golden["in.x"], golden["in.t"], context)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ckpt", "safetensors", "no envelope", "pickled stream"])
def test_golden(
    kind: str, golden: dict[str, Tensor], state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.any"
    if kind == "ckpt":
        path = GOLDEN / "model.ckpt"
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "no envelope")
    parts = open_parts(path, hints=Hints(**HINTS))

    moments = parts.autoencoder.encode(golden["in.image"])
    image = parts.autoencoder.decode(golden["out.ddim_5"] / parts.latent_scale)
    text = parts.text(golden["in.ids"]).last
    found = {
        "context": tiny.deviation(text[:1], golden["out.context"]),
        "uncond": tiny.deviation(text[1:], golden["out.uncond"]),
        "eps": tiny.deviation(eps(parts, golden), golden["out.eps"]),
        "moments": tiny.deviation(
            torch.cat((moments.mean, moments.logvar), dim=1), golden["out.moments"]
        ),
        "image": tiny.deviation(image, golden["out.image"]),
    }
    assert max(found.values()) < 1e-5, found
    assert (parts.sampling.sampler, parts.sampling.kind) == ("plms", "eps")
    assert parts.info.name == path.stem


@torch.no_grad()
def test_golden_average(
    golden: dict[str, Tensor], state: dict[str, Tensor], tmp_path: Path
) -> None:
    parts = open_parts(GOLDEN / "model.ckpt", hints=Hints(ema=True, **HINTS))
    assert tiny.deviation(eps(parts, golden), golden["out.eps_ema"]) < 1e-5
    save_file(state, tmp_path / "pruned.safetensors")
    with pytest.raises(SuffuseError, match=r"no averaged weight for 'model\.diffusion_model"):
        open_parts(tmp_path / "pruned.safetensors", hints=Hints(ema=True, **HINTS))


@torch.no_grad()
def test_golden_half(golden: dict[str, Tensor], state: dict[str, Tensor], tmp_path: Path) -> None:
    """Half-precision files round the schedule's buffers too; they are not read."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    parts = open_parts(tmp_path / "half.safetensors", hints=Hints(**HINTS))
    assert 1e-6 < tiny.deviation(eps(parts, golden), golden["out.eps"]) < 1e-2
    full = open_parts(GOLDEN / "model.ckpt", hints=Hints(**HINTS))
    assert torch.equal(parts.sampling.schedule.alpha_bar, full.sampling.schedule.alpha_bar)
    rounded = half["alphas_cumprod"].double()
    assert (parts.sampling.schedule.alpha_bar - rounded).abs().max() > 1e-4
    assert parts.sampling.schedule.alpha_bar.float().allclose(state["alphas_cumprod"], rtol=1e-5)


def single_file(parts: Parts) -> dict[str, Tensor]:
    """The same weights by CompVis' names."""
    networks = {
        "model.diffusion_model.": (parts.unet, ldm_unet(parts.unet_config)),
        "first_stage_model.": (parts.autoencoder, ldm_vae(parts.autoencoder.config)),
        "cond_stage_model.transformer.": (parts.text, HF_CLIP_TEXT),
    }
    return {
        prefix + name: weight
        for prefix, (network, keys) in networks.items()
        for name, weight in export(network, keys, torch.float32).items()
    }


# Norm groups are 32 in single files, so are the channels here.
BASE = {"norm_num_groups": 32, "block_out_channels": (32, 64)}


@pytest.mark.parametrize(
    ("unet", "vae"),
    [
        ({}, {}),
        (DEEP | {"block_out_channels": (32, 64, 96)}, WIDE | {"block_out_channels": (32, 64, 96)}),
        (SINGLE | {"block_out_channels": (32,)} | LINEAR, {}),
    ],
    ids=["two-levels", "three-levels", "one-level"],
)
def test_single_file_and_folder(tmp_path: Path, unet: dict[str, Any], vae: dict[str, Any]) -> None:
    """Identical modules; and diffusers' own conversion finds its weights in what we wrote."""
    pipe = tiny.pipeline(BASE | unet, BASE | vae)
    pipe.save_pretrained(tmp_path / "folder")
    folder = open_parts(tmp_path / "folder")
    weights = single_file(folder)
    save_file(weights, tmp_path / "model.safetensors")
    hints = Hints(heads=folder.unet_config.heads, text_heads=4, tokenizer=tiny.TOKENIZER)
    same_modules(open_parts(tmp_path / "model.safetensors", hints=hints), folder)

    theirs = convert_ldm_unet_checkpoint(dict(weights), dict(pipe.unet.config))
    for name, weight in pipe.unet.state_dict().items():
        assert torch.equal(theirs[name].reshape(weight.shape), weight), name
    theirs = convert_ldm_vae_checkpoint(dict(weights), dict(pipe.vae.config))
    for name, weight in pipe.vae.state_dict().items():
        assert torch.equal(theirs[name].reshape(weight.shape), weight), name


def test_text_names_without_prefix(state: dict[str, Tensor], tmp_path: Path) -> None:
    bare = {k.replace(".transformer.text_model.", ".transformer."): v for k, v in state.items()}
    assert bare.keys() != state.keys()
    save_file(bare, tmp_path / "bare.safetensors")
    hints = Hints(**HINTS)
    same_modules(
        open_parts(tmp_path / "bare.safetensors", hints=hints),
        open_parts(GOLDEN / "model.ckpt", hints=hints),
    )


def test_what_a_file_may_say(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    hints = Hints(**HINTS)
    save_file({**state, "scale_factor": torch.tensor(0.25), "v_pred": torch.tensor([])}, path)
    parts = open_parts(path, hints=hints)
    assert parts.latent_scale == 0.25
    assert parts.sampling.kind == "v"
    save_file(state, path, metadata={"modelspec.prediction_type": "v"})
    assert open_parts(path, hints=hints).sampling.kind == "v"
    assert open_parts(path, hints=Hints(**HINTS, prediction="x0")).sampling.kind == "x0"
    assert open_parts(path, hints=Hints(**HINTS, scale=0.5)).latent_scale == 0.5
    assert (
        open_parts(path, hints=Hints(**HINTS, activation="gelu")).text.config.activation == "gelu"
    )


def test_the_mark_of_zero_terminal_snr(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    marks = {name: torch.tensor([]) for name in ("v_pred", "ztsnr")}
    save_file({**state, **marks}, path)
    sampling = open_parts(path, hints=Hints(**HINTS)).sampling
    assert sampling.kind == "v"
    assert sampling.schedule.alpha_bar[-1] == 0
    theirs = DDIMScheduler.from_config(sampling.config)
    torch.testing.assert_close(
        sampling.schedule.alpha_bar, theirs.alphas_cumprod.double(), rtol=0, atol=1e-6
    )


def test_a_folder_with_one_checkpoint(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "one.safetensors")
    assert open_parts(tmp_path, hints=Hints(**HINTS)).info.name == "one"
    save_file(state, tmp_path / "two.safetensors")
    with pytest.raises(SuffuseError, match=r"several checkpoints \(one.safetensors, two"):
        open_parts(tmp_path)


# ---- what is refused ---------------------------------------------------------------------------


def refused(weights: dict[str, Tensor], path: Path, **hints: Any) -> str:
    save_file(weights, path / "bad.safetensors")
    with pytest.raises(SuffuseError) as caught:
        open_parts(path / "bad.safetensors", hints=Hints(**{**HINTS, **hints}))
    message = str(caught.value)
    assert "\n" not in message
    assert "bad.safetensors" in message
    return message


def without(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    left = {k: v for k, v in weights.items() if part not in k}
    assert len(left) < len(weights)
    return left


@pytest.mark.parametrize(
    "gone",
    [
        "model.diffusion_model.out.2.bias",
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        "first_stage_model.decoder.conv_in.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.bias",
    ],
)
def test_missing_weights_are_named(state: dict[str, Tensor], tmp_path: Path, gone: str) -> None:
    assert f"1 weight is missing ('{gone}')" in refused(without(state, gone), tmp_path)


def test_parts_left_out(state: dict[str, Tensor], tmp_path: Path) -> None:
    assert "first_stage_model." in refused(without(state, "first_stage_model."), tmp_path)
    assert "conv1.weight' missing" not in refused(without(state, "middle_block"), tmp_path)
    message = refused(without(state, "input_blocks.3."), tmp_path)
    assert "input blocks do not fall into levels" in message


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.9.0.weight",
        "first_stage_model.encoder.odd",
        "cond_stage_model.transformer.text_model.odd",
        "something.else",
    ],
)
def test_unknown_weights_are_named(state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    message = refused({**state, name: torch.ones(1)}, tmp_path)
    assert f"('{name}')" in message
    assert "1 weight is unknown" in message


def test_wrong_shapes_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in (UNET + "time_embed.2.weight", "first_stage_model.decoder.mid.attn_1.k.weight"):
        message = refused({**state, name: torch.ones(3, 3)}, tmp_path)
        assert f"'{name}'" in message
        assert "(3, 3)" in message
    message = refused({**state, UNET + "input_blocks.0.0.weight": torch.ones(3, 3)}, tmp_path)
    assert "2 dimensions" in message


def test_inpainting_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    nine = {**state, UNET + "input_blocks.0.0.weight": torch.randn(32, 9, 3, 3)}
    message = refused(nine, tmp_path)
    assert "9 channels" in message
    assert "inpainting" in message


def test_wrong_hints(state: dict[str, Tensor], tmp_path: Path) -> None:
    assert "5 heads" in refused(state, tmp_path, heads=5)
    assert "1 numbers of heads for 2 levels" in refused(state, tmp_path, heads=(4,))
    assert "tokenizer" in refused(state, tmp_path, tokenizer=None)
    with pytest.raises(SuffuseError, match="unknown prediction 'noise'; known are eps, v, x0"):
        Hints(prediction="noise")


OTHERS = {
    "Stable Diffusion 2.x": [
        UNET + "input_blocks.0.0.weight",
        "first_stage_model.encoder.conv_in.weight",
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
    ],
    "Stable Diffusion XL": [
        UNET + "input_blocks.0.0.weight",
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",
    ],
    "Stable Diffusion 3": [UNET + "joint_blocks.0.context_block.adaLN_modulation.1.bias"],
    "LoRA": ["lora_unet_down_blocks_0.lora_down.weight"],
    "part of a model": ["encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"],
    "unknown format": ["holiday.photos", "holiday.videos", "work"],
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_formats_are_called_by_name(tmp_path: Path, what: str) -> None:
    message = refused({name: torch.ones(1, 4, 1, 1) for name in OTHERS[what]}, tmp_path)
    assert what in message
    if what == "unknown format":
        assert "its 3 weights" in message
        assert "'holiday.photos'" in message
        assert "'work'" in message


def test_a_control_net_is_not_swallowed(state: dict[str, Tensor], tmp_path: Path) -> None:
    message = refused({**state, "control_model.zero_convs.0.0.weight": torch.ones(1)}, tmp_path)
    assert "ControlNet" in message
