"""Write docs/results/coverage.md: how many branches the tests take, and why they leave out others.

`make coverage` measures, and calls this with the report of llvm-cov on the kernel and that of
coverage.py on the package.
"""

import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "coverage.md"
OTHER_MACHINE = "Taken on machines with fewer instruction sets than that of the measurement."
NO_MEMORY = "Taken where Python has no memory left for an object."
GPU = "Taken where there is a GPU."
WINDOWS = "Taken on Windows, where nothing was run."
OLDEST = "Taken with scikit-learn 1.8, by `make test-oldest`."
FORKED = "Taken in children that were forked: they end without a word to coverage.py."
TITLE = [
    "# Branches that the tests take",
    "",
    "A branch is one outcome of a condition. The kernel is compiled once for each instruction",
    "set: an outcome is taken where it is with any of them. Below the table stands what no test",
    "takes, and why. Tests of signals and of estimators that threads share are not measured:",
    "coverage.py does not bear them. `make coverage` writes this page.",
    "",
]
# (file, what stands in the line): why no test takes the branch.
REASONS = {
    ("kernel.c", "__builtin_cpu_supports"): OTHER_MACHINE,
    ("kernel.c", "kernel_has(AVX2);"): OTHER_MACHINE,
    ("module.c", "PyErr_ExceptionMatches(PyExc_MemoryError)"): NO_MEMORY,
    ("module.c", "names && set < N_INSTRUCTION_SETS"): NO_MEMORY,
    ("module.c", "PyList_Append"): NO_MEMORY,
    ("module.c", "if (!losses)"): NO_MEMORY,
    ("_inputs/choices.py", "if accelerator is not None"): GPU,
    ("_inputs/rows.py", 'X.device.type not in ("cpu", "meta")'): GPU,
    ("_training/eligibility.py", 'device.startswith("cpu")'): GPU,
    ("_inputs/file_format.py", "fcntl is"): WINDOWS,
    ("_network/surroundings.py", 'hasattr(os, "register_at_fork")'): WINDOWS,
    ("_compat.py", "if not checked.any()"): OLDEST,
    ("_network/surroundings.py", "!= self.n_threads"): FORKED,
}
UNEXPLAINED = "Not explained yet."


def read_branches_of_c(path):
    """Count outcomes of conditions; list those missed as (file, line, condition, outcome)."""
    counts = Counter()
    for function in json.loads(path.read_text())["data"][0]["functions"]:
        for *place, n_true, n_false, file, _, _ in function["branches"]:
            name = Path(function["filenames"][file]).name
            if name in ("kernel.c", "module.c"):
                counts[name, *place, "true"] += n_true
                counts[name, *place, "false"] += n_false
    lines = {
        name: (ROOT / "skdisk" / "_kernel" / name).read_text().splitlines()
        for name in ("kernel.c", "module.c")
    }
    missed = [
        (name, line, lines[name][line - 1][start - 1 : end - 1], f"never {outcome}")
        for (name, line, start, _, end, outcome), count in sorted(counts.items())
        if not count
    ]
    return len(counts), missed


def read_branches_of_python(path):
    """Count branches as coverage.py does, and list those missed as `read_branches_of_c` does."""
    n_branches, missed = 0, []
    for name, file in sorted(json.loads(path.read_text())["files"].items()):
        lines = (ROOT / name).read_text().splitlines()
        n_branches += file["summary"]["num_branches"]
        for start, end in file["missing_branches"]:
            to = f"never goes on at line {end}" if end > 0 else "never leaves"
            missed.append((name.removeprefix("skdisk/"), start, lines[start - 1].strip(), to))
    return n_branches, missed


def find_reason(name, line_of_code):
    """Find why no test takes a branch."""
    reasons = [
        reason for (file, part), reason in REASONS.items() if file == name and part in line_of_code
    ]
    return reasons[0] if reasons else UNEXPLAINED


def get_line(name, line):
    """Read the line of a file of which branches are listed."""
    folder = ROOT / "skdisk" / ("_kernel" if name.endswith(".c") else "")
    return (folder / name).read_text().splitlines()[line - 1]


def write_page(parts):
    """Write the page: a table, and below it what is missed, reason by reason."""
    page = [*TITLE, "| code | branches | taken |", "| --- | --- | --- |"]
    by_reason = {}
    for title, (n_branches, missed) in parts.items():
        n_taken = n_branches - len(missed)
        page.append(f"| {title} | {n_branches:,} | {n_taken:,} ({n_taken / n_branches:.1%}) |")
        for name, line, code, how in missed:
            reason = find_reason(name, get_line(name, line))
            by_reason.setdefault(reason, []).append(f"- {name}: `{code}` {how}")
    for reason, places in by_reason.items():
        page += ["", f"**{reason}**", "", *places]
    PAGE.write_text("\n".join(page) + "\n")
    return len(by_reason.get(UNEXPLAINED, []))


READERS = {
    "the kernel, in C": read_branches_of_c,
    "the package, in Python": read_branches_of_python,
}

if __name__ == "__main__":
    # The second report may be missing: the suite takes minutes, the kernel's tests do not.
    given = zip(READERS.items(), sys.argv[1:], strict=False)
    n_unexplained = write_page({title: read(Path(path)) for (title, read), path in given})
    print(f"{PAGE}: {n_unexplained} branches without a reason")  # noqa: T201
