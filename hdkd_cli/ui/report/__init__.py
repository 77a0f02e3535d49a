"""A run, or several beside each other, as one HTML page, as figure files, or as plain text.

`content` what a run has to say (`history` its training, `gallery` its images, `facts` in words) ·
`comparison` what lies between runs · `published` other people's numbers · `figures`,
`history_figures` numbers → pictures with their data (`drawing` how they look) · `page` all of it as
HTML (`style` its CSS) · `plain` the same for a terminal · `write` the files.
"""
