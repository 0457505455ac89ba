"""One model over several ranks: FSDP2, gradients that are sums, and whole tensors back again.

Matrices are sharded over the ranks by rows, and with them gradients, moments and the optimizer's work;
vectors (norms, biases) are next to nothing and stand whole on each. Nothing is ever averaged: the loss of a
step is a weighted sum over all its tokens (train/normalise.py), so its gradient is the sum of what the ranks
have.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from dipscope.errors import DipscopeError
from dipscope.study import Recipe
from dipscope.train.world import World


def shard(model: Any, recipe: Recipe, world: World) -> None:
    """Spread a transformers model, as rank 0 has it, over the ranks of a world; in place.

    Each decoder layer is gathered where it is needed, the embeddings once a pass. With `bf16` the matrices of
    the layers travel in bfloat16, which is what autocast makes of them anyway; embeddings and vectors stay in
    fp32, so that a pass computes what it computes in one process, bit for bit.

    Args:
        model: on every rank the same architecture; the values are taken from rank 0.
        recipe: its precision.
        world: of more than one rank.

    Raises:
        DipscopeError: sums over these ranks come out wrong (`check_sums`).
    """
    check_sums(world)
    mesh = init_device_mesh(world.device.type, (world.size,))
    vectors = {p for p in model.parameters() if p.ndim < 2}
    for buffer in model.buffers():
        buffer.data = _from_leader(buffer.data, world)
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    narrow = torch.bfloat16 if recipe.precision == "bf16" else None
    placed: set[int] = set()
    for module in [*layers, model]:
        for parameter in module.parameters():
            if not isinstance(parameter, DTensor) and id(parameter) not in placed:
                parameter.data = _from_leader(parameter.data, world)  # one layer whole at a time
                placed.add(id(parameter))
        _wrap(module, mesh, vectors, None if module is model else narrow)
    model.as_forward = MethodType(_call, model)
    register_fsdp_forward_method(model, "as_forward")


@contextmanager
def as_computed(model: Any, recipe: Recipe) -> Iterator[None]:
    """Let what runs a sharded model compute as training does: its layers may be gathered in bfloat16."""
    lowered = recipe.precision == "bf16" and isinstance(model, FSDPModule)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=lowered):
        yield
    if isinstance(model, FSDPModule):
        model.reshard()


def _call(model: Any, function: Callable[..., Any], *args: Any) -> Any:
    return function(model, *args)


def forward(model: Any, function: Callable[..., Any], *args: Any) -> Any:
    """`function(model, *args)` as the forward pass of a model, which may be sharded.

    FSDP gathers what a module needs when it is called; the loss here is not what the model's own `forward`
    computes, so the function that does takes its place.
    """
    call: Any = getattr(model, "as_forward", None) or MethodType(_call, model)
    return call(function, *args)


def _wrap(module: Any, mesh: Any, vectors: set[Any], dtype: torch.dtype | None) -> None:
    # Inputs are not cast: the residual stream stays as it is in one process.
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=vectors)
    # FSDP would average. gloo has no average and sums in its place, so nothing is left to a default.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def _from_leader(tensor: torch.Tensor, world: World) -> torch.Tensor:
    whole = tensor.to(world.device) if world.leader else torch.empty_like(tensor, device=world.device)
    dist.broadcast(whole, 0)
    return whole


def check_sums(world: World) -> None:
    """Prove on two small layers that the gradient over ranks is the sum of the ranks' own.

    Backends and versions have differed here (pytorch#144045, #120919, #165399): averages for sums, sums for
    averages, no gradient at all. What is compared are two passes of every rank against all passes in one.

    Raises:
        DipscopeError: it is not.
    """
    plain = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False), torch.nn.Linear(5, 4, bias=False))
    for weight in plain.parameters():
        weight.data = torch.linspace(-1, 1, weight.numel()).view_as(weight)
    plain.to(world.device)
    passes = torch.linspace(-1, 2, world.size * 2 * 18, device=world.device).view(world.size, 2, 3, 6)
    spread = copy.deepcopy(plain)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for module in (*spread, spread):
        _wrap(module, mesh, set(), None)
    plain(passes).square().sum().backward()
    for own in passes[world.rank]:
        spread(own).square().sum().backward()
    for whole, shards in zip(plain.parameters(), spread.parameters(), strict=True):
        assert whole.grad is not None
        sums = torch.zeros_like(whole) if shards.grad is None else gather(shards.grad)
        gap = float((sums - whole.grad).norm() / whole.grad.norm())
        if not gap < 1e-4:
            raise DipscopeError(
                f"the gradient of {world.size} processes is not the sum of theirs (off by {gap:.1e})",
                "train",
                f"Train in one process, or with another PyTorch than {torch.__version__}.",
                fault=True,
            )


def sum_vectors(model: Any) -> None:
    """Add the gradients of what is not sharded over the ranks; once a step, when all passes are done."""
    grads = [p.grad for p in model.parameters() if p.grad is not None and not isinstance(p.grad, DTensor)]
    if not grads:
        return
    together = torch.cat([grad.flatten() for grad in grads]).float()
    dist.all_reduce(together)
    for grad, summed in zip(grads, torch.split(together, [grad.numel() for grad in grads]), strict=True):
        grad.copy_(summed.view_as(grad))


def clip(parameters: Iterable[torch.nn.Parameter], limit: float) -> float:
    """Scale the gradient so that its global norm is at most `limit`; the norm it had, the same on all ranks.

    Of a sharded gradient it is the norm of the whole, not of the shard (the paper's code logs the latter).
    """
    having = [p for p in parameters if p.grad is not None]
    sharded: list[torch.Tensor] = [p.grad for p in having if isinstance(p.grad, DTensor)]
    if not sharded:
        return float(torch.nn.utils.clip_grad_norm_(having, limit, foreach=True))
    whole = [p.grad for p in having if p.grad is not None and not isinstance(p.grad, DTensor)]
    parts = [gather(torch.nn.utils.get_total_norm(some, foreach=True)) for some in (sharded, whole) if some]
    norm = torch.linalg.vector_norm(torch.stack([part.float() for part in parts]))
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for grad in (*sharded, *whole):
        local(grad).mul_(factor.to(grad.dtype))
    return float(norm)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in one piece, on every rank; all ranks must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def scatter(target: torch.Tensor, whole: torch.Tensor | None, world: World) -> None:
    """Give a tensor, which may be sharded, the value that rank 0 has in one piece; all ranks must ask."""
    if world.size == 1:
        assert whole is not None
        local(target).copy_(whole)
        return
    device = local(target).device
    value = torch.empty(target.shape, dtype=target.dtype, device=device)
    if world.leader:
        assert whole is not None
        value.copy_(whole)
    if isinstance(target, DTensor):
        spread = distribute_tensor(value, target.device_mesh, target.placements)
        target.to_local().copy_(spread.to_local())
    else:
        dist.broadcast(value, 0)
        target.copy_(value)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's own part of a tensor, which may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_state(model: Any, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The whole weights of a model on the processor, under the names that it has in one process.

    One tensor is gathered at a time: beside the copy on rank 0 there is never more than the largest of them.
    The copy is independent of the model; names that share a tensor share it here too.

    Args:
        model: sharded or not; all ranks must ask.
        dtype: format of what is floating-point; None leaves it.

    Returns:
        Name → tensor on rank 0, nothing on the others.
    """
    leader = not dist.is_initialized() or dist.get_rank() == 0
    shared = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    made: dict[int | str, torch.Tensor] = {}
    state = {}
    for name, value in model.state_dict().items():
        owner = shared.get(name, name)  # the same on every rank, which the address of a shard is not
        if owner not in made:
            value = value.detach()
            rounded = value.to(dtype) if dtype is not None and value.is_floating_point() else value
            whole = gather(rounded)
            made[owner] = whole.to("cpu", copy=whole is value) if leader else torch.empty(0)
        if leader:
            state[name] = made[owner]
    return state
