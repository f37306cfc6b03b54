"""The studio's own API over HTTP, from a real process with the bundled model at a few steps."""

import base64
import hashlib
import io
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from bombs import gif, png
from PIL import Image
from running import wait_for
from working import until

APPLE = {"prompt": "a red apple on a blue background", "steps": 2}
LIMITS = {"steps": 40, "n": 4, "width": 256, "height": 256, "prompt": 500, "queued_per_client": 3}


@pytest.fixture(scope="module")
def studio(start_studio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "style.safetensors").write_bytes(b"")
    return start_studio(limits=LIMITS, folders=[str(folder)])


@pytest.fixture(scope="module")
def http(studio):
    with studio.client(headers={"x-client": "tests"}) as client:
        yield client


@pytest.fixture(scope="module")
def done(http):
    """A job of two pictures with all the trimmings, and its events."""
    asked = {**APPLE, "seed": 7, "n": 2, "preview": 1, "film": True}
    posted = http.post("/api/jobs", json=asked)
    assert posted.status_code == 202, posted.text
    job = posted.json()
    assert posted.headers["location"] == f"/api/jobs/{job['id']}"
    return job["id"], list(listen(http, job["id"]))


def listen(http, job):
    """The events of a job: (kind, data)."""
    with http.stream("GET", f"/api/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for event in "\n".join(stream.iter_lines()).split("\n\n"):
            if event.strip() and not event.strip().startswith(":"):
                number, kind, data = event.strip().split("\n")
                assert number.startswith("id: ")
                yield kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def base64_png(size=(128, 128), colour="teal"):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_events_tell_all_from_the_state_to_the_end(done):
    kinds = [kind for kind, _ in done[1]]
    assert kinds[0] == "state" and kinds[-1] == "done"
    assert kinds.count("image") == 2
    steps = [data for kind, data in done[1] if kind == "step"]
    assert {(step["image"], step["step"]) for step in steps} <= {
        (i, k) for i in (0, 1) for k in (1, 2)
    }
    assert any((step["preview"] or "").startswith("data:image/png;base64,") for step in steps)


def test_a_finished_job_can_be_heard_again(http, done):
    kinds = [kind for kind, _ in listen(http, done[0])]
    assert kinds[0] == "state" and kinds[-1] == "done"


def test_pictures_are_what_the_job_says(http, done):
    job = http.get(f"/api/jobs/{done[0]}").json()
    assert job["state"] == "done" and job["error"] is None
    assert [image["seed"] for image in job["images"]] == [7, 8]
    for image in job["images"]:
        found = http.get(image["url"])
        assert found.headers["content-type"] == "image/png"
        assert "immutable" in found.headers["cache-control"]
        assert hashlib.sha256(found.content).hexdigest() == image["hash"]
        picture = Image.open(io.BytesIO(found.content))
        assert picture.size == (image["width"], image["height"]) == (128, 128)
        assert picture.text["parameters"] == image["infotext"]
        film = Image.open(io.BytesIO(http.get(image["film"]["url"]).content))
        assert film.width == image["film"]["frames"] * film.height
        assert http.get(f"/api/images/{image['id']}").json() == image
    assert http.get(f"/api/images/{image['id']}/explanation.json").status_code == 404


def test_what_was_recorded(http):
    job = http.post("/api/jobs", json={**APPLE, "explain": True}).json()
    ended = wait_for(http, job)
    assert ended["state"] == "done", ended["error"]
    (image,) = ended["images"]
    found = http.get(image["explanation"])
    assert found.headers["content-type"] == "application/json"
    assert "red" in [word["text"] for word in found.json()["words"]]
    assert len(found.json()["steps"]) == 2


def test_pictures_as_base64_and_as_files(http):
    fields = {**APPLE, "seed": 3, "strength": 0.5}
    as_json = http.post("/api/jobs", json={**fields, "image": base64_png()}).json()
    file = ("cat.png", base64.b64decode(base64_png()), "image/png")
    with_request = http.post(
        "/api/jobs", data={"request": json.dumps(fields)}, files={"image": file}
    ).json()
    white = ("../../etc/passwd", base64.b64decode(base64_png(colour="white")), "text/html")
    with_fields = http.post("/api/jobs", data=fields, files={"image": file, "mask": white}).json()
    jobs = [wait_for(http, job) for job in (as_json, with_request, with_fields)]
    hashes = {image["hash"] for job in jobs[:2] for image in job["images"]}
    assert len(hashes) == 1  # the same request, however it came
    given = jobs[2]["request"]
    assert given["image"]["url"] == jobs[0]["request"]["image"]["url"]
    back = Image.open(io.BytesIO(http.get(given["mask"]["url"]).content))
    assert back.convert("L").getextrema() == (255, 255)
    assert "passwd" not in json.dumps(jobs)


def test_sending_twice(http):
    headers = {"idempotency-key": "once"}
    first = http.post("/api/jobs", json=APPLE, headers=headers).json()
    again = http.post("/api/jobs", json=APPLE, headers=headers).json()
    other = http.post("/api/jobs", json=APPLE, headers={**headers, "x-client": "other"}).json()
    assert first["id"] == again["id"] != other["id"]
    mine = [job["id"] for job in http.get("/api/jobs").json()["jobs"]]
    assert first["id"] in mine and other["id"] not in mine
    for job in (first, other):
        assert wait_for(http, job)["state"] == "done"
    states = http.get("/api/jobs", params={"state": ["done", "failed"]}).json()["jobs"]
    assert {job["state"] for job in states} == {"done"}


def test_a_full_queue_and_cancelling(http):
    """A long job runs, others wait behind it until the client has had its share."""
    long = http.post("/api/jobs", json={**APPLE, "steps": 40, "n": 4}).json()
    until(lambda: http.get(f"/api/jobs/{long['id']}").json()["state"] == "running")
    answers = [http.post("/api/jobs", json={**APPLE, "steps": 3}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert int(answers[3].headers["retry-after"]) >= 1
    assert http.post("/api/jobs", json=APPLE, headers={"x-client": "b"}).status_code == 202
    jobs = [answer.json() for answer in answers[:3]]
    assert [job["place"] for job in jobs] == [0, 1, 2]
    assert http.delete(f"/api/jobs/{jobs[1]['id']}").json()["state"] == "cancelled"
    http.delete(f"/api/jobs/{long['id']}")
    assert wait_for(http, long)["state"] == "cancelled"
    assert [wait_for(http, job)["state"] for job in jobs] == ["done", "cancelled", "done"]
    assert [kind for kind, _ in listen(http, jobs[1]["id"])][-1] == "cancelled"


def test_the_gallery_in_pages(http):
    job = http.post("/api/jobs", json={**APPLE, "prompt": "a zebra", "n": 3, "seed": 90}).json()
    made = [image["id"] for image in wait_for(http, job)["images"]]
    found, before = [], None
    for _ in range(3):
        params = {"query": "zebra", "limit": 1} | ({"before": before} if before else {})
        page = http.get("/api/images", params=params).json()
        found += [image["id"] for image in page["images"]]
        before = page["next"]
    assert sorted(found) == sorted(made) and before is None
    assert http.get("/api/images", params={"query": "91"}).json()["images"][0]["seed"] == 91
    assert http.delete(f"/api/images/{made[0]}").status_code == 204
    for path in ("", ".png"):
        assert http.get(f"/api/images/{made[0]}{path}").status_code == 404
    assert http.delete(f"/api/images/{made[0]}").status_code == 404


def test_who_leaves_while_events_come_harms_nobody(http, studio):
    job = http.post("/api/jobs", json={**APPLE, "steps": 6, "preview": 1}).json()
    told = {"x-request-id": "leaves"}
    with http.stream("GET", f"/api/jobs/{job['id']}/events", headers=told) as stream:
        next(stream.iter_lines())
    assert wait_for(http, job)["state"] == "done"
    assert [line["level"] for line in studio.lines_of("leaves")] == ["info"]


BAD = {
    "no json": (b"{", 400),
    "not an object": (b"[]", 400),
    "not utf-8": (b'{"prompt": "\xff"}', 400),
    "lone surrogate": (rb'{"prompt": "\ud800"}', 400),
    "deep": (b"[" * 100_000, 400),
    "unknown field": ({"promt": "a"}, 400),
    "text for a number": ({**APPLE, "steps": "2"}, 400),
    "a truth for a number": ({**APPLE, "n": True}, 400),
    "negative steps": ({**APPLE, "steps": -1}, 400),
    "no steps": ({**APPLE, "steps": 0}, 400),
    "fraction": ({**APPLE, "steps": 2.5}, 400),
    "many steps": ({**APPLE, "steps": 41}, 400),
    "many respaced steps": ({**APPLE, "steps": None, "respacing": "30,30"}, 400),
    "many pictures": ({**APPLE, "n": 10**30}, 400),
    "few too many pictures": ({**APPLE, "n": 5}, 400),
    "wide": ({**APPLE, "width": 1 << 40}, 400),
    "not a multiple": ({**APPLE, "width": 129}, 400),
    "nan": (b'{"prompt": "a", "guidance": NaN}', 400),
    "infinite": (b'{"prompt": "a", "guidance": 1e999}', 400),
    "negative guidance": ({**APPLE, "guidance": -1}, 400),
    "strength of 0": ({**APPLE, "strength": 0}, 400),
    "huge seed": ({**APPLE, "seed": 2**63}, 400),
    "digits without end": (b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}", 400),
    "unknown sampler": ({**APPLE, "sampler": "../../etc/passwd"}, 400),
    "unknown grid": ({**APPLE, "grid": "x"}, 400),
    "unknown model": ({**APPLE, "model": "/etc/passwd"}, 400),
    "backward interval": ({**APPLE, "guidance_interval": [2, 1]}, 400),
    "lora by path": ({**APPLE, "loras": ["/etc/passwd"]}, 400),
    "lora by dots": ({**APPLE, "loras": ["../models/style"]}, 400),
    "many loras": ({**APPLE, "loras": ["style"] * 17}, 400),
    "lora by nan": ({**APPLE, "loras": ["style:nan"]}, 400),
    "embedding by path": ({**APPLE, "embeddings": ["/etc/passwd"]}, 400),
    "classifier by path": ({**APPLE, "classifier": "/etc/passwd"}, 400),
    "no prompt": ({"prompt": " "}, 400),
    "nul": ({"prompt": "a\0b"}, 400),
    "ten megabytes of prompt": ({"prompt": "a" * 10_000_000}, 400),
    "preview of many steps": ({**APPLE, "preview": -1}, 400),
    "wrong base64": ({**APPLE, "image": "not base64!"}, 400),
    "an address": ({**APPLE, "image": "http://169.254.169.254/latest"}, 400),
    "a path": ({**APPLE, "image": "/etc/passwd"}, 400),
    "malformed png": ({**APPLE, "image": base64.b64encode(png(9, 9)).decode()}, 400),
    "40,000 pixels": ({**APPLE, "image": base64.b64encode(png(40_000, 40_000)).decode()}, 413),
    "gif bomb": ({**APPLE, "image": base64.b64encode(gif((1, 1), (65_535,) * 2)).decode()}, 413),
    "mask alone": ({**APPLE, "mask": base64_png((8, 8))}, 400),
    "mask of another size": (
        {**APPLE, "image": base64_png((64, 64)), "mask": base64_png((8, 8))},
        400,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_sentence(http, case):
    body, status = BAD[case]
    content = body if isinstance(body, bytes) else json.dumps(body)
    found = http.post("/api/jobs", content=content, headers={"content-type": "application/json"})
    assert found.status_code == status, found.text
    error = found.json()["error"]
    assert set(error) == {"message", "field"}
    assert 0 < len(error["message"]) <= 500 and "\n" not in error["message"]
    assert "/etc" not in error["message"] and "/tmp" not in error["message"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": {"prompt": "a"}}, 415),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"data": {"steps": "x"}, "files": {"image": b"x"}}, 400),
        ({"data": {"request": "{}", "steps": "2"}, "files": {"image": b"x"}}, 400),
        ({"data": {"prompt": ["a", "b"]}, "files": {"image": b"x"}}, 400),
        ({"data": {"prompt": "a" * 2_000_000}, "files": {"image": b"x"}}, 400),
        ({"data": APPLE, "files": {"picture": b"x"}}, 400),
        ({"data": APPLE, "files": [("image", b"x"), ("image", b"y")]}, 400),
        ({"json": APPLE, "headers": {"idempotency-key": "k" * 201}}, 400),
    ],
)
def test_bad_bodies(http, options, status):
    found = http.post("/api/jobs", **options)
    assert found.status_code == status, found.text
    assert found.json()["error"]["message"]


@pytest.mark.parametrize("name", ["x", "0" * 32, "..%2f..%2fetc%2fpasswd", "%00", quote("é")])
@pytest.mark.parametrize(
    "path", ["jobs/{}", "jobs/{}/events", "images/{}", "images/{}.png", "inputs/{}.png"]
)
def test_names_that_nothing_has(http, path, name):
    found = http.get(f"/api/{path.format(name)}")
    assert found.status_code == 404
    assert found.json()["error"]["message"].startswith("there is no")


def test_choices(http):
    options = http.get("/api/options").json()
    assert {"name": "euler_a", "title": "Euler a"} in options["samplers"]
    assert "karras" in options["grids"] and options["limits"]["steps"] == LIMITS["steps"]
    models = http.get("/api/models").json()["models"]
    assert [model["name"] for model in models if model["default"]] == ["bundled"]


def test_the_openapi_document_as_a_page(http):
    document, page = http.get("/openapi.json").json(), http.get("/api/docs").text
    for path, item in document["paths"].items():
        for method in item:
            assert f"<code>{method.upper()} {path}</code>" in page
    assert 'id="JobRequest"' in page and "<script" not in page


def test_figures(http, done):
    health = http.get("/health")
    assert health.status_code == 200 and health.json()["ready"]
    text = http.get("/metrics").text
    assert 'suffuse_http_requests_total{method="POST",route="/api/jobs",status="202"}' in text
    assert "suffuse_images_total" in text and "suffuse_workers_alive 1.0" in text
    assert "/etc" not in text  # what clients write is no label


def test_logs_are_json_with_the_requests_id(http, studio):
    http.get("/api/models", headers={"x-request-id": "find-me"})
    found = [(line["method"], line["path"], line["status"]) for line in studio.lines_of("find-me")]
    assert found == [("GET", "/api/models", 200)]
    assert not any("traceback" in line for line in studio.lines())


def test_the_process_that_answers_never_imports_torch(studio):
    assert "libtorch" not in Path(f"/proc/{studio.process.pid}/maps").read_text()


def test_it_ends_when_told_and_goes_on_when_started_again(http, studio, start_studio):
    asked = {**APPLE, "steps": 12, "n": 2, "seed": 5}
    job = http.post("/api/jobs", json=asked).json()
    with http.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
        next(line for line in stream.iter_lines() if line == "event: step")
        assert studio.end() == 0
    with start_studio(data=studio.data, limits=LIMITS).client() as client:
        ended = wait_for(client, client.get(f"/api/jobs/{job['id']}").json())
    assert (ended["state"], ended["attempts"]) == ("done", 0)
    assert [image["seed"] for image in ended["images"]] == [5, 6]
