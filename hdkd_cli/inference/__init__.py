"""Leaving early for real, and what that buys.

collect     one pass over a split gives scores
early_exit  a batch that shrinks as its samples leave
stream      samples that wait before each stage for full batches
fold        a network made fast: BatchNorm folded, memory order of the device
onnx_stages the same stages in onnxruntime, built in memory
runtime     which of the two runs, and when that is tried
any_image   images of any kind, as the network takes them
predictor   those in, predictions out
arriving    image files read ahead, in batches
timing      seconds, fairly shared between what is compared
exit_times  how long it takes to leave at each exit
latency     what a policy saves in time
measured    the points of a policy in seconds
programs    stages as graphs, for other runtimes
single_file those nested in one ONNX file that stops by itself
verify      what was written against the network
export      the folder they are written to
exported_network  what runs them, without torch
exported_files   what it reads and checks
runner      the program around it, for where this package is not
standalone  by which the three are written as one file
exported_latency  its speed beside PyTorch's
"""

import os

# onnxruntime 1.29 and newer report to their maker what they run, in the wheels of PyPI too, unless
# this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
