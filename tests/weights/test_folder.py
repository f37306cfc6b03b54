"""diffusers folders against diffusers and transformers themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.weights.load import open_parts
from suffuse.weights.parts import Hints, Parts

LINEAR: dict[str, Any] = {"use_linear_projection": True}
DEEP: dict[str, Any] = {  # three levels, each with its own number of heads and blocks inside
    "block_out_channels": (16, 32, 48),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4, 6),
    "transformer_layers_per_block": (1, 2, 3),
    "layers_per_block": 2,
}
SINGLE: dict[str, Any] = {
    "block_out_channels": (16,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}
OTHER_TIME: dict[str, Any] = {"flip_sin_to_cos": False, "freq_shift": 1}
WIDE: dict[str, Any] = {  # an autoencoder of three levels with two blocks each, without quant_conv
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
    "latent_channels": 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}
GELU: dict[str, Any] = {"hidden_act": "gelu", "eos_token_id": 633, "num_hidden_layers": 3}


@torch.no_grad()
def deviations(parts: Parts, pipe: StableDiffusionPipeline) -> dict[str, float]:
    """How far each network's output lies from diffusers', relative to its largest number."""
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    x, tokens, label = draw(2, 4, 8, 8), draw(2, 7, 32), torch.tensor([981, 3])
    image = draw(1, 3, 32, 32)
    ids = torch.as_tensor(parts.tokenizer.windows("a cat on a red mat"))
    eps = parts.unet(x, label, parts.unet.prepare(Cond(tokens=tokens)))
    encoded, moments = parts.autoencoder.encode(image), pipe.vae.encode(image).latent_dist
    text, theirs = parts.text(ids), pipe.text_encoder(ids)
    return {
        "eps": tiny.deviation(eps, pipe.unet(x, label, tokens).sample),
        "mean": tiny.deviation(encoded.mean, moments.mean),
        "logvar": tiny.deviation(encoded.logvar, moments.logvar),
        "image": tiny.deviation(parts.autoencoder.decode(x), pipe.vae.decode(x).sample),
        "text": tiny.deviation(text.last, theirs.last_hidden_state),
        "pooled": tiny.deviation(text.pooled, theirs.pooler_output),
    }


def same_modules(a: Parts, b: Parts) -> None:
    for ours, theirs in ((a.unet, b.unet), (a.autoencoder, b.autoencoder), (a.text, b.text)):
        left, right = ours.state_dict(), theirs.state_dict()
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize(
    ("unet", "vae", "text"),
    [
        ({}, {}, {}),
        (LINEAR, {}, GELU),
        (DEEP, WIDE, {}),
        ({**DEEP, **LINEAR, **OTHER_TIME}, {}, {}),
        (SINGLE, {}, {}),
    ],
    ids=["plain", "linear-gelu", "three-levels", "three-levels-linear", "one-level"],
)
def test_outputs(
    tmp_path: Path, unet: dict[str, Any], vae: dict[str, Any], text: dict[str, Any]
) -> None:
    pipe = tiny.pipeline(unet, vae, text)
    pipe.save_pretrained(tmp_path)
    parts = open_parts(tmp_path)
    found = deviations(parts, pipe)
    assert max(found.values()) < 1e-5, found
    assert parts.latent_scale == pipe.vae.config.scaling_factor
    assert parts.latent_shift == (pipe.vae.config.shift_factor or 0)
    assert parts.latent_size == (8, 8)
    assert parts.info.format == "diffusers folder"


def test_sampling_comes_from_the_scheduler_file(tmp_path: Path) -> None:
    config = {**tiny.SCHEDULER, "prediction_type": "v_prediction", "clip_sample": False}
    scheduler = DDIMScheduler.from_config(config)
    tiny.pipeline(scheduler=scheduler).save_pretrained(tmp_path)
    parts = open_parts(tmp_path)
    assert (parts.sampling.sampler, parts.sampling.kind) == ("ddim", "v")
    assert open_parts(tmp_path, hints=Hints(prediction="eps")).sampling.kind == "eps"
    torch.testing.assert_close(
        parts.sampling.schedule.alpha_bar.float(), scheduler.alphas_cumprod, rtol=1e-5, atol=0
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny-model"
    tiny.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved pipeline, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "tiny-model"))


@pytest.mark.parametrize(
    "options",
    [{"max_shard_size": "40KB"}, {"safe_serialization": False}, {"variant": "fp16"}],
    ids=["sharded", "pickled", "variant"],
)
def test_every_way_to_save(saved: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    tiny.pipeline().save_pretrained(tmp_path, **options)
    if "max_shard_size" in options:
        assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 2
    elif "variant" in options:
        assert not (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    else:
        assert not list((tmp_path / "unet").glob("*.safetensors"))
    same_modules(open_parts(tmp_path), open_parts(saved))


def test_precisions(tmp_path: Path) -> None:
    pipe = tiny.pipeline().to(torch.float16)
    pipe.save_pretrained(tmp_path)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        parts = open_parts(tmp_path, dtype=dtype)
        got = parts.unet.state_dict()["stem.weight"]
        assert got.dtype == dtype
        assert torch.equal(got, pipe.unet.state_dict()["conv_in.weight"].to(dtype))
        assert all(p.dtype == dtype for p in parts.text.parameters())


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


def test_autoencoder_of_2022(saved: Path, folder: Path) -> None:
    """Its attention was named otherwise, and its scale not written down."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for name, weight in weights.items():
            for new, was in old.items():
                name = name.replace(f"attentions.0.{new}.", f"attentions.0.{was}.")
            renamed[name] = weight
        assert sum(".query." in name for name in renamed) == 4
        return renamed

    rewrite(folder / "vae" / "diffusion_pytorch_model.safetensors", rename)
    edit(folder / "vae" / "config.json", scaling_factor=...)
    parts = open_parts(folder)
    same_modules(parts, open_parts(saved))
    assert parts.latent_scale == 0.18215


