"""Evaluation: one pass over a split gives `Scores`; everything else is a pure function of them.

`collect` network → scores · `scores` the exchange file · `of_run` a run's scores, kept and reused ·
`combination`, `temperature`, `confidence` how an exit is read · `table` what policies work on ·
`fitted` weights and temperatures by likelihood · `anytime` each exit alone ·
`geometric`, `optimal`, `risk` thresholds · `calibration` scores → policy ·
`policy` its one reader and writer · `simulate` policy × scores → record ·
`compatibility` what belongs together · `budget` reading "0.4" and "30M".
"""
