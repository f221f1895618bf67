"""The page with the keyboard, a screen reader, and on a phone, in headless Chromium."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.web]


def test_everything_can_be_done_with_the_keyboard(browser, several, labels, images):
    browser.visit(several)
    reached = []
    for _ in range(3):
        browser.press("Tab")
        reached.append(browser.focused())
    assert reached == ["model", "version", "files"]
    assert browser.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    browser.send("Page.setInterceptFileChooserDialog", enabled=True)
    browser.press("Enter", text="\r")
    browser.wait_for("true")
    chooser = [e for e in browser.events if e["method"] == "Page.fileChooserOpened"]
    browser.send("Page.setInterceptFileChooserDialog", enabled=False)
    assert chooser
    assert chooser[0]["params"]["mode"] == "selectMultiple"
    browser.answers(images[:2])
    reached = []
    for _ in range(5):
        browser.press("Tab")
        reached.append(browser.focused())
        if reached[-1] == "heat":
            browser.press(" ", text=" ")
            browser.wait_for("document.querySelectorAll('.map').length === 2")
    assert reached == ["heat", "save", "clear", "copy", "SUMMARY"]
    browser.press("Enter", text="\r")
    assert browser.run("document.getElementById('about').open")
    browser.run("document.getElementById('model').focus()")
    browser.press("ArrowDown")
    browser.settle(2)
    assert browser.run("document.getElementById('model').value") == "hostile"
    assert len(browser.run("densepath.answers()[0].labels")) == len(labels["hostile"])


def test_every_control_has_a_name(browser, several, images):
    browser.visit(several)
    browser.answers(images[:1])
    browser.run("document.getElementById('heat').click()")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "combobox", "image", "textbox", "DisclosureTriangle")
    names = {role: [] for role in roles}
    for node in nodes:
        if not node["ignored"] and node["role"]["value"] in roles:
            names[node["role"]["value"]].append(node.get("name", {}).get("value", ""))
    assert names["combobox"] == ["Model", "Version"]
    choose_images, heat, save, clear, copy = names["button"]
    assert choose_images.startswith("Choose images or drop them anywhere")
    assert [heat, save, clear, copy] == ["Heat maps", "Save as JSON", "Clear", "Copy"]
    assert len(names["image"]) == 1
    assert all(name for group in names.values() for name in group)


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_is_wider_than_a_phone(browser, several, images, no_image, width):
    browser.resize(width, 740, mobile=True)
    browser.visit(several)
    browser.pick("model", "hostile")
    browser.answers([*images, no_image])
    browser.run("document.getElementById('about').open = true")
    widths = [browser.run("document.documentElement.scrollWidth")]
    browser.run("document.getElementById('heat').click()")
    browser.wait_for(f"document.querySelectorAll('.map').length === {len(images)}")
    widths.append(browser.run("document.documentElement.scrollWidth"))
    browser.resize(1000, 800)
    assert widths == [width, width]
