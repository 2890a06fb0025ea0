"""The documentation site: ``make docs`` builds it into ``build/site``.

The site loads nothing from other servers: system fonts, no scripts but those of the theme, diagrams as inline SVG.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Tonestream"
author = "the authors of Tonestream"
project_copyright = author
release = version = version_of("tonestream")

extensions = ["myst_parser", "sphinx_copybutton", "diagrams", "repository_links"]
exclude_patterns = ["extensions"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# GitHub draws these blocks itself. Here docs/extensions/diagrams.py draws them.
myst_fence_as_directive = {"mermaid"}

nitpicky = True
highlight_language = "none"
# What a reader copies is the command, without the prompt.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = "Tonestream"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
