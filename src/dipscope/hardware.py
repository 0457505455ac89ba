"""What processors could compute at best, and how much memory a process has taken at its highest."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Format = Literal["bf16", "tf32", "fp32"]


@dataclass(frozen=True)
class Gpu:
    """A GPU type. Rates are dense: what data sheets print with sparsity is twice that.

    Attributes:
        peak: bfloat16 operations a second of its matrix units, with fp32 accumulation.
        memory: bytes.
        tf32: operations a second of its matrix units on fp32 rounded to TF32.
        fp32: fp32 operations a second.
        names: what the driver calls it. Other editions of the name run at other rates, as do MIG slices.
    """

    peak: float
    memory: float
    tf32: float
    fp32: float
    names: tuple[str, ...]


# NVIDIA's data sheets: A100 (2021), H100 (2022 for SXM5 and PCIe, 2024 for NVL), H200 (2024), L40S and L4
# (2023); for GeForce the white papers of the Ada (2022) and Ampere (2020) architectures.
GPUS = {
    "A100-80": Gpu(
        312e12, 80e9, 156e12, 19.5e12,
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    ),
    "H100": Gpu(989e12, 80e9, 494e12, 67e12, ("NVIDIA H100 80GB HBM3",)),
    "H100 PCIe": Gpu(756e12, 80e9, 378e12, 51e12, ("NVIDIA H100 PCIe",)),
    "H100 NVL": Gpu(835e12, 94e9, 417e12, 60e12, ("NVIDIA H100 NVL",)),
    "H200": Gpu(989e12, 141e9, 494e12, 67e12, ("NVIDIA H200",)),
    "L40S": Gpu(362e12, 48e9, 183e12, 91.6e12, ("NVIDIA L40S",)),
    "L4": Gpu(121e12, 24e9, 60e12, 30.3e12, ("NVIDIA L4",)),
    "RTX 4090": Gpu(165e12, 24e9, 82.6e12, 82.6e12, ("NVIDIA GeForce RTX 4090",)),
    "RTX 3090": Gpu(71e12, 24e9, 35.6e12, 35.6e12, ("NVIDIA GeForce RTX 3090",)),
}  # fmt: skip


def gpu_rate(name: str, number: Format) -> float | None:
    """Peak operations a second of the GPU that the driver calls `name`; None where it is not in the table."""
    for gpu in GPUS.values():
        if name in gpu.names:
            return {"bf16": gpu.peak, "tf32": gpu.tf32, "fp32": gpu.fp32}[number]
    return None


def peak_rate(device: torch.device, bf16: bool) -> float | None:
    """Operations a second that a device reaches at best in matrix products; None where that is not known.

    Of a GPU it is the figure of its data sheet, for fp32 that of the format which torch is set to multiply
    in. Of a CPU, whose data sheet says little, it is the rate of a large product on this process's threads,
    measured once.
    """
    import torch

    if device.type == "cuda":
        full = torch.get_float32_matmul_precision() == "highest"
        return gpu_rate(torch.cuda.get_device_name(device), "bf16" if bf16 else "fp32" if full else "tf32")
    return _product_rate(bf16, torch.get_num_threads()) if device.type == "cpu" else None


@cache
def _product_rate(bf16: bool, threads: int) -> float:
    """Rate of the fastest of a few products of two (768, 768) matrices on the CPU."""
    import torch

    side = 768
    one = torch.ones(side, side, dtype=torch.bfloat16 if bf16 else torch.float32)
    best, until = float("inf"), time.perf_counter() + 0.2
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(one, one)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` begin anew, where the system can."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the process's whole life


def peak_memory(device: torch.device) -> int:
    """Bytes at most in use so far: allocated on a GPU, resident in this process where it works on the CPU."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        # Not `ru_maxrss`, which a process inherits from the one that started it.
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
