"""CLIPs in every layout: against golden values and transformers, damaged, and hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import TOKENIZER, randomise
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from suffuse.errors import SuffuseError
from suffuse.networks.clip_resnet import ClipResNet, ClipResNetConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.weights.clip import ClipParts, open_clip_image, open_clip_parts, save_clip
from suffuse.weights.clip_input import PREPROCESSOR, PROCESSOR, ClipInput
from suffuse.weights.clip_openai import CONFIG, image_shape, model_name
from suffuse.weights.containers import open_tensors
from suffuse.weights.inspect import describe
from suffuse.weights.maps.openai_clip import OPENAI_CLIP, OPENAI_CLIP_RESNET
from suffuse.weights.parts import Hints
from suffuse.weights.tensorfile import Entry, Source, TensorFile, contiguous

GOLDEN = Path(__file__).parents[1] / "parity" / "clip"
WORDS = Hints(tokenizer=TOKENIZER)
SMALL_HEADS = replace(WORDS, heads=4, text_heads=4)
OPEN_CLIP = GOLDEN / "open_clip" / "open_clip_pytorch_model.bin"
ARCHIVE = GOLDEN / "openai_vit" / "archive.pt"


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@torch.no_grad()
def check(parts: ClipParts, values: dict[str, torch.Tensor], kind: str = "out") -> None:
    model = parts.model
    assert far(model.image.pool(values["in.image"]), values[f"{kind}.image_features"]) < 1e-5
    assert far(model.text(values["in.ids"]).pooled, values[f"{kind}.text_features"]) < 1e-5
    if f"{kind}.logits_per_image" in values:
        cosines = model.embed_images(values["in.image"]) @ model.embed_texts(values["in.ids"]).T
        logits = model.logit_scale.exp() * cosines
        assert far(logits, values[f"{kind}.logits_per_image"]) < 1e-5


# ---- OpenAI's layout ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai_vit", "openai_resnet"])
def test_openai_archives(name: str, tmp_path: Path) -> None:
    values = load_file(GOLDEN / name / "io.safetensors")
    parts = open_clip_parts(GOLDEN / name / "archive.pt", hints=WORDS)
    check(parts, values)
    assert describe(GOLDEN / name / "archive.pt").hints["model"] == parts.info.format[5:]
    # What people save of it: a dictionary in float32, in this case as training wraps it.
    file = open_tensors(GOLDEN / name / "archive.pt")
    scalars = ("input_resolution", "context_length", "vocab_size")
    weights = {f"module.{key}": file.read(key, torch.float32) for key in file if key not in scalars}
    weights["module.transformer.resblocks.0.attn_mask"] = torch.ones(77, 77)  # a traced model's
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "state.pt")
    check(open_clip_parts(tmp_path, hints=replace(WORDS, activation="quick_gelu")), values)


def test_open_clip_file(tmp_path: Path) -> None:
    values = load_file(GOLDEN / "open_clip" / "io.safetensors")
    check(open_clip_parts(OPEN_CLIP, hints=SMALL_HEADS), values, "gelu")
    shutil.copy(OPEN_CLIP, tmp_path / "vit_b_32-quickgelu-laion.pt")
    check(open_clip_parts(tmp_path, hints=SMALL_HEADS), values, "quickgelu")


def test_open_clip_folder_says_the_rest(tmp_path: Path) -> None:
    shutil.copy(OPEN_CLIP, tmp_path)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, tmp_path)
    said = {
        "model_cfg": {
            "embed_dim": 40,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16},
            "text_cfg": {"width": 64, "heads": 4, "layers": 3},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]},
    }
    (tmp_path / CONFIG).write_text(json.dumps(said))
    parts = open_clip_parts(tmp_path)
    check(parts, load_file(GOLDEN / "open_clip" / "io.safetensors"), "quickgelu")
    assert parts.prepare == ClipInput(32, 32, (0.5, 0.5, 0.5), (0.25, 0.5, 0.5), rounded=True)
    for wrong, line in (
        ([1], r"preprocess_cfg = \[1\] is not supported"),
        ({"mean": 5}, "mean = 5 is not supported"),
        ({"std": [0, 0, 0]}, "std = "),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean = "),
    ):
        (tmp_path / CONFIG).write_text(json.dumps({**said, "preprocess_cfg": wrong}))
        with pytest.raises(SuffuseError, match=line):
            open_clip_parts(tmp_path)
    assert describe(tmp_path).hints["model"] == "ViT-64/8@32"
    said["model_cfg"]["text_cfg"]["hf_model_name"] = "xlm-roberta-base"  # type: ignore[index]
    (tmp_path / CONFIG).write_text(json.dumps(said))
    with pytest.raises(SuffuseError, match=r"hf_model_name = 'xlm-roberta-base' is not supported"):
        open_clip_parts(tmp_path)


PUBLISHED = {
    "RN50": ClipResNetConfig(),
    "RN101": ClipResNetConfig(layers=(3, 4, 23, 3), projection=512),
    "RN50x4": ClipResNetConfig(288, (4, 6, 10, 6), 80, 40, 640),
    "RN50x16": ClipResNetConfig(384, (6, 8, 18, 8), 96, 48, 768),
    "RN50x64": ClipResNetConfig(448, (3, 15, 36, 10), 128, 64, 1024),
    "ViT-B/32": ClipVisionConfig(),
    "ViT-B/16": ClipVisionConfig(patch=16),
    "ViT-L/14": ClipVisionConfig(224, 14, 1024, 24, 16, 4096, projection=768),
    "ViT-L/14@336": ClipVisionConfig(336, 14, 1024, 24, 16, 4096, projection=768),
    "ViT-H/14": ClipVisionConfig(224, 14, 1280, 32, 16, 5120, projection=1024),
    "ViT-bigG/14": ClipVisionConfig(224, 14, 1664, 48, 16, 8192, projection=1280),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_told_by_their_shapes(name: str) -> None:
    config = PUBLISHED[name]
    with torch.device("meta"):
        if isinstance(config, ClipResNetConfig):
            tower, keys = ClipResNet(config), OPENAI_CLIP_RESNET
        else:
            tower, keys = ClipVision(config), OPENAI_CLIP
    source = Source(OPEN_CLIP)  # no number of it is read
    entries = {}
    for ours, weight in tower.state_dict().items():
        ((theirs, op),) = keys.spellings(f"image.{ours}")
        shape = tuple(weight.shape)
        if "in_proj" in theirs:
            shape = (3 * shape[0], *shape[1:])
        elif op.name == "transposed":
            shape = shape[::-1]
        entries[theirs] = Entry(source, 0, weight.dtype, shape, contiguous(shape))
    file = TensorFile(Path("x.pt"), "torch zip", entries)
    assert image_shape(file) == config
    assert model_name(config) == name


def rewritten(archive: Path, change: dict[str, bytes]) -> None:
    """The golden archive with some of its files replaced."""
    with zipfile.ZipFile(ARCHIVE) as old, zipfile.ZipFile(archive, "w") as new:
        for info in old.infolist():
            replaced = [value for end, value in change.items() if end in info.filename]
            new.writestr(info.filename, replaced[0] if replaced else old.read(info))


class Harm:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def test_code_of_an_archive_is_never_run(tmp_path: Path) -> None:
    mark, archive = tmp_path / "executed", tmp_path / "ViT.pt"
    # Not even looked at: that which TorchScript would compile may be anything.
    rewritten(archive, {"/code/": b"def forward(self: raise harm"})
    values = load_file(GOLDEN / "openai_vit" / "io.safetensors")
    check(open_clip_parts(archive, hints=WORDS), values)
    rewritten(archive, {"data.pkl": pickle.dumps({"visual": Harm(mark)}, protocol=2)})
    with pytest.raises(SuffuseError, match=r"refused, it names '\w+\.system'.*nothing in it was"):
        open_clip_parts(archive, hints=WORDS)
    assert not mark.exists()


# ---- transformers' layout ----------------------------------------------------------------------

SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "layer_norm_eps": 1e-3, "projection_dim": 8,
}  # fmt: skip
TEXT = {**SIZES, "vocab_size": 634, "eos_token_id": 2, "hidden_act": "gelu"}
VISION = {**SIZES, "image_size": 16, "patch_size": 8, "hidden_act": "quick_gelu"}
_TOWERS = ("text", "vision")
SHOWN = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}, "resample": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8))
    randomise(model, 1)
    place = tmp_path_factory.mktemp("clip")
    model.save_pretrained(place)
    CLIPTokenizer.from_pretrained(TOKENIZER).save_pretrained(place)
    (place / PREPROCESSOR).write_text(json.dumps(SHOWN))
    return place


@torch.no_grad()
def agree(parts: ClipParts, model: CLIPModel) -> None:
    """Both towers and the scale, as transformers has them."""
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ids = torch.from_numpy(np.concatenate([parts.tokenizer.windows(t) for t in ("a cat", "é!")]))
    theirs = model.eval()(pixel_values=image, input_ids=ids)
    ours = parts.model
    assert far(ours.embed_images(image), theirs.image_embeds) < 1e-5
    assert far(ours.embed_texts(ids), theirs.text_embeds) < 1e-5
    assert far(ours.logit_scale, model.logit_scale) < 1e-6


def test_transformers_folders(folder: Path, tmp_path: Path) -> None:
    model = CLIPModel.from_pretrained(folder)
    parts = open_clip_parts(folder)
    agree(parts, model)
    assert parts.prepare == ClipInput(20, 16)
    assert describe(folder).hints["model"] == "ViT-16/8@16"
    # Pickled, with the buffers that older versions saved.
    old = {f"{name}_model.embeddings.position_ids": torch.arange(5)[None] for name in _TOWERS}
    torch.save({**model.state_dict(), **old}, tmp_path / "pytorch_model.bin")
    shutil.copy(folder / "config.json", tmp_path)
    agree(open_clip_parts(tmp_path, hints=WORDS), model)
    # transformers 5's processor has its file within its own.
    (tmp_path / PROCESSOR).write_text(json.dumps({"image_processor": {**SHOWN, "size": 17}}))
    shutil.copy(folder / PREPROCESSOR, tmp_path)
    assert ClipInput.load(tmp_path) == ClipInput(17, 16)
    (tmp_path / PROCESSOR).write_text("{}")
    assert ClipInput.load(tmp_path) == ClipInput(20, 16)
    (tmp_path / PREPROCESSOR).unlink()
    # In shards; with the older spelling of the configuration, which goes before the newer.
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    raw = json.loads((folder / "config.json").read_text())
    old = {**raw, "text_config_dict": raw.pop("text_config"), "vision_config": VISION}
    (tmp_path / "config.json").write_text(json.dumps({**old, "text_config": {"hidden_size": 4}}))
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = open_clip_parts(tmp_path, hints=WORDS)
    agree(again, model)
    assert again.prepare == ClipInput(16, 16)  # OpenAI's way, where the folder says nothing


def test_the_picture_tower_alone(folder: Path, tmp_path: Path) -> None:
    """As Karlo's and other diffusers folders have it."""
    model = CLIPVisionModelWithProjection.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = model.eval()(pixel_values=image)
        for source in (tmp_path, folder):
            got = open_clip_image(source)(image)
            assert far(got.pooled, want.image_embeds) < 1e-5
            assert far(got.last, want.last_hidden_state) < 1e-5
        plain = CLIPVisionModel.from_pretrained(tmp_path)  # saved without the prefix of names
        plain.save_pretrained(tmp_path / "plain")
        got = open_clip_image(tmp_path / "plain")(image)
        assert far(got.pooled, plain.eval()(pixel_values=image).pooler_output) < 1e-5


