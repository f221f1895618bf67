"""What the page shows of images, in headless Chromium: answers, heat maps, models."""

from __future__ import annotations

import json
import re

import httpx2 as httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.web]


def test_answers_are_those_of_the_program(browser, one, labels, agree, images, no_image):
    browser.visit(one)
    given = [*images, no_image]
    found = browser.answers(given)
    # A network of few classes shows them all.
    agree(found, "hostile", given, top_k=len(labels["hostile"]))
    assert len(found[0]["labels"]) == len(labels["hostile"])
    assert "not an image of a known kind" in found[-1]["error"]
    assert browser.text("#count") == f"{len(given)} images, 1 without an answer"


def test_a_card_shows_the_image_its_classes_and_the_times(browser, several, labels, images):
    browser.visit(several)
    photo = next(image for image in images if image.name == "flower.jpg")
    (answer,) = browser.answers([photo])
    assert len(answer["labels"]) == 5
    lines = browser.run("document.querySelector('.card').innerText.split('\\n')")
    assert lines[0] == "flower.jpg"
    assert [line for line in lines if line in labels["many"]] == answer["labels"]
    assert f"{answer['scores'][0] * 100:.1f} %" in lines
    times = lines[-1].replace("\xa0", " ")
    number = r"[\d.]+ ms"
    assert re.fullmatch(
        rf"read {number} · queue {number} · network {number} · {number} in all · "
        rf"{number} with the connection",
        times,
    ), times
    browser.wait_for("document.querySelector('.card img').naturalWidth === 640")
    assert browser.run("document.querySelector('.card img').alt") == "The image flower.jpg"
    said = f"flower.jpg: {answer['labels'][0]}, {answer['scores'][0] * 100:.1f} %"
    assert browser.text("#live") == said
    assert browser.run("document.querySelector('.card').hasAttribute('aria-busy')") is False


def started_with(address: str, name: str) -> str:
    """How the page names a model: the server took its precision by this processor."""
    rows = httpx.get(f"{address}models").json()["models"]
    (row,) = (row for row in rows if row["name"] == name and row["default"])
    assert row["precision"] in ("float32", "bfloat16")
    return f"{name} (tiny, {row['precision']}) by "


def test_the_page_says_how_fast_it_was_answered(browser, one, images, no_image):
    browser.visit(one)
    assert browser.run("document.getElementById('speed').hidden")
    browser.answers([*images[:3], no_image])
    said = browser.text("#speed-text").replace("\xa0", " ")
    number = r"([\d.]+) ms"
    found = re.fullmatch(
        rf"{re.escape(started_with(one, 'hostile'))}\w+: {number} an image at the server "
        rf"\(read {number}, "
        rf"queue {number}, network {number}\), {number} with the connection; median of the last "
        r"3 images\. 3 images in ([\d.]+) s: ([\d.]+) images/s\.",
        said,
    )
    assert found, said
    total, read, _, network, with_connection, seconds, rate = map(float, found.groups())
    assert max(read, network) <= total <= with_connection
    assert rate == pytest.approx(3 / seconds, rel=0.1)
    browser.run("navigator.clipboard.writeText = async (given) => { window.copied = given; }; null")
    browser.run("document.getElementById('copy').click()")
    browser.wait_for("window.copied")
    assert browser.run("copied") == said
    browser.run("document.getElementById('clear').click()")
    assert browser.run("document.getElementById('speed').hidden")
    browser.answers(images[:1])
    assert "; measured on one image." in browser.text("#speed-text")


def test_another_model_is_timed_by_itself(browser, several, images):
    browser.visit(several)
    browser.answers(images[:2])
    assert browser.text("#speed-text").startswith(started_with(several, "many"))
    browser.pick("model", "hostile")
    browser.settle(2)
    assert browser.text("#speed-text").startswith(started_with(several, "hostile"))
    assert "last 2 images" in browser.text("#speed-text")


def test_nothing_comes_from_elsewhere_and_nothing_goes_wrong(browser, several, images):
    browser.visit(several)
    browser.answers(images)
    browser.run("document.getElementById('model').value = 'hostile'")
    browser.run("document.getElementById('model').dispatchEvent(new Event('change'))")
    browser.settle(len(images))
    browser.run("document.getElementById('heat').click()")
    browser.wait_for(f"document.querySelectorAll('.map').length === {len(images)}")
    asked = browser.run("performance.getEntriesByType('resource').map(({ name }) => name)")
    outside = [name for name in asked if not name.startswith((several, "data:", "blob:"))]
    assert f"{several}page/style.css" in asked
    assert outside == []
    assert browser.troubles() == []


def test_class_names_are_text(browser, one, labels, images):
    browser.visit(one)
    (answer,) = browser.answers(images[:1])
    shown = browser.run(
        "[...document.querySelectorAll('.classes .name')].map(({ textContent }) => textContent)"
    )
    assert sorted(shown) == sorted(labels["hostile"])
    assert shown == answer["labels"]
    assert browser.run("document.querySelectorAll('.classes :is(b, img, script)').length") == 0
    assert browser.run("document.title") == "hostile · densepath"


