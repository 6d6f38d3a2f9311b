"""Write the list on the page of promises: each promise, the tests that hold it, their figures.

`PROMISES` is written by hand. Figures are those of the long runs, in `results/campaigns`, where
the fixture `campaign` of the tests puts them. A campaign that no promise here names is listed by
its own name, which is a sentence.
"""

import ast
import json
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
CAMPAIGNS = HERE / "results" / "campaigns"
# Pages beside this one that others write, where they are there.
RESULTS = ("coverage", "reproducibility")
# Of several parts of a test, the largest counts of these figures; others are added up.
MAXIMA = ("largest", "longest")

PROMISES = {
    "Calls": {
        "Bad input is refused with a ValueError or TypeError that names the argument.": [
            "test_bad_input.py::test_bad_X_is_refused",
            "test_bad_input.py::test_bad_y_is_refused",
            "test_bad_input.py::test_a_bad_parameter_is_refused",
            "test_fuzz.py::test_a_drawn_call_keeps_its_promise_or_is_refused_in_words",
        ],
        "After any operations, failed and interrupted ones among them, an estimator is what the "
        "successful ones make of a fresh one.": [
            "test_sequences.py::"
            "test_an_estimator_is_what_its_successful_operations_make_of_a_fresh_one",
        ],
        "A fit that fails changes nothing.": [
            "test_fit.py::test_a_failing_fit_leaves_an_unfitted_estimator_unfitted",
            "test_fit.py::test_a_failing_fit_leaves_an_earlier_fit_as_it_was",
            "test_interrupts.py::test_a_failed_fit_gives_back_what_it_was_lent",
        ],
        "No call changes what it is given.": ["test_data.py::test_the_input_is_not_changed"],
        "Ctrl-C, and what a handler of SIGTERM raises, is raised within a second; whole epochs "
        "are kept, and nothing is left behind.": [
            "test_interrupts.py::test_an_interrupted_fit_leaves_whole_epochs_or_nothing",
            "test_interrupts.py::test_other_interrupted_calls_leave_all_as_it_was",
            "test_signals.py::test_an_interrupted_fit_has_whole_epochs_and_can_be_repeated",
            "test_signals.py::"
            "test_an_interrupted_search_or_ensemble_is_as_before_and_can_be_repeated",
            "test_kernel.py::test_signals_are_answered_in_the_middle_of_an_epoch",
        ],
        "Threads get from estimators, own ones and shared ones, what one thread gets alone.": [
            "test_shared_estimators.py::"
            "test_threads_get_from_own_and_shared_estimators_what_one_gets",
            "test_shared_estimators.py::test_what_threads_fit_and_read_at_once_is_one_of_the_fits",
        ],
        "Children of every kind predict and fit as their parent does, before it and after it.": [
            "test_shared_estimators.py::"
            "test_children_of_every_kind_predict_and_fit_between_fits_of_their_parent",
            "test_shared_estimators.py::test_workers_that_are_forked_after_a_fit_share_it",
            "test_processes.py::test_a_forked_child_predicts_and_fits_as_its_parent",
        ],
        "scikit-learn's checks of estimators pass.": [
            "test_sklearn_checks.py::test_scikit_learn_check_passes",
            "test_ensemble.py::test_scikit_learn_check_passes",
        ],
    },
    "Numbers": {
        "The kernel computes what autograd computes.": [
            "test_kernel.py::test_parameters_and_losses_are_those_of_autograd",
            "test_fused.py::test_both_ways_give_the_same",
        ],
        "The compiled code reads and writes only what it was given, whatever it was given.": [
            "test_kernel_border.py::test_a_drawn_call_is_refused_in_words_or_keeps_its_promises",
            "test_kernel_border.py::"
            "test_libfuzzer_finds_no_call_of_the_arithmetic_that_breaks_a_promise",
        ],
        "Equal seeds give equal bits: in a second fit, in threads, in processes, in searches.": [
            "test_fit.py::test_the_same_random_state_gives_bitwise_equal_weights",
            "test_kernel_threads.py::test_many_threads_at_once_give_the_bits_of_one_alone",
            "test_searches.py::test_a_grid_search_trains_the_networks_of_fit",
            "test_searches.py::test_cross_validation_returns_the_networks_of_fit",
        ],
        "Equal seeds give equal bits whatever X is kept in.": [
            "test_data.py::test_every_container_of_X_gives_the_same_fit",
            "test_sparse.py::test_every_container_gives_the_fit_of_the_dense_rows",
        ],
        "They do wherever in memory the rows are, and after pickling, saving and loading.": [
            "test_reproducibility.py::test_what_the_table_promises_has_equal_bits",
            "test_reproducibility.py::"
            "test_another_process_in_other_surroundings_trains_the_same_networks",
        ],
        "Losses are those of float64 where float32 holds the numbers, by 1e-4 and the last bit of "
        "the largest score; where it does not, the training ends as one that has diverged.": [
            "test_extremes.py::test_losses_are_those_of_float64_where_float32_holds_the_numbers",
        ],
        "The global generators of NumPy and torch stay as they are.": [
            "test_fit.py::test_global_generators_are_bitwise_unchanged",
        ],
        "Probabilities are finite, and keep their digits where a network is nearly certain.": [
            "test_prediction.py::test_the_largest_rows_have_the_probabilities_of_float64",
            "test_prediction.py::test_log_probabilities_of_two_classes_keep_their_digits",
        ],
        "A weight that is a whole number is a number of repetitions.": [
            "test_weights.py::test_a_weight_is_a_number_of_repetitions",
        ],
    },
    "Load": {
        "A memory map of float32 is trained on and predicted without a copy.": [
            "test_load.py::test_a_memory_map_is_trained_on_and_predicted_without_a_copy",
        ],
        "Fits leave no memory behind, whether there are many or long ones.": [
            "test_load.py::test_many_fits_and_predictions_leave_memory_flat",
            "test_load.py::test_a_search_of_many_candidates_in_threads_is_that_of_fits_alone",
            "test_load.py::test_many_epochs_are_few_epochs_many_times",
        ],
        "Where there is too little memory the answer is a MemoryError that says for what, and the "
        "estimator is as it was.": [
            "test_load.py::test_want_of_memory_is_said_in_words_and_leaves_all_as_it_was",
        ],
    },
    "Files": {
        "A file that is damaged, or that somebody has changed, is refused in words, or the "
        "estimator predicts and goes on training. Nothing in it is run.": [
            "test_mutated_files.py::test_a_mutated_file_is_refused_in_words_or_works",
            "test_mutated_files.py::"
            "test_a_file_mutated_on_and_on_along_new_ways_is_refused_in_words_or_works",
        ],
        "To load a file takes memory in proportion to its size, not to sizes stated in it.": [
            "test_mutated_files.py::test_a_file_asks_for_memory_in_proportion_to_its_size",
        ],
        "A loaded estimator is the saved one, and goes on training as it would have.": [
            "test_persistence.py::test_a_loaded_estimator_is_the_saved_one_and_goes_on_as_it_would",
        ],
        "Files of every earlier version of the format are read.": [
            "test_persistence.py::test_files_of_every_version_are_read",
        ],
        "Where saving fails or is killed, the file is the old one or the new one, whole.": [
            "test_signals.py::test_an_interrupted_save_leaves_the_old_file_or_the_new_one_alone",
            "test_signals.py::"
            "test_a_killed_process_leaves_a_whole_file_and_at_most_a_temporary_one",
            "test_saving.py::test_on_a_full_disk_the_earlier_file_stays_whole",
            "test_saving.py::"
            "test_where_saves_are_killed_the_file_is_one_of_them_and_the_next_save_tidies_up",
        ],
        "Mode, owner and group of a file that is replaced are kept; while the new one is written, "
        "only its owner can read it.": [
            "test_saving.py::"
            "test_a_mode_is_kept_and_while_it_is_written_only_its_owner_reads_the_file",
            "test_saving.py::test_owner_and_group_are_kept",
        ],
    },
}


