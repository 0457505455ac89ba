"""The arithmetic that training on given rows needs: the numerator of model FLOPs utilisation (MFU)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from dipscope.data.tokenize import Example
from dipscope.train.packing import input_length


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of forward and backward pass together, as this loop does them.

    A linear layer of i inputs and o outputs takes 2·i·o operations a token in the forward pass, as many for
    the gradient of its input, and as many for that of its weight where the weight is trained (Kaplan et al.
    2020, arXiv 2001.08361, section 2.1: 6 a parameter and token). Attention takes 4·heads·head size for
    each pair of a token and one that it sees, n·(n + 1)/2 pairs in a document of n tokens, and twice that
    backward (Chowdhery et al. 2022, arXiv 2204.02311, appendix B, there without the causal half). The
    output head runs at supervised positions alone. Look-ups, norms, softmax and the optimizer are left out;
    what activation checkpointing computes twice is not useful and not counted.

    Attributes:
        token: of a token, in all linear layers but the output head.
        supervised: of a supervised token, in the output head.
        pair: of a pair of tokens in attention, in all layers together.
    """

    token: int
    supervised: int
    pair: int

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """What a transformers decoder takes; None where it has matrices that are no linear layers."""
        head = model.get_output_embeddings()
        token = 0
        for module in model.modules():
            if isinstance(module, nn.Linear):
                token += 0 if module is head else _linear(module)
            elif not isinstance(module, nn.Embedding) and any(
                p.ndim >= 2 for p in module.parameters(recurse=False)
            ):
                return None
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(token, _linear(head), 3 * 4 * heads * size * config.num_hidden_layers)

    def of_rows(self, rows: Sequence[Example]) -> int:
        """Operations to train on these rows once, each a document of its own."""
        lengths = [input_length(row) for row in rows]
        return (
            self.token * sum(lengths)
            + self.supervised * sum(len(row.target_ids) for row in rows)
            + self.pair * sum(n * (n + 1) // 2 for n in lengths)
        )


def _linear(layer: nn.Linear) -> int:
    return (6 if layer.weight.requires_grad else 4) * layer.in_features * layer.out_features