def test_saved_and_opened_again(folder: Path, tmp_path: Path) -> None:
    parts = open_clip_parts(folder)
    save_clip(parts, tmp_path / "one")
    saved = open_clip_parts(tmp_path / "one")
    agree(saved, CLIPModel.from_pretrained(tmp_path / "one", dtype=torch.float32))
    for name, weight in parts.model.state_dict().items():
        assert torch.equal(saved.model.state_dict()[name], weight.half().float()), name
    assert saved.prepare == parts.prepare
    assert (
        saved.tokenizer.windows("red cat").tolist() == parts.tokenizer.windows("red cat").tolist()
    )
    save_clip(saved, tmp_path / "one")  # over itself
    again = open_clip_parts(tmp_path / "one")
    for name, weight in saved.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight), name
    (tmp_path / "one" / "diary.txt").write_text("dear")
    with pytest.raises(SuffuseError, match=r"holds 'diary\.txt' besides a model"):
        save_clip(saved, tmp_path / "one")


def test_a_resnet_is_saved_in_open_clips_layout(tmp_path: Path) -> None:
    parts = open_clip_parts(GOLDEN / "openai_resnet" / "archive.pt", hints=WORDS)
    save_clip(parts, tmp_path / "one", torch.float32)
    again = open_clip_parts(tmp_path / "one")
    check(again, load_file(GOLDEN / "openai_resnet" / "io.safetensors"))
    for name, weight in parts.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight), name
    assert again.prepare == parts.prepare
    # Elsewhere than on a CPU, the counters of its norms are whole numbers too.
    there = open_clip_parts(tmp_path / "one", device="meta", dtype=torch.float16).model.state_dict()
    assert there["image.bn1.num_batches_tracked"].dtype == torch.int64
    assert there["image.bn1.running_var"].dtype == torch.float16


