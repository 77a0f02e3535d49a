"""Where things run and how memory is laid out there."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from hdkd_cli.devices import use_channels_last, wait_briefly

# Blocks of 48 MiB are given back, touched again, and page faults counted: a page is 4 KiB or more.
FAULTS = """
import ctypes, resource, sys
from hdkd_cli.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
size = 48 << 20
def use():
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [(None, "cpu", False), (None, "cuda", True), (None, "mps", False), (False, "cpu", False),
     (True, "mps", True)],
)  # fmt: skip
def test_the_setting_decides_or_else_the_device(setting, device, expected):
    assert use_channels_last(setting, torch.device(device)) is expected


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc only"
)
def test_freed_memory_is_kept():
    def faults(how):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < faults("return") / 10


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_wait_briefly_unless_the_user_says_how(given, then, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    wait_briefly()
    assert os.environ == then
