"""The picture of the package's wings, one above the other, each with the files that it has."""

from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = Path(__file__).parent.parent / "skdisk"
# The wings from what users call down to the ground: folder, title, task, packages that it knows.
WINGS = (
    ("", "What users call", "fit: check, plan, train, keep", ""),
    ("_inputs", "_inputs/", "data and parameters, checked", "sklearn pandas safetensors torch"),
    ("_training", "_training/", "epochs, stops, history", "skorch tqdm torch"),
    ("_network", "_network/", "layers, dropout, prediction", "torch"),
    ("_kernel", "_kernel/", "training steps in C, without Python's lock", ""),
)
WIDTH, INDENT, LINE, GAP = 380, 14, 17, 24


def draw_wings():
    """Draw the wings, one above the other, each with its files; return SVG."""
    top, parts = 2, []
    for folder, title, task, packages in WINGS:
        lines = [("text", task), *(("files", line) for line in wrap(list_files(folder)))]
        if folder:
            known = ", ".join(["NumPy", *packages.split()]).replace("sklearn", "scikit-learn")
            lines.append(("text", f"knows {known}"))
        if parts:
            parts.append(draw_arrow(top - GAP + 2, top - 3))
        height = LINE * (len(lines) + 1) + 12
        parts.append(draw_box(top, height, title, lines))
        top += height + GAP
    what = "Five wings, one above the other: each calls those below it, and none calls one above."
    return (
        f'<svg class="skd-wings" viewBox="0 0 {WIDTH} {top - GAP + 2}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{what}</title>{"".join(parts)}</svg>\n'
    )


def list_files(folder):
    """List the files of a wing; those whose name says all are left out."""
    paths = (PACKAGE / folder).iterdir()
    names = {path.name for path in paths if path.suffix in (".py", ".c")}
    return sorted(names - {"__init__.py", "__main__.py", "_compat.py"})


def wrap(names, width=48):
    """Break a list of names into lines."""
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > width:
            lines.append("")
        lines[-1] += f"{name}, "
    return [line.strip() for line in [*lines[:-1], lines[-1].rstrip(", ")]]


def draw_box(top, height, title, lines):
    """Draw a wing as a box with a title and lines, each of a kind."""
    parts = [f'<rect x="1" y="{top}" width="{WIDTH - 2}" height="{height}" rx="6"/>']
    for i, (kind, line) in enumerate([("title", title), *lines]):
        x, y = INDENT, top + 20 + LINE * i
        parts.append(f'<text class="skd-wing-{kind}" x="{x}" y="{y}">{escape(line)}</text>')
    return "".join(parts)


def draw_arrow(start, end):
    """Draw an arrow down, from one box to the next."""
    x = WIDTH // 2
    return f'<path d="M{x} {start}V{end}m-5 -6l5 6l5 -6"/>'
