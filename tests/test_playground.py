"""The playground trains the network that its Python lines train, and works in a browser."""

import functools
import http.server
import json
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

needs_node = pytest.mark.skipif(NODE is None, reason="JavaScript is run by node; there is none")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open pages in")


def run_in_node(program, *arguments):
    """Run JavaScript behind that of the network; return what it passes to `print`, as JSON."""
    begin = "const print = (value) => process.stdout.write(JSON.stringify(value) + '\\n');\n"
    result = subprocess.run(
        [NODE, "--input-type=module", "-", *arguments],
        input=(PLAYGROUND / "network.js").read_text() + begin + program,
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
    weights: training.network.parameters.flatMap(({ values }) => [...values]),
  };
  const orders = [];
  while (!training.isOver) {
    if (training.start === 0) orders.push([...training.order]);
    training.step();
  }
  const fresh = evaluate(training.network, training.fresh).accuracy;
  const loss = training.losses.at(-1);
  const { losses, hasDiverged, setting } = training;
  const code = writePython(setting, { loss, fresh });
  print({ ...begin, orders, losses, hasDiverged, fresh, code, setting });
}
"""


def run_python(code):
    """Run the lines that the page shows; return the classifier and the fresh points."""
    names = {}
    exec(code, names)
    return names["clf"], names["fresh"]


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
    code, record = page["code"], Record()
    clf, _ = run_python(code.replace("seed=3", "").replace("max_epochs=10", "max_epochs=2"))
    names = {}
    exec(code.split("clf = ")[0], names)
    X, y = names["X"].astype(np.float32), names["y"]
    assert np.array_equal(np.reshape(page["X"], (-1, 2)), X)
    assert page["y"] == y.tolist()
    clf.set_params(callbacks=[record]).fit(X, y)
    assert page["weights"] == record.weights_
    assert np.array_equal(X[page["orders"][0] + page["orders"][1]], record.rows_)


@needs_node
@pytest.mark.parametrize(
    "hash_",
    [
        "lr=0.04",
        "lr=0.01&momentum=0.9",
        "hidden=8-8&lr=0.04&momentum=0.5&data=noise",
        "hidden=3&data=gap",
        "hidden=none&points=1000&batch=8",
    ],
)
def test_forty_epochs_have_the_losses_of_python(hash_):
    [page] = run_in_node(TRAIN, f"{hash_}&epochs=40")
    clf, fresh = run_python(page["code"])
    assert len(page["losses"]) == 40
    assert page["losses"] == pytest.approx(clf.loss_curve_, abs=1e-5)
    assert page["fresh"] == pytest.approx(clf.score(*fresh), abs=1e-3)
