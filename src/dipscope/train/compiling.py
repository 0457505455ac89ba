"""torch.compile for what a decoder layer does besides attention: norms and the feed-forward block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dipscope.errors import DipscopeError


def compile_layers(model: Any, on_note: Callable[[str], None], backend: str = "inductor") -> None:
    """Have torch compile the layers of a transformers model on a GPU, in place; on a CPU, say why not.

    Norms and feed-forward blocks are many small operations on memory, which compiled code joins. Attention is
    one kernel already, and its documents differ from pass to pass: traced, it would be compiled again for
    each. Lengths are dynamic, so there is one compilation for all layers and passes. Names, weights, hooks
    and checkpointing stay as they are; sums may be taken in another order (fp32: about 1e-7 of the gradient).

    What it saves on a GPU was not measured. On a CPU it saved nothing that its compilation had not cost.

    Args:
        model: transformers model, with its adapters, and sharded already where it will be.
        on_note: told where nothing is compiled.
        backend: torch's compiler; "aot_eager" traces and runs plainly.

    Raises:
        DipscopeError: torch cannot compile here.
    """
    if model.device.type == "cpu" and backend == "inductor":
        return on_note("compile = true is left out on a CPU: the compilation costs more than it saves")
    try:
        torch.compile(lambda x: x.sin() + 1, backend=backend)(torch.ones(8, device=model.device))
    except Exception as error:  # a compiler, a driver or a temporary folder that is missing
        reason = str(error).strip().splitlines()[0][:200]
        raise DipscopeError(
            f"torch cannot compile here ({reason})", "recipes.compile", "Set compile = false.", fault=True
        ) from None
    names = set(model._no_split_modules or ())
    for layer in model.modules():
        if type(layer).__name__ in names:
            for name, part in layer.named_children():
                if name != "self_attn":
                    part.compile(dynamic=True, backend=backend)
    return None