# ---- what does not fit -------------------------------------------------------------------------


def broken(folder: Path, **changes: object) -> Path:
    """The golden state dict with weights replaced, or left out for None."""
    file = open_tensors(OPEN_CLIP)
    weights = {**{key: file.read(key) for key in file}, **changes}
    buffer = io.BytesIO()
    torch.save({key: w for key, w in weights.items() if w is not None}, buffer)
    (folder / "x.pt").write_bytes(buffer.getvalue())
    return folder / "x.pt"


def test_one_line_for_what_does_not_fit(tmp_path: Path, folder: Path) -> None:
    def refused(match: str, source: Path | None = None, hints: Hints = SMALL_HEADS) -> None:
        with pytest.raises(SuffuseError, match=match) as caught:
            open_clip_parts(source or tmp_path / "x.pt", hints=hints)
        assert "\n" not in str(caught.value)

    broken(tmp_path, **{"visual.ln_post.bias": None, "visual.extra": torch.ones(1)})
    refused(r"missing \('visual.ln_post.bias'\) and 1 weight is unknown \('visual.extra'\)")
    broken(tmp_path, **{"ln_final.weight": torch.ones(65)})
    refused(r"'ln_final.weight' has the shape \(65,\)")
    broken(tmp_path, **{"visual.positional_embedding": torch.ones(18, 64)})
    refused("a picture of 17 places is not square")
    broken(tmp_path, **{"visual.proj": None})
    refused("1 weight is missing .'visual.proj'")
    broken(tmp_path, **{"token_embedding.weight": torch.ones(300, 64)})
    refused("634 tokens in windows of 77, the text encoder knows 300")
    refused("knows 634 tokens, OpenAI's vocabulary has 49408; name the folder", OPEN_CLIP, Hints())
    refused("width 64 does not divide into 5 heads", OPEN_CLIP, replace(WORDS, heads=5))
    refused("is no CLIP but ", GOLDEN.parent / "gd" / "classifier" / "classifier_adaptive.pt")
    torch.save({"a.b": torch.ones(1)}, tmp_path / "x.pt")
    refused("is no CLIP; of its 1 weights some are 'a.b'")
    refused("there is no such file or folder", tmp_path / "none")
    shutil.copytree(folder, tmp_path / "hf")
    (tmp_path / "hf" / "config.json").unlink()
    refused("config.json: this file of the model is missing", tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "siglip"}')
    refused("model_type = 'siglip' is not supported", tmp_path / "hf")
    for name, tower in (("text", TEXT), ("vision", VISION)):
        wrong = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8}
        wrong |= {f"{name}_config": {**tower, "hidden_act": "relu"}, "model_type": "clip"}
        (tmp_path / "hf" / "config.json").write_text(json.dumps(wrong))
        refused("'relu'", tmp_path / "hf")
        for field, odd in (("hidden_act", []), ("layer_norm_eps", None), ("layer_norm_eps", "x")):
            wrong[f"{name}_config"] = {**tower, field: odd}
            (tmp_path / "hf" / "config.json").write_text(json.dumps(wrong))
            refused(f"{field} = .* is not supported", tmp_path / "hf")


