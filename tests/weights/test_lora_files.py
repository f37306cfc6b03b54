"""LoRA files in both namings, against diffusers' own `load_lora_weights` and PEFT."""

import json
import re

import pytest
import tiny
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.lora import ATTENTION, BLOCKS, LoraConfig, make_adapter
from suffuse.weights.formats import recognise
from suffuse.weights.load import open_parts
from suffuse.weights.lora import Lora, merge_loras, open_lora, save_lora

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
T = torch.tensor([20, 800])
IDS = torch.tensor([[3, 9, 4, 100, 2, 2], [3, 7, 2, 2, 2, 2]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny.pipeline().save_pretrained(path)
    return path


def filled(adapter, seed):
    generator = torch.Generator().manual_seed(seed)
    for _, change in adapter.items():
        for w in (change.down.weight, change.up.weight):
            w.data = torch.randn(w.shape, generator=generator) * w[0].numel() ** -0.5
    return adapter


def lora_for(parts, targets=BLOCKS):
    """Ranks and alphas that differ from part to part."""
    unet = make_adapter(parts.unet, LoraConfig(rank=4, alpha=2.0, targets=targets))
    text = make_adapter(parts.text, LoraConfig(rank=2, targets=targets))
    return Lora(filled(unet, 1), filled(text, 2))


@torch.no_grad()
def ours(parts):
    states = parts.text(IDS).last
    return parts.unet(X, T, parts.unet.prepare(Cond(tokens=states))), states


@torch.no_grad()
def theirs(pipe):
    states = pipe.text_encoder(IDS).last_hidden_state
    return pipe.unet(X, T, states).sample, states


@pytest.mark.parametrize("naming", ["peft", "kohya"])
@pytest.mark.parametrize("targets", [ATTENTION, ("*",)])
def test_diffusers_reads_what_we_write(tmp_path, folder, naming, targets):
    parts, pipe = open_parts(folder), tiny.pipeline()
    plain = theirs(pipe)[0]
    save_lora(lora_for(parts, targets), tmp_path / "a.safetensors", parts.unet_config, naming)
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    pipe.set_adapters(pipe.get_active_adapters(), 0.6)
    merge_loras(parts, [(tmp_path / "a.safetensors", 0.6)])
    for got, want in zip(ours(parts), theirs(pipe)):
        assert tiny.deviation(got, want) < 1e-5
    assert tiny.deviation(plain, theirs(pipe)[0]) > 0.05
    found = recognise(load_file(tmp_path / "a.safetensors"))
    assert found is not None and found.name == "LoRA"


@pytest.mark.parametrize("alpha", [None, 3])
def test_we_read_what_diffusers_writes(tmp_path, folder, alpha):
    parts, pipe = open_parts(folder), tiny.pipeline()
    modules = ["to_q", "to_out.0", "ff.net.0.proj", "conv1", "proj_in", "conv_shortcut"]
    config = PeftConfig(r=4, lora_alpha=alpha or 4, target_modules=modules)
    config.alpha_pattern = {"attn2.to_q": 1} if alpha else {}
    pipe.unet.add_adapter(config)
    pipe.text_encoder.add_adapter(PeftConfig(r=2, lora_alpha=2, target_modules=["q_proj", "fc1"]))
    tiny.randomise(pipe.unet, 0), tiny.randomise(pipe.text_encoder, 2)
    parts_of = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    layers = {f"{k}_lora_layers": get_peft_model_state_dict(m) for k, m in parts_of.items()}
    told = {"unet_lora_adapter_metadata": config.to_dict()} if alpha else {}
    pipe.save_lora_weights(tmp_path, **layers, **told)
    # Its own random weights, where no adapter lay, so that ours begin at the same.
    base = tiny.pipeline()
    for net, source in ((base.unet, pipe.unet), (base.text_encoder, pipe.text_encoder)):
        found = {k.replace(".base_layer", ""): w for k, w in source.state_dict().items()}
        net.load_state_dict({k: w for k, w in found.items() if ".lora_" not in k})
    base.save_pretrained(tmp_path / "base")
    parts = open_parts(tmp_path / "base")
    merge_loras(parts, [(tmp_path, 1.0)])
    for got, want in zip(ours(parts), theirs(pipe)):
        assert tiny.deviation(got, want) < 1e-5


def test_we_read_a_folder_of_peft(tmp_path, folder):
    parts, pipe = open_parts(folder), tiny.pipeline()
    config = PeftConfig(r=2, lora_alpha=6, target_modules=["to_k"], init_lora_weights=False)
    get_peft_model(pipe.unet, config).save_pretrained(tmp_path)
    merge_loras(parts, [(tmp_path, 1.0)])
    assert tiny.deviation(ours(parts)[0], theirs(pipe)[0]) < 1e-5


@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_there_and_back(tmp_path, folder, naming):
    parts = open_parts(folder)
    lora = lora_for(parts, ("*",))
    save_lora(lora, tmp_path / "a.safetensors", parts.unet_config, naming)
    again = open_lora(tmp_path / "a.safetensors", parts)
    for part, adapter in lora.parts().items():
        found = dict(again.parts()[part].items())
        assert list(found) == [name for name, _ in adapter.items()]
        for name, change in adapter.items():
            assert torch.equal(found[name].down.weight, change.down.weight)
            assert torch.allclose(found[name].change(), change.change(), atol=1e-6)
            if naming == "kohya":
                assert found[name].alpha == change.alpha


def test_compvis_names_and_those_of_2023(tmp_path, folder):
    parts = open_parts(folder)
    lora = lora_for(parts, ("*attn.q", "*attn.out", "*.res.*"))
    save_lora(Lora(lora.unet), tmp_path / "new.safetensors", parts.unet_config, "kohya")
    new = load_file(tmp_path / "new.safetensors")
    table = {  # one residual block a level, attention at the first only
        "down_blocks_0_attentions_0_": "input_blocks_1_1_",
        "mid_block_attentions_0_": "middle_block_1_",
        "up_blocks_1_attentions_0_": "output_blocks_2_1_",
        "up_blocks_1_attentions_1_": "output_blocks_3_1_",
        "down_blocks_0_resnets_0_": "input_blocks_1_0_",
        "down_blocks_1_resnets_0_": "input_blocks_3_0_",
        "mid_block_resnets_0_": "middle_block_0_",
        "mid_block_resnets_1_": "middle_block_2_",
        "up_blocks_0_resnets_0_": "output_blocks_0_0_",
        "up_blocks_0_resnets_1_": "output_blocks_1_0_",
        "up_blocks_1_resnets_0_": "output_blocks_2_0_",
        "up_blocks_1_resnets_1_": "output_blocks_3_0_",
        "conv1": "in_layers_2",
        "conv2": "out_layers_3",
        "time_emb_proj": "emb_layers_1",
        "conv_shortcut": "skip_connection",
    }
    old = {re.sub("|".join(table), lambda m: table[m[0]], name): w for name, w in new.items()}
    assert not set(old) & set(new)
    save_file(old, tmp_path / "old.safetensors")
    one, two = (open_lora(tmp_path / f"{n}.safetensors", parts).unet for n in ("new", "old"))
    assert [n for n, _ in one.items()] == [n for n, _ in two.items()]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    early = {
        f"down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.{f}.weight": w
        for f, w in (("down", torch.ones(2, 16)), ("up", torch.ones(16, 2)))
    }
    save_file(early, tmp_path / "early.safetensors")
    (name, change), *_ = open_lora(tmp_path / "early.safetensors", parts).unet.items()
    assert name == "down.0.attn.0.blocks.0.self_attn.out"
    assert torch.equal(change.change(), torch.full((16, 16), 2.0))


NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
ONES = {f"{NAME}.lora_A.weight": torch.ones(2, 32), f"{NAME}.lora_B.weight": torch.ones(32, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_te2_text_model_x.alpha": torch.ones(1)}, "1 of its 3 names .*lora_te2_text_"),
        ({f"{NAME}.dora_scale": torch.ones(1)}, "attn1.to_q.dora_scale"),
        ({f"{NAME}.lora_B.weight": None}, r"mid_block.*to_q': its second \(up\) factor is missing"),
        ({f"{NAME}.lora_A.weight": torch.ones(2, 64)}, r"\(2, 64\) and \(32, 2\), the layer asks"),
        ({f"{NAME}.lora_B.weight": torch.ones(32, 3)}, r"the layer asks for \(2, 32\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, folder, change, message):
    weights = {n: w for n, w in (ONES | change).items() if w is not None}
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(SuffuseError, match=message) as caught:
        open_lora(tmp_path / "a.safetensors", open_parts(folder))
    assert "\n" not in str(caught.value)


def test_metadata_that_cannot_be_honoured(tmp_path, folder):
    parts = open_parts(folder)
    for told, message in (
        ("{", "not readable as JSON"),
        (json.dumps({"unet.lora_alpha": "many"}), "lora_alpha = 'many' is not a number"),
        (json.dumps({"unet.alpha_pattern": {"(a+)+": 1}}), "alpha_pattern .* is not supported"),
    ):
        save_file(ONES, tmp_path / "a.safetensors", {"lora_adapter_metadata": told})
        with pytest.raises(SuffuseError, match=message):
            open_lora(tmp_path / "a.safetensors", parts)
    told = json.dumps({"unet.lora_alpha": 4, "unet.use_rslora": True})
    save_file(ONES, tmp_path / "a.safetensors", {"lora_adapter_metadata": told})
    (_, change), *_ = open_lora(tmp_path / "a.safetensors", parts).unet.items()
    assert torch.allclose(change.change(), torch.full((32, 32), 2 * 4 / 2**0.5))