def test_heat_maps_are_asked_for_once_and_toggled(browser, one, images, no_image):
    browser.visit(one)
    photos = [image for image in images if image.suffix in (".jpg", ".png")]
    answers = browser.answers([*photos, no_image])
    heat = "document.getElementById('heat')"
    asked = (
        "performance.getEntriesByType('resource')"
        ".filter(({ name }) => name.includes('explain=true')).length"
    )
    assert browser.run(f"{heat}.getAttribute('aria-pressed')") == "false"
    assert browser.run(asked) == 0
    browser.run(f"{heat}.click()")
    browser.wait_for(f"document.querySelectorAll('.map').length === {len(photos)}")
    assert browser.run(f"{heat}.getAttribute('aria-pressed')") == "true"
    browser.wait_for("document.getElementById('live').textContent === 'Heat maps are shown'")
    picture = "(({ src, alt }) => [src.split(',')[0], alt])(document.querySelector('.card img'))"
    looked = f"where the network looked for {answers[0]['labels'][0]}"
    expected = ["data:image/png;base64", f"Heat map of {photos[0].name}: {looked}"]
    assert browser.run(picture) == expected
    browser.wait_for("document.querySelector('.card img').naturalWidth >= 448")
    for _ in range(2):
        browser.run(f"{heat}.click()")
    assert browser.run(picture) == expected
    browser.run(f"{heat}.click()")
    assert browser.run(picture)[0].startswith("blob:")
    assert browser.run(asked) == len(photos)
    # While heat maps are on, an image that comes has one.
    browser.run(f"{heat}.click()")
    browser.answers(photos[:1])
    browser.wait_for(f"document.querySelectorAll('.map').length === {len(photos) + 1}")


def test_an_image_that_browsers_do_not_show_is_shown_as_the_network_saw_it(browser, one, images):
    browser.visit(one)
    browser.answers([image for image in images if image.suffix == ".tiff"])
    browser.wait_for("document.querySelector('.card').classList.contains('unshown')")
    for _ in range(2):
        browser.run("document.getElementById('heat').click()")
        browser.wait_for("document.querySelector('.card img').src.startsWith('data:')")
    browser.wait_for("document.querySelector('.card img').naturalWidth >= 448")
    assert browser.run("document.querySelector('.card').className") == "card"


def test_another_model_or_version_answers_the_images_again(browser, several, labels, agree, images):
    browser.visit(several)
    options = "[...document.getElementById('{}').options].map(({{ value }}) => value)"
    assert browser.run(options.format("model")) == ["many", "hostile", "closed"]
    assert browser.run(options.format("version")) == ["1", "2"]
    agree(browser.answers(images), "newer", images, top_k=5)
    for picker, value, bundle, top_k in (
        ("version", "1", "many", 5),
        ("model", "hostile", "hostile", len(labels["hostile"])),
        ("model", "many", "newer", 5),
    ):
        browser.pick(picker, value)
        browser.settle(len(images))
        agree(browser.run("densepath.answers()"), bundle, images, top_k=top_k)
        is_alone = browser.run("document.getElementById('version-label').hidden")
        assert is_alone == (value == "hostile")
    assert browser.text("#summary").startswith("many: tiny, 12 classes.")


def test_a_model_without_heat_maps_says_why(browser, several, images):
    browser.visit(several)
    browser.answers(images[:1])
    browser.run("document.getElementById('heat').click()")
    browser.wait_for("document.querySelector('.map') !== null")
    browser.pick("model", "closed")
    browser.settle(1)
    state = "(({ disabled, ariaPressed }) => [disabled, ariaPressed])"
    assert browser.run(f"{state}(document.getElementById('heat'))") == [True, "false"]
    assert browser.run("document.getElementById('heat-hint').innerText").startswith(
        "This model has no heat maps"
    )
    assert browser.run("document.querySelector('.card img').src").startswith("blob:")


def test_a_single_model_needs_no_picker(browser, one):
    browser.visit(one)
    assert browser.run("document.getElementById('pickers').hidden")


def test_dropped_and_pasted_images_are_answered(browser, one, labels):
    browser.visit(one)
    for number, (event, kind, holder) in enumerate(
        (
            ("drop", "DragEvent", "dataTransfer"),
            ("paste", "ClipboardEvent", "clipboardData"),
        ),
        start=1,
    ):
        browser.run(f"""(async () => {{
            const canvas = new OffscreenCanvas(60, 40);
            canvas.getContext("2d").fillRect(10, 10, 20, 20);
            const given = new DataTransfer();
            given.items.add(new File([await canvas.convertToBlob()], "{event}.png"));
            document.body.dispatchEvent(
                new {kind}("{event}", {{ {holder}: given, bubbles: true, cancelable: true }}));
        }})()""")
        browser.settle(number)
        last = browser.run("densepath.answers().at(-1)")
        assert last["path"] == f"{event}.png"
        assert len(last["scores"]) == len(labels["hostile"])


def test_saved_answers_are_those_of_the_page_and_clear_removes_them(browser, one, images):
    browser.visit(one)
    answers = browser.answers(images)
    browser.run("""(() => {
        const make = URL.createObjectURL;
        URL.createObjectURL = (blob) => { window.saved = blob.text(); return make(blob); };
        HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };
        document.getElementById("save").click();
    })()""")
    assert [json.loads(line) for line in browser.run("saved").splitlines()] == answers
    assert browser.run("savedAs") == "answers.jsonl"
    browser.run("document.getElementById('clear').click()")
    assert browser.run("[densepath.answers().length, document.querySelector('.card')]") == [0, None]
    assert browser.focused() == "files"
