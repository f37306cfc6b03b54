"""CLIP score with a tiny CLIP of transformers', against that library's own towers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TOKENIZER, randomise
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from suffuse.errors import SuffuseError
from suffuse.evaluation.clip import open_clip
from suffuse.evaluation.pictures import open_folder
from suffuse.weights.clip_input import PREPROCESSOR, ClipInput

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
    got = ClipInput.load(folder).prepare(picture(1, size))
    assert (got - theirs["pixel_values"][0]).abs().max() < 1e-5


@torch.no_grad()
def test_scores_are_cosines_of_the_towers(folder):
    clip = open_clip(folder)
    texts = ["a red apple", "two dogs " * 60, "a blue square on a green background"]
    pairs = [(picture(i), text) for i, text in enumerate(texts)]
    got = clip.scores(pairs)
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), clip.tokenizer
    for score, (image, text) in zip(got, pairs):
        words = tokenizer([text], truncation=True, max_length=77, return_tensors="pt")
        pooled = model.text_model(**words).pooler_output
        seen = model.vision_model(pixel_values=clip.input.prepare(image)[None]).pooler_output
        one, other = model.text_projection(pooled), model.visual_projection(seen)
        want = 100 * max(0.0, torch.cosine_similarity(one, other).item())
        assert score.item() == pytest.approx(want, abs=1e-3)
    assert 0 < got.max() <= 100


def test_captions_come_from_beside_the_picture(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "0.txt").write_text("a dog")
    pairs = list(open_folder(tmp_path).pairs())
    assert [caption for _, caption in pairs] == ["a dog", "", ""]


def test_what_is_no_clip(tmp_path, folder):
    with pytest.raises(SuffuseError, match="no CLIP in transformers' layout"):
        open_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(SuffuseError, match="cannot be opened as a CLIP"):
        open_clip(tmp_path)
    (tmp_path / PREPROCESSOR).write_text('{"size": "big"}')
    with pytest.raises(SuffuseError, match="is not a CLIP's preprocessing"):
        ClipInput.load(tmp_path)
    (tmp_path / PREPROCESSOR).write_text('{"resample": 2}')
    with pytest.raises(SuffuseError, match="only bicubic"):
        ClipInput.load(tmp_path)
