"""The page in headless Chromium, opened from the disk with the network cut: what a person does with it."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from bytepixels import Run
from bytepixels.sampling.load_weights import open_model
from bytepixels.sampling.trained_model import TrainedModel, in_precision

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield one
        one.close()


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))  # where a model that comes along is copied to
        return Run("digits").export("html", out="page", steps=5).absolute() / "digits.html"


@pytest.fixture
def opened(browser, html):
    """Open the page; closes it when the test is done."""
    pages = []

    def open_page(**settings):
        context = browser.new_context(offline=True, **settings)
        page = context.new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.said.append(request.url) if "://" in request.url[:8] else None)
        page.goto(html.as_uri())
        wait(page)
        pages.append(context)
        return page

    yield open_page
    for context in pages:
        context.close()


def wait(page, states=("done",)):
    """Until it has drawn."""
    for _ in range(1200):
        state = page.get_attribute("body", "data-state")
        if state in states:
            return
        assert state != "failed", page.inner_text("#said")
        page.wait_for_timeout(100)
    pytest.fail(page.inner_text("#said"))


def pixels(page):
    """What is on the canvases, [n, H, W, 3]."""
    found = page.evaluate(
        "[...document.querySelectorAll('canvas')].map((one) => ({ height: one.height, width: one.width,"
        " data: [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data] }))"
    )
    return np.stack([np.array(one["data"], np.uint8).reshape(one["height"], one["width"], 4) for one in found])[..., :3]


def test_it_draws_at_once_and_the_images_of_sample(opened):
    page = opened()
    model = TrainedModel.open(in_precision(open_model(Run("digits").path), "float32"), device="cpu")
    expected = model.draw(model.settings(steps=5), range(4)).permute(0, 2, 3, 1).numpy()
    assert np.abs(pixels(page).astype(int) - expected).max() <= 2
    assert "4 images" in page.inner_text("#said")
    assert [word for word in page.said if not word.startswith("file://")] == []


def test_by_keyboard_alone_another_class_and_seed_can_be_drawn_and_saved(opened):
    page = opened()
    first = pixels(page)
    page.focus("#label")
    page.keyboard.type("7")
    page.focus("#seed")
    page.keyboard.press("Control+A")
    page.keyboard.type("123")
    page.keyboard.press("Enter")
    page.wait_for_timeout(50)
    wait(page)
    assert "7, seed 123" in page.inner_text("#images")
    assert not np.array_equal(pixels(page), first)
    page.focus("#images button")
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    assert saved.value.suggested_filename == "seed-123.png"
    image = Image.open(io.BytesIO(saved.value.path().read_bytes())).convert("RGB")
    assert np.array_equal(np.array(image), pixels(page)[0])


def test_stop_keeps_what_there_is_and_drawing_goes_on_after_it(opened):
    page = opened()
    page.select_option("#count", "16")
    page.select_option("#steps", label="50")
    page.click("#draw")
    page.click("#stop")
    assert page.inner_text("#said") == "Stopped."
    page.select_option("#steps", label="5")
    page.click("#draw")
    wait(page)
    assert len(pixels(page)) == 16
    assert pixels(page).std(axis=(1, 2, 3)).min() > 10


def test_it_fits_a_telephone_in_the_dark(opened):
    page = opened(**PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in dark[4:-1].split(",")) < 60
    heights = page.evaluate("[...document.querySelectorAll('button, select')].map((one) => one.offsetHeight)")
    assert min(height for height in heights if height) >= 40  # a finger's width
