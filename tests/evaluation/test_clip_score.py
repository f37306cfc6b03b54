"""CLIP score with a tiny CLIP of transformers', against that library's own towers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TOKENIZER, randomise
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from suffuse.evaluation.clip import clip_scores
from suffuse.evaluation.pictures import open_folder
from suffuse.systems.clip import load_clip
from suffuse.weights.clip_input import PREPROCESSOR

TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
SIZES = {**TEXT, "num_attention_heads": 2, "projection_dim": 8}
SHOWN = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}, "resample": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    words = {"vocab_size": len(tokenizer), "eos_token_id": 2, "max_position_embeddings": 77}
    config = CLIPConfig(
        text_config={**SIZES, **words},
        vision_config={**SIZES, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    model = CLIPModel(config)
    randomise(model, 1)
    with torch.no_grad():  # else no cosine would be above 0
        model.visual_projection.weight.neg_()
    place = tmp_path_factory.mktemp("clip")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    (place / PREPROCESSOR).write_text(json.dumps(SHOWN))
    return place


def picture(seed: int, size: tuple[int, int] = (37, 29)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size)


@pytest.mark.parametrize("size", [(37, 29), (15, 61), (20, 20)])
def test_pictures_are_prepared_as_transformers_does(folder, size):
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    theirs = module.CLIPImageProcessorPil(**SHOWN)(images=[picture(1, size)], return_tensors="pt")
    got = load_clip(folder, "cpu").prepare(picture(1, size))
    assert (got - theirs["pixel_values"][0]).abs().max() < 1e-5


@torch.no_grad()
def test_scores_are_cosines_of_the_towers(folder):
    clip = load_clip(folder, "cpu", "float32")
    texts = ["a red apple", "two dogs " * 60, "a blue square on a green background"] * 12
    pairs = [(picture(i), text) for i, text in enumerate(texts)]
    cut: list[str] = []
    got = clip_scores(clip, iter(pairs), cut.append)
    model, tokenizer = (
        CLIPModel.from_pretrained(folder).eval(),
        CLIPTokenizer.from_pretrained(folder),
    )
    assert len(got) == 36 and len(cut) == 12  # more than are held at a time
    for score, (image, text) in zip(got, pairs):
        words = tokenizer([text], truncation=True, max_length=77, return_tensors="pt")
        pooled = model.text_model(**words).pooler_output
        seen = model.vision_model(pixel_values=clip.prepare(image)[None]).pooler_output
        one, other = model.text_projection(pooled), model.visual_projection(seen)
        want = 100 * max(0.0, torch.cosine_similarity(one, other).item())
        assert score.item() == pytest.approx(want, abs=1e-3)
    assert 0 < got.max() <= 100


def test_captions_come_from_beside_the_picture(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "0.txt").write_text("a dog")
    pictures = open_folder(tmp_path)
    assert [caption for _, caption in pictures.pairs()] == ["a dog", "", ""]
    ((_, caption),) = pictures.pairs(captioned=True)
    assert caption == "a dog"
