"""The service by itself: real worker, real model, real database."""

import json
import os
import signal
import threading
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image
from working import PATIENCE, ended, first_step, until, working

import suffuse
from suffuse.errors import SuffuseError
from suffuse.studio.settings import Limits, Settings
from suffuse.studio.views import Refused
from suffuse.systems.metadata import read_parameters
from suffuse.systems.request import Request

LONG = Request("a red apple", steps=150)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    settings = Settings(
        data=tmp_path_factory.mktemp("studio"),
        models={"emoji": None, "lost": "/nowhere/at/all.safetensors"},
        devices=("cpu",),
        limits=Limits(queued_per_client=6, queued=9),
        batch=4,
    )
    with working(settings) as service:
        yield service


@pytest.fixture(scope="module")
def alone():
    """The same model, in this process."""
    return suffuse.load(device="cpu")


def pixels(service, image):
    with Image.open(service.file("image", image.hash)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def make(service, request, **options):
    (job,) = ended(service, service.submit(request, client="maker", **options).id)
    assert job.state == "done", job.error
    return job


def test_a_job_from_the_queue_to_the_picture(service, alone):
    before = datetime.now(timezone.utc)
    asked = service.submit(Request("a blue car", seed=5, steps=3, n=2), client="me", preview=2)
    assert (asked.state, asked.place, asked.client) == ("queued", 0, "me")
    assert before <= asked.created <= datetime.now(timezone.utc)
    hearing = service.subscribe(asked.id)
    events = []
    while not hearing.ended:
        events.append(hearing.get(PATIENCE))
    kinds = [event.kind for event in events]
    assert kinds[0] == "state" and kinds[-1] == "done"
    assert kinds.count("step") == 6 and kinds.count("image") == 2
    steps = [event.data for event in events if event.kind == "step"]
    shares = [step["share"] for step in steps]
    assert shares == sorted(shares) and shares[-1] == 1
    with_preview = [(step["image"], step["step"]) for step in steps if step["preview"]]
    assert with_preview == [(0, 2), (1, 2)]
    job = service.job(asked.id)
    assert events[-1].data["job"] == job.model_dump(mode="json")
    assert [image.seed for image in job.images] == [5, 6]
    for image, want in zip(job.images, alone.generate("a blue car", seed=5, steps=3, n=2)):
        # A batch may round another way in the last digit of a float.
        assert abs(pixels(service, image) - np.asarray(want).astype(int)).max() <= 1
        made = read_parameters(service.file("image", image.hash)).to_request()
        assert (made.prompt, made.seed, made.n) == ("a blue car", image.seed, 1)
        assert image.infotext.startswith("a blue car\nSteps: 3")
        assert image.request["seed"] == image.seed and image.request["sampler"] == "ddim"


def test_alike_requests_share_a_batch_and_each_is_as_alone(service, alone):
    blocking = service.submit(LONG, client="first")
    first_step(service, blocking.id)
    seeds = range(10, 14)
    asked = [
        service.submit(Request(f"{seed - 8} green stars", seed=seed, steps=2), client=f"c{seed}").id
        for seed in seeds
    ]
    other = service.submit(Request("a sun", seed=1, steps=3), client="other").id
    assert [service.job(id).place for id in (*asked, other)] == [0, 1, 2, 3, 4]
    service.cancel(blocking.id)
    jobs = ended(service, *asked, other)
    assert len({job.started for job in jobs[:4]}) == 1
    assert jobs[4].started > jobs[0].started
    for seed, job in zip(seeds, jobs):
        (want,) = alone.generate(f"{seed - 8} green stars", seed=seed, steps=2)
        (image,) = job.images
        assert abs(pixels(service, image) - np.asarray(want).astype(int)).max() <= 1


def test_of_many_the_best_is_kept(service, alone):
    asked = {"seed": 5, "steps": 1, "best_of": 2}
    job = make(service, Request("a blue car", **asked))
    (image,), (want,) = job.images, alone.generate("a blue car", **asked)
    assert abs(pixels(service, image) - np.asarray(want).astype(int)).max() <= 1
    assert image.seed == 5 + image.index and image.index < 2
    made = read_parameters(service.file("image", image.hash)).to_request()
    assert (made.seed, made.n, made.best_of) == (image.seed, 1, None)
    with pytest.raises(SuffuseError, match="leave best_of out"):
        service.submit(Request("a car", best_of=2), client="maker", explain=True)


def test_a_picture_to_start_from_and_a_film(service):
    picture = Image.new("RGB", (64, 64), "red")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    request = Request("a star", image=picture, mask=mask, strength=0.5, steps=6, seed=2)
    job = make(service, request, film=True)
    (image,) = job.images
    assert (image.width, image.height) == (64, 64)
    assert (pixels(service, image)[:, :32] == (255, 0, 0)).all()
    assert job.request["image"]["url"] == f"/api/inputs/{job.request['image']['sha256']}.png"
    assert image.request["image"] == job.request["image"]
    with Image.open(service.file("input", job.request["image"]["sha256"])) as kept:
        assert kept.tobytes() == picture.tobytes()
    assert image.film.frames == 3  # strength 0.5 takes three of the six steps
    with Image.open(service.file("film", image.film_hash)) as film:
        assert film.size == (3 * 64, 64)
        assert (
            film.crop((128, 0, 192, 64)).tobytes()
            == pixels(service, image).astype(np.uint8).tobytes()
        )


def test_how_a_picture_came_about(service):
    job = make(service, Request("a red apple", steps=2, seed=3), explain=True, film=True)
    (image,) = job.images
    assert image.explanation == f"/api/images/{image.id}/explanation.json"
    told = json.loads(service.file("explanation", image.explanation_hash).read_text())
    assert [word["text"] for word in told["words"]][:3] == ["a", "red", "apple"]
    assert [step["i"] for step in told["steps"]] == [0, 1]
    assert image.film.frames == 2
    plain = make(service, Request("a red apple", steps=2, seed=3)).images[0]
    assert (pixels(service, plain) == pixels(service, image)).all()
    assert plain.explanation is None
    with pytest.raises(SuffuseError, match="n must be 1"):
        service.submit(Request("a red apple", n=2), client="me", explain=True)
    wordy = Request("a red apple " * 1500, steps=100, width=1024, height=1024)
    (large,) = ended(service, service.submit(wordy, client="me", explain=True).id)
    assert large.state == "failed" and large.error.startswith("this is too much to explain")
    stopped = service.submit(LONG, client="me", explain=True)
    first_step(service, stopped.id)
    service.cancel(stopped.id)
    assert ended(service, stopped.id)[0].state == "cancelled"


def test_cancelled_at_the_next_step_or_at_once(service):
    running = service.submit(LONG, client="me")
    waiting = service.submit(Request("a star", steps=2), client="me")
    hearing = service.subscribe(waiting.id)
    first_step(service, running.id)
    assert service.cancel(waiting.id).state == "cancelled"
    assert [hearing.get(PATIENCE).kind for _ in range(2)] == ["state", "cancelled"]
    assert service.cancel(running.id).state in ("running", "cancelled")
    (job,) = ended(service, running.id)
    assert (job.state, job.images) == ("cancelled", [])
    assert service.cancel(running.id).state == "cancelled"
    assert service.cancel("0" * 32) is None
    assert service.subscribe("0" * 32) is None
    assert service.job("no\0thing") is None


def test_what_ends_a_whole_group_of_processes_is_for_the_service(service):
    """A worker that went by itself would charge its job with a try."""
    (worker,) = service.status().workers
    job = service.submit(LONG, client="maker")
    first_step(service, job.id)
    os.kill(worker.pid, signal.SIGTERM)
    os.kill(worker.pid, signal.SIGINT)
    first_step(service, job.id)
    service.cancel(job.id)
    (job,) = ended(service, job.id)
    assert (job.state, job.attempts) == ("cancelled", 0)
    assert service.status().workers[0].pid == worker.pid


def test_a_bad_request_fails_alone_with_one_line(service, tmp_path):
    (tmp_path / "judge.pt").write_bytes(b"")
    blocking = service.submit(LONG, client="first")
    first_step(service, blocking.id)
    bad = Request("a star", steps=2, classifier=str(tmp_path / "judge.pt"))
    asked = [
        service.submit(bad, client="bad"),
        service.submit(Request("a star", steps=2), client="good"),
        service.submit(Request("a star", steps=2), client="lost", model="lost"),
    ]
    service.cancel(blocking.id)
    jobs = ended(service, *(job.id for job in asked))
    assert [job.state for job in jobs] == ["failed", "done", "failed"]
    assert jobs[0].error == "classifier is for models of pixels; emoji is none"
    assert "all.safetensors" in jobs[2].error and "/" not in jobs[2].error
    assert jobs[0].request["classifier"] == "judge.pt"


def test_what_can_be_judged_is_refused_at_once(service):
    make(service, Request("a star", steps=1))  # from now on the model is known
    for request, options, message in (
        (Request("a star"), {"model": "none"}, "there is no model 'none': choose one of emoji"),
        (Request("a star", width=100), {}, "width 100 is not divisible by 8"),
        (Request(""), {}, "the prompt is empty"),
        (Request("a star", boxes=[["star", 0, 0, 1, 1]]), {}, "boxes are for grounded models"),
        (Request("a star", sampler="best"), {}, "unknown sampler 'best'"),
        (Request("a star", steps=151), {}, "steps must be at most 150"),
        (Request("a star"), {"preview": -1}, "preview must be at least 0"),
        (Request("a star"), {"priority": 10**10}, "priority must be at most 100"),
        (Request("a star"), {"client": "x" * 256}, "client must have 1 to 255"),
        (Request("a star"), {"key": "\0"}, "the idempotency key must have"),
    ):
        with pytest.raises(SuffuseError, match=message):
            service.submit(request, **{"client": "me", **options})


def test_the_same_key_is_the_same_job(service):
    request = Request("a star", steps=1)
    one = service.submit(request, client="me", key="k")
    assert service.submit(request, client="me", key="k").id == one.id
    assert service.submit(request, client="you", key="k").id != one.id
    found = set()
    threads = [
        threading.Thread(
            target=lambda: found.add(service.submit(request, client="they", key="k").id)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    until(lambda: not service.jobs(states=("queued", "running")))


def test_a_client_and_a_queue_have_limits(service):
    blocking = service.submit(LONG, client="first")
    first_step(service, blocking.id)
    asked = [service.submit(LONG, client="a").id for _ in range(6)]
    with pytest.raises(Refused, match="6 of your jobs wait already") as refused:
        service.submit(LONG, client="a")
    assert refused.value.status == 429 and 1 <= refused.value.retry_after <= 60
    inputs = service.settings.data / "inputs"
    kept = sorted(inputs.rglob("*.png"))
    with pytest.raises(Refused, match="6 of your jobs wait already"):
        service.submit(Request("a", image=Image.new("RGB", (64, 64), "teal")), client="a")
    assert sorted(inputs.rglob("*.png")) == kept
    asked += [service.submit(LONG, client="b").id for _ in range(3)]
    with pytest.raises(Refused, match="the queue is full"):
        service.submit(LONG, client="b")
    assert service.status().queued == 9
    for id in (*asked, blocking.id):
        service.cancel(id)
    ended(service, *asked, blocking.id)


def test_priorities_and_the_newest_first(service):
    blocking = service.submit(LONG, client="first")
    first_step(service, blocking.id)
    low = service.submit(Request("low", steps=1), client="me", priority=-1)
    high = service.submit(Request("high", steps=2), client="me", priority=1)
    assert (service.job(low.id).place, service.job(high.id).place) == (1, 0)
    assert [job.id for job in service.jobs(client="me", limit=2)] == [high.id, low.id]
    assert [job.place for job in service.jobs(states=("queued",))] == [0, 1]
    service.cancel(blocking.id)
    low, high = ended(service, low.id, high.id)
    assert high.started < low.started


def test_the_gallery_finds_pages_and_forgets(service):
    words = ["an orange fish 50%", "an orange cat", "ÉTOILE 별"]
    for word in words:
        make(service, Request(word, negative="blur", steps=1, seed=987))
    found = service.images(query="orange 987 BLUR emoji ddim")
    assert [image.prompt for image in found] == ["an orange cat", "an orange fish 50%"]
    assert [image.prompt for image in service.images(query="50%")] == ["an orange fish 50%"]
    assert service.images(query="5_%") == []
    assert [image.prompt for image in service.images(query="étoile 별")] == ["ÉTOILE 별"]
    newest, second = service.images(limit=2)
    assert [image.prompt for image in (newest, second)] == ["ÉTOILE 별", "an orange cat"]
    (third,) = service.images(before=second.id, limit=1)
    assert service.delete_image(second.id)
    assert not service.delete_image(second.id)
    assert service.image(second.id) is None
    assert service.file("image", second.hash) is None
    assert service.images(before=second.id, limit=1) == [third]  # though `second` has gone
    assert service.job(second.job).images == []


def test_a_file_stays_while_an_image_names_it(service):
    one, two = (make(service, Request("a star", steps=1, seed=4)).images[0] for _ in range(2))
    assert one.hash == two.hash and one.id != two.id
    assert service.delete_image(one.id)
    assert service.file("image", two.hash) is not None
    assert service.delete_image(two.id)
    assert service.file("image", two.hash) is None


def test_models_and_how_it_goes(service):
    make(service, Request("a star", steps=1))
    emoji, lost = service.models()
    assert (emoji.name, emoji.default, emoji.known, emoji.loaded) == ("emoji", True, True, True)
    assert (emoji.kind, emoji.factor, emoji.defaults.width) == ("text", 8, 128)
    assert emoji.takes[:1] == ["prompt"]
    assert (lost.known, lost.loaded, lost.default) == (False, False, False)
    status = service.status()
    assert status.ready and status.trouble is None
    assert status.images >= status.done > 0
    assert status.seconds_per_step > 0
    (worker,) = status.workers
    assert (worker.alive, worker.ready, worker.restarts) == (True, True, 0)


def test_addresses_of_databases_are_judged():
    with pytest.raises(SuffuseError, match="not an SQLAlchemy URL"):
        working(Settings(database="no database")).__enter__()
    with pytest.raises(SuffuseError, match="not an SQLAlchemy URL"):
        working(Settings(database="nobody://knows")).__enter__()
