"""What the pages of the guide show of what was measured.

`compute()` makes the texts that stand as `{{ name }}` in the pages, from the files of
`benchmarks/results`, so that no figure is written by hand; `draw()` makes the pictures.
"""

import json
from pathlib import Path

import bench_page
import numpy as np
import tuning_page
from accuracy_page import (
    BASE,
    DEFAULTS,
    ENSEMBLE,
    FEW,
    average,
    group_by_n_rows,
    make_grid,
    select,
)
from accuracy_page import make_table as make_lines
from wings import draw_wings

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
GENERATED = HERE / "guide" / "generated"

BEST_OF_50, TREES = "skdisk, best epoch of 50", "HistGradientBoosting"
LOGISTIC = "LogisticRegression"
# The setting by which tables are told apart, and the change of log loss that counts.
MORE_DECAY, CHANGE = "weight_decay=0.03", 0.02
# 3,000 rows in batches of 32.
N_STEPS_OF_LESSON = 94
MONTHS = "January February March April May June July August September October November December"


def read(name):
    """Read the machine and the rows of a file of results."""
    results = json.loads((RESULTS / f"{name}.json").read_text())
    return results["machine"], results["rows"]


def make_table(head, body):
    """Write rows of cells as a Markdown table."""
    return "\n".join(make_lines(head, body))


def tell_month(machine):
    """Write the month of a measurement."""
    year, month, _ = machine["date"].split("-")
    return f"{MONTHS.split()[int(month) - 1]} {year}"


def tell_names(names):
    """List names of tables, in which there may be commas."""
    return ", ".join(f"*{name}*" for name in names)


def compute():
    """Compute the text of each name."""
    return (
        compute_accuracy() | compute_tuning() | compute_speed() | compute_memory() | compute_gpu()
    )


# ------------------------------------------------------------------------------------ accuracy


def compute_accuracy():
    """Compute what is said of accuracy and log loss: as it comes, and with few rows."""
    machine, rows = read("accuracy")
    defaults, rates = select(rows, "defaults"), select(rows, "rates")
    accuracy, loss, seconds = (average(defaults, m) for m in ("accuracy", "log_loss", "seconds"))
    names = (DEFAULTS, ENSEMBLE, BEST_OF_50, BASE, LOGISTIC, TREES)
    texts = {
        "accuracy_date": tell_month(machine),
        "n_tables": str(len({row["data"] for row in defaults})),
        "accuracy_table": make_table(
            ["as it comes", "accuracy in %", "log loss", "seconds of a fit"],
            [
                [name, f"{accuracy[name]:.2f}", f"{loss[name]:.3f}", f"{seconds[name]:.3f}"]
                for name in names
            ],
        ),
        "time_of_mlp": f"{seconds[BASE] / seconds[DEFAULTS]:.0f}",
        "time_of_trees": f"{seconds[TREES] / seconds[DEFAULTS]:.0f}",
        "time_of_ensemble": f"{seconds[ENSEMBLE] / seconds[DEFAULTS]:.0f}",
        "adam_table": make_adam_table(rates),
        "few_table": make_few_table(select(rows, "defaults, few rows")),
        "trees_table": make_trees_table(defaults),
        "logistic_tables": tell_names(list_tables_of_logistic(defaults)),
    }
    for key, name in zip(("defaults", "ensemble", "best", "mlp"), names[:4], strict=True):
        texts |= {f"accuracy_{key}": f"{accuracy[name]:.2f}", f"loss_{key}": f"{loss[name]:.3f}"}
    return texts


def make_adam_table(rows):
    """Write accuracy and log loss of the learning rates of Adam."""
    accuracy, loss = (average(rows, metric) for metric in ("accuracy", "log_loss"))
    names = [name for name in accuracy if name.startswith("adam,")]
    body = [
        [f"`{name.split(', ')[1]}`", f"{accuracy[name]:.2f}", f"{loss[name]:.3f}"]
        for name in names
    ]
    return make_table(['with `optimizer="adam"`', "accuracy in %", "log loss"], body)


def make_few_table(rows):
    """Write the accuracy by the number of rows to train on, over all tables of few."""
    groups = group_by_n_rows(rows, [name for names in FEW.values() for name in names])
    means = [average(group, "accuracy") for group in groups.values()]
    names = (DEFAULTS, ENSEMBLE, BEST_OF_50, BASE, LOGISTIC, TREES)
    body = [[name, *(f"{mean[name]:.1f}" for mean in means)] for name in names]
    return make_table(["trained on", *(f"{n} rows" for n in groups)], body)


def make_trees_table(rows):
    """Write the tables on which trees are furthest above and below the network."""
    accuracy, loss = (make_grid(rows, metric) for metric in ("accuracy", "log_loss"))
    above = {name: accuracy[TREES][name] - accuracy[DEFAULTS][name] for name in accuracy[TREES]}
    ordered = sorted(above, key=above.get, reverse=True)
    body = []
    for name in [*ordered[:4], *ordered[-4:]]:
        cells = [f"{accuracy[clf][name]:.1f}" for clf in (TREES, DEFAULTS)]
        cells += [f"{loss[clf][name]:.2f}" for clf in (TREES, DEFAULTS)]
        body.append([name, *cells])
    head = ["table", "accuracy: boosting", "skdisk", "log loss: boosting", "skdisk"]
    return make_table(head, body)


