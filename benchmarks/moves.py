"""Count how often a fit moves from file to file: `python benchmarks/moves.py`.

A move is a call of a function of skdisk or skorch from another file, whosever that is. Many moves
are much to follow for a reader, and time that is spent beside the training itself.
"""

import sys
import warnings
from collections import Counter
from pathlib import Path

import skorch
from sklearn.exceptions import ConvergenceWarning

import skdisk
from skdisk import MLPDiskClassifier, make_disk

FOLDERS = tuple(str(Path(package.__file__).parent) for package in (skdisk, skorch))


def count_moves(function):
    """Call a function; count the moves by file and name of what is called."""
    moves = Counter()

    def look(frame, event, arg):
        code, caller = frame.f_code, frame.f_back
        if event != "call" or not code.co_filename.startswith(FOLDERS):
            return
        if caller is None or caller.f_code.co_filename != code.co_filename:
            moves[f"{Path(code.co_filename).name}: {code.co_qualname}"] += 1

    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(None)
    return moves


def main():
    """Print the moves of the lesson's fit."""
    X, y = make_disk(3000, random_state=0)
    n_more = 100
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name, params in {
        "nobody watches": {},
        "early stopping": {"early_stopping": True, "n_iter_no_change": 1 + n_more},
    }.items():
        few, many = (
            MLPDiskClassifier(max_epochs=n, random_state=0, **params) for n in (1, 1 + n_more)
        )
        # The first fit of a process also imports.
        few.fit(X, y)
        first, both = (count_moves(lambda clf=clf: clf.fit(X, y)) for clf in (few, many))
        further = both - first
        print(f"{name}: {first.total()} moves in one epoch of `fit`,")
        print(f"  {further.total() / n_more:.2f} in each of {n_more} further epochs")
        for what, n in further.most_common():
            print(f"  {n / n_more:6.2f} {what}")


if __name__ == "__main__":
    main()
