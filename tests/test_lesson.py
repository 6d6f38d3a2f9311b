"""`python -m skdisk`: the lesson's run."""

import os
import re
import struct
import subprocess
import sys

import pytest

import skdisk
from skdisk.__main__ import main

LINE = re.compile(r" *(initial|trained|\d+)   +(\d+\.\d{3}) %")


def read_table(out):
    return [(m[1], float(m[2])) for m in map(LINE.fullmatch, out.splitlines()) if m]


def read_fresh_accuracy(out):
    return float(re.match(r"(.*) % on 10,000 fresh points, after .* s", out.splitlines()[-1])[1])


def test_the_default_run_reproduces_the_lesson(capsys, tmp_path):
    main(["--output", str(tmp_path / "disk.png")])
    out = capsys.readouterr().out
    table = read_table(out)
    epochs = [str(epoch) for epoch in range(0, 300, 10)]
    assert [label for label, _ in table] == ["initial", *epochs, "trained"]
    accuracy = dict(table)
    assert accuracy["initial"] == accuracy["0"] < 60
    assert 80 < accuracy["100"] < 95
    assert 97 < accuracy["290"] < 99
    assert 97 < read_fresh_accuracy(out) < 99
    png = (tmp_path / "disk.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width > height > 500
    assert len(png) < 150_000


SMALL = ["--n-samples", "100", "--epochs", "11", "--lr", "0.1", "--no-plot"]


def test_options_are_used(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = []
    for options in (
        [],
        ["--seed", "1"],
        ["--lr", "0.5"],
        ["--hidden", "8"],
        ["--hidden", ""],
        ["--batch-size", "7"],
        ["--device", "cpu"],
    ):
        main(SMALL + options)
        outputs.append(capsys.readouterr().out)
        assert [label for label, _ in read_table(outputs[-1])] == ["initial", "0", "10", "trained"]
    results = [(*read_table(out), read_fresh_accuracy(out)) for out in outputs]
    assert results[-1] == results[0]
    assert len(set(results)) == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--epochs", "0"], "'max_epochs' parameter .* Got 0"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--n-samples", "-5"], "'n_samples' parameter .* Got -5"),
        (["--n-samples", "0"], "0 sample"),
        (["--n-samples", "1"], "all points are of one class, .* Take more points, or use --no-p"),
        (["--batch-size", "0"], "'batch_size' parameter .* Got 0"),
        (["--lr", "-1"], "'lr' parameter .* Got -1"),
        (["--hidden", "64,x"], "argument --hidden: invalid comma-separated list of ints"),
        (["--hidden", "64,0"], r"hidden_layer_sizes must be .* Got \(64, 0\)"),
        (["--seed", "-1"], "'random_state' parameter .* Got -1"),
        (["--device", "abacus"], "'abacus' is not available. On this machine there are: cpu"),
        (["--output", "no/such/folder/disk.png"], "there is no folder 'no/such/folder'"),
        (["--output", "x.xyz"], "'x.xyz' cannot be written: Format 'xyz' is not supported .*png"),
        (["--output", "x"], "'x' cannot be written: Format '' is not supported"),
        (["--output", "."], "'.' cannot be written: .* directory"),
        (["--output", "/dev/null/x.png"], "there is no folder '/dev/null'"),
        (["--output", "/proc/x.png"], "'/proc/x.png' cannot be written"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
    ids=" ".join,
)
def test_a_bad_value_is_one_line_and_status_2(capsys, tmp_path, monkeypatch, options, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(options)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(match, err)


def test_the_largest_seed_has_another_one_for_the_fresh_points(capsys):
    options = ["--seed", str(2**32 - 1), "--epochs", "1", "--n-samples", "100", "--no-plot"]
    main(options)
    assert "% on 10,000 fresh points" in capsys.readouterr().out


def test_help_says_what_each_option_does(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for option in (
        *("--n-samples", "--epochs", "--batch-size", "--lr", "--hidden", "--seed"),
        *("--device", "--output", "--no-plot", "--version"),
    ):
        assert re.search(rf"^  {option}\b.*\w+", out, re.MULTILINE)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"skdisk {skdisk.__version__}\n"


def test_an_earlier_picture_stays_until_the_new_one_is_drawn(tmp_path, capsys):
    path = tmp_path / "disk.svg"
    path.write_text("the earlier one")
    with pytest.raises(SystemExit):
        main(["--output", str(path), "--lr", "-1"])
    assert path.read_text() == "the earlier one"
    main(["--output", str(path), *SMALL[:6]])
    assert "</svg>" in path.read_text()


def test_accuracy_and_loss_have_axes_of_their_own(monkeypatch, tmp_path, capsys):
    figures = []
    monkeypatch.setattr("matplotlib.pyplot.close", figures.append)
    main(["--output", str(tmp_path / "disk.png"), *SMALL[:6]])
    *_, figure = figures
    axes = {ax.get_ylabel(): ax for ax in figure.axes}
    assert len(axes) == 4
    boxes = [ax.get_position().frozen() for ax in axes.values()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    training, fresh = axes["accuracy (%)"].get_lines()
    out = capsys.readouterr().out
    table = [accuracy for label, accuracy in read_table(out) if label != "initial"]
    assert training.get_ydata() == pytest.approx(table, abs=1e-3)
    assert fresh.get_ydata()[-1] == pytest.approx(read_fresh_accuracy(out), abs=0.01)
    assert [*training.get_xdata()] == [*fresh.get_xdata()] == [0, 10, 11]
    [loss] = axes["mean loss (nats)"].get_lines()
    assert [*loss.get_xdata()] == [*range(1, 12)]


def test_it_runs_as_a_module(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "skdisk", *SMALL[:6], "--output", "small.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "small.png").exists()


def test_without_matplotlib_it_says_so_before_training(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(SystemExit):
        main([])
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install 'skdisk[plot]', or use --no-plot" in err
