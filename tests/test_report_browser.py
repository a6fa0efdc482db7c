"""The pages in headless Chromium: pictures are drawn, tables sort, cells open, nothing is fetched or run."""

import json
import shutil

import numpy as np
import pytest
from reports import build_answers, build_record
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from hf_tasks.report.write import write_report

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
EVIL = "<img src=x onerror=alert(1)>"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    """Chromium that writes down its console and every request."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a run of three classes, one of them with a name that would like to run."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    answers = build_answers(class_names=("ant", EVIL, "cat"))
    write_report(path, build_record(answers), answers, wrong_images=5)
    return path


@pytest.fixture
def opened(browser, page):
    """The page, freshly opened at the width of a laptop, with nothing left in the logs."""
    _emulate(browser, width=1200)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page.as_uri())
    return browser


def _emulate(browser, *, width, scheme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    # Where the page glides, a click would come before it has arrived.
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _column(browser, section, place):
    cells = browser.find_elements(By.CSS_SELECTOR, f"#{section} .sortable tbody td:nth-child({place})")
    return [cell.text for cell in cells]


def _requests(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [entry for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    return {entry["params"]["request"]["url"] for entry in sent}


def test_the_page_says_nothing_in_the_console_and_asks_no_network(opened, page):
    addresses = {address for address in _requests(opened) if not address.startswith("data:")}

    assert opened.get_log("browser") == []
    assert addresses == {page.as_uri()}


def test_a_class_name_that_is_code_stays_text(opened):
    names = [cell.text for cell in opened.find_elements(By.CSS_SELECTOR, "#classes tbody td:first-child")]

    assert EVIL in names
    assert opened.find_elements(By.CSS_SELECTOR, "img[onerror]") == []


def test_an_inline_handler_would_not_run_even_if_it_got_in(opened):
    opened.execute_script("document.body.insertAdjacentHTML('beforeend', arguments[0])", EVIL)

    opened.execute_async_script("setTimeout(arguments[0], 200)")

    assert any("Content Security Policy" in entry["message"] for entry in opened.get_log("browser"))


def test_a_click_sorts_a_column_and_another_click_turns_it_around(opened):
    header = opened.find_elements(By.CSS_SELECTOR, "#classes thead button")[1]  # examples
    counts = [int(text) for text in _column(opened, "classes", 2)]

    header.click()
    falling = [int(text) for text in _column(opened, "classes", 2)]
    header.click()
    rising = [int(text) for text in _column(opened, "classes", 2)]

    assert falling == sorted(counts, reverse=True)
    assert rising == sorted(counts)
    assert header.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"


def test_a_cell_of_the_matrix_opens_its_pictures_and_escape_closes_them(opened):
    cell = opened.find_element(By.CSS_SELECTOR, ".matrix td.miss button")

    cell.send_keys(Keys.ENTER)
    viewer = opened.find_element(By.ID, "viewer")
    pictures = viewer.find_elements(By.CSS_SELECTOR, "img")
    title = viewer.find_element(By.ID, "viewer-title").text
    widths = [opened.execute_script("return arguments[0].naturalWidth", picture) for picture in pictures]

    assert viewer.is_displayed()
    assert "taken for" in title
    assert len(pictures) == int(cell.text)
    assert set(widths) == {24}
    viewer.send_keys(Keys.ESCAPE)
    assert not viewer.is_displayed()
    assert opened.switch_to.active_element == cell


def test_galleries_show_the_pictures_that_the_run_got_wrong(opened):
    gallery = opened.find_element(By.CSS_SELECTOR, "#mistakes .gallery")

    figures = gallery.find_elements(By.CSS_SELECTOR, "figure.wrong img")

    assert len(figures) == 5
    assert all(opened.execute_script("return arguments[0].complete", figure) for figure in figures)


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_reaches_beyond_the_screen(opened, page, width):
    _emulate(opened, width=width)

    opened.get(page.as_uri())

    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_page_is_dark_where_the_system_is_until_the_button_is_pressed(opened, page):
    _emulate(opened, width=800, scheme="dark")
    opened.get(page.as_uri())

    def background():
        colour = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        return np.mean([int(part) for part in colour.strip("rgb()").split(",")])

    dark = background()
    opened.find_element(By.ID, "theme").click()
    light = background()
    opened.get(page.as_uri())
    remembered = background()
    opened.execute_script("localStorage.clear()")

    assert dark < 64
    assert light > 192
    assert remembered == light


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(opened):
    controls = opened.find_elements(By.CSS_SELECTOR, "main button, nav button")

    names = [control.accessible_name for control in controls]

    assert all(names)
    assert all(control.get_attribute("tabindex") != "-1" for control in controls)


def test_a_page_of_several_labels_draws_its_curves(browser, tmp_path):
    answers = build_answers(is_multilabel=True)
    write_report(tmp_path / "report.html", build_record(answers), answers, wrong_images=5)

    browser.get((tmp_path / "report.html").as_uri())

    titles = [figure.text for figure in browser.find_elements(By.CSS_SELECTOR, "#thresholds figcaption")]
    assert titles == ["ant", "bee", "cat"]
    assert browser.find_elements(By.CSS_SELECTOR, "#confusion button.opens")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [768, 1440])
def test_a_name_of_300_letters_leaves_the_other_columns_in_sight(browser, tmp_path, width):
    answers = build_answers(class_names=("ant", "L" * 300, "cat"))
    write_report(tmp_path / "report.html", build_record(answers), answers, wrong_images=5)
    _emulate(browser, width=width)

    browser.get((tmp_path / "report.html").as_uri())

    measure = "return [...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])"
    assert [wide for wide, seen in browser.execute_script(measure) if wide > seen] == []
    assert browser.find_elements(By.CSS_SELECTOR, "#confusion .wordy, #classes .wordy")


def test_a_picture_that_is_gone_leaves_a_gap(browser, tmp_path):
    answers = build_answers(gone={0, 1, 2})
    write_report(tmp_path / "report.html", build_record(answers), answers, wrong_images=200)

    browser.get((tmp_path / "report.html").as_uri())

    assert browser.find_elements(By.CSS_SELECTOR, "#mistakes .gone")
    assert browser.get_log("browser") == []
