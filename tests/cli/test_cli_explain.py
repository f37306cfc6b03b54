"""`suffuse explain` from the command line: a page that stands alone, and works in a browser."""

import json
import re
import shutil
import subprocess

PROMPT = "a cat's </script> <b>hat</b>, 고양이"


def told(page):
    """What is in a page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_a_report_that_needs_nothing_else(run, refusal, tmp_path):
    asked = ("explain", PROMPT, "--steps", "2", "--seed", "7", "--negative", "dog")
    status, out, err = run(*asked, "--output", "page.html")
    assert (status, out) == (0, "page.html  seed 7\n"), err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = told(page)
    assert found["about"]["prompt"] == PROMPT and found["about"]["seed"] == 7
    assert len(found["steps"]) == 2 and found["attention"]["by_step"]
    assert "hat" in [word["text"] for word in found["words"]]
    assert PROMPT not in page  # nothing that people write is markup
    outside = re.sub(r'id="data">.*?</script>', "", page, flags=re.DOTALL)
    outside = outside.replace("http://www.w3.org/2000/svg", "")  # a name, which nobody asks for
    assert not re.search(r"https?:|//[a-z]+\.|\bsrc=\"|\bimport\b|@font-face|url\(", outside)

    assert "is already there: add --overwrite" in refusal(*asked, "--output", "page.html")
    if browser := shutil.which("chromium") or shutil.which("google-chrome"):
        check_page(browser, tmp_path / "page.html")


def check_page(browser, page):
    """Its script runs to the end: the words stand in the prompt, and no error is told."""
    found = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={page.parent / 'profile'}",  # not one that somebody browses with
            "--enable-logging=stderr",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert "CONSOLE" not in found.stderr, found.stderr
    shown = re.sub(r"<script.*?</script>", "", found.stdout, flags=re.DOTALL)
    prompt = re.search(r'id="prompt">(.*?)</p>', shown, re.DOTALL)[1]
    words = re.findall(r"<button[^>]*>(.*?)</button>", prompt)
    assert words == [
        "a",
        "cat's",
        "&lt;/script&gt;",
        "&lt;b&gt;",
        "hat",
        "&lt;/b&gt;",
        ",",
        "고양이",
    ]
    assert re.sub(r"</?button[^>]*>", "", prompt) == PROMPT.replace("<", "&lt;").replace(
        ">", "&gt;"
    )
    assert re.search(r'id="which"[^>]*>step 1 of 2<', shown)
    assert "channel 4" in shown and "dog" in shown


def test_what_cannot_be_explained(refusal, tmp_path):
    assert refusal("explain").startswith('say what to draw: suffuse explain "a red apple"')
    assert "name 'page.png' something.html" in refusal("explain", "a cat", "-o", "page.png")
    assert "there is no folder 'no'" in refusal("explain", "a cat", "-o", "no/page.html")
    assert refusal("explain", "a cat", "--steps", "0") == "steps must be at least 1, not 0"
    assert "unknown sampler 'slow'" in refusal("explain", "a cat", "--sampler", "slow")
    assert not list(tmp_path.iterdir())


def test_boxes_are_fields_too(refusal):
    box = ("generate", "a room", "--box", "a red apple:0.1,0.2,0.5,0.8")
    assert refusal(*box) == "boxes are for grounded models; tiny takes none"
    assert refusal(*box, "--box", "a cat:0.5,0,0.2,1") == (
        "the box 'a cat' is empty: it needs x0 < x1 and y0 < y1"
    )
