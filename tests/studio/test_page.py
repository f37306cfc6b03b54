"""The page as people use it: a real browser, a real studio, the bundled model."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, FLAGS, Studio, shot, visit
from PIL import Image

import suffuse

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
if CHROMIUM is None:
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)

PAGE = Path(suffuse.__file__).parent / "studio" / "page"
MOST = 150_000  # bytes of the whole page, uncompressed


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    running = Studio(tmp_path_factory.mktemp("studio"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright.expect.set_options(timeout=60_000)
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def generate(page: Any, prompt: str, steps: int = 2, seed: int = 7, **more: str) -> None:
    """Type, press Ctrl+Enter, and wait for the picture."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name, value in {"steps": str(steps), "seed": str(seed), **more}.items():
        page.locator(f"#f-{name}").fill(value)
        page.locator(f"#f-{name}").blur()
    page.keyboard.press("Control+Enter")
    made = page.get_by_label(f"“{prompt}”, seed {seed}", exact=True)  # not the picture before it
    page.locator(".stage:not(.busy) .cell.done").and_(made).wait_for()


def press(page: Any, name: str, **how: Any) -> None:
    page.get_by_role("button", name=name, exact=True, **how).click()


def pixels(page: Any, canvas: str) -> np.ndarray:
    """What stands on a canvas (height, width, 4)."""
    url = page.eval_on_selector(canvas, "(one) => one.toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.asarray(picture.convert("RGBA"))


def test_type_generate_progress_picture(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url) as page:
        shot(page, "welcome")
        generate(page, "a red apple on a blue background", steps=12)
        told, previews = page.evaluate("[told, previews]")
        assert any(re.fullmatch(r"Step \d+ of 12( · .+ left)?", one) for one in told), told
        assert previews >= 3
        shown = page.locator(".cell img")
        shown.evaluate("(one) => one.decode()")
        assert shown.evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [128, 128]
        assert page.locator("#live").text_content() == "The picture is ready"
        shot(page, "create")
        page.locator(".cell").click()
        detail = page.locator("#detail")
        assert {"7", "12", "128 × 128", "DDIM"} <= set(detail.locator("dd").all_text_contents())
        shot(page, "detail")
        with page.expect_download() as saved:
            press(page, "Download")
        picture = Image.open(saved.value.path())
        assert "a red apple" in picture.text["parameters"]
        page.context.grant_permissions(["clipboard-write"])
        press(page, "Copy seed")
        detail.get_by_text("The seed is copied.").wait_for()  # in the dialog, not behind it
        page.keyboard.press("Escape")
        page.reload()  # the jobs of before come back
        page.locator(".tile").first.wait_for()


def test_masks_are_painted_and_repainted(studio: Studio, browser: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    with visit(browser, studio.url) as page:
        page.locator("#f-image").set_input_files(tmp_path / "photo.png")
        canvas = page.locator(".mask-canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        assert "%" in page.locator(".mask .note").text_content()
        painted = pixels(page, ".mask-canvas")
        canvas.press("Control+z")
        assert "Paint over" in page.locator(".mask .note").text_content()
        canvas.press("Control+y")
        page.mouse.move(0, 0)
        assert np.abs(pixels(page, ".mask-canvas").astype(int) - painted).mean() < 3  # the cursor
        shot(page, "mask")
        generate(page, "a red apple on a blue background")
        image = studio.json("/api/images")["images"][0]
        mask = np.asarray(studio.picture(image["request"]["mask"]["url"]))[..., 0]
        assert mask[48, 32:51].min() == 255
        assert mask[48, 80:].max() == 0
        assert mask[:20].max() == 0
        made = np.asarray(studio.picture(image["url"]))
        changed = (made != np.asarray(photo)).any(-1)
        assert not changed[mask == 0].any()
        assert changed[mask == 255].mean() > 0.9


def test_masks_are_painted_by_keys(studio: Studio, browser: Any, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "green").save(tmp_path / "green.png")
    with visit(browser, studio.url) as page:
        page.locator("#f-image").set_input_files(tmp_path / "green.png")
        canvas = page.locator(".mask-canvas")
        for key in ("ArrowLeft", " ", "Shift+ArrowUp", "i"):
            canvas.press(key)
        share = page.locator(".mask .note").text_content()
        assert int(re.match(r"\d+", share)[0]) > 80  # inverted
        for key in ("i", "e", " ", "Shift+ArrowUp", "Shift+ArrowDown", "Delete"):
            canvas.press(key)
        assert "Paint over" in page.locator(".mask .note").text_content()


def test_boxes_are_drawn_and_named(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url, trouble=("status of 400",)) as page:
        page.get_by_text("Layout boxes").click()
        field = page.locator(".box-field")
        field.scroll_into_view_if_needed()
        area = field.bounding_box()
        page.mouse.move(area["x"] + 0.1 * area["width"], area["y"] + 0.2 * area["height"])
        page.mouse.down()
        page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.7 * area["height"], steps=3)
        page.mouse.up()
        page.keyboard.type("a dog")  # the drawn box asks for its word
        box = page.locator(".box")
        box.press("ArrowRight")
        box.press("Shift+ArrowDown")
        stored = page.evaluate("JSON.parse(localStorage['suffuse.settings']).boxes")
        assert stored[0][0] == "a dog"
        assert stored[0][1:] == pytest.approx([0.12, 0.2, 0.62, 0.72], abs=0.02)
        page.get_by_text("Add a box").click()
        assert page.locator(".box").count() == 2
        page.locator(".box").nth(1).press("Delete")
        assert page.locator(".box").count() == 1
        shot(page, "boxes")
        playwright.expect(page.locator("#f-width")).to_have_attribute("placeholder", "128")
        assert page.get_by_text("This model does not use boxes").is_visible()
        generate(page, "a dog on a red background", steps=1)
        # A page that takes the bundled model for a grounded one sends them; the service refuses.
        page.evaluate(
            """import("/state.js").then(({ server, emit }) => {
                server.models[0].takes.push("boxes");
                emit("server");
            })"""
        )
        assert not page.get_by_text("This model does not use boxes").is_visible()
        with page.expect_request("**/api/jobs") as posted:
            page.keyboard.press("Control+Enter")
        assert posted.value.post_data_json["boxes"] == page.evaluate(
            "JSON.parse(localStorage['suffuse.settings']).boxes"
        )
        page.locator("#e-boxes").wait_for()
        assert "takes none" in page.locator("#e-boxes").text_content()


def test_films_are_walked_through(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url) as page:
        page.get_by_text("Film", exact=True).click()
        generate(page, "a yellow sun on a purple background", steps=4)
        page.locator(".cell").click()
        page.locator("#detail").get_by_role("button", name="Film").click()
        page.locator(".film-canvas[data-frame='3']").wait_for()  # it plays to its end by itself
        slider = page.get_by_label("Step", exact=True)
        frames = []
        for at in range(4):
            slider.fill(str(at))
            page.locator(f".film-canvas[data-frame='{at}']").wait_for()
            frames.append(pixels(page, ".film-canvas")[..., :3].astype(float))
            assert f"Step {at + 1} of 4" in page.locator(".film-words").text_content()
        last = [np.abs(frame - frames[-1]).mean() for frame in frames]
        assert last[0] > last[2] > 0  # it clears up towards the picture
        shot(page, "film")


def test_words_show_where_they_attended(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url) as page:
        generate(page, "a red apple on a blue background", steps=3)
        page.locator(".cell").click()
        detail = page.locator("#detail")
        detail.get_by_role("button", name="How it works", exact=True).click()
        detail.get_by_role("button", name="Show how it works").click()  # made again, with notes
        word = detail.get_by_role("button", name="apple", exact=True)
        word.hover()
        page.locator(".heat canvas[data-word='apple']").wait_for()
        apple = pixels(page, ".heat canvas")
        shot(page, "explain")
        detail.get_by_role("button", name="background", exact=True).focus()
        page.locator(".heat canvas[data-word='background']").wait_for()
        assert not np.array_equal(apple, pixels(page, ".heat canvas"))
        step = detail.locator(".explain-slider")
        looks = []
        for at in ("0", "2"):
            step.fill(at)
            looks.append(detail.locator(".trio img").first.get_attribute("src"))
        assert looks[0] != looks[1]
        assert detail.locator(".latent img").count() == 4


def test_two_parameters_against_each_other(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url) as page:
        page.get_by_label("Prompt", exact=True).fill("a red apple on a blue background")
        page.get_by_role("link", name="Compare").click()
        page.locator("#axis-x").select_option("words")
        page.locator("#values-x").fill("apple, banana")
        page.locator("#axis-y").select_option("steps")
        page.locator("#values-y").fill("1..2")
        press(page, "Make the grid")
        page.get_by_text("4 of 4 pictures").wait_for()
        prompts = [one["prompt"] for one in studio.json("/api/images")["images"][:4]]
        assert sorted(prompts) == 2 * ["a red apple on a blue background"] + 2 * [
            "a red banana on a blue background"
        ]
        assert page.locator(".xy-table th").all_text_contents() == ["“apple”", "“banana”", "1", "2"]
        shot(page, "grid")
        with page.expect_download() as saved:
            press(page, "Save as a picture")
        grid = Image.open(saved.value.path())
        assert grid.width > 256 and grid.height > 256
        page.locator("#values-y").fill("4, many")
        press(page, "Make the grid")
        assert "“many” is no list of numbers" in page.get_by_role("alert").text_content()


def test_the_gallery(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url) as page:
        generate(page, "<b>a white ghost</b> on a green background", seed=11, negative="a cat")
        generate(page, "a pink pig on a green background", seed=12)
        found = page.locator("#gallery-view [role=status]")
        page.locator("#results-title").click()  # in a field, / is a letter like others
        page.keyboard.press("/")
        page.keyboard.type("ghost 11")
        playwright.expect(found).to_have_text("One picture")
        card = page.locator(".card")
        assert card.count() == 1
        assert "<b>a white ghost</b>" in card.locator(".caption").text_content()  # as text
        card.locator(".tile").click()
        page.get_by_label("Prompt", exact=True).evaluate("(one) => { one.value = ''; }")
        press(page, "Use these settings")
        for name, value in {
            "prompt": "<b>a white ghost</b> on a green background",
            "negative": "a cat",
            "seed": "11",
            "steps": "2",
        }.items():
            playwright.expect(page.locator(f"#f-{name}")).to_have_value(value)
        page.get_by_role("link", name="Gallery").click()
        page.locator("#search").fill("green")
        playwright.expect(found).to_have_text("2 pictures")
        page.locator(".skip").focus()
        page.keyboard.press("Enter")  # past the head, and not out of the gallery
        card.locator(".tile").first.click()
        for key, prompt in (("Right", "ghost"), ("Left", "pig")):  # the focus stays in the dialog
            page.keyboard.press(f"Arrow{key}")
            playwright.expect(page.locator(".about-prompt")).to_contain_text(prompt)
        page.keyboard.press("Escape")
        for one in page.get_by_role("checkbox", name="to compare").all():
            one.check(force=True)
        press(page, "Compare two")
        page.get_by_label("Where one picture ends").fill("20")
        shot(page, "compare")
        press(page, "Side by side")
        page.keyboard.press("Escape")
        page.locator(".bin").first.click(force=True)
        press(page, "Delete", include_hidden=False)
        playwright.expect(found).to_have_text("One picture")
        found = studio.json("/api/images?query=green")["images"]
        assert [one["seed"] for one in found] == [11]


def test_korean(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url, locale="ko-KR", color_scheme="dark") as page:
        assert page.locator("html").get_attribute("lang") == "ko"
        page.get_by_label("프롬프트", exact=True).fill("파란색 배경에 빨간 사과")
        for name, value in (("steps", "8"), ("seed", "7")):
            page.locator(f"#f-{name}").fill(value)
        press(page, "그리기")
        page.locator(".stage:not(.busy) .cell.done").wait_for()
        assert any("단계 중" in one for one in page.evaluate("told"))
        shot(page, "korean")
        page.get_by_role("link", name="갤러리").click()
        page.get_by_label("갤러리 검색").fill("사과")
        found = page.locator("#gallery-view [role=status]")
        playwright.expect(found).to_have_text("그림 1장")
        press(page, "English")
        assert page.get_by_label("Search the gallery").input_value() == "사과"
        page.reload()  # the choice is remembered
        assert page.get_by_role("link", name="Gallery").is_visible()
        page.keyboard.press("1")
        left = page.evaluate("document.body.innerText")
        assert set(re.findall(r"[가-힣]+", left)) <= set(
            re.findall(r"[가-힣]+", "한국어 파란색 배경에 빨간 사과")
        )


def test_both_languages_say_everything() -> None:
    tables = {}
    for code in ("en", "ko"):
        text = (PAGE / f"words_{code}.js").read_text("utf-8")
        tables[code] = dict(re.findall(r'(?:^|[\s{])(\w+):\s+"((?:[^"\\]|\\.)*)"', text))
    english = {key for key in tables["en"] if not key.endswith("_one")}  # Korean has no plural
    assert english == set(tables["ko"])
    for key in english:
        names = [set(re.findall(r"\{(\w+)\}", tables[code][key])) for code in tables]
        assert names[0] == names[1], key


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_anyones_way(studio: Studio, browser: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def look(page: Any, where: str) -> None:
        # What is not about colours is the same in the dark.
        options = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
        found = axe.run(page, options=options).response["violations"]
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, (where, serious)

    with visit(browser, studio.url, color_scheme=scheme, reduced_motion="reduce") as page:
        look(page, "welcome")
        generate(page, "a blue car on a white background", steps=1)
        page.locator("summary").evaluate_all("(all) => all.forEach((one) => one.click())")
        page.get_by_text("Add a box").click()
        look(page, "create")
        shot(page, f"open-{scheme}")
        page.locator(".cell").click()
        look(page, "detail")
        page.keyboard.press("Escape")
        for view in ("compare", "gallery"):
            page.locator(f"nav [href='#{view}']").click()
            page.locator("#results-title, .card").first.wait_for(state="attached")
            look(page, view)
        page.keyboard.press("?")
        look(page, "keys")


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
def test_narrow_screens_scroll_down_only(studio: Studio, browser: Any, locale: str) -> None:
    with visit(browser, studio.url, locale=locale, viewport={"width": 360, "height": 740}) as page:
        shot(page, f"phone-{locale[:2]}")
        page.locator("summary").evaluate_all("(all) => all.forEach((one) => one.click())")
        for view in ("create", "compare", "gallery"):
            page.locator(f"nav [href='#{view}']").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
            shot(page, f"phone-{locale[:2]}-{view}")
        page.locator(".tile").first.click()  # of the tests before
        assert page.evaluate("document.querySelector('#detail').scrollWidth") <= 360


def test_the_page_is_light(studio: Studio, browser: Any) -> None:
    sizes: dict[str, int] = {}
    context = browser.new_context(locale="ko-KR")
    page = context.new_page()
    page.on("response", lambda got: sizes.update({got.url: len(got.body())}))
    page.goto(studio.url)
    page.wait_for_load_state("networkidle")
    context.close()
    parts = {url: size for url, size in sizes.items() if "/api/" not in url}
    files = {path.name for path in PAGE.iterdir()}
    assert files - {url.rsplit("/", 1)[-1] for url in parts} == {"index.html", "words_en.js"}
    assert sum(parts.values()) < MOST


def test_a_crash_is_told_and_jobs_go_on(studio: Studio, browser: Any) -> None:
    gone = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET")
    with visit(browser, studio.url, trouble=(*gone, "ERR_EMPTY_RESPONSE", "network error")) as page:
        page.get_by_label("Prompt", exact=True).fill("a key on a pink background")
        page.locator("#f-steps").fill("16")
        page.keyboard.press("Control+Enter")
        page.locator(".stage.busy").wait_for()
        studio.kill()
        page.get_by_text("The service does not answer").wait_for()
        shot(page, "offline")
        studio.start()
        page.get_by_text("The service is back; your jobs go on.").wait_for()
        page.locator(".stage:not(.busy) .cell.done").wait_for()
        assert len(studio.json("/api/images?query=key")["images"]) == 1


def test_what_is_refused_stands_under_its_field(studio: Studio, browser: Any) -> None:
    with visit(browser, studio.url, trouble=("status of 4",)) as page:
        page.get_by_label("Prompt", exact=True).fill("a fox")
        page.locator("#f-steps").fill("5000")
        page.keyboard.press("Control+Enter")
        wrong = page.locator("#e-steps")
        wrong.wait_for()
        assert "150" in wrong.text_content()
        assert page.locator("#f-steps").get_attribute("aria-invalid") == "true"
