"""The page of `tuning.py`: from the rows that were measured to Markdown. Nothing is measured.

A row is the scores of a candidate on a table, one for each split: those of five folds, twice.
"""

import numpy as np
from accuracy_page import make_grid, make_table, select, tell_difference

DEFAULTS = "defaults"
# The part of the rows whose candidates were drawn; the others are named after a parameter.
SEARCH = "search"
N_FOLDS = 5
# Of so many drawn candidates the best is looked for.
N_CANDIDATES = (5, 10, 20, 40)


def list_parameters(rows):
    """List the parameters that were tried one by one."""
    return [part for part in dict.fromkeys(row["part"] for row in rows) if part != SEARCH]


def list_candidates(rows):
    """List the candidates of a part, the defaults first."""
    return list(dict.fromkeys(row["classifier"] for row in rows))


def choose_and_score(rows, names, chosen_by="log_loss"):
    """Choose, table by table, the candidate of the lowest loss, and score it on other folds.

    Return by how much it is above the defaults: accuracies and log losses, one for each table.
    """
    differences = []
    for table in dict.fromkeys(row["data"] for row in rows):
        of_table = {row["classifier"]: row for row in rows if row["data"] == table}
        best = min(names, key=lambda name: np.mean(of_table[name][chosen_by][:N_FOLDS]))
        differences.append(
            [
                np.mean(of_table[best][metric][N_FOLDS:])
                - np.mean(of_table[DEFAULTS][metric][N_FOLDS:])
                for metric in ("accuracy", "log_loss")
            ]
        )
    return np.transpose(differences)


def compare(rows):
    """Compare each value of a parameter with the defaults: name, points, nats, seconds."""
    grids = [make_grid(rows, metric) for metric in ("accuracy", "log_loss", "seconds")]
    tables = list(grids[0][DEFAULTS])
    points, nats, seconds = (
        {name: np.array([grid[name][table] for table in tables]) for name in grid}
        for grid in grids
    )
    return [
        (
            name,
            points[name] - points[DEFAULTS],
            nats[name] - nats[DEFAULTS],
            float(np.mean(seconds[name]) / np.mean(seconds[DEFAULTS])),
        )
        for name in points
        if name != DEFAULTS
    ]


def tell_mean(values, digits):
    """Write a mean and its standard error."""
    return tell_difference(values, np.zeros(len(values)), digits)


def make_values_table(rows):
    """Write a table of the values of a parameter beside the defaults."""
    body = [
        [f"`{name}`", tell_mean(points, 2), tell_mean(nats, 3), f"{ratio:.1f}"]
        for name, points, nats, ratio in compare(rows)
    ]
    return make_table(["setting", "accuracy", "log loss", "time"], body)


def make_gains_table(rows):
    """Write what choosing gives, by parameter and by the number of drawn candidates."""
    body = []
    for parameter in list_parameters(rows):
        of_parameter = select(rows, parameter)
        names = list_candidates(of_parameter)
        points, nats = choose_and_score(of_parameter, names)
        body.append((f"`{parameter}` alone", len(names), points, nats))
    drawn = select(rows, SEARCH)
    names = list_candidates(drawn)
    for n in N_CANDIDATES:
        points, nats = choose_and_score(drawn, names[: n + 1])
        body.append(("random search", len(names[: n + 1]), points, nats))
    cells = [[a, str(n), tell_mean(p, 2), tell_mean(q, 3)] for a, n, p, q in body]
    return make_table(["what is chosen", "candidates", "accuracy", "log loss"], cells)


def write_page(machine, defaults, rows, path):
    """Write what was measured as Markdown."""
    n_tables = len({row["data"] for row in rows})
    lines = [
        *("# Parameters, one by one", ""),
        ", ".join(f"{key} {value}" for key, value in machine.items()),
        "",
        f"On the {n_tables} tables of [accuracy](accuracy.md), prepared as there. Each number is",
        "a mean over the tables of the difference from the defaults on the same folds; behind ±",
        "stands its standard error over the tables. Accuracy is in points (more is better), log",
        "loss in nats (less is better), time the ratio of the seconds of CPU of all fits.",
        "",
        "## What choosing gives",
        "",
        "Of each table the candidate with the lowest log loss on five folds, the defaults among",
        "them, scored on five other folds of the same rows. Because the rows are the same, the",
        "gains are a little flattered.",
        *make_gains_table(rows),
    ]
    for parameter in list_parameters(rows):
        lines += [
            *(f"## `{parameter}`", "", f"Beside the default, {defaults[parameter]!r}."),
            *make_values_table(select(rows, parameter)),
        ]
    path.write_text("\n".join(lines).rstrip() + "\n")
