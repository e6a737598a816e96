"""How the documentation site is made: ``python -m sphinx -W docs build/site``."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "Lamella"
author = "The Lamella developers"
release = version = installed_version("lamella")
language = "en"
smartquotes = False  # an option keeps its two dashes
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

# --- pages: Markdown that a code host shows as well, and notebooks with what they printed ---

myst_heading_anchors = 4
nb_execution_mode = "off"

# --- reference, from the code ---

default_role = "py:obj"  # a name in single backticks is a link where it is one of ours
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # types stand in the signature
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# --- look ---

html_theme = "furo"
html_title = "Lamella"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]


def _readable(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, signature: str, returns: str
) -> tuple[str | None, str]:
    """Write defaults that a dataclass makes so that the signature can be taken apart."""
    return (signature and signature.replace("<factory>", "...")), returns


def _example_as_code(_app: Sphinx, _context: Any, lines: list[str]) -> None:
    """Set the example at the end of a verb's help as code."""
    for number, line in enumerate(lines):
        if line.startswith("Example: "):
            example = " ".join([line.removeprefix("Example: "), *lines[number + 1 :]]).strip()
            lines[number:] = ["Example:", "", ".. code-block:: sh", "", f"   {example}", ""]
            return


def _dashes(_app: Sphinx, tree: nodes.document) -> None:
    """Write the dash behind a parameter's name, which smartquotes would otherwise make."""
    for text in list(tree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> None:
    """Hear of what Sphinx is about to write."""
    app.connect("autodoc-process-signature", _readable)
    app.connect("sphinx-click-process-description", _example_as_code)
    app.connect("doctree-read", _dashes)
