"""Whole generations by a tiny model: where pictures go, repeating them, stopping half-way."""

import signal

from PIL import Image

QUICK = ("--steps", "3", "--seed", "7")


def pixels(path):
    with Image.open(path) as image:
        return image.tobytes()


def test_pictures_are_numbered_and_repeated_exactly(tmp_path, run):
    status, out, err = run("generate", "a red apple", *QUICK, "--n", "2")
    first, second = "outputs/00001-7-a-red-apple.png", "outputs/00002-8-a-red-apple.png"
    assert (status, err) == (0, "")
    assert out == f"{first}  seed 7\n{second}  seed 8\n"
    status, out, err = run("generate", "--like", second)
    again = "outputs/00003-8-a-red-apple.png"
    assert (status, out, err) == (0, f"{again}  seed 8\n", "")
    assert (tmp_path / again).read_bytes() == (tmp_path / second).read_bytes()
    assert pixels(tmp_path / first) != pixels(tmp_path / second)


def test_film_and_previews(tmp_path, run):
    args = ("--output", "a.png", "--film", "film.png", "--preview", "2", "--steps", "12")
    status, out, _ = run("generate", "a red apple", *args, "--seed", "1")
    assert (status, out) == (0, "a.png  seed 1\n")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.png", "film.png"} | {f"a-step-{i:02d}.png" for i in range(2, 12, 2)}
    with Image.open(tmp_path / "film.png") as film, Image.open(tmp_path / "a.png") as picture:
        width, height = picture.size
        assert film.size == (8 * width, height)
        last = film.crop((7 * width, 0, 8 * width, height))
        assert last.tobytes() == picture.tobytes()


def test_prompts_from_a_file(tmp_path, run):
    (tmp_path / "prompts.txt").write_text("# two\na red apple\n\n빨간 사과\n", encoding="utf-8")
    status, out, _ = run("generate", "--from-file", "prompts.txt", *QUICK)
    assert status == 0
    names = ["outputs/00001-7-a-red-apple.png", "outputs/00002-7-빨간-사과.png"]
    assert out.splitlines() == [f"{name}  seed 7" for name in names]


def test_ctrl_c_keeps_what_is_finished(tmp_path, start):
    process = start("generate", "a red apple", "--n", "500", "--steps", "4")
    first = process.stdout.readline().split("  seed ")[0]
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=120)
    kept = [first, *(line.split("  seed ")[0] for line in rest.splitlines())]
    assert process.returncode == 130
    assert err == f"stopped; kept {', '.join(kept)}\n"
    assert len(kept) < 500
    assert sorted(map(str, (tmp_path / "outputs").iterdir())) == [str(tmp_path / k) for k in kept]
    for name in kept:
        pixels(tmp_path / name)


def test_a_reader_that_leaves_loses_no_picture(tmp_path, start):
    process = start("generate", "a red apple", *QUICK, "--n", "3")
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(timeout=120), err) == (0, "")
    assert len(list((tmp_path / "outputs").glob("*.png"))) == 3


def test_outside_the_mask_nothing_changes(tmp_path, run):
    run("generate", "a red apple", *QUICK, "--output", "in.png")
    with Image.open(tmp_path / "in.png") as image:
        mask = Image.new("L", image.size, 0)
        mask.paste(255, (0, 0, image.width // 2, image.height))
        right = (image.width // 2, 0, image.width, image.height)
        kept = image.crop(right).tobytes()
    mask.save(tmp_path / "mask.png")
    args = ("--image", "in.png", "--mask", "mask.png", "--strength", "0.9", "--output", "out.png")
    status, _, err = run("generate", "a blue car", *QUICK, *args)
    assert (status, err) == (0, "")
    with Image.open(tmp_path / "out.png") as image:
        assert image.crop(right).tobytes() == kept
    again = ("generate", "--like", "out.png", "--output", "again.png")
    assert run(*again)[0] == 0
    assert pixels(tmp_path / "again.png") == pixels(tmp_path / "out.png")
