"""Causal attention inside documents that lie one after the other in a pass, for transformers models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from dipscope.errors import DipscopeError
from dipscope.train import attention_kernels as kernels
from dipscope.train.world import current

NAME = "dipscope_documents"
_log = logging.getLogger(__name__)
_Interface = Callable[..., tuple[torch.Tensor, None]]


def interface(kernel: kernels.Kernel) -> _Interface:
    """A kernel as attention function for transformers' `AttentionInterface`.

    The function raises a DipscopeError where the model asks for something that would not be exact: a mask of
    its own, a sliding window shorter than a document, scores that are not plain softmax.
    """

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        document_lengths: tuple[int, ...] | None = None,
        **unused: Any,
    ) -> tuple[torch.Tensor, None]:
        if document_lengths is None:
            raise _refusal("the model does not pass document lengths on to its attention")
        if attention_mask is not None:
            raise _refusal("the model brings an attention mask of its own")
        if sliding_window is not None and max(document_lengths) > sliding_window:
            raise _refusal("a row is longer than the model's sliding window")
        if unused.get("softcap") is not None or unused.get("s_aux") is not None:
            raise _refusal("the model's attention scores are not plain softmax")
        return kernel(query, key, value, document_lengths, scaling, dropout), None

    return attend


document_attention = interface(kernels.loop)


def attach(
    model: Any, dtype: torch.dtype | None = None, on_note: Callable[[str], None] = _log.warning
) -> None:
    """Make a transformers model use document attention, and prove on two short documents that it does.

    It is the first of `attention_kernels.candidates` whose trial finds no flaw and that passes this proof;
    where there is none, as always on a CPU, it is the loop over documents.

    Args:
        model: transformers model.
        dtype: format of the computation where it is not that of the weights, as under autocast.
        on_note: told about a faster kernel that is there and cannot be used.

    Raises:
        DipscopeError: packing would change the hidden states of this model.
    """
    dtype = dtype or model.dtype
    config = model.config
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    dropout = getattr(config, "attention_dropout", 0.0)
    world = current()
    for label, kernel in kernels.candidates(model.device, dtype, dropout):
        # Ranks that took different kernels would wait for each other: an objection of one is that of all.
        flaw = world.agreed(kernels.flaw(kernel, heads, key_heads, size, model.device, dtype))
        if not flaw:
            try:
                _use(model, f"{NAME}_{label.replace(' ', '_')}", interface(kernel), dtype)
            except (DipscopeError, RuntimeError) as error:
                flaw = " ".join(str(error).split())[:200]
            if not (flaw := world.agreed(flaw)):
                return
        on_note(f"{label} attention is not used: {flaw}")
    # The loop needs no other format than the weights', and fp32 shows smaller differences than bfloat16.
    mixed = any(p.dtype != model.dtype for p in model.parameters())
    _use(model, NAME, document_attention, dtype if mixed else model.dtype)


@contextmanager
def attached(
    model: Any, dtype: torch.dtype | None = None, on_note: Callable[[str], None] = _log.warning
) -> Iterator[None]:
    """`attach` for the time of a with-block; afterwards the model has the attention it came with."""
    before = model.config._attn_implementation
    try:
        attach(model, dtype, on_note)
        yield
    finally:
        model.set_attn_implementation(before)


def hidden_states(
    model: Any, input_ids: torch.Tensor, lengths: tuple[int, ...], position_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Last hidden states (1, n, d) of documents packed into `input_ids` (1, n)."""
    if position_ids is None:
        position_ids = torch.cat([torch.arange(n, device=input_ids.device) for n in lengths])[None]
    # An attention mask or a cache would make transformers build its own mask, which leaks across documents.
    output = model.base_model(
        input_ids=input_ids, position_ids=position_ids, use_cache=False, document_lengths=lengths
    )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def _use(model: Any, name: str, function: _Interface, dtype: torch.dtype) -> None:
    """Give a model this attention, and compare packed documents with separate ones."""
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
    ids = torch.arange(13, device=model.device)[None] % model.config.vocab_size
    lowered = torch.autocast(model.device.type, dtype) if dtype != model.dtype else nullcontext()
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), lowered:
            model.set_attn_implementation("sdpa")
            apart = torch.cat([model(part, use_cache=False).logits for part in ids.split([8, 5], 1)], 1)
            model.set_attn_implementation(name)
            together = model.get_output_embeddings()(hidden_states(model, ids, (8, 5)))
    except (TypeError, ValueError) as error:
        raise _refusal(f"its attention cannot be replaced ({error})") from None
    finally:
        model.train(was_training)
    gap = float((apart - together).abs().max() / apart.abs().max().clamp_min(1e-6))
    if not gap < (1e-3 if apart.dtype == torch.float32 else 5e-2):
        raise _refusal(f"packed and separate documents differ by {gap:.1e}")


def _refusal(what: str) -> DipscopeError:
    return DipscopeError(
        f"rows cannot be packed for this model: {what}",
        "train",
        "Use a dense decoder such as Qwen3 or Llama.",
    )
