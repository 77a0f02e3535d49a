"""The site of these pages (``make docs``): Markdown as it is, and nothing is fetched."""

project = "hdkd"
author = "hdkd"
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["README.md"]  # which index.rst includes
myst_heading_anchors = 3
html_theme = "furo"
html_title = "hdkd"
html_show_copyright = html_show_sphinx = html_copy_source = False
