"""GPUs: what they could compute, what share of it is assumed to be reached, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass

# Model FLOPs utilisation of training: the share of a GPU's peak that Shape.flops gets. An assumption for
# FSDP2 with activation checkpointing and packed rows, not a measurement. Where a training log of your GPUs
# gives one, replace this constant by it, or plan with `dipscope plan STUDY --mfu 0.42`.
ASSUMED_MFU = 0.35

# Share of peak that generation gets with many requests at once: reading weights and caches, not arithmetic,
# bounds it. An assumption too.
GENERATION_MFU = 0.10

USABLE = 0.9  # of a GPU's memory: context, communication buffers and fragmentation take the rest


@dataclass(frozen=True)
class Gpu:
    """A GPU type.

    Attributes:
        peak: dense bfloat16 operations a second of its matrix units, without the doubling for sparsity.
        memory: bytes.
    """

    peak: float
    memory: float


# NVIDIA's data sheets, whose larger figures are "with sparsity" and twice these: A100 80GB (SXM, 2021), H100
# (SXM5, 2022), H200 (SXM, 2024), L40S (2023); the Ada architecture white paper for the RTX 4090 (bfloat16
# with fp32 accumulation).
GPUS = {
    "A100-80": Gpu(312e12, 80e9),
    "H100": Gpu(989e12, 80e9),
    "H200": Gpu(989e12, 141e9),
    "L40S": Gpu(362e12, 48e9),
    "RTX 4090": Gpu(165e12, 24e9),
}


def hours(flops: float, gpu: Gpu, utilisation: float) -> float:
    """GPU-hours for so much arithmetic: flops / (peak · utilisation) / 3600."""
    return flops / (gpu.peak * utilisation) / 3600