def test_a_text_must_end_where_the_tower_reads(folder: Path) -> None:
    """Else every text would get the vector of its first word, and nobody would notice."""
    parts = open_clip_parts(folder)
    with pytest.raises(SuffuseError, match=r"ends with the token 600, and .* reads it at 633"):
        replace(parts, tokenizer=replace(parts.tokenizer, eos=600))


# ---- pictures ----------------------------------------------------------------------------------


def test_pictures_are_prepared_as_the_reference_does() -> None:
    values = load_file(GOLDEN / "preprocess" / "io.safetensors")
    picture = Image.fromarray(values["in.image"].numpy())
    got = ClipInput(48, 48).prepare(picture)
    assert far(got, values["out.pil"]) < 1e-5
    assert far(got, values["out.transformers"]) < 1e-5


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ('{"size": "big"}', "is not a CLIP's preprocessing"),
        ('{"image_mean": [1, 2]}', "must be three numbers each"),
        ('{"image_std": [1, NaN, 1]}', "must be three numbers each"),
        ('{"image_std": [1, 0, 1]}', "are above 0"),
        ('{"size": Infinity}', "is not a CLIP's preprocessing"),
        ('{"rescale_factor": 1.0}', "rescale_factor must be 1/255"),
        ('{"resample": 2}', "only bicubic"),
        ('{"size": 32, "crop_size": 64}', "then a smaller crop"),
        ('{"do_center_crop": false}', "then a smaller crop"),
        ("[]", "expected a JSON object"),
    ],
)
def test_other_ways_to_prepare_are_refused(tmp_path: Path, said: str, match: str) -> None:
    (tmp_path / PREPROCESSOR).write_text(said)
    with pytest.raises(SuffuseError, match=match):
        ClipInput.load(tmp_path)


