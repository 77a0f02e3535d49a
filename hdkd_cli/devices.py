"""Which device to run on, and how many cores there are."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hdkd_cli.errors import SettingsError

if TYPE_CHECKING:
    import torch


def cpu_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # what a container or batch system leaves it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wait_briefly() -> None:
    """Let OpenMP's threads wait for each other awake for some microseconds only, then asleep.

    GNU's wait awake for milliseconds; where another program has one of the cores, each such wait
    is spent on that core instead of leaving it to the thread that is waited for, and training with
    two threads takes ten times as long or more (docs/log.md). Read when the first library that
    uses OpenMP is loaded. What the user's environment says is left as it is.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def processor() -> str:
    """The CPU's model and what instructions it has: equal on machines that run the same code."""
    facts = _cpu_facts()
    if not facts:
        return f"{platform.machine()} {platform.processor()}"
    known = ("model name", "CPU implementer", "CPU part", "flags", "Features")
    return " ".join([platform.machine(), *(facts[name] for name in known if name in facts)])


def has_bf16_units() -> bool:
    """Whether the CPU computes with bfloat16 itself; elsewhere it is emulated, and slow."""
    import torch

    if platform.machine() in {"aarch64", "arm64"}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _cpu_facts() -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    listing = Path("/proc/cpuinfo")
    if not listing.is_file():
        return {}
    first, _, _ = listing.read_text().partition("\n\n")
    told = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): fact.strip() for name, fact in told.items()}


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: auto, cpu, cuda, cuda:N or mps.

    ``auto`` takes CUDA where there is one, else the CPU.

    Raises:
        SettingsError: the name is unknown or this machine has no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda", "mps"}:
        raise SettingsError(f"device {name!r}: use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise SettingsError(f"device {name!r}: this machine has {found} usable CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("device 'mps': not available on this machine")
    return device


def use_channels_last(setting: bool | None, device: torch.device) -> bool:
    """Whether images and convolutions are kept in NHWC order.

    ``training.channels_last`` decides; where it is absent, the device: CUDA's kernels are faster in
    that order, on CPUs it depends (docs/log.md).
    """
    return device.type == "cuda" if setting is None else setting


def keep_freed_memory() -> None:
    """Let this process reuse the memory it frees instead of handing it back to the system.

    A training step on a CPU takes and frees the same hundreds of tensors as the one before. By
    default glibc returns large ones at once, and the system blanks every page when it is asked for
    again: a tenth of a step. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    mallopt(m_mmap_threshold, 2**30)
    mallopt(m_trim_threshold, -1)  # never


def describe_device(device: torch.device) -> str:
    """The device for people: ``cpu (its name, 2 threads)`` or ``cuda:0 (its name)``."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        name = _cpu_facts().get("model name") or platform.processor() or platform.machine()
        return f"{device} ({name}, {torch.get_num_threads()} threads)"
    return str(device)
