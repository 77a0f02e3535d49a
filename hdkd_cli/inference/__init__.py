"""Leaving early for real, and what that buys.

early_exit  a batch that shrinks as its samples leave
regroup     a stream whose stages wait for full batches
ready       a network made fast: BatchNorm folded, memory order of the device
arriving    image files read ahead, in batches
timing      seconds, fairly shared between what is compared
latency     what a network costs in time, exit by exit and under a policy
measured    the points of a policy in seconds
export      one program a stage, for other runtimes
runner      what runs them, without torch and without this package
exported_latency  its speed beside PyTorch's
of_run      a run's network made ready, and images to try it on
"""
