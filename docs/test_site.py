"""Every page of the built site in a browser: wide and narrow, in the light and in the dark.

`make docs` builds the site and runs this.
"""

import functools
import json
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from sphinx.search.en import SearchEnglish

SITE = Path(__file__).parent.parent / "build" / "site"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
# Of a window, in pixels: a desk and a telephone. Colours move nothing, so that one width is enough
# in the dark.
WIDTH, NARROW, HEIGHT = 1280, 390, 900
WINDOWS = {"light": [WIDTH, NARROW], "dark": [NARROW]}
PICTURES = """
async () => {
    const pictures = [...document.images];
    pictures.forEach(picture => { picture.loading = "eager"; });
    await Promise.allSettled(pictures.map(picture => picture.decode()));
    return pictures.filter(picture => !picture.naturalWidth).map(picture => picture.src);
}
"""
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Text that its own box cuts off, beside what scrolls: code, tables and formulas.
CUT_OFF = """
() => [...document.querySelectorAll("article :is(h1, h2, h3, p, li, dt, dd), .prev-next-area a *")]
    .filter(element => !element.closest("pre, table, mjx-container, .math"))
    .filter(element => {
        const range = document.createRange();
        range.selectNodeContents(element);
        const scrolls = element.querySelector("pre, table, mjx-container, .math, canvas, picture");
        return !scrolls && range.getBoundingClientRect().right > window.innerWidth;
    })
    .map(element => element.textContent.trim().slice(0, 80))
"""
# What a reader looks for, and a page that must be among what is found.
SEARCHES = {
    "MLPDiskClassifier": "api/skdisk.MLPDiskClassifier.html",
    "make_disk": "api/skdisk.make_disk.html",
    "early stopping": "guide/parameters.html",
    "alpha": "guide/coming_from_mlpclassifier.html",
    "learning_rate_init": "guide/coming_from_mlpclassifier.html",
    "iterator_train": "guide/coming_from_skorch.html",
    "EarlyStopping": "guide/coming_from_keras.html",
    "unexpected keyword argument alpha": "guide/errors.html",
    "fused_reason_": "guide/how_it_works.html",
}


class Handler(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    """Serve the site on this machine."""
    handler = functools.partial(Handler, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Start Chromium."""
    if CHROMIUM is None:
        pytest.skip(f"there is none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser, address):
    """Open a tab in the mode of the system; add what goes wrong in it to the list `faults`."""
    tabs = []

    def open_tab(faults):
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tabs.append(tab)
        tab.add_init_script("localStorage.mode = 'auto'")

        def note(kind, text):
            faults.append(f"{tab.url.removeprefix(address)}: {kind}: {text}")

        def note_request(request):
            if not request.url.startswith((address, "data:", "blob:")):
                note("request to the outside", request.url)

        def note_console(message):
            if message.type == "error":
                note("console", message.text)

        def note_response(response):
            if response.status >= 400:
                note(f"status {response.status}", response.url)

        tab.on("request", note_request)
        tab.on("console", note_console)
        tab.on("response", note_response)
        tab.on("pageerror", lambda error: note("error", error))
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()


def test_every_page_is_whole(open_tab, address):
    faults = []
    tab = open_tab(faults)
    pages = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    # The theme's files have a template among them.
    pages = [page for page in pages if not page.startswith("_static/")]
    assert "index.html" in pages
    for page in pages:
        tab.goto(address + page)
        for mode, widths in WINDOWS.items():
            tab.emulate_media(color_scheme=mode)
            # Pages that are not the theme's have no such attribute.
            tab.wait_for_selector(f"html:is([data-theme={mode}], :not([data-theme]))")
            for width in widths:
                tab.set_viewport_size({"width": width, "height": HEIGHT})
                place = f"{page}, {mode}, {width} wide"
                faults += [f"{place}: picture: {picture}" for picture in tab.evaluate(PICTURES)]
                faults += [f"{place}: cut off: {text}" for text in tab.evaluate(CUT_OFF)]
                if tab.evaluate(TOO_WIDE) > 0:
                    faults.append(f"{place}: {tab.evaluate(TOO_WIDE)} pixels too wide")
    assert faults == []


@pytest.mark.parametrize("words", SEARCHES)
def test_search_finds(open_tab, address, words):
    faults = []
    tab = open_tab(faults)
    tab.goto(f"{address}search.html?q={words.replace(' ', '+')}")
    tab.wait_for_selector("#search-results .search-summary:not(:empty)")
    tab.wait_for_selector("#search-results li a")
    found = tab.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any(SEARCHES[words] in link for link in found), found
    assert faults == []


@pytest.mark.parametrize("page", ["mlpclassifier", "skorch", "keras"])
def test_the_search_knows_every_old_name(page):
    index = (SITE / "searchindex.js").read_text()
    index = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    number = index["docnames"].index(f"guide/coming_from_{page}")
    source = SITE.parents[1] / "docs" / "guide" / f"coming_from_{page}.md"
    cells = [row.split("|")[1] for row in source.read_text().splitlines() if row[:3] == "| `"]
    codes = " ".join(code for cell in cells for code in re.findall("`(.+?)`", cell))
    names = set(re.findall(r"[a-zA-Z_]\w{2,}", codes))
    stem = SearchEnglish({}).stem

    def is_found(name):
        documents = index["terms"].get(stem(name.lower()), [])
        return number == documents or (isinstance(documents, list) and number in documents)

    assert names
    assert [name for name in sorted(names) if not is_found(name)] == []
