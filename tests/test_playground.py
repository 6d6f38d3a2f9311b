"""The playground trains the network that its Python lines train, and works in a browser."""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from skorch.callbacks import Callback

from skdisk import MLPDiskClassifier

PLAYGROUND = Path(__file__).parent.parent / "playground"
NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")
# The names that the parameters have in the address, and what the lines do not say otherwise.
PARAMS = {
    "hidden": ("hidden_layer_sizes", lambda text: tuple(map(int, re.findall(r"\d+", text)))),
    "lr": ("lr", float),
    "momentum": ("momentum", float),
    "batch": ("batch_size", int),
    "epochs": ("max_epochs", int),
    "seed": ("random_state", int),
}
COMMON = {"weight_decay": 0, "lr_schedule": "constant"}


def run_in_node(program, *arguments):
    """Run JavaScript behind that of the network; return what it prints, which is JSON."""
    result = subprocess.run(
        [NODE, "--input-type=module", "-", *arguments],
        input=(PLAYGROUND / "network.js").read_text() + program,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


TRAIN = """
for (const hash of process.argv.slice(2)) {
  const training = new Training(readSetting(hash));
  const begin = {
    X: [...training.data.X],
    y: [...training.data.y],
    weights: training.network.layers.flatMap(({ nOut, weights, biases }) => [
      // PyTorch has a row for each unit, the page a row for each input.
      ...[...biases.keys()].flatMap((j) => [...weights.filter((_, k) => k % nOut === j)]),
      ...biases,
    ]),
  };
  const orders = [];
  while (!training.isOver) {
    if (training.start === 0) orders.push([...training.order]);
    training.step();
  }
  const fresh = evaluate(training.network, training.fresh).accuracy;
  const loss = training.losses.at(-1);
  const { losses, setting } = training;
  const code = writePython(setting, { loss, fresh });
  const result = { ...begin, orders, losses, fresh, code, setting };
  console.log(JSON.stringify(result));
}
"""

READ_AND_WRITE = """
for (const hash of process.argv.slice(2)) {
  console.log(JSON.stringify(writeSetting(readSetting(hash))));
}
"""


def run_python(code):
    """Run the lines that the page shows; return what they name."""
    names = {}
    exec(code, names)
    return names


class Record(Callback):
    """Keep the weights before training, and the rows in the order in which they are seen."""

    def on_train_begin(self, net, **kwargs):
        self.weights_ = [x for p in net.module_.parameters() for x in p.detach().ravel().tolist()]
        self.rows_ = []

    def on_batch_begin(self, net, batch, **kwargs):
        self.rows_ += batch[0].tolist()


@needs_node
@pytest.mark.parametrize("data", ["disk", "gap", "noise"])
def test_points_weights_and_orders_are_those_of_python(data):
    [page] = run_in_node(TRAIN, f"hidden=8-8&points=1000&epochs=10&seed=3&data={data}")
    names, record = run_python(page["code"]), Record()
    X, y = names["X"].astype(np.float32), names["y"]
    assert np.array_equal(np.reshape(page["X"], (-1, 2)), X)
    assert page["y"] == y.tolist()
    names["clf"].set_params(max_epochs=2, callbacks=[record]).fit(X, y)
    # Some CPUs round a product once more.
    assert page["weights"] == pytest.approx(record.weights_, abs=1e-7)
    assert np.array_equal(X[page["orders"][0] + page["orders"][1]], record.rows_)


@needs_node
@pytest.mark.parametrize(
    "address",
    [
        "",
        "lr=0.01&momentum=0.9",
        "hidden=8-8&lr=0.04&momentum=0.5&data=noise",
        "hidden=3&momentum=0.9&seed=2&data=gap",
        "hidden=none&points=1000&batch=8",
    ],
)
def test_forty_epochs_have_the_losses_of_python(address):
    [page] = run_in_node(TRAIN, f"{address}&epochs=40")
    names = run_python(page["code"])
    clf = names["clf"]
    assert len(page["losses"]) == 40
    assert page["losses"] == pytest.approx(clf.loss_curve_, abs=1e-5)
    assert page["fresh"] == pytest.approx(clf.score(*names["fresh"]), abs=1e-3)


LIST_ADDRESSES = """
for (const [name, values] of Object.entries(OPTIONS)) {
  for (const value of values) {
    const setting = { ...readSetting("hidden=8-8&points=100&epochs=10"), [name]: value };
    console.log(JSON.stringify(writeSetting(setting)));
  }
}
"""


@needs_node
def test_the_lines_of_each_setting_run_and_have_its_parameters():
    addresses = run_in_node(LIST_ADDRESSES)
    pages = run_in_node(TRAIN, *addresses)
    assert len(pages) > 30
    for address, page in zip(addresses, pages, strict=True):
        setting = page["setting"]
        assert dict(parse_qsl(address)).items() <= setting.items(), "the address is read back"
        names = run_python(page["code"])
        clf = names["clf"]
        expected = {param: read(setting[name]) for name, (param, read) in PARAMS.items()} | COMMON
        for name, value in MLPDiskClassifier().get_params().items():
            assert clf.get_params()[name] == expected.get(name, value), (address, name)
        assert len(page["y"]) == len(names["y"])
        assert page["losses"][0] == pytest.approx(clf.loss_curve_[0], abs=1e-5), address
        losses = re.findall(r"loss_curve_\[-1\]  # (\S+) here", page["code"])
        assert [float(loss) for loss in losses] == [round(page["losses"][-1], 4)]


@needs_node
def test_an_address_with_unknown_values_is_the_first_setting():
    program = "console.log(JSON.stringify(writeSetting(readSetting('#lr=7&hidden=<b>&else=1'))));"
    assert run_in_node(program) == [""]


@needs_node
def test_more_epochs_go_on_as_if_they_had_been_asked_for_at_once():
    program = """
const [piecewise, whole] = ["10", "40"].map((epochs) => {
  return new Training({ ...readSetting("hidden=8-8&points=100"), epochs });
});
while (!piecewise.isOver) piecewise.step();
piecewise.goOn("40");
for (const training of [piecewise, whole]) while (!training.isOver) training.step();
console.log(JSON.stringify([piecewise.losses, whole.losses]));
"""
    [[piecewise, whole]] = run_in_node(program)
    assert len(whole) == 40
    assert piecewise == whole


@needs_node
def test_a_training_that_diverges_goes_back_to_the_last_whole_epoch():
    program = """
const training = new Training({ ...readSetting("hidden=8-8&points=100"), lr: "1e30" });
const before = [...training.network.layers[0].weights];
while (!training.isOver) training.step();
const [layer] = training.network.layers;
console.log(JSON.stringify([training.hasDiverged, training.losses, before, [...layer.weights]]));
"""
    [[has_diverged, losses, before, after]] = run_in_node(program)
    assert has_diverged
    assert losses == []
    assert before == after


@needs_node
def test_the_answers_on_the_page_are_right():
    text = " ".join((PLAYGROUND / "index.html").read_text().split())
    links = dict.fromkeys(html.unescape(link) for link in re.findall(r'href="#([^"]*)"', text))
    program = """
for (const hash of process.argv.slice(2)) {
  const setting = readSetting(hash);
  console.log(JSON.stringify([writeSetting(setting), writePython(setting)]));
}
"""
    loss, right, fresh_right, last = {}, {}, {}, {}
    # The lines train what the page trains, and faster.
    for link, (address, code) in zip(["", *links], run_in_node(program, "", *links), strict=True):
        assert dict(parse_qsl(link)) == dict(parse_qsl(address)), "all values are known"
        names = run_python(code)
        loss[link] = names["clf"].loss_curve_
        right[link] = names["clf"].score(names["X"], names["y"])
        fresh_right[link] = names["clf"].score(*names["fresh"])
        if names["clf"].hidden_layer_sizes:
            last[link] = names["clf"].hidden_activations(names["X"])
    three, lost = "hidden=3&momentum=0.9&seed=2", "hidden=3&momentum=0.9&seed=3"
    assert f"Six corners, and {100 * right[three]:.0f} % are right" in text
    assert f"ends at {100 * right[lost]:.0f} %" in text
    assert loss["hidden=none"][-1] == pytest.approx(np.log(2), abs=0.01)
    assert loss["lr=0.001&epochs=300"][-1] == pytest.approx(loss[""][29], abs=0.01)
    assert loss["lr=0.001&momentum=0.9&epochs=300"][29] == pytest.approx(loss[""][29], abs=0.01)
    assert loss["lr=10"][-1] > np.log(2)
    assert not last["lr=10"].any()
    assert fresh_right["data=noise"] > right["data=noise"]
    [few] = [link for link in links if "points=100&" in link]
    assert fresh_right[few] < right[few]
    gap = "hidden=8-8&momentum=0.9&data=gap"
    assert fresh_right[gap] < 0.97 < right[gap] == 1


@needs_node
def test_the_pages_of_the_lesson_lead_to_settings_that_there_are():
    pages = (PLAYGROUND.parent / "docs" / "lesson").glob("*.rst")
    links = [
        address
        for page in pages
        for address in re.findall(r"playground/index\.html#([^>]*)>`", page.read_text())
    ]
    assert len(links) >= 3
    assert run_in_node(READ_AND_WRITE, *links) == links


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files, and write no log."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    """Serve the playground as static files."""
    handler = functools.partial(QuietHandler, directory=PLAYGROUND)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    """Start Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to open the page in")
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which a container's root does not have.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=str)
def page(request, browser, address):
    """Open the playground; at the end, nothing went wrong and nothing was asked of others."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, base_url=address
    )
    page, faults, requests = context.new_page(), [], []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto("index.html")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert faults == []
    assert len(requests) >= 4
    assert [url for url in requests if not url.startswith((address, "data:"))] == []
    context.close()


def test_a_press_on_train_finds_the_disk(page):
    page.get_by_role("button", name="Train").click()
    is_right = "parseFloat(document.querySelector('#pg-fresh-right').textContent) >= 97"
    page.wait_for_function(is_right, timeout=30_000)
    page.get_by_role("button", name="Pause").click()
    assert "Paused" in page.get_by_role("status").inner_text()


def test_the_page_works_from_a_file_on_a_disk(browser):
    page = browser.new_page()
    page.goto((PLAYGROUND / "index.html").as_uri())
    page.get_by_role("button", name="One step").click()
    assert "Epoch 0 of 100, 1 step" in page.inner_text("#pg-count")
    page.close()


def test_the_keyboard_does_what_the_mouse_does(page):
    page.get_by_role("button", name="One step").press("Enter")
    assert "Epoch 0 of 100, 1 step" in page.inner_text("#pg-count")
    assert "32 large points" in page.get_by_role("status").inner_text()
    assert "before the step" in page.inner_text("#pg-formula")
    chosen = page.get_by_role("radio", checked=True)
    number = int(chosen.input_value())
    chosen.press("ArrowRight")
    assert f"weight[{number + 1}]" in page.inner_text("#pg-formula")
    before = page.inner_text("#pg-point")
    page.get_by_role("slider").first.press("ArrowLeft")
    assert page.inner_text("#pg-point") != before


def test_a_setting_stands_in_the_address_and_in_the_lines(page, address):
    page.get_by_label("Hidden layers").select_option("3")
    page.get_by_label("Learning rate").select_option("0.1")
    assert page.url == f"{address}index.html#hidden=3&lr=0.1"
    page.get_by_text("How far do three units get?").click()
    page.get_by_role("link", name="other weights").click()
    train = page.get_by_role("button", name="Train")
    train.and_(page.locator(":focus")).wait_for()
    assert page.get_by_label("Random state").input_value() == "3"
    page.goto("index.html#hidden=8-8&points=100&epochs=40")
    assert page.get_by_label("Points").input_value() == "100"
    train.click()
    page.wait_for_function("document.querySelector('#pg-train').disabled")
    names = run_python(page.inner_text("#pg-python"))
    clf = names["clf"]
    assert clf.hidden_layer_sizes == (8, 8)
    [loss] = re.findall(r"loss_curve_\[-1\]  # (\S+) here", page.inner_text("#pg-python"))
    assert float(loss) == pytest.approx(clf.loss_curve_[-1], abs=1e-4)
    accuracy = float(page.inner_text("#pg-fresh-right").split()[0])
    assert accuracy == pytest.approx(100 * clf.score(*names["fresh"]), abs=0.15)
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").or_(page.get_by_text("are selected")).wait_for()