def list_tables_of_logistic(rows):
    """List the tables on which logistic regression is as good as the network, by both scores."""
    accuracy, loss = (make_grid(rows, metric) for metric in ("accuracy", "log_loss"))
    return [
        name
        for name in accuracy[LOGISTIC]
        if accuracy[LOGISTIC][name] >= accuracy[DEFAULTS][name]
        and loss[LOGISTIC][name] <= loss[DEFAULTS][name]
    ]


def compute_tuning():
    """Compute what is said of parameters."""
    machine, rows = read("tuning")
    gains = tuning_page.make_gains_table(rows)
    texts = {"tuning_date": tell_month(machine), "gains_table": "\n".join(gains)}
    for parameter in tuning_page.list_parameters(rows):
        table = tuning_page.make_values_table(select(rows, parameter))
        texts[f"{parameter}_table"] = "\n".join(table)
    loss = make_grid(select(rows, "weight_decay"), "log_loss")
    change = {name: loss[MORE_DECAY][name] - loss["defaults"][name] for name in loss[MORE_DECAY]}
    return texts | {
        "decay_change": str(CHANGE),
        "decay_helps": tell_names(name for name in change if change[name] < -CHANGE),
        "decay_hurts": tell_names(name for name in change if change[name] > CHANGE),
    }


# --------------------------------------------------------------------------------------- speed


class Cases:
    """The rows of the benchmarks by case and contender."""

    def __init__(self, rows):
        self.rows = {(row["case"], row["contender"]): row for row in rows}

    def list_contenders(self, case):
        """List who was measured in a case."""
        return [contender for found, contender in self.rows if found == case]

    def tell(self, case, contender, scale=1.0, digits=3):
        """Write a median, in a unit of so many to the one of the file."""
        return write(scale * self.rows[case, contender]["median"], digits)

    def tell_ratio(self, case, contender):
        """Write how many times as long, or as large, as skdisk's own."""
        return write(self.rows[case, contender]["ratio"], 2)


def write(number, digits):
    """Write a number with so many significant digits, and no exponent."""
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(number)))))
    return f"{number:,.{places}f}"


def compute_speed():
    """Compute what is said of time and memory."""
    machine, rows = read("bench")
    cases = Cases(rows)
    lesson, cold = "a. lesson, s/step", "d. cold start and 10 epochs, s"
    search = "f. search, 12 candidates x 5 folds, s/epoch"
    memory = "b. memory that a fit of 1,000,000 x 20 adds, MB"
    return {
        "speed_date": tell_month(machine),
        "speed_machine": f"{machine['processor']}, {machine['cpu_capability']}",
        "step": cases.tell(lesson, "skdisk", 1e6, 2),
        "step_unfused": cases.tell_ratio(lesson, "skdisk, fused=False"),
        "short_fit": cases.tell("a. fit of one epoch of 100 rows, s", "skdisk", 1e3, 2),
        "wide_loop": cases.tell_ratio("b. hidden 1,024, s/row", "pre-sliced loop"),
        "batch_loop": cases.tell_ratio("b. batch 4,096, s/row", "pre-sliced loop"),
        "one_row": cases.tell("c. predict_proba of 1 rows, s", "skdisk", 1e6, 2),
        "cold_start": cases.tell(cold, "skdisk", 1, 2),
        "cold_memory": cases.tell("d. peak memory, MB", "skdisk", 1, 2),
        "search_speed_up": cases.tell_ratio(search, "skdisk, one thread"),
        "step_table": make_case_table(cases, lesson, "µs a step", 1e6),
        "search_table": make_case_table(cases, search, "ms an epoch of all 60", 1e3),
        "memory_table": make_case_table(cases, memory, "MB"),
        "prediction_table": make_prediction_table(cases),
        "options_table": make_case_table(cases, "e. options, s/epoch", "ms an epoch", 1e3),
        "many_table": make_many_table(cases),
        "growth_table": make_growth_table(cases),
    }


def compute_memory():
    """Compute what is said of the memory of searches and servers."""
    results = json.loads((RESULTS / "memory.json").read_text())
    n_workers, workers = results["n_workers"], results["workers"]
    searched = f"a search of 9 candidates on 100,000 x 50 rows ({results['data']:.0f} MB)"
    return {
        "search_memory_table": make_table(
            [searched, "memory that it adds, MB"],
            [[name, write(number, 2)] for name, number in results["search"].items()],
        ),
        "workers_table": make_table(
            [f"{n_workers} workers that have predicted", "memory of all, MB"],
            [[name, write(number, 2)] for name, number in workers.items()],
        ),
    }