def test_a_strip_is_looked_at_in_its_middle() -> None:
    """Resized whole, this one would take 13 GB."""
    levels = np.zeros((1, 90_000, 3), np.uint8)
    levels[:, 44_000:46_000] = 255
    got = ClipInput(224, 224).prepare(Image.fromarray(levels))
    assert got.shape == (3, 224, 224)
    assert torch.allclose(got, got.amax((1, 2), keepdim=True))  # white all over
    assert got.amax() > 1.5


@pytest.mark.parametrize("width", range(33, 45))
def test_the_middle_is_where_torchvision_or_transformers_have_it(width: int) -> None:
    """torchvision's CenterCrop begins at `int(round((width - crop) / 2))`, transformers' one at
    the whole pixel before."""
    ramp = Image.fromarray(np.arange(width * 32 * 3, dtype=np.uint8).reshape(32, width, 3))
    levels = torch.from_numpy(np.array(ramp)).permute(2, 0, 1).float() / 255
    whole = {"size": 32, "crop": 32, "mean": (0.0, 0.0, 0.0), "spread": (1.0, 1.0, 1.0)}
    start = round((width - 32) / 2.0)
    got = ClipInput(**whole, rounded=True).prepare(ramp)
    assert torch.equal(got, levels[..., start : start + 32])
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, do_normalize=False)
    want = theirs(ramp, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(ClipInput(**whole).prepare(ramp), want, atol=1e-6)
