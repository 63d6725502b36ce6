"""Sphinx's settings for the site; `docs/make.py` lays out the pages and calls it."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx import addnodes

import embedlab

project = "embedlab"
author = "the authors of embedlab"
copyright = author  # noqa: A001
release = version = embedlab.__version__
root_doc = "index"
extensions = ["myst_nb"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
default_role = "literal"
maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
toc_object_entries = False
suppress_warnings = ["config.cache"]
highlight_language = "text"

myst_enable_extensions = ["attrs_inline", "attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# notebooks: executed by the whole build, each once for every text of it; never by the fast half
nb_execution_mode = os.environ.get("EMBEDLAB_NOTEBOOKS", "off")
nb_execution_cache_path = os.environ.get("EMBEDLAB_NOTEBOOK_CACHE", "")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "furo"
html_title = "embedlab"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fb4", "color-brand-content": "#1f5fb4"},
    "dark_css_variables": {"color-brand-primary": "#7fb2f5", "color-brand-content": "#7fb2f5"},
    "top_of_page_buttons": [],
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


@cache
def size_of(path: Path) -> tuple[float, float] | None:
    """Width and height of a picture."""
    if path.suffix == ".svg":
        box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', path.read_text(encoding="utf-8")[:2000])
        return (float(box[1]), float(box[2])) if box else None
    with Image.open(path) as picture:
        return picture.size


def sized(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Tell the size of each picture, so that a page does not move while they load."""
    files = {file: Path(app.srcdir, path) for path, (_, file) in app.env.images.items()}

    def tell(found: re.Match[str]) -> str:
        path = files.get(found[2].rpartition("/")[2])
        size = size_of(path) if path and "width=" not in found[0] else None
        return f'{found[1]}width="{size[0]:g}" height="{size[1]:g}" src="{found[2]}"' if size else found[0]

    if "body" in context:
        context["body"] = re.sub(r'(<img [^>]*?)src="([^"]*_images/[^"]+)"', tell, context["body"])


def linked(app: Any, tree: Any) -> None:
    """A public name in the text of a page leads to its place in the reference."""
    for code in list(tree.findall(nodes.literal)):
        name = re.fullmatch(r"(?:lab\.)(\w+)(?:\(.*\))?|([A-Z]\w+)", code.astext())
        target = name and (name[1] or name[2])
        inside = isinstance(code.parent, nodes.reference | nodes.title | addnodes.pending_xref)
        if target in embedlab.__all__ and not inside and not app.env.docname.startswith("docs/reference/"):
            told = {"refdomain": "py", "reftype": "obj", "reftarget": f"embedlab.{target}", "refexplicit": True}
            link = addnodes.pending_xref("", refdoc=app.env.docname, refwarn=False, **told)
            code.replace_self(link)
            link += code


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("doctree-read", linked)
    app.connect("html-page-context", sized)
