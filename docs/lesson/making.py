"""Make what the pages of the lesson show: pictures and numbers, each by its page's script.

A script beside a page has `compute()`, which returns results by name, `tell(results)`, which
makes of them the text of each number that the page names, and `draw(results, folder)`. A page
includes its numbers as substitutions, so that no number is written by hand:
`python docs/lesson/making.py` writes them all into the folder `generated`, as `make docs` does.
"""

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
PAGES = ("neuron", "softmax", "step", "disk", "learned", "descent")

# One colour a class, everywhere. In the dark, a lighter one of the same hue.
LOOKS = {
    "light": {
        "ink": "#1d232a",
        "muted": "#5b6672",
        "inside": "#1f6fb4",
        "outside": "#d9700a",
        "shades": ["#f2b27a", "#ffffff", "#8fbbe2"],
    },
    "dark": {
        "ink": "#e7eaed",
        "muted": "#a0abb6",
        "inside": "#4a9ade",
        "outside": "#ec8b2b",
        "shades": ["#7a4713", "#191d23", "#1f568a"],
    },
}


def _make_style(look):
    """Make matplotlib's parameters of a look; the ground is the page's own."""
    inks = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inks, look["ink"]),
        "axes.edgecolor": look["muted"],
        "axes.facecolor": "none",
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.facecolor": "none",
        "figure.dpi": 100,
        "font.size": 10,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "savefig.dpi": 180,
        # The same drawing is the same file.
        "svg.hashsalt": "skdisk",
    }


def draw_both(folder, name, draw):
    """Draw a picture for a light and for a dark page; `draw(look)` returns a figure."""
    import matplotlib.pyplot as plt

    for look_name, look in LOOKS.items():
        with plt.rc_context(_make_style(look)):
            figure = draw(look)
            figure.savefig(folder / f"{name}-{look_name}.svg", metadata={"Date": None})
            plt.close(figure)


def make_colormap(look):
    """Make the scale of the probability of inside, from 0 to 1: the colours of the classes."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("probability", look["shades"])


def write_data(path, name, data):
    """Write what an element of a page needs into a script element with an id."""
    text = json.dumps(data, separators=(",", ":"))
    path.write_text(f'<script type="application/json" id="{name}">{text}</script>\n')


def _is_made(name, marker):
    """Tell whether a page's files are younger than all that they are made of."""
    sources = [HERE / f"{name}.py", Path(__file__), *(HERE.parent.parent / "skdisk").rglob("*.py")]
    return marker.exists() and all(
        source.stat().st_mtime < marker.stat().st_mtime for source in sources
    )


def make_pages(names=PAGES):
    """Write the numbers and pictures of pages, where those that are there are too old."""
    import matplotlib

    matplotlib.use("Agg")
    GENERATED.mkdir(exist_ok=True)
    for name in names:
        numbers = GENERATED / f"{name}.inc"
        if _is_made(name, numbers):
            continue
        script = importlib.import_module(f"lesson.{name}")
        results = script.compute()
        script.draw(results, GENERATED)
        lines = [f".. |{key}| replace:: {text}\n" for key, text in script.tell(results).items()]
        numbers.write_text("".join(lines))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    importlib.import_module("lesson.making").make_pages(sys.argv[1:] or PAGES)
