"""Key maps by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.families import SDConfig, stable_diffusion
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import POINTWISE, SAME, KeyMap, Row, export, fill, locate, nest
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET
from suffuse.weights.maps.diffusers_vae import DIFFUSERS_VAE
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.maps.ldm_unet import ldm_unet
from suffuse.weights.maps.ldm_vae import ldm_vae

SD1, VAE, TEXT = SDConfig(), AutoencoderConfig(), ClipTextConfig()
REAL = {  # at their real sizes, without memory
    "unet": lambda: stable_diffusion(SD1),
    "vae": lambda: AutoencoderKL(VAE),
    "text": lambda: ClipText(TEXT),
}
MAPS = [
    ("unet", DIFFUSERS_UNET),
    ("unet", ldm_unet(SD1)),
    ("vae", DIFFUSERS_VAE),
    ("vae", ldm_vae(VAE)),
    ("text", HF_CLIP_TEXT),
]


def test_patterns() -> None:
    rows = nest("a.{i}.b", "x.{i}", [Row("norm{n}.*", "n{n}.*"), Row("w", "{i}.w", POINTWISE)])
    keys = KeyMap((*rows, Row("a.{i}.b.norm1.bias", "old.{i}"), Row("solo", "alone")))
    assert keys.spellings("a.12.b.norm1.bias") == [("x.12.n1.bias", SAME), ("old.12", SAME)]
    assert keys.spellings("a.12.b.norm2.bias") == [("x.12.n2.bias", SAME)]
    assert keys.spellings("a.0.b.w") == [("x.0.0.w", POINTWISE)]
    assert keys.spellings("solo") == [("alone", SAME)]
    for stranger in ("a.x.b.w", "a.1.b.norm1.scale", "b.1.w", "solo.weight", "a.1.b.norm1"):
        assert keys.spellings(stranger) == []


def test_pointwise_is_undone() -> None:
    conv = torch.randn(3, 5, 1, 1)
    assert torch.equal(POINTWISE.write(POINTWISE.read(conv)), conv)
    linear = torch.randn(3, 5)
    assert torch.equal(POINTWISE.read(linear), linear)


@pytest.mark.parametrize(("network", "keys"), MAPS)
def test_every_weight_has_a_place_of_its_own(network: str, keys: KeyMap) -> None:
    with torch.device("meta"):
        names = list(REAL[network]().state_dict())
    theirs = [keys.spellings(name) for name in names]
    assert all(theirs)
    every = [spelling for spellings in theirs for spelling, _ in spellings]
    assert len(set(every)) == len(every)


def test_real_names_against_diffusers_conversion() -> None:
    """Stable Diffusion 1's U-Net: diffusers' script leads from one of our maps to the other."""
    with torch.device("meta"):
        names = list(REAL["unet"]().state_dict())
    compvis, theirs = ldm_unet(SD1), DIFFUSERS_UNET
    ours = {compvis.spellings(name)[0][0]: name for name in names}
    tagged = {f"model.diffusion_model.{key}": torch.tensor(i) for i, key in enumerate(ours)}
    config = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
    converted = convert_ldm_unet_checkpoint(tagged, config)
    assert {key: names[int(tag)] for key, tag in converted.items()} == {
        theirs.spellings(name)[0][0]: name for name in names
    }


@pytest.fixture
def module() -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    for i, p in enumerate(made.parameters()):
        nn.init.normal_(p, mean=i + 2.0)
    return made


KEYS = KeyMap(
    (Row("0.weight", "conv.weight", POINTWISE), Row("0.bias", "conv.bias"), Row("1.*", "norm.*")),
    ignore=("steps", "loss.*"),
)


def empty() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))


def test_there_and_back(module: nn.Module, tmp_path: Path) -> None:
    weights = export(module, KEYS, torch.float32)
    assert weights["conv.weight"].shape == (3, 2, 1, 1)
    beside = {"steps": torch.ones(1), "loss.scale": torch.ones(1)}
    save_file({**weights, **beside}, tmp_path / "file")
    made = empty()
    fill(made, KEYS, open_tensors(tmp_path / "file"))
    for name, weight in module.state_dict().items():
        assert torch.equal(made.state_dict()[name], weight)


def test_below_a_prefix(module: nn.Module, tmp_path: Path) -> None:
    weights = export(module, KEYS, torch.float32)
    below = {f"net.{k}": v.clone() for k, v in weights.items()}
    save_file(below | weights, tmp_path / "file")
    file = open_tensors(tmp_path / "file")
    found = locate(KEYS, module.state_dict(), file, below="net.")
    assert found["1.bias"] == ("net.norm.bias", SAME)
    with pytest.raises(SuffuseError, match=r"4 weights are missing \('other.conv.weight'"):
        locate(KEYS, module.state_dict(), file, below="other.")


def test_a_module_without_a_row_cannot_be_filled_or_saved(
    module: nn.Module, tmp_path: Path
) -> None:
    keys = KeyMap(KEYS.rows[:2])
    save_file(export(module, KEYS, torch.float32), tmp_path / "file")
    with pytest.raises(SuffuseError, match=r"2 weights are missing \('1.weight', '1.bias'\)"):
        fill(empty(), keys, open_tensors(tmp_path / "file"))
    with pytest.raises(SuffuseError, match=r"cannot save '1.weight'"):
        export(module, keys, torch.float32)


def test_numbers_beyond_half_precision_are_not_saved(module: nn.Module) -> None:
    with torch.no_grad():
        next(module.parameters()).fill_(1e6)
    with pytest.raises(SuffuseError, match=r"'conv.weight' as torch.float16"):
        export(module, KEYS, torch.float16)
    assert export(module, KEYS, torch.bfloat16)


def test_weights_of_the_right_precision_stay_on_the_map(module: nn.Module, tmp_path: Path) -> None:
    save_file(export(module, KEYS, torch.float32), tmp_path / "file")
    file = open_tensors(tmp_path / "file")
    made = empty()
    fill(made, KEYS, file)
    assert made.state_dict()["1.bias"].data_ptr() == file["norm.bias"].data_ptr()
    fill(made, KEYS, file, dtype=torch.float64)
    assert made.state_dict()["1.bias"].dtype == torch.float64
    assert made.state_dict()["1.bias"].is_contiguous()


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_numbers_that_are_no_weights_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    layer = nn.Linear(2, 2, bias=False)
    torch.save({"weight": torch.ones(2, 2).to(dtype)}, tmp_path / "x.pt")
    with pytest.raises(SuffuseError, match=f"'weight' holds {dtype}, which are no weights here"):
        fill(layer, KeyMap((Row("weight", "weight"),)), open_tensors(tmp_path / "x.pt"))
