"""What stands behind ``import hdkd_cli``: a verb does nothing that is not here.

evaluated   what can be evaluated and calibrated: the base of the next two; a score file
profile     what a network costs, of a run or a preset
compare     runs and score files side by side
model       a trained network to use: predict, logits
training    train and resume
run         a run folder opened for use: scores, images, network, policy, operating point
"""
