"""LoRAs and learned words on a model, as whole pictures against diffusers."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

import suffuse
from suffuse.errors import SuffuseError
from suffuse.networks.lora import LoraConfig, make_adapter
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.request import Request
from suffuse.weights.embedding import Embedding, open_embedding, save_embedding
from suffuse.weights.load import open_parts
from suffuse.weights.lora import Lora, save_lora

PROMPT = "a cat on a hat"
QUICK = {"steps": 4, "guidance": 3.0, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a LoRA for it in both namings, and a word of two tokens in both formats."""
    root = tmp_path_factory.mktemp("additions")
    tiny.pipeline().save_pretrained(root / "model")
    parts = open_parts(root / "model")
    config, generator = LoraConfig(rank=2, alpha=3.0, targets=("*",)), torch.Generator()
    lora = Lora(make_adapter(parts.unet, config), make_adapter(parts.text, config))
    for adapter in lora.parts().values():
        for _, change in adapter.items():
            change.up.weight.data.normal_(generator=generator).mul_(0.3)
    for naming in ("peft", "kohya"):
        save_lora(lora, root / f"{naming}.safetensors", parts.unet_config, naming)
    word = Embedding("<rex>", torch.randn(2, 32, generator=generator))
    save_embedding(word, root / "learned_embeds.safetensors")
    save_embedding(word, root / "rex.safetensors", "a1111")
    save_embedding(Embedding("dogx", word.vectors[:1]), root / "one.safetensors")
    return root


@pytest.fixture(scope="module")
def system(folder):
    return suffuse.load(folder / "model", device="cpu", dtype="float32")


def levels(picture):
    return np.asarray(picture).astype(int)


def theirs(folder, prompt, prepare):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        folder / "model", safety_checker=None, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    prepare(pipe)
    generator = [torch.Generator().manual_seed(3)]
    drawn = pipe(prompt, num_inference_steps=4, guidance_scale=3.0, generator=generator)
    return levels(drawn.images[0])


@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_pictures_with_a_lora_are_diffusers(folder, system, naming):
    file = folder / f"{naming}.safetensors"

    def prepare(pipe):
        pipe.load_lora_weights(folder, weight_name=file.name)
        pipe.set_adapters(pipe.get_active_adapters(), 0.5)

    want = theirs(folder, PROMPT, prepare)
    (got,) = system.generate(PROMPT, loras=[f"{file}:0.5"], **QUICK)
    assert np.abs(levels(got) - want).max() <= 1
    plain = levels(system.generate(PROMPT, **QUICK)[0])
    assert np.abs(plain - want).max() > 10
    again = suffuse.load(folder / "model", "cpu", "float32", loras=[(file, 0.5)])
    assert np.array_equal(levels(again.generate(PROMPT, **QUICK)[0]), levels(got))
    assert np.array_equal(levels(again.generate(PROMPT, loras=[], **QUICK)[0]), plain)


@pytest.mark.parametrize("name", ["learned_embeds.safetensors", "rex.safetensors"])
def test_pictures_with_a_word_are_diffusers(folder, system, name):
    word = "<rex>" if "learned" in name else "rex"
    prompt = f"a {word} on a hat"

    def prepare(pipe):
        token = {} if "learned" in name else {"token": word}
        pipe.load_textual_inversion(folder, weight_name=name, **token)

    want = theirs(folder, prompt, prepare)
    (got,) = system.generate(prompt, embeddings=[folder / name], **QUICK)
    assert np.abs(levels(got) - want).max() <= 1
    assert np.abs(levels(system.generate(prompt, **QUICK)[0]) - want).max() > 10


def test_words_in_older_files(tmp_path, folder):
    vectors = torch.randn(3, 32)
    old = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "rex"}
    torch.save({**old, "step": 10, "sd_checkpoint": None}, tmp_path / "other.pt")
    found = open_embedding(tmp_path / "other.pt")
    assert found.word == "rex" and torch.equal(found.vectors, vectors)
    torch.save({"<rex>": vectors[0]}, tmp_path / "learned_embeds.bin")
    found = open_embedding(tmp_path / "learned_embeds.bin")
    assert found.word == "<rex>" and torch.equal(found.vectors, vectors[:1])
    sdxl = {"clip_g": torch.ones(1, 64), "clip_l": torch.ones(1, 32)}
    save_file(sdxl, tmp_path / "xl.safetensors")
    with pytest.raises(SuffuseError, match="one tensor, this file has 'clip_g', 'clip_l'"):
        open_embedding(tmp_path / "xl.safetensors")


def test_requests_remember_what_they_were_made_with(tmp_path, folder, system):
    file = folder / "peft.safetensors"
    loras, words = [f"{file}:0.25", file], [folder / "one.safetensors"]
    request = Request("a dogx", loras=loras, embeddings=words)
    assert request.loras == ((str(file), 0.25), (str(file), 1.0))
    stored = json.loads(json.dumps(request.to_json()))
    assert stored["loras"][0]["scale"] == 0.25 and len(stored["embeddings"][0]["sha256"]) == 64
    assert Request.from_json(stored) == request
    suited = system.suited(request)
    assert suited is not system and suited.suited(request) is suited
    assert suited.resolve(Request("a dogx")).loras == request.loras
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    stored = Request(PROMPT, loras=[copy]).to_json()
    copy.write_bytes((folder / "kohya.safetensors").read_bytes())
    with pytest.raises(SuffuseError, match="has changed since it was used"):
        Request.from_json(stored)
    with pytest.raises(SuffuseError, match="nothing can be added to a model made in memory"):
        LatentDiffusion(system.parts).generate(PROMPT, loras=loras)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loras": "a.safetensors"}, "loras must be a list of files, not 'a.safetensors'"),
        ({"loras": [("a.safetensors", "1")]}, "the scale of a LoRA must be a number, not '1'"),
        ({"loras": ["a.safetensors:nan"]}, "must be a number, not nan"),
        ({"loras": [3]}, "named by its file, not by 3"),
        ({"loras": [":0.5"]}, "named by its file, not by ''"),
        ({"embeddings": [None]}, "an? embedding is named by its file"),
        ({"loras": ["nowhere.safetensors"]}, "there is no LoRA 'nowhere.safetensors'"),
        ({"embeddings": ["nowhere.pt"]}, "there is no embedding 'nowhere.pt'"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(SuffuseError, match=message):
        Request(PROMPT, **values).check()


def test_a_colon_may_be_in_a_path(tmp_path):
    odd = tmp_path / "a:b.safetensors"
    odd.write_bytes(b"")
    assert Request(PROMPT, loras=[str(odd)]).loras == ((str(odd), 1.0),)
    assert Request(PROMPT, loras=[f"{odd}:-2"]).loras == ((str(odd), -2.0),)
    assert Request(PROMPT, loras=[Path("x")]).loras == (("x", 1.0),)
