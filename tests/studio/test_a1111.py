"""The API of A1111's web UI, asked by its public Python client."""

import threading
import time

import httpx
import numpy as np
import pytest
import requests
import webuiapi
from PIL import Image

from suffuse.systems.infotext import parse


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A LoRA and a learned word for the bundled model."""
    import torch

    from suffuse.networks.lora import LoraConfig, make_adapter
    from suffuse.weights.embedding import Embedding, save_embedding
    from suffuse.weights.load import open_parts
    from suffuse.weights.lora import Lora, save_lora

    place, parts = tmp_path_factory.mktemp("folder"), open_parts()
    adapter = make_adapter(parts.unet, LoraConfig(rank=2))
    for _, change in adapter.items():
        torch.nn.init.normal_(change.up.weight)
    save_lora(Lora(adapter), place / "style.safetensors", parts.unet_config)
    word = Embedding("rex", torch.randn(2, parts.text.config.width))
    save_embedding(word, place / "rex.safetensors", "a1111")
    return place


@pytest.fixture(scope="module")
def studio(start_studio, folder):
    return start_studio(folders=[str(folder)])


def connect(studio, name="me"):
    """A client with a name of its own."""
    host, port = studio.url.removeprefix("http://").split(":")
    found = webuiapi.WebUIApi(host=host, port=int(port), sampler="Euler a", steps=2)
    found.session.headers["X-Client"] = name
    return found


@pytest.fixture(scope="module")
def api(studio):
    return connect(studio)


SMALL = {"width": 64, "height": 64, "prompt": "a red apple"}


def pixels(picture):
    return np.asarray(picture.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def apple(api):
    return api.txt2img(**SMALL, seed=7).image


def test_lists(api, apple):
    samplers = {sampler["name"] for sampler in api.get_samplers()}
    assert {"Euler a", "DPM++ 2M", "DDIM", "UniPC"} <= samplers
    schedulers = {s["name"]: s["label"] for s in api.get_schedulers()}
    assert schedulers["automatic"] == "Automatic" and schedulers["sgm_uniform"] == "SGM Uniform"
    (model,) = api.get_sd_models()
    assert model["model_name"] == "bundled" and model["title"] == f"bundled [{model['hash']}]"
    assert [lora["name"] for lora in api.get_loras()] == ["style"]
    assert api.get_embeddings()["loaded"]["rex"]["vectors"] == 2
    assert api.get_memory()["ram"]["total"] > api.get_memory()["ram"]["free"] > 0
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.get_cmd_flags()["api"] is True
    assert api.refresh_checkpoints() is None
    nothing = (
        api.get_sd_vae,
        api.get_upscalers,
        api.get_latent_upscale_modes,
        api.get_hypernetworks,
        api.get_face_restorers,
        api.get_realesrgan_models,
        api.get_prompt_styles,
    )
    assert [ask() for ask in nothing] == [[]] * len(nothing)


def test_what_there_is_not_is_not_found(api):
    with pytest.raises(RuntimeError) as caught:
        api.interrogate(Image.new("RGB", (8, 8)))
    assert caught.value.args[0] == 404


def test_batches_and_iterations(api, apple):
    found = api.txt2img(**SMALL, negative_prompt="blue", seed=6, batch_size=2, n_iter=2)
    info = found.info
    assert (len(found.images), info["all_seeds"], info["seed"]) == (4, [6, 7, 8, 9], 6)
    assert info["all_prompts"] == ["a red apple"] * 4 and info["negative_prompt"] == "blue"
    assert (info["width"], info["steps"], info["cfg_scale"]) == (64, 2, 7)
    assert (info["sampler_name"], info["sd_model_name"]) == ("Euler a", "bundled")
    assert info["index_of_first_image"] == 0
    for seed, text, picture in zip(info["all_seeds"], info["infotexts"], found.images):
        told = parse(text)
        assert told == parse(picture.info["parameters"])
        assert (told.negative, told.fields["Seed"]) == ("blue", str(seed))
    assert found.parameters["n_iter"] == 2
    alone = api.txt2img(**SMALL, negative_prompt="blue", seed=7).image
    assert (pixels(alone) == pixels(found.images[1])).all()
    assert (pixels(alone) != pixels(apple)).any()


def test_samplers_by_old_and_new_names(api):
    old = api.txt2img(**SMALL, seed=7, sampler_name="DPM++ 2M Karras")
    new = api.txt2img(**SMALL, seed=7, sampler_name="DPM++ 2M", scheduler="Karras")
    assert (pixels(old.image) == pixels(new.image)).all()
    fields = parse(new.info["infotexts"][0]).fields
    assert (fields["Sampler"], fields["Schedule type"]) == ("DPM++ 2M", "Karras")


def test_without_a_size_the_model_draws_its_own(studio):
    body = {"prompt": "a red apple", "steps": 1, "send_images": False}
    answer = requests.post(f"{studio.url}/sdapi/v1/txt2img", json=body).json()
    assert answer["images"] == [] and '"width": 128' in answer["info"]


def test_loras_and_words_in_the_prompt(api, apple):
    prompt = "a red apple <lora:style:0.8>"
    found = api.txt2img(**{**SMALL, "prompt": prompt}, seed=7)
    assert found.info["prompt"] == prompt and parse(found.info["infotexts"][0]).prompt == prompt
    assert (pixels(found.image) != pixels(apple)).any()
    none = api.txt2img(**{**SMALL, "prompt": "a red apple <lora:style:0>"}, seed=7)
    assert (pixels(none.image) == pixels(apple)).all()
    kept = httpx.get(f"{api.baseurl.removesuffix('/sdapi/v1')}/api/images?limit=1").json()
    assert kept["images"][0]["request"]["loras"] == ["style.safetensors:0"]
    api.txt2img(**{**SMALL, "prompt": "a rex"}, seed=7)
    kept = httpx.get(f"{api.baseurl.removesuffix('/sdapi/v1')}/api/images?limit=1").json()
    assert kept["images"][0]["request"]["embeddings"] == ["rex.safetensors"]


def test_a_picture_is_repainted_where_the_mask_is_white(api, apple):
    mask = Image.new("L", apple.size)
    mask.paste(255, (16, 16, 48, 48))
    asked = {**SMALL, "images": [apple], "mask_image": mask, "seed": 1, "denoising_strength": 1}
    inside = np.zeros((64, 64), bool)
    inside[16:48, 16:48] = True
    for invert, where in ((0, inside), (1, ~inside)):
        found = api.img2img(**asked, inpainting_mask_invert=invert)
        changed = (pixels(found.image) != pixels(apple)).any(-1)
        assert changed[where].mean() > 0.5 and not changed[~where].any()
    assert "init_images" not in found.parameters and found.parameters["resize_mode"] == 0
    assert parse(found.info["infotexts"][0]).fields["Denoising strength"] == "1"


def test_a_picture_is_a_start(api, apple):
    asked = {"images": [apple], "prompt": "a red apple", "seed": 1, "steps": 4, "width": 32}
    near, far = (
        pixels(api.img2img(**asked, height=32, denoising_strength=s).image) for s in (0.3, 1.0)
    )
    small = pixels(apple.resize((32, 32), Image.Resampling.LANCZOS))
    assert near.shape == (32, 32, 3)
    assert np.abs(near - small).mean() < np.abs(far - small).mean()


def test_png_info(api, apple):
    found = api.png_info(apple)
    assert found.info == apple.info["parameters"]
    assert set(found.json["items"]) == {"parameters", "suffuse"}
    told = found.parameters
    assert (told["Prompt"], told["Seed"], told["Size-1"]) == ("a red apple", "7", "64")
    assert api.png_info(Image.new("RGB", (8, 8))).info == ""


def test_settings_are_the_clients_own(api, studio):
    other = connect(studio, "other")
    assert api.get_options()["sd_model_checkpoint"].startswith("bundled [")
    api.set_options({"CLIP_stop_at_last_layers": 2, "hide_samplers": ["x"]})
    try:
        assert api.get_options()["hide_samplers"] == ["x"]
        assert api.txt2img(**SMALL).info["clip_skip"] == 2
        assert other.txt2img(**SMALL).info["clip_skip"] == 1
        settings = {"CLIP_stop_at_last_layers": 1, "show_progress_every_n_steps": 1000}
        assert api.txt2img(**SMALL, override_settings=settings).info["clip_skip"] == 1
        refused = api.set_options({"sd_model_checkpoint": "sdxl"})
        assert refused["detail"] == "model 'sdxl' not found"
        for bad in (b'{"x": NaN}', b'{"x": "\\ud800"}', b'{"CLIP_stop_at_last_layers": "2"}'):
            assert api.session.post(f"{api.baseurl}/options", data=bad).status_code == 422
    finally:
        api.set_options({"CLIP_stop_at_last_layers": 1})


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"enable_hr": True}, 422, "there is no second, enlarging pass"),
        ({"sampler_name": "Nope"}, 404, "unknown sampler 'Nope'"),
        ({"width": 60}, 400, "width 60 is not divisible by 8"),
        ({"steps": 1000}, 400, "steps must be at most 150"),
        ({"batch_size": 20}, 422, "20 pictures"),
        ({"prompt": ""}, 400, "the prompt is empty"),
        ({"cfg_scale": "x"}, 422, "cfg_scale"),
        ({"prompt": "<lora:../style:1>"}, 400, "there is no LoRA"),
    ],
)
def test_refusals(api, fields, status, says):
    with pytest.raises(RuntimeError) as caught:
        api.txt2img(**{**SMALL, **fields})
    assert caught.value.args[0] == status and says in caught.value.args[1]


class Slow(threading.Thread):
    """A request for two batches, long enough to be watched; `found` is its answer."""

    def __init__(self, api):
        super().__init__()
        self.api, self.found = api, None
        self.start()

    def run(self):
        self.found = self.api.txt2img(
            prompt="a red apple", width=128, height=128, steps=150, n_iter=2
        )

    def watch(self, until):
        """The first progress of which `until` is true."""
        while not until(told := self.api.get_progress()):
            assert self.is_alive()
            time.sleep(0.02)
        return told


@pytest.fixture
def slow(studio):
    me = connect(studio, "patient")
    requests.post(
        f"{me.baseurl}/options", json={"show_progress_every_n_steps": 1}, headers=me.session.headers
    )
    running = Slow(me)
    yield running
    me.interrupt()
    running.join()


def test_progress_and_interruption_are_of_ones_own(slow, api):
    told = slow.watch(lambda told: told["current_image"])
    assert 0 < told["progress"] < 1 and told["eta_relative"] > 0
    state = told["state"]
    assert (state["job"], state["job_count"], state["job_no"]) == ("txt2img", 2, 0)
    assert (state["sampling_steps"], state["interrupted"]) == (150, False)
    preview = webuiapi.webuiapi.base64.b64decode(told["current_image"])
    assert preview.startswith(b"\x89PNG")
    assert api.get_progress()["progress"] == 0  # another client's
    assert (api.interrupt(), api.skip()) == ({}, {})
    assert slow.watch(lambda now: now["progress"] > told["progress"])
    slow.api.interrupt()
    slow.join()
    assert (slow.found.images, slow.found.info["all_seeds"]) == ([], [])


def test_skipping_goes_on_with_the_next_batch(slow):
    slow.watch(lambda told: told["state"]["sampling_step"] > 0)
    slow.api.skip()
    told = slow.watch(lambda told: told["state"]["job_no"] == 1)
    assert told["state"]["skipped"] and not told["state"]["interrupted"]
