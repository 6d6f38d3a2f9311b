"""The table and the picture of `run.py`: from the rows that were measured. Nothing is measured."""

import re

import numpy as np

# The one colour of each contender in all pictures, whatever its variant; told apart by the
# colour-blind, too.
COLORS = {
    "skdisk": "#d55e00",
    "MLPDiskEnsemble()": "#0072b2",
    "MLPClassifier": "black",
    "skorch": "#009e73",
    "pre-sliced loop": "#56b4e9",
    "DataLoader loop": "#cc79a7",
    "JAX": "#b39b00",
}
MARKERS = dict(zip(COLORS, "osD^vPX", strict=True))
GROWTH = {
    "rows": "rows",
    "features": "features",
    "hidden": "units of each of the two layers",
    "batch": "rows of a batch",
}


def find_look(contender):
    """Find colour and marker of a contender, by its name before the first comma."""
    name = contender.split(",")[0]
    return {"color": COLORS[name], "marker": MARKERS[name], "markersize": 5, "capsize": 3}


def write_table(title, words, machine, rows, path):
    """Write the results as a Markdown table below a title and what is to be known of them."""
    lines = [f"# {title}", "", ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += [*words, ""]
    lines += ["| case | contender | median | quartiles | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['case']} | {row['contender']} | {row['median']:.3g} | "
            f"{low:.3g} to {high:.3g} | {row['ratio']:.2f} |"
        )
    path.write_text("\n".join(lines) + "\n")


def draw(rows, path):
    """Draw the lesson's fit, a search, predictions, and each way in which a problem grows.

    Return the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.5), layout="constrained")
    above, below = figure.subfigures(2, 1)
    lesson, search, prediction = above.subplots(1, 3)
    draw_names(lesson, rows, "a. lesson, s/step", 1e6)
    lesson.set(title="The lesson's fit", xlabel="µs a training step")
    draw_names(search, rows, "f. search, 12 candidates x 5 folds, s/epoch", 1e3)
    search.set(title="A search: 12 candidates x 5 folds", xlabel="ms an epoch of all 60 fits")
    lines = draw_lines(prediction, rows, r"c\. predict_proba of ([\d,]+) rows, s", 1e3)
    prediction.set(title="Probabilities: predict_proba", xlabel="rows", ylabel="ms a call")
    axes = below.subplots(1, len(GROWTH), sharey=True)
    for ax, (name, label) in zip(axes, GROWTH.items(), strict=True):
        lines |= draw_lines(ax, rows, rf"b\. {name} ([\d,]+), s/row", 1e6)
        ax.set_xlabel(label)
    axes[0].set_ylabel("µs a row and epoch")
    below.suptitle("Growing problems, one way at a time from 10,000 x 20, 64-64, batch 128")
    title = "median of the repeats; a bar reaches to the quartiles, unless the marker hides it"
    finish(figure, lines, title, path)
    return figure


def finish(figure, lines, title, path):
    """Put one legend below all panels, and save the picture."""
    figure.legend(
        lines.values(),
        lines,
        title=title,
        loc="outside lower center",
        ncols=len(lines),
        frameon=False,
    )
    figure.savefig(path, dpi=110)


def draw_names(ax, rows, case, scale):
    """Draw the contenders of a case, the fastest one first, each with its time and ratio."""
    rows = sorted((row for row in rows if row["case"] == case), key=lambda row: row["median"])
    for position, row in enumerate(rows):
        time, (low, high) = scale * row["median"], scale * np.array(row["quartiles"])
        look = find_look(row["contender"])
        ax.errorbar(time, position, xerr=[[time - low], [high - time]], **look)
        ax.annotate(
            f"{time:.3g} ({row['ratio']:.2g} x)",
            (high, position),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_yticks(range(len(rows)), [row["contender"] for row in rows])
    ax.invert_yaxis()
    times = [scale * row["median"] for row in rows]
    # To the right there is room for words.
    ax.set(xscale="log", xlim=(min(times) / 2, max(times) * (max(times) / min(times)) ** 0.6))
    ax.xaxis.set_major_formatter("{x:,.9g}")
    ax.grid(alpha=0.3)


def draw_lines(ax, rows, pattern, scale):
    """Draw cases that differ in a number, which a pattern finds; return the lines by name."""
    points = {}
    for row in rows:
        if found := re.fullmatch(pattern, row["case"]):
            number = int(found[1].replace(",", ""))
            times = scale * np.array([row["median"], *row["quartiles"]])
            points.setdefault(row["contender"], []).append((number, *times))
    lines = {}
    for name, of_name in points.items():
        x, median, low, high = np.transpose(of_name)
        spread = [median - low, high - median]
        lines[name] = ax.errorbar(x, median, yerr=spread, **find_look(name))
        ax.set(xscale="log", yscale="log", xticks=x)
    ax.minorticks_off()
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,.9g}")
    ax.grid(alpha=0.3)
    return lines
