"""How the site is built. Nothing is fetched, neither here nor by a reader's browser."""

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
# The pages show what the benchmarks have measured.
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]

import figures
from inventories import ADDRESSES, write_inventories
from lesson.making import GENERATED, make_pages
from promises import write_promises

# One thread computes the same numbers whatever the machine has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "skdisk"
author = "the authors of skdisk"
project_copyright = author
version = release = metadata.version("skdisk")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery/*.py", "gallery/*.ipynb", "guide/generated"]
nitpicky = True

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# Pages show the members of a class themselves.
numpydoc_show_class_members = False
numpydoc_validation_checks = {
    "all",
    # Wanted of every docstring: a long text, examples, links, a description of what is returned.
    "ES01",
    "EX01",
    "SA01",
    "RT03",
    # What is returned has a name.
    "RT02",
    # A name of another project needs no capital.
    "SA03",
}
# Written by scikit-learn; and what numpydoc does not know: *args, a colon in a default.
numpydoc_validation_exclude = {r"\.(get|set)_(params|metadata_routing|callbacks|\w+_request)$"}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
# No figure of the guide is written by hand.
myst_substitutions = figures.compute()
figures.draw()

intersphinx_mapping = {
    name: (address, str(path))
    for (name, address), path in zip(
        ADDRESSES.items(), write_inventories(BUILD / "inventories"), strict=True
    )
}

make_pages()
write_promises(BUILD / "promises.md")

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("skdisk",),
    "within_subsection_order": "recipes.ReadingOrder",
    "image_srcset": ["2x"],
    "matplotlib_animations": True,
    "show_memory": False,
    "show_signature": False,
    # Its page loads scripts from other places.
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "remove_config_comments": True,
}

# A package that holds MathJax 3.2.2. Of its 24 megabytes one file is needed.
MATHJAX = next(
    path
    for path in metadata.distribution("sphinx-mathjax-offline").files
    if path.name == "tex-svg.js"
)


def copy_playground(app, error):
    """Put the page that trains a network beside the others; it is plain JavaScript."""
    if error is None:
        shutil.copytree(
            HERE.parent / "playground", Path(app.outdir) / "playground", dirs_exist_ok=True
        )


def setup(app):
    """Tell Sphinx what else to do."""
    app.connect("build-finished", copy_playground)


mathjax_path = "tex-svg.js"

html_theme = "pydata_sphinx_theme"
html_title = "skdisk"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", str(MATHJAX.locate()), str(GENERATED / "animation")]
html_css_files = ["skdisk.css", "lesson/lesson.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {
        "text": "skdisk",
        "image_light": "_static/favicon.svg",
        "image_dark": "_static/favicon.svg",
    },
    "footer_start": ["copyright"],
    "footer_end": [],
    # Where tables have a column for each peer, they need the width.
    "secondary_sidebar_items": {"**": ["page-toc"], "guide/features": [], "results/accuracy": []},
    "navigation_with_keys": False,
    "show_prev_next": True,
    "use_edit_page_button": False,
}
# Single pages need no list of their neighbours.
html_sidebars = {"index": [], "search": []}
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
