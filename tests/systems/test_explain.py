"""What is recorded of a picture: true, complete, and without a trace left behind."""

import base64
import json

import diffusers
import numpy as np
import pytest
import tiny
import torch
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image

import suffuse
from suffuse.errors import SuffuseError
from suffuse.networks.attention import CrossAttention
from suffuse.networks.record import attention
from suffuse.systems import explain as module
from suffuse.systems.explain import explain, recording
from suffuse.systems.request import Request

ASKED = Request("a cat on a hat", "dog", steps=3, seed=5, guidance=4.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("explained")
    tiny.pipeline().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def system(folder):
    return suffuse.load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def found(system):
    return explain(system, ASKED)


def hooks(system):
    net = module.network(system)
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules())


def test_recording_changes_no_bit_and_leaves_nothing_behind(system, found):
    plain = system.generate(ASKED)[0]
    assert (np.asarray(plain) == np.asarray(found.picture)).all()
    assert hooks(system) == 0
    with pytest.raises(ZeroDivisionError), recording(system, ASKED) as picture:
        assert hooks(system) > 1
        next(picture.steps())
        raise ZeroDivisionError
    assert hooks(system) == 0


def test_steps_are_those_of_the_stream(system):
    with recording(system, ASKED) as picture:
        steps = list(picture.steps())
        explanation = picture.explanation()
    for ours, theirs in zip(steps, system.stream(ASKED), strict=True):
        assert ours[:3] == theirs[:3] and ours.seed == theirs.seed
        drawn = explanation.draw(explanation.x0[ours.i : ours.i + 1])
        assert (np.asarray(drawn) == np.asarray(theirs.preview())).all()


