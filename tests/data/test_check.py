"""Data sets with known faults: each is found, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pictures import encoded, folder, picture
from PIL import Image, ImageEnhance, ImageFont

from suffuse.data.alike import difference_hash, near, thumbnail
from suffuse.data.buckets import Buckets
from suffuse.data.check import Spread, check, describe_captions, script
from suffuse.data.emoji import World
from suffuse.data.export import write_scenes
from suffuse.data.sheet import contact_sheet, write_sheet
from suffuse.data.sources import Source
from suffuse.data.stream import EmojiStream
from suffuse.errors import SuffuseError

STREAM = EmojiStream(World(objects=6), "both")


@pytest.fixture
def scenes(tmp_path):
    write_scenes(STREAM, 12, tmp_path / "scenes", seed=3)
    return tmp_path / "scenes"


def table(path):
    return Source(str(path)).table()


def test_scenes_are_written_as_they_are_drawn(scenes) -> None:
    pictures, captions, _ = STREAM.world.batch(0, 12, "both", seed=3)
    rows = table(scenes)
    assert len(rows) == 12
    for i in range(12):
        np.testing.assert_array_equal(np.asarray(rows.row(i).picture()), pictures[i])
        assert rows.row(i).captions == [captions[i]]


def test_nothing_is_left_of_scenes_that_cannot_be_written(scenes, tmp_path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SuffuseError, match="is already there"):
        write_scenes(STREAM, 1, scenes)
    with pytest.raises(SuffuseError, match="count must be at least 1, not 0"):
        write_scenes(STREAM, 0, tmp_path / "other")
    with pytest.raises(SuffuseError, match="cannot write '/dev/null/x'"):
        from pathlib import Path

        write_scenes(STREAM, 1, Path("/dev/null/x"))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(STREAM, 2, tmp_path / "other", progress=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_a_faultless_folder_has_no_faults(scenes) -> None:
    told: list[int] = []
    report = check(table(scenes), 128, progress=lambda done, total: told.append(done))
    assert told == list(range(1, 13))
    assert (report.good, report.broken, report.not_there) == (12, {}, {})
    assert (report.same, report.alike, report.small) == ([], [], 0)
    assert report.width == report.height == Spread(128, 128, 128)
    assert report.buckets == {"128 x 128": 12}
    assert (report.captions.described, report.captions.missing) == (12, 0)
    assert set(report.captions.scripts) == {"latin", "hangul"}


def test_every_fault_is_found(scenes) -> None:
    (scenes / "broken.png").write_bytes(encoded(1)[:200])
    (scenes / "text.jpg").write_text("hello")
    copied = (scenes / "000002.png").read_bytes()
    (scenes / "copy.png").write_bytes(copied)
    first = Image.open(scenes / "000004.png")
    first.resize((200, 200), Image.Resampling.LANCZOS).save(scenes / "scaled.jpg", quality=85)
    picture(1, 600, 300).save(scenes / "wide.png")
    with (scenes / "metadata.jsonl").open("a") as metadata:
        for name, text in (("gone.png", "gone"), ("wide.png", ""), ("copy.png", "one")):
            metadata.write(json.dumps({"file_name": name, "text": text}) + "\n")
    report = check(table(scenes), 256)
    assert report.good == 15
    assert set(report.broken) == {"broken.png", "text.jpg"}
    assert report.broken["text.jpg"] == "not a picture"
    assert report.not_there == {"gone.png": "named in metadata.jsonl, but not there"}
    assert report.same == [["000002.png", "copy.png"]]
    assert report.alike == [["000004.png", "scaled.jpg"]]
    assert report.small == 14
    assert report.buckets["320 x 192"] == 1
    captions = report.captions
    assert (captions.described, captions.missing, captions.empty) == (13, 1, 1)


def test_nothing_that_can_be_read_is_an_error(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    with pytest.raises(SuffuseError, match=r"none of the pictures .* a\.png: not a picture"):
        check(table(tmp_path))
    with pytest.raises(SuffuseError, match="size must be a multiple of 64, not 100"):
        check(table(folder(tmp_path / "data", 1)), 100, Buckets())


def test_captions_are_counted_and_measured() -> None:
    found = describe_captions([["a dog"], [], [""], ["one two three", "강아지 두 마리"]])
    assert (found.described, found.missing, found.empty, found.several) == (2, 1, 1, 1)
    assert found.words == Spread(2, 3, 3)
    assert found.characters == Spread(5, 8, 13)
    assert found.scripts == {"latin": 2, "hangul": 1}
    assert describe_captions([[], [""]]).words is None


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Ein Bär", "latin"),
        ("собака", "cyrillic"),
        ("一只狗", "cjk"),
        ("いぬ", "hiragana"),
        ("7", "none"),
    ],
)
def test_scripts(text, want) -> None:
    assert script(text) == want


def test_what_looks_alike_is_found_among_what_does_not() -> None:
    pictures = [Image.fromarray(p) for p in World().batch(0, 60, seed=1)[0]]
    changed = [
        pictures[7].resize((90, 90), Image.Resampling.BICUBIC),
        ImageEnhance.Brightness(pictures[21]).enhance(1.004),
        pictures[21].resize((64, 64), Image.Resampling.BOX),
    ]
    everything = pictures + changed
    hashes = [difference_hash(image) for image in everything]
    small = [thumbnail(image) for image in everything]
    assert near(hashes, small) == [[7, 60], [21, 61, 62]]
    assert near(hashes[:1], small[:1]) == near([], []) == []


def test_near_finds_what_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 63, 40, dtype=np.uint64)
    flips = [np.uint64(1 << int(rng.integers(64))) for _ in range(6)]
    twins = [
        code ^ np.bitwise_or.reduce(flips[: i % 7] or [np.uint64(0)]) for i, code in enumerate(base)
    ]
    codes = [int(code) for pair in zip(base, twins) for code in pair]
    flat = [np.full((8, 8, 3), 100, np.uint8)] * len(codes)
    want = [[2 * i, 2 * i + 1] for i in range(40)]
    for a in range(0, 80, 2):
        for b in range(a + 2, 80, 2):
            assert bin(codes[a] ^ codes[b]).count("1") > 12
    assert near(codes, flat) == want


def test_the_contact_sheet_shows_what_it_names(scenes, tmp_path) -> None:
    (scenes / "broken.png").write_bytes(b"x")
    (scenes / "a very long name without any caption at all.png").write_bytes(encoded(1, 300, 100))
    names = contact_sheet(table(scenes), tmp_path / "sheet.png", count=20)
    assert len(names) == 13 and "broken.png" not in names
    page = Image.open(tmp_path / "sheet.png")
    assert page.size == (8 * 168 + 8, 2 * 198 + 8)
    shown = names.index("000005.png")
    x, y = 8 + shown % 8 * 168, 8 + shown // 8 * 198
    cell = page.crop((x, y, x + 160, y + 160)).resize((128, 128), Image.Resampling.BOX)
    want = Image.open(scenes / "000005.png")
    assert np.abs(np.asarray(cell).astype(int) - np.asarray(want)).mean() < 8
    assert contact_sheet(table(scenes), tmp_path / "again.png", count=20) == names


def test_a_sheet_has_korean_letters_where_the_system_has(tmp_path) -> None:
    try:
        ImageFont.truetype("NotoSansCJK-Regular.ttc", 11)
    except OSError:
        pytest.skip("this system has no font with Korean letters that is known here")
    pages = []
    for text in ("고양이 한 마리", "강아지 한 마리"):
        write_sheet([(Image.new("RGB", (40, 40), "teal"), text)], tmp_path / "x.png")
        pages.append((tmp_path / "x.png").read_bytes())
    assert pages[0] != pages[1]
