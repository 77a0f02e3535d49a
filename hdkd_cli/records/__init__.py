"""Everything that is printed or written as data: one class per shape, one schema id per class.

`base` what all share · `training` a run · `evaluation` accuracy per exit and per budget ·
`comparison` networks side by side · `study` · `prediction` an answer · `audit` promises, watched ·
`profile` costs · `export` · `settings` presets, resolved settings · `doctor`. Each is imported from
its own file: a command waits for the classes it needs (pydantic takes 1 to 2 ms to build one).

A shape may gain fields, none is renamed or removed: a reader ignores what it does not know.
Policies are records too; they are in `evaluation.policy`, beside what checks them. Imports no
torch.
"""
