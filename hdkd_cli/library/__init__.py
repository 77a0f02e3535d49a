"""What stands behind ``import hdkd_cli``: a verb does nothing that is not here.

evaluated   what can be evaluated and calibrated: the base of runs and score files
wishes      refuses what contradicts itself in that
given       a policy or a profile as it is, by name or as a file
score_file  a file of scores without a run
profile     what a network costs, of a run or a preset
compare     runs and score files side by side
model       a trained network to use: predict, logits
training    train and resume
job         what both do, and the verb: see that all is in order, then train
kept        a run as far as its folder tells: settings, policies, kept scores; needs no torch
opened      with its images and its network
run         the same with policies, operating points and all that takes time
"""
