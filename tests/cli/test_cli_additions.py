"""`suffuse generate` with LoRAs and learned words."""

import pictures
import pytest
import tiny
import torch

from suffuse.networks.lora import LoraConfig, make_adapter
from suffuse.weights.embedding import Embedding, save_embedding
from suffuse.weights.load import open_parts
from suffuse.weights.lora import Lora, save_lora


@pytest.fixture
def additions(tmp_path, model):
    parts = open_parts(model)
    adapter = make_adapter(parts.unet, LoraConfig(rank=2))
    for _, change in adapter.items():
        torch.nn.init.normal_(change.up.weight)
    save_lora(Lora(adapter), tmp_path / "style.safetensors", parts.unet_config)
    save_embedding(Embedding("<rex>", torch.randn(1, 32)), tmp_path / "rex.safetensors")


def test_a_picture_is_repeated_with_what_it_was_made_with(tmp_path, run, refusal, additions):
    added = ("--lora", "style.safetensors:0.5", "--embedding", "rex.safetensors")
    quick = ("a <rex>", "--steps", "2", "--seed", "7", "--output", "a.png")
    assert run("generate", *quick, *added) == (0, "a.png  seed 7\n", "")
    assert run("generate", "--like", "a.png", "--output", "b.png") == (0, "b.png  seed 7\n", "")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    (tmp_path / "style.safetensors").unlink()
    message = refusal("generate", "--like", "a.png")
    assert message == "there is no LoRA 'style.safetensors'"


def test_a_model_learns_from_a_folder(tmp_path, run, refusal):
    pictures.folder(tmp_path / "mine", 4)
    tiny.pipeline().save_pretrained(tmp_path / "small")
    asked = ("train", "finetune", "--preset", "toy", "--model", "small", "--data", "mine")
    assert refusal(*asked, "-o", "no", "--word", "<rex>").startswith("only textual inversion")
    assert not (tmp_path / "no").exists()
    status, out, _ = run(*asked, "-o", "run", "--steps", "2")
    assert (status, out.strip()) == (0, "run/model")
    adapters = "run/model/kohya.safetensors"
    quick = ("number 1", "--model", "small", "--steps", "2", "--output", "a.png")
    assert run("generate", *quick, "--lora", adapters)[0] == 0
