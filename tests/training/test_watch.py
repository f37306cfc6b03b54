"""Curves and samples, read back by TensorBoard itself."""

import io
import resource

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from suffuse.training.watch import Clock, Watch


def _read(output):
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return events


def test_curves_and_pictures_are_read_back(tmp_path):
    said = []
    with Watch(tmp_path, 0, True, said.append) as watch:
        for step in range(1, 5):
            watch.scalars(step, {"loss": 1 / step, "norm": step})
        Image.new("RGB", (6, 4), "red").save(tmp_path / "a.png")
        watch.picture(4, tmp_path / "a.png")
    events = _read(tmp_path)
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert [e.step for e in events.Scalars("norm")] == [1, 2, 3, 4]
    kept = events.Images("samples")[0]
    assert (kept.step, kept.width, kept.height) == (4, 6, 4)
    picture = Image.open(io.BytesIO(kept.encoded_image_string))
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert str(tmp_path / "samples") in said[0] and "tensorboard --logdir" in said[1]


def test_a_resumed_run_hides_the_steps_it_makes_again(tmp_path):
    for first, value in ((0, 1.0), (3, 2.0)):
        with Watch(tmp_path, first, True, print) as watch:
            for step in range(first + 1, first + 5):
                watch.scalars(step, {"loss": value})
    seen = {e.step: e.value for e in _read(tmp_path).Scalars("loss")}
    assert seen == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2}


def test_a_full_disk_leaves_a_gap(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = []
    with Watch(tmp_path, 0, True, said.append) as watch:
        watch.scalars(1, {"loss": 1.0})
        size = watch.events.file.tell()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
            watch.scalars(2, {"loss": 2.0})
            watch.scalars(3, {"loss": 3.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        watch.scalars(4, {"loss": 4.0})
    assert [e.value for e in _read(tmp_path).Scalars("loss")] == [1, 4]
    assert sum("the curves have a gap" in line for line in said) == 1


def test_only_the_main_process_writes(tmp_path):
    with Watch(tmp_path, 0, False, print) as watch:
        watch.scalars(1, {"loss": 1.0})
        watch.picture(1, tmp_path / "none.png")
    assert not list(tmp_path.iterdir())


def test_the_clock_reports_means_and_the_end():
    seen = []
    clock = Clock(4, 8, 0, seen.append)
    for step in range(1, 5):
        clock.tick(step, {"loss": float(step), "norm": 1.0})
    assert clock.means() == {"loss": 2.5, "norm": 1.0}
    assert seen[-1].step == 4 and seen[-1].loss == 4 and seen[-1].numbers == {"norm": 1.0}
    assert seen[-1].seconds_left == 0 and seen[-1].images_per_second > 0
