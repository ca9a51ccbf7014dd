"""The documentation: `pip install '.[docs]'`, then `sphinx-build -W docs site`.

The notebooks of examples/ are run, for about a minute, so that their pages have outputs. With
NOTEBOOKS=off in the environment they are not run, as in CI, where a test runs them.
"""

import os
import sys
from pathlib import Path

import wsiseg

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "wsiseg"
author = copyright = "The wsiseg maintainers"
version = release = wsiseg.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "generated",
    "links",
]
exclude_patterns = ["extensions"]
html_theme = "furo"
# Lines of 100 characters fit the width of a page.
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}
html_title = "wsiseg"
html_show_sourcelink = False
html_static_path = ["style"]
html_css_files = ["pages.css"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("NOTEBOOKS", "force")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
nitpicky = False
suppress_warnings = ["myst.xref_missing"] if "linkcheck" in sys.argv else []
