"""LoRA through peft: low-rank additions to linear layers (Hu et al. 2021), and weights merged with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from dipscope.errors import DipscopeError
from dipscope.study import Lora, near
from dipscope.train.world import current

_A, _B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def attach(model: Any, lora: Lora, seed: int, precision: str = "fp32") -> None:
    """Freeze a transformers model and add adapters to its linear layers, in place; only they train.

    A is drawn uniformly within ±1/√inputs (the default of peft, and of Hu et al.'s code), B is zero, so the
    model computes what it did before. The draw is a function of `seed` and of the layers' order alone.

    Adapters are fp32, or bfloat16 with `bf16_pure`, which keeps nothing in fp32. With `bf16` a frozen matrix
    is stored in bfloat16 where that loses nothing, as for every model published in it: autocast would round
    it at each use, so the memory halves and no bit of the computation changes. The embedding and what shares
    its weight keep their format, which decides that of the residual stream.

    Args:
        model: transformers model, already in the format that its recipe wants, not yet sharded.
        lora: rank, alpha, dropout, and the layers.
        seed: of the run.
        precision: the recipe's.

    Raises:
        DipscopeError: peft is not installed, or a target is no linear layer that can be adapted.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise DipscopeError("LoRA needs peft", "recipes.lora", "pip install 'dipscope[lora]'") from None
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works, and 2√r is one
        lora_dropout=lora.dropout,
        target_modules=_layers(model, lora),
    )
    with torch.random.fork_rng(devices=[]):  # peft draws A as well
        inject_adapter_in_model(config, model)
    draw = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/lora".encode()).digest()[:7]))
    dtype = torch.bfloat16 if precision == "bf16_pure" else torch.float32
    for name, parameter in model.named_parameters():
        adapter = name.endswith((_A, _B))
        parameter.requires_grad_(adapter)
        if adapter:
            parameter.data = parameter.data.to(dtype)
        if name.endswith(_A):
            bound = parameter.shape[1] ** -0.5
            parameter.data.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=draw))
    if precision == "bf16":
        narrow = set(current().lead(lambda: _exact_in_bf16(model)))  # other ranks hold no values yet
        for name, parameter in model.named_parameters():
            if name in narrow:
                parameter.data = parameter.data.to(torch.bfloat16)


def merged_state(
    state: Mapping[str, torch.Tensor], lora: Lora, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The whole weights of a model with adapters, under the names that it had before them.

    An adapted weight is W + B·A·alpha/rank, computed in fp32 and rounded once. Names that share a tensor
    still share it.

    Args:
        state: state dict of the model, every tensor whole.
        lora: what `attach` was given.
        dtype: number format wanted.
    """
    made: dict[int, torch.Tensor] = {}
    merged = {}
    for name, value in state.items():
        if name.endswith((_A, _B)):
            continue
        layer, found, rest = name.partition(_BASE)
        a = state.get(layer + _A) if found and rest == "weight" else None
        if value.data_ptr() not in made:
            weight = value.detach()
            if a is not None:
                addition = state[layer + _B].float() @ a.float() * (lora.alpha / lora.rank)
                weight = torch.where(addition == 0, weight.float(), weight.float() + addition)  # keeps −0
            made[value.data_ptr()] = weight.to(dtype) if weight.is_floating_point() else weight
        merged[f"{layer}.{rest}" if found else name] = made[value.data_ptr()]
    return merged


def _layers(model: Any, lora: Lora) -> list[str]:
    """Full names of the linear layers that get adapters."""
    shared = model.get_input_embeddings().weight
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight is not shared
    }
    known = sorted({name.rpartition(".")[2] for name in linear})
    unknown = [target for target in lora.targets if target not in known]
    if unknown or not known:
        raise DipscopeError(
            f"the model has no linear layer '{unknown[0]}' that can be adapted{near(unknown[0], known)}"
            if unknown
            else "the model has no linear layers",
            "recipes.lora.targets",
            f"It has {', '.join(known)}." if known else "Train it without LoRA.",
        )
    head = model.get_output_embeddings()
    chosen = lora.targets or {
        name.rpartition(".")[2] for name, module in linear.items() if module is not head
    }
    return [name for name in linear if name.rpartition(".")[2] in chosen]


def _exact_in_bf16(model: Any) -> list[str]:
    """Names of the frozen matrices of linear layers, the embedding's aside, that bfloat16 holds exactly."""
    shared = model.get_input_embeddings().weight
    exact = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not shared:
            weight = module.weight
            if not weight.requires_grad and torch.equal(weight.to(torch.bfloat16).to(weight.dtype), weight):
                exact.append(f"{name}.weight")
    return exact
