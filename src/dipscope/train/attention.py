"""Causal attention inside documents that lie one after the other in a pass, for transformers models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from dipscope.errors import DipscopeError

NAME = "dipscope_documents"


def document_attention(
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
    """Attention function for transformers' `AttentionInterface`: each token sees its own document up to it.

    Nothing is computed across documents; neighbours of equal length share one call.

    Args:
        module: the attention layer.
        query: (1, heads, n, head size).
        key: (1, key heads, n, head size); the key heads divide the heads.
        value: as `key`.
        attention_mask: must be None; the documents are the mask.
        scaling: factor of the scores.
        dropout: of the attention weights.
        sliding_window: refused where a document is longer.
        document_lengths: tokens of each document; they add up to n.
        unused: what models pass on for other attention functions.

    Returns:
        (1, n, heads, head size), and None in place of the weights.

    Raises:
        DipscopeError: the model asks for something that would not be exact here.
    """
    if document_lengths is None:
        raise _refusal("the model does not pass document lengths on to its attention")
    if attention_mask is not None:
        raise _refusal("the model brings an attention mask of its own")
    if sliding_window is not None and max(document_lengths) > sliding_window:
        raise _refusal("a row is longer than the model's sliding window")
    if unused.get("softcap") is not None or unused.get("s_aux") is not None:
        raise _refusal("the model's attention scores are not plain softmax")
    runs = [(length, len(list(same))) for length, same in groupby(document_lengths)]
    sizes = [length * count for length, count in runs]
    gqa = query.shape[1] != key.shape[1]
    outputs = []
    pieces = zip(*(torch.split(x[0], sizes, 1) for x in (query, key, value)), strict=True)
    for (length, number), piece in zip(runs, pieces, strict=True):
        q, k, v = (x.unflatten(1, (number, length)).transpose(0, 1) for x in piece)
        out = scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=gqa
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None], None


def attach(model: Any) -> None:
    """Make a transformers model use document attention, and prove on two short documents that it does.

    Raises:
        DipscopeError: packing would change the hidden states of this model.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, document_attention)
    ids = torch.arange(13, device=model.device)[None] % model.config.vocab_size
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model.set_attn_implementation("sdpa")
            apart = torch.cat([model(part, use_cache=False).logits for part in ids.split([8, 5], 1)], 1)
            model.set_attn_implementation(NAME)
            together = model.get_output_embeddings()(hidden_states(model, ids, (8, 5)))
    except (TypeError, ValueError) as error:
        raise _refusal(f"its attention cannot be replaced ({error})") from None
    finally:
        model.train(was_training)
    gap = float((apart - together).abs().max() / apart.abs().max().clamp_min(1e-6))
    if not gap < (1e-3 if apart.dtype == torch.float32 else 5e-2):
        raise _refusal(f"packed and separate documents differ by {gap:.1e}")


@contextmanager
def attached(model: Any) -> Iterator[None]:
    """`attach` for the time of a with-block; afterwards the model has the attention it came with."""
    before = model.config._attn_implementation
    try:
        attach(model)
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


def _refusal(what: str) -> DipscopeError:
    return DipscopeError(
        f"rows cannot be packed for this model: {what}",
        "train",
        "Use a dense decoder such as Qwen3 or Llama.",
    )