def compute_gpu():
    """Compute what is said of a GPU."""
    machine, rows = read("gpu")
    cases = Cases(rows)
    lesson, wide = "fit, lesson, s/epoch", "fit, hidden 1,024, batch 1,024, s/epoch"
    names = ("skdisk", "skdisk, cuda", "pre-sliced loop, cuda")
    found = sorted({case: None for case, _ in cases.rows}, key=lambda case: case[0] != "f")
    body = [
        [
            case.rsplit(", s", 1)[0],
            *(cases.tell(case, name) if (case, name) in cases.rows else "" for name in names),
        ]
        for case in found
    ]
    head = ["seconds an epoch, or a call", "CPU", '`device="cuda"`', "hand-written loop, CUDA"]
    return {
        "gpu_machine": f"an {machine['gpu']} beside {machine['processor']}",
        "gpu_date": tell_month(machine),
        "gpu_table": make_table(head, body),
        "gpu_lesson": cases.tell_ratio(lesson, "skdisk, cuda"),
        "gpu_step": write(
            1e3 * cases.rows[lesson, "skdisk, cuda"]["median"] / N_STEPS_OF_LESSON, 2
        ),
        "gpu_wide": write(1 / cases.rows[wide, "skdisk, cuda"]["ratio"], 2),
    }


def make_case_table(cases, case, unit, scale=1.0):
    """Write a table of a case: contender, median and ratio, the fastest first."""
    contenders = cases.list_contenders(case)
    ordered = sorted(contenders, key=lambda name: cases.rows[case, name]["median"])
    body = [
        [name, cases.tell(case, name, scale), cases.tell_ratio(case, name)] for name in ordered
    ]
    return make_table(["", unit, "beside skdisk"], body)


def make_prediction_table(cases):
    """Write the times of predictions by the number of rows."""
    numbers = ("1", "1,000", "1,000,000")
    body = [
        [name, *(cases.tell(f"c. predict_proba of {n} rows, s", name, 1e3) for n in numbers)]
        for name in ("skdisk", "MLPClassifier", "skorch")
    ]
    return make_table(["ms of `predict_proba`", *(f"rows: {n}" for n in numbers)], body)


# How the table names the size of a problem, of each way in which it grows.
GROWTH = {
    "rows": "{} rows",
    "features": "{} features",
    "hidden": "{0}-{0} units",
    "batch": "batches of {}",
}


def make_growth_table(cases):
    """Write, of each way in which a problem grows, skdisk's time and the ratios of others."""
    body = []
    for name, label in GROWTH.items():
        found = [case for case, contender in cases.rows if case.startswith(f"b. {name} ")]
        for case in dict.fromkeys(found):
            number = case.removeprefix(f"b. {name} ").removesuffix(", s/row")
            ratios = [
                cases.tell_ratio(case, other)
                for other in ("pre-sliced loop", "MLPClassifier", "skorch")
            ]
            body.append([label.format(number), cases.tell(case, "skdisk", 1e6, 2), *ratios])
    head = ["", "skdisk, µs a row and epoch", "pre-sliced loop", "MLPClassifier", "skorch"]
    return make_table(head, body)


def make_many_table(cases):
    """Write the times of ten thousand networks."""
    columns = {
        "one thread": "skdisk",
        "two threads": "skdisk, two threads",
        "hand-written loop": "pre-sliced loop",
        "ParallelMLPs, authors' CPU": "ParallelMLPs, authors' CPU",
        "the same, authors' GPU": "ParallelMLPs, authors' GPU",
    }
    body = [
        [
            n,
            *(
                cases.tell(f"h. 10,000 networks, {n} rows, s/epoch", c, 1, 2)
                for c in columns.values()
            ),
        ]
        for n in ("100", "1,000", "10,000")
    ]
    return make_table(["rows", *columns], body)


# ------------------------------------------------------------------------------------ pictures


def draw():
    """Write all pictures of the guide into the folder `generated`."""
    import matplotlib

    matplotlib.use("Agg")
    from lesson.making import draw_both

    GENERATED.mkdir(exist_ok=True)
    _, rows = read("bench")
    draw_both(GENERATED, "growth", lambda look: draw_growth(rows, look))
    (GENERATED / "wings.svg").write_text(draw_wings())


def draw_growth(rows, look):
    """Draw the time of a row by each way in which a problem grows; return the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(7, 6.2), layout="constrained", sharey=True)
    lines = {}
    for ax, (name, label) in zip(axes.flat, bench_page.GROWTH.items(), strict=True):
        lines |= bench_page.draw_lines(ax, rows, rf"b\. {name} ([\d,]+), s/row", 1e6)
        ax.set_xlabel(label)
    for ax in axes[:, 0]:
        ax.set_ylabel("µs a row and epoch")
    for ax in axes.flat:
        for artist in ax.findobj(_is_black):
            artist.set_color(look["ink"])
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines))
    return figure


def _is_black(artist):
    get = getattr(artist, "get_color", None)
    return get is not None and isinstance(get(), str) and get() == "black"
