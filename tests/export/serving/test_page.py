"""The page in a real browser: images are dropped, and what a person then sees is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, executable
from PIL import Image
from serving_process import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason="there is no Chromium here"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as page:
        yield page


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Images of one colour each, and what is none."""
    paths = {}
    for name, suffix in (("red", "png"), ("lime", "jpg"), ("blue", "ppm")):
        paths[name] = tmp_path / f"{name}.{suffix}"
        Image.new("RGB", (60, 40), name).save(paths[name])
    paths["bad"] = tmp_path / "bad.jpg"
    paths["bad"].write_text("no image")
    return paths


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (400, False), (400, True)])
def test_a_dropped_image_shows_its_class(
    browser: Browser, server: int, files: dict[str, Path], width: int, dark: bool, tmp_path: Path
) -> None:
    browser.open(f"http://127.0.0.1:{server}/", width=width, dark=dark)
    browser.drop([files["red"]], "#zone")
    browser.wait_for("document.querySelectorAll('.rows').length === 1")
    assert browser.run("document.querySelector('.answer').textContent") == "red"
    assert browser.run("document.querySelector('.rows .value').textContent") == "100.0 %"
    assert browser.run("document.querySelector('.thumb img').naturalWidth") == 60
    assert browser.run("document.documentElement.scrollWidth") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) < (220, 30, 30) or not dark
        red = [colour for _count, colour in picture.convert("RGB").getcolors(2**20) or [] if colour == (255, 0, 0)]
    assert red, "the image itself is not to be seen"
    assert browser.messages == []


def test_several_images_and_a_bad_one(browser: Browser, server: int, files: dict[str, Path]) -> None:
    browser.open(f"http://127.0.0.1:{server}/")
    browser.drop([files["red"], files["lime"], files["blue"], files["bad"]], "#zone")
    browser.wait_for("document.querySelectorAll('.rows, .error').length === 4")
    shown = browser.run("[...document.querySelectorAll('.answer')].map(e => e.textContent)")
    assert sorted(shown) == ["blue", "green", "red"]
    assert "Not an image of a known format" in browser.run("document.querySelector('.error').textContent")
    assert browser.run("document.getElementById('tally').textContent") == "3 images, 1 failed"
    assert browser.run("document.querySelector('.thumb canvas').width") == 60  # the PPM, drawn by the page
    browser.run("document.getElementById('clear').click()")
    assert browser.run("document.querySelectorAll('.result').length") == 0


def test_a_pasted_image_and_one_dropped_beside_the_zone(browser: Browser, server: int, files: dict[str, Path]) -> None:
    browser.open(f"http://127.0.0.1:{server}/")
    browser.drop([files["blue"]], "header")
    browser.wait_for("document.querySelector('.answer')?.textContent === 'blue'")
    browser.run(
        "(async () => { const canvas = document.createElement('canvas'); const context = canvas.getContext('2d');"
        " context.fillStyle = 'lime'; context.fillRect(0, 0, 999, 999);"
        " const blob = await new Promise(done => canvas.toBlob(done)); const data = new DataTransfer();"
        " data.items.add(new File([blob], 'image.png', {type: 'image/png'}));"
        " document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data})); })()"
    )
    browser.wait_for("document.querySelector('.answer')?.textContent === 'green'")


def test_all_classes_on_demand_and_a_search(
    browser: Browser, toy_models: object, files: dict[str, Path], tmp_path: Path
) -> None:
    names = [f"sign {number}" for number in range(42)] + ["<b>stop</b>"]
    model = toy_models.classifier(tmp_path / "signs.onnx", classes=names, gate={"passed": True, "reasons": []})  # type: ignore[attr-defined]
    with running(model) as (port, _program):
        browser.open(f"http://127.0.0.1:{port}/")
        browser.drop([files["red"]], "#zone")
        browser.wait_for("document.querySelectorAll('.rows li').length === 5")
        browser.run("document.querySelector('.result button').click()")
        assert browser.run("document.querySelectorAll('.rows li').length") == 43
        assert browser.run("document.querySelectorAll('#classes li').length") == 43
        browser.run(
            "(() => { const box = document.getElementById('search'); box.value = 'STOP';"
            " box.dispatchEvent(new Event('input')); })()"
        )
        visible = "[...document.querySelectorAll('#classes li')].filter(e => !e.hidden).map(e => e.innerText)"
        assert [text.split("\n")[-1] for text in browser.run(visible)] == ["<b>stop</b>"]
        card = browser.run("document.getElementById('card').innerText")
        assert "Gate passed" in card
        assert "97.50 % [95.00, 99.00]" in card
        assert browser.messages == []


def test_a_pair_shows_score_threshold_and_decision(browser: Browser, pair_server: int, files: dict[str, Path]) -> None:
    browser.open(f"http://127.0.0.1:{pair_server}/", width=400)
    browser.drop([files["red"]], "#zone-first")
    assert browser.run("document.getElementById('verdict').hidden")
    browser.drop([files["red"]], "#zone-second")
    browser.wait_for("document.querySelector('#verdict .answer')?.textContent === 'The same'")
    browser.drop([files["blue"]], "#zone-second")
    browser.wait_for("document.querySelector('#verdict .answer')?.textContent === 'Different'")
    assert "below the threshold 0.500" in browser.run("document.querySelector('#verdict .quiet').textContent")
    assert browser.run("document.querySelector('.threshold').style.left") == "50%"
    assert float(browser.run("document.querySelector('.point').style.left")[:-1]) < 10
    browser.drop([files["bad"]], "#zone-first")
    browser.wait_for("!!document.querySelector('#verdict .error')")


def test_everything_is_reached_with_the_keyboard(browser: Browser, server: int) -> None:
    browser.open(f"http://127.0.0.1:{server}/")
    reached = set()
    for _ in range(8):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.add(browser.run("document.activeElement.id || document.activeElement.tagName"))
    assert {"files", "SUMMARY"} <= reached
    unnamed = "[...document.querySelectorAll('input, button, img')].filter(e => !(e.ariaLabel || e.labels?.length || e.textContent || e.alt)).length"
    assert browser.run(unnamed) == 0


def test_a_server_that_has_gone_is_told_in_words(
    browser: Browser, models: dict[str, Path], files: dict[str, Path]
) -> None:
    with running(models["classes"]) as (port, _program):
        browser.open(f"http://127.0.0.1:{port}/")
    browser.drop([files["red"]], "#zone")
    said = browser.wait_for("document.querySelector('.error')?.textContent")
    assert said == "The server cannot be reached. Is it still running?"
