"""What share of a GPU's rate and memory a plan counts on."""

from __future__ import annotations

from dipscope import hardware
from dipscope.hardware import Gpu

# Model FLOPs utilisation of training: the share of a GPU's peak that Shape.flops gets. An assumption for
# FSDP2 with activation checkpointing and packed rows, not a measurement. Where a training log of your GPUs
# gives one, replace this constant by it, or plan with `dipscope plan STUDY --mfu 0.42`.
ASSUMED_MFU = 0.35

# Share of peak that generation gets with many requests at once: reading weights and caches, not arithmetic,
# bounds it. An assumption too.
GENERATION_MFU = 0.10

USABLE = 0.9  # of a GPU's memory: context, communication buffers and fragmentation take the rest


PLANNED = ("A100-80", "H100", "H200", "L40S", "RTX 4090")  # what a plan is shown for
GPUS = {name: hardware.GPUS[name] for name in PLANNED}


def hours(flops: float, gpu: Gpu, utilisation: float) -> float:
    """GPU-hours for so much arithmetic: flops / (peak · utilisation) / 3600."""
    return flops / (gpu.peak * utilisation) / 3600