def find_tests(folder=TESTS):
    """Find all test functions of a folder, and tell of each whether it draws its cases."""
    return {
        f"{path.name}::{node.name}": any(a.arg == "campaign" for a in node.args.args)
        for path in sorted(folder.glob("test_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def read_runs(folder=CAMPAIGNS):
    """Read the long runs of each test: those of one seed, over all of its arguments, are one."""
    parts = {}
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text())
        name = kept["test"].removeprefix("tests/").split("[")[0]
        parts.setdefault(name, []).append(kept["runs"])
    return {name: _join(found) for name, found in parts.items()}


def _join(parts):
    """Join the runs of all parts of a test by their seeds, the earliest first."""
    by_seed = {}
    for runs in parts:
        for run in runs:
            by_seed.setdefault(run["seed"], []).append(run)
    joined = [
        {
            "seed": seed,
            "dates": sorted({run["date"] for run in runs}),
            "places": sorted(
                {f"{run['machine']}, Python {run['python']}, {run['kernel']}" for run in runs}
            ),
            "figures": _add([run["figures"] for run in runs]),
            "n_parts": len(runs),
            "of": len(parts),
        }
        for seed, runs in by_seed.items()
    ]
    return sorted(joined, key=lambda run: (run["dates"], run["seed"]))


def _add(parts):
    """Add up the figures of several parts, or take the largest."""
    total = {}
    for name, value in (pair for figures in parts for pair in figures.items()):
        if name not in total:
            total[name] = value
        else:
            total[name] = max(total[name], value) if _is_maximum(name) else total[name] + value
    return total


def _is_maximum(name):
    return name.startswith(MAXIMA)


def _tell_figure(name, value):
    number = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    words = name.replace("_", " ")
    return f"{words} {number}" if _is_maximum(name) else f"{number} {words}"


def _tell_run(run):
    figures = ", ".join(_tell_figure(*pair) for pair in run["figures"].items())
    dates = " to ".join(dict.fromkeys((run["dates"][0], run["dates"][-1])))
    missing = "" if run["n_parts"] == run["of"] else f" ({run['n_parts']} of {run['of']} parts)"
    return f"**{figures}**{missing}; seed {run['seed']}, {dates}, {'; '.join(run['places'])}"


def _tell_test(name, is_drawn, runs):
    """Say in lines what is known of a test."""
    if not is_drawn:
        return [f"- `{name}`"]
    if not runs:
        return [f"- `{name}`, long form: not run yet"]
    return [f"- `{name}`, long form:", *(f"  - {_tell_run(run)}" for run in runs)]


def tell(promises, tests, runs):
    """Write the list, as Markdown; promises name tests, which must be there, as must all runs."""
    named = [name for group in promises.values() for names in group.values() for name in names]
    unknown = sorted({*named, *runs} - {*tests})
    if unknown:
        raise ValueError(f"The page of promises names tests that are not there: {unknown}")
    others = {
        f"{name.split('::test_')[1].replace('_', ' ').capitalize()}.": [name]
        for name, is_drawn in tests.items()
        if (is_drawn or name in runs) and name not in named
    }
    lines = []
    for title, group in {**promises, **({"More that is drawn": others} if others else {})}.items():
        lines += [f"## {title}", ""]
        for sentence, names in group.items():
            lines += [f"**{sentence}**", ""]
            for name in names:
                is_drawn = tests[name] or name in runs
                lines += _tell_test(name, is_drawn, runs.get(name, []))
            lines.append("")
    return "\n".join(lines)


def write_promises(path):
    """Write the list to a file, and links to pages that belong to it."""
    text = tell(PROMISES, find_tests(), read_runs())
    pages = [f"../results/{name}" for name in RESULTS if (HERE / f"results/{name}.md").exists()]
    if pages:
        text += "\n".join(["", "## Measured", "", "```{toctree}", *pages, "```", ""])
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