def test_text_encoder_with_and_without_prefix(saved: Path, folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    bare = {k.removeprefix("text_model."): v for k, v in load_file(file).items()}
    ids = torch.arange(77)[None]
    for prefix in ("", "text_model."):
        weights = {prefix + k: v for k, v in bare.items()}
        save_file({**weights, f"{prefix}embeddings.position_ids": ids}, file)
        same_modules(open_parts(folder), open_parts(saved))


def test_non_ema_weights(saved: Path, folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors"
    last = {k: v + 1 for k, v in load_file(folder / UNET_FILE).items()}
    save_file(last, file)
    same_modules(open_parts(folder), open_parts(saved))
    got = open_parts(folder, hints=Hints(ema=False)).unet.state_dict()["stem.weight"]
    assert torch.equal(got, last["conv_in.weight"])
    with pytest.raises(SuffuseError, match="non_ema"):
        open_parts(saved, hints=Hints(ema=False))


def test_own_defaults(folder: Path) -> None:
    (folder / "suffuse.json").write_text('{"steps": 20, "guidance": 1, "card": "README.md"}')
    defaults = open_parts(folder).defaults
    assert (defaults.steps, defaults.guidance, defaults.card) == (20, 1, "README.md")


def test_hash_is_that_of_the_unet(saved: Path, folder: Path) -> None:
    digest = open_parts(saved).info.hash()
    assert digest is not None
    assert len(digest) == 64
    rewrite(folder / UNET_FILE, lambda w: {k: v * 2 for k, v in w.items()})
    assert open_parts(folder).info.hash() != digest


def test_sizes_of_old_folders(folder: Path) -> None:
    edit(folder / "unet" / "config.json", _diffusers_version="0.6.0", sample_size=32)
    assert open_parts(folder).latent_size == (64, 64)
    edit(folder / "unet" / "config.json", _diffusers_version="0.10.0", sample_size=[8, 12])
    assert open_parts(folder).latent_size == (8, 12)


# ---- what is refused ---------------------------------------------------------------------------


def edit(file: Path, **fields: Any) -> None:
    """Change fields of a JSON file; `...` takes one out."""
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def refused(folder: Path) -> str:
    with pytest.raises(SuffuseError) as caught:
        open_parts(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_and_unknown_weights_are_named(folder: Path) -> None:
    rewrite(folder / UNET_FILE, lambda w: {k: v for k, v in w.items() if k != "conv_in.bias"})
    assert "1 weight is missing ('conv_in.bias')" in refused(folder)
    rewrite(folder / UNET_FILE, lambda w: {**w, "odd.one": torch.ones(1), "odd.two": torch.ones(1)})
    message = refused(folder)
    assert "1 weight is missing ('conv_in.bias')" in message
    assert "2 weights are unknown ('odd.one', 'odd.two')" in message
    assert UNET_FILE in message


def test_many_missing_weights_are_counted(folder: Path) -> None:
    rewrite(folder / UNET_FILE, lambda w: {k: v for k, v in w.items() if "attentions" not in k})
    message = refused(folder)
    assert "weights are missing" in message
    assert ", …)" in message
    assert len(message) < 500


def test_wrong_shape_is_named(folder: Path) -> None:
    wrong = torch.ones(16, 9, 3, 3)
    rewrite(folder / UNET_FILE, lambda w: {**w, "conv_in.weight": wrong})
    message = refused(folder)
    assert "'conv_in.weight'" in message
    assert "(16, 9, 3, 3)" in message
    assert "(16, 4, 3, 3)" in message


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("unet", "class_embed_type", "timestep"),
        ("unet", "addition_embed_type", "text_time"),
        ("unet", "time_cond_proj_dim", 256),
        ("unet", "only_cross_attention", [True, False]),
        ("unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("unet", "resnet_time_scale_shift", "scale_shift"),
        ("unet", "down_block_types", ["KDownBlock2D", "DownBlock2D"]),
        ("unet", "up_block_types", ["CrossAttnUpBlock2D", "UpBlock2D"]),
        ("unet", "attention_head_dim", None),
        ("unet", "attention_head_dim", [4]),
        ("unet", "num_attention_heads", 4),
        ("unet", "layers_per_block", [1, 2]),
        ("unet", "cross_attention_dim", "768"),
        ("unet", "block_out_channels", []),
        ("unet", "sample_size", "large"),
        ("unet", "a_field_of_tomorrow", 3),
        ("unet", "_class_name", "UNet3DConditionModel"),
        ("vae", "_class_name", "AutoencoderTiny"),
        ("vae", "act_fn", "mish"),
        ("vae", "latents_mean", [0.0]),
        ("vae", "down_block_types", ["AttnDownEncoderBlock2D"] * 2),
        ("vae", "use_post_quant_conv", False),
        ("text_encoder", "model_type", "t5"),
        ("text_encoder", "hidden_act", "relu"),
        ("text_encoder", "eos_token_id", [1, 2]),
    ],
)
def test_what_is_not_built_is_named(folder: Path, file: str, field: str, value: Any) -> None:
    edit(folder / file / "config.json", **{field: value})
    message = refused(folder)
    assert field in message


@pytest.mark.parametrize("heads", [3, 5])
def test_heads_must_divide(folder: Path, heads: int) -> None:
    edit(folder / "unet" / "config.json", attention_head_dim=heads)
    assert f"{heads} heads" in refused(folder)


def test_parts_that_do_not_fit(folder: Path) -> None:
    tiny.pipeline({"in_channels": 9}).unet.save_pretrained(folder / "unet")
    assert "9 channels" in refused(folder)
    tiny.pipeline({"cross_attention_dim": 48}).unet.save_pretrained(folder / "unet")
    assert "48 numbers" in refused(folder)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "'StableDiffusionXLPipeline'"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "vae = ['diffusers', 'AutoencoderTiny']"),
        ({"text_encoder": [None, None]}, "text_encoder = [None, None]"),
        ({"scheduler": ...}, "scheduler = None"),
    ],
)
def test_other_pipelines(folder: Path, fields: dict[str, Any], says: str) -> None:
    edit(folder / "model_index.json", **fields)
    assert says in refused(folder)


def test_unknown_scheduler(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", _class_name="TomorrowScheduler")
    message = refused(folder)
    assert "TomorrowScheduler" in message
    assert "scheduler_config.json" in message


@pytest.mark.parametrize(
    "own", ['{"steps": 0}', '{"patch": true}', "[]", "{", '{"colour": 3}', '{"decoder": [0]}']
)
def test_bad_own_file(folder: Path, own: str) -> None:
    (folder / "suffuse.json").write_text(own)
    assert "suffuse.json" in refused(folder)


@pytest.mark.parametrize(
    "gone",
    [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "text_encoder/model.safetensors",
    ],
)
def test_missing_files_are_named(folder: Path, gone: str) -> None:
    path = folder / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert gone.split("/")[0] in refused(folder)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    assert "it holds nothing" in refused(tmp_path)
    (tmp_path / "holiday.png").write_bytes(b"\x89PNG")
    assert "holiday.png" in refused(tmp_path)
    assert "no such file or folder" in refused(tmp_path / "nowhere")