class Recorded(AttnProcessor):
    """diffusers' own attention, whose probabilities are kept."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **more):
        if encoder_hidden_states is not None:
            query = attn.head_to_batch_dim(attn.to_q(hidden_states))
            key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
            scores = attn.get_attention_scores(query, key)  # (B * heads, P, L)
            self.kept.append(scores.unflatten(0, (len(hidden_states), -1))[-1].mean(0))
        return super().__call__(attn, hidden_states, encoder_hidden_states, **more)


def test_attention_is_diffusers(folder, found):
    """Its pipeline draws the same picture from the same weights, step by step."""
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, scheduler=scheduler, safety_checker=None, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    kept, steps = [], []
    pipe.unet.set_attn_processor(Recorded(kept))

    def close(pipe, i, t, values):
        steps.append(list(kept))
        kept.clear()
        return values

    ours = explain(
        suffuse.load(folder, device="cpu", dtype="float32"),
        Request("a cat on a hat", "dog", steps=3, seed=5, guidance=4.0, sampler="ddim"),
    )
    pipe(
        "a cat on a hat",
        negative_prompt="dog",
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(5)],
        callback_on_step_end=close,
    )
    assert len(steps) == 3
    for i, layers in enumerate(steps):
        by_places = {}
        for layer in layers:
            by_places.setdefault(len(layer), []).append(layer)
        assert sorted(by_places) == sorted(h * w for h, w in ours.attention)
        for (h, w), maps in ours.attention.items():
            want = torch.stack(by_places[h * w]).mean(0).T.unflatten(1, (h, w))
            torch.testing.assert_close(maps[i], want, rtol=1e-4, atol=1e-6)
            assert want.std() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_one_layer_against_float64(masked):
    torch.manual_seed(0)
    layer = CrossAttention(24, 16, heads=3)
    x, tokens = torch.randn(2, 10, 24), torch.randn(2, 7, 16)
    mask = torch.rand(2, 7) > 0.4 if masked else None
    found = attention(
        layer, x, layer.prepare(tokens), None if mask is None else mask[:, None, None]
    )
    q = (x[1].double() @ layer.q.weight.double().T).reshape(10, 3, 8)
    k = (tokens[1].double() @ layer.k.weight.double().T).reshape(7, 3, 8)
    scores = torch.einsum("phd,lhd->hpl", q, k) / 8**0.5
    if mask is not None:
        scores[..., ~mask[1]] = -torch.inf
    torch.testing.assert_close(found.double(), scores.softmax(-1), rtol=1e-5, atol=1e-6)


def test_shares_sum_to_one_and_every_token_belongs_somewhere(system, found):
    window = system.parts.tokenizer.window
    for (h, w), maps in found.attention.items():
        assert maps.shape == (3, window, h, w)
        torch.testing.assert_close(maps.sum(1), torch.ones(3, h, w))
        torch.testing.assert_close(found.maps((h, w)).sum(1), torch.ones(3, h, w))
    assert sorted(t for word in found.words for t in word.tokens) == list(range(window))
    assert [word.text for word in found.words] == [
        *["a", "cat", "on", "a", "hat"],
        module.START,
        module.END,
        module.PADDING,
    ]
    assert float(found.shares().sum()) == pytest.approx(1)


def test_long_prompts_and_long_negatives(system):
    long = ", ".join(["a cat on a hat"] * 25)
    for prompt, negative in ((long, ""), ("a cat", long)):
        told = explain(system, Request(prompt, negative, steps=1, seed=1))
        size = next(iter(told.attention.values())).shape[1]
        assert size == 77 * system.windows(Request(prompt, negative)) > 77
        assert sorted(t for word in told.words for t in word.tokens) == list(range(size))
        ids = system.parts.tokenizer.windows(long if prompt == long else prompt)
        cats = {t for word in told.words if word.text == "cat" for t in word.tokens}
        cat = set(system.parts.tokenizer.encode("cat"))
        assert {int(ids.flatten()[t]) for t in cats} == cat


def test_levels_and_guidance_are_those_of_the_sampler(system, found):
    grid = system.job([system.resolve(ASKED)]).grid
    assert found.alpha.tolist() == grid.alpha[:-1].tolist()
    assert found.sigma.tolist() == grid.sigma[:-1].tolist()
    snr = (found.alpha / found.sigma) ** 2
    torch.testing.assert_close(found.log_snr.exp(), snr)
    # The first step's difference, by asking the network twice.
    parts = system.parts
    x = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))[None] * grid.start
    from suffuse.systems.encoders import TextEncoder

    text = TextEncoder(parts.tokenizer, parts.text)
    with torch.inference_mode():
        answers = [
            parts.unet(x, grid.level(0).label, parts.unet.prepare(text.encode([prompt])))
            for prompt in ("a cat on a hat", "dog")
        ]
    torch.testing.assert_close(
        found.guidance[0], (answers[0] - answers[1])[0], rtol=1e-3, atol=1e-4
    )


def test_without_guidance_there_is_no_difference(system):
    told = explain(system, Request("a cat", steps=2, seed=1, guidance=1.0))
    assert told.guidance == (None, None)
    assert told.to_json()["steps"][0]["guidance"] is None


@pytest.mark.parametrize("sampler", ["heun", "plms"])
def test_samplers_that_ask_twice(system, sampler):
    told = explain(system, Request("a cat", steps=3, seed=1, sampler=sampler))
    for maps in told.attention.values():
        torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]))
    assert all(push is not None for push in told.guidance)


def test_json_holds_what_the_page_reads(found):
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert len(told["words"]) == len(found.words)
    assert len(told["steps"]) == 3
    sides = told["attention"]["resolutions"]
    assert sides == sorted(int(side) for side in told["attention"]["by_resolution"])
    finest = max(found.attention)
    mean = found.maps(finest).mean(0)
    for word, one in enumerate(told["attention"]["by_resolution"][str(sides[-1])]["mean"]):
        levels = np.frombuffer(base64.b64decode(one["data"]), np.uint8)
        shown = levels.reshape(one["height"], one["width"]) * (one["max"] / 255)
        assert np.abs(shown - mean[word].numpy()).max() <= one["max"] / 500
    assert [step["i"] for step in told["attention"]["by_step"]] == [0, 1, 2]
    assert len(told["attention"]["by_step"][0]["maps"]) == len(found.words)
    assert len(told["latent"]["channels"]) == 4
    for url in (told["picture"], told["steps"][0]["x0"], told["steps"][0]["guidance"]):
        assert url.startswith("data:image/png;base64,")


def test_pixel_systems_give_what_they_have():
    from test_ddpm import model
    from test_score_sde import made

    from suffuse.systems.ddpm import DDPM

    system = DDPM(model(classes=3))
    told = explain(system, Request("b", steps=2, seed=1, guidance=3.0))
    assert told.words == () and told.attention == {} and told.latent is None
    assert told.guidance[0] is not None and told.guidance[0].shape == told.x0.shape[1:]
    data = json.loads(json.dumps(told.to_json(), allow_nan=False))
    assert data["words"] == [] and data["attention"] is None and data["latent"] is None
    told = explain(made("Ve"), Request(steps=3, seed=1))
    assert told.guidance == (None,) * 3 and told.kind in ("eps", "score")


def test_what_cannot_be_explained(system):
    with pytest.raises(SuffuseError, match="n must be 1, not 2"):
        explain(system, Request("a cat", n=2))
    with recording(system, ASKED) as picture, pytest.raises(SuffuseError, match="not finished"):
        picture.explanation()


def test_a_picture_to_start_from(system):
    start = Image.new("RGB", (16, 16), "red")
    told = explain(system, Request("a cat", steps=4, seed=1, image=start, strength=0.5))
    assert len(told.x0) == len(told.alpha) == 2


def test_korean_words_of_the_bundled_model():
    system = suffuse.load(device="cpu", dtype="float32")
    told = explain(system, Request("고양이 위에 사과", steps=2, seed=3))
    assert [word.text for word in told.words][:3] == ["고양이", "위에", "사과"]
    assert sorted(told.attention) == [(4, 4), (8, 8)]
