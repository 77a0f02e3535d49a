"""A run, or several beside each other, as one HTML page, as figure files, or as plain text.

`read` what runs have to say, `gallery` their images, `facts` in words · `published` other people's
numbers (published.toml) · `figures`, `training_figures` numbers → pictures with their data
(`drawing` how they look) · `tables` numbers → rows of text · `write` the files, the page from
page.html.j2 and style.css · `plain` the same for a terminal. `evaluation.compare` computes what
lies between runs.
"""
