"""Studies: methods × seeds × settings, trained one by one, compared by seed.

`plan` the TOML file that describes a study · `jobs` trains what is missing, resumable at every
moment · `rows` what one finished run contributes · `compare` differences over seeds and the
weights that were learned · `write` the table, the records and the figures · `signal` how much a
hypergradient says before anything is trained with it.
"""
