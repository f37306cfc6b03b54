"""OpenAI's API, asked by OpenAI's own client."""

import base64
import io

import httpx
import numpy as np
import openai
import pytest
import webuiapi
from PIL import Image

KEY = "sk-studio"


@pytest.fixture(scope="module")
def address(start_studio):
    return start_studio(api_key=KEY, limits={"queued_per_client": 8}).url


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def quick(**fields):
    return {"prompt": "a red apple", "extra_body": {"seed": 7, "steps": 2, **fields}}


def opened(b64_json):
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def pixels(b64_json):
    return np.asarray(opened(b64_json))


def sent(picture):
    """A picture as a file that can be sent."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return ("picture.png", file.getvalue())


@pytest.fixture(scope="module")
def apple(client):
    """The picture that `quick()` asks for."""
    return client.images.generate(**quick()).data[0].b64_json


def test_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("bundled", "model", "suffuse")
    assert client.models.retrieve("bundled") == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("dall-e-3")
    assert caught.value.code == "model_not_found"


def test_pictures_with_their_seeds_and_usage(client, apple):
    answer = client.images.generate(**quick(guidance=4, sampler="DDIM"), n=2, size="64x64")
    assert [image.seed for image in answer.data] == [7, 8]
    assert [image.url for image in answer.data] == [None, None]
    first, second = (opened(image.b64_json) for image in answer.data)
    assert first.size == second.size == (64, 64) and first.format == "PNG"
    assert (
        "Sampler: DDIM" in first.text["parameters"] and "CFG scale: 4" in first.text["parameters"]
    )
    assert (np.asarray(first) != np.asarray(second)).any()
    assert (answer.size, answer.output_format, answer.background) == ("64x64", "png", "opaque")
    usage = answer.usage
    assert usage.input_tokens_details.text_tokens == 3  # words
    assert usage.output_tokens_details.image_tokens == 2 * 8 * 8  # cells of 8 x 8 pixels
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert opened(apple).size == (128, 128)  # the model's own size


@pytest.mark.parametrize(("kind", "name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats(client, apple, kind, name):
    data = client.images.generate(**quick(), output_format=kind, output_compression=90).data
    found = opened(data[0].b64_json)
    assert found.format == name
    assert np.abs(np.asarray(found).astype(int) - pixels(apple)).mean() < 8


def test_addresses(client, address, apple):
    url = client.images.generate(**quick(), response_format="url").data[0].url
    assert url.startswith(f"{address}/api/images/")
    assert httpx.get(url).status_code == 401
    png = httpx.get(url, headers={"Authorization": f"Bearer {KEY}"}).content
    assert (np.asarray(Image.open(io.BytesIO(png))) == pixels(apple)).all()


def test_a_stream_ends_with_the_picture_that_is_given_without_one(client, apple):
    asked = quick(steps=4)
    with client.images.generate(**asked, stream=True, partial_images=2, n=2) as stream:
        events = list(stream)
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert sorted(event.type for event in events) == [completed] * 2 + [partial] * 4
    first = next(event for event in events if event.type == partial)
    assert first.partial_image_index == 0 and opened(first.b64_json).size == (128, 128)
    done = {event.seed: event for event in events if event.type == completed}
    assert (done[7].size, done[7].usage.output_tokens) == ("128x128", 256)
    whole = client.images.generate(**asked).data[0].b64_json
    assert (pixels(done[7].b64_json) == pixels(whole)).all()
    assert (pixels(whole) != pixels(apple)).any()


def test_edits_change_what_is_transparent(client, apple):
    picture = opened(apple).convert("RGB")
    mask = Image.new("RGBA", picture.size, "black")
    mask.paste((0, 0, 0, 0), (32, 32, 96, 96))
    edited = client.images.edit(image=sent(picture), mask=sent(mask), **quick(seed=9))
    changed = (pixels(edited.data[0].b64_json) != pixels(apple)).any(-1)
    assert changed[32:96, 32:96].mean() > 0.5
    changed[32:96, 32:96] = False
    assert not changed.any()
    picture.putalpha(mask.getchannel("A"))  # the same hole, in the picture itself
    again = client.images.edit(image=sent(picture), **quick(seed=9)).data[0].b64_json
    changed = (pixels(again) != pixels(apple)).any(-1)
    changed[32:96, 32:96] = False
    assert not changed.any()


def test_an_edit_without_a_hole_starts_from_the_picture_and_streams(client, apple):
    asked = quick(seed=9, strength=0.5, steps=4)
    asked["prompt"] = "a green apple"
    stream = client.images.edit(image=[sent(opened(apple))], **asked, stream=True, size="64x64")
    (event,) = stream
    assert (event.type, event.size) == ("image_edit.completed", "64x64")
    assert event.usage.input_tokens_details.image_tokens == 64
    del asked["extra_body"]["strength"]
    alone = client.images.generate(**asked, size="64x64")
    assert (pixels(event.b64_json) != pixels(alone.data[0].b64_json)).any()


def test_variations(client, apple):
    picture, asked = sent(opened(apple)), {"seed": 3, "steps": 2}
    near, far = (
        client.images.create_variation(image=picture, extra_body={**asked, "strength": strength})
        for strength in (0.5, 1.0)
    )
    distance = [
        np.abs(pixels(v.data[0].b64_json) - pixels(apple).astype(int)).mean() for v in (near, far)
    ]
    assert 0 < distance[0] < distance[1]


BAD = [
    ({"model": "dall-e-3"}, openai.NotFoundError, "model", "'dall-e-3' does not exist"),
    ({"n": 0}, openai.BadRequestError, "n", "greater than or equal to 1"),
    ({"n": 17}, openai.BadRequestError, "n", "n must be at most 16"),
    ({"size": "big"}, openai.BadRequestError, "size", "WIDTHxHEIGHT"),
    ({"size": "60x64"}, openai.BadRequestError, "width", "not divisible by 8"),
    ({"background": "transparent"}, openai.BadRequestError, "background", "no transparency"),
    ({"output_format": "gif"}, openai.BadRequestError, "output_format", "'png', 'jpeg'"),
    ({"prompt": " "}, openai.BadRequestError, "prompt", "the prompt is empty"),
    ({"extra_body": {"strokes": 3}}, openai.BadRequestError, "strokes", "not permitted"),
    ({"extra_body": {"sampler": "x"}}, openai.BadRequestError, "sampler", "unknown sampler"),
    ({"extra_body": {"steps": 1000}}, openai.BadRequestError, "steps", "at most 150"),
]


@pytest.mark.parametrize(("fields", "kind", "param", "says"), BAD)
def test_refusals_name_the_parameter(client, fields, kind, param, says):
    with pytest.raises(kind) as caught:
        client.images.generate(**{"prompt": "a", **fields})
    assert caught.value.param == param and says in caught.value.body["message"]
    assert caught.value.type == "invalid_request_error"


def test_pictures_that_cannot_be_edited(client):
    picture = sent(Image.new("RGB", (16, 16)))
    for image, mask, param in (
        ([picture, picture], None, "image"),
        (("a.png", b"no picture"), None, "image"),
        (picture, sent(Image.new("RGBA", (8, 8))), "mask"),
        (picture, picture, "mask"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(image=image, mask=mask or openai.omit, prompt="a")
        assert caught.value.param == param


def test_a_wrong_key(address):
    with pytest.raises(openai.AuthenticationError) as caught:
        openai.OpenAI(base_url=f"{address}/v1", api_key="no", max_retries=0).models.list()
    assert caught.value.code == "invalid_api_key"
    host, port = address.removeprefix("http://").split(":")
    web = webuiapi.WebUIApi(host=host, port=int(port), username="any", password=KEY)
    assert web.get_options()["sd_model_checkpoint"].startswith("bundled")
    web.session.auth = ("any", "no")
    assert "key" in web.get_options()["detail"]


def test_too_many_waiting_jobs(client, address):
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}) as http:
        jobs = []
        while (answer := http.post("/api/jobs", json={"prompt": "a", "steps": 150})).is_success:
            jobs.append(answer.headers["location"])
        try:
            with pytest.raises(openai.RateLimitError) as caught:
                client.images.generate(prompt="a")
        finally:
            for job in reversed(jobs):
                http.delete(job)
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) >= 1
