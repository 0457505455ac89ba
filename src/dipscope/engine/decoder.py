"""The forward of Llama, Qwen2 and Qwen3, straight from a checkpoint's config and tensors.

Tokens of any number of sequences lie in one packed row dimension; only attention knows sequences, and it is
passed in. Weights are kept transposed, (inputs, outputs): as measured on CPU, that product is both the faster
one and the one whose rows do not change with the number of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from dipscope.errors import DipscopeError

ROW_MULTIPLE = 8
"""Products run over a multiple of this many rows: a single row takes another kernel, with other bits."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q (N, heads, D), k (N, kv_heads, D), v (N, kv_heads, D)) → (N, heads · D)."""

_SUPPORTED = {"llama", "qwen2", "qwen3"}


@dataclass(frozen=True)
class Architecture:
    """Everything about a model that is not a weight. Equal architectures can share one decoder."""

    kind: str
    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    qkv_bias: bool
    out_bias: bool
    tied: bool

    @classmethod
    def read(cls, checkpoint: Path) -> Architecture:
        """Read `config.json` of a checkpoint directory.

        Raises:
            DipscopeError: the file is missing or broken, or asks for what this decoder does not do.
        """
        path = checkpoint / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            return cls._parse(config, str(path))
        except FileNotFoundError:
            fix = "Give a directory in the Hugging Face layout."
            raise DipscopeError("the checkpoint has no config.json", str(checkpoint), fix) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DipscopeError(f"the config cannot be read ({error})", str(path)) from None
        except KeyError as error:
            raise DipscopeError(f"the config has no {error}", str(path)) from None

    @classmethod
    def _parse(cls, config: dict[str, Any], where: str) -> Architecture:
        kind = config.get("model_type")
        rope = config.get("rope_parameters") or {}
        scaling = rope or config.get("rope_scaling") or {}
        rope_type = scaling.get("rope_type", scaling.get("type", "default"))
        partial = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
        layer_types = set(config.get("layer_types") or ["full_attention"])
        unsupported = {
            f"model_type '{kind}'": kind not in _SUPPORTED,
            f"rope scaling '{rope_type}'": rope_type != "default",
            "partial rotary embedding": partial != 1.0,
            "sliding-window attention": bool(config.get("use_sliding_window"))
            or layer_types != {"full_attention"},
            f"activation '{config.get('hidden_act')}'": config.get("hidden_act", "silu") != "silu",
            "biases in the MLP": bool(config.get("mlp_bias")),
        }
        for feature, present in unsupported.items():
            if present:
                fix = "The local engine runs plain Llama, Qwen2 and Qwen3; use another engine for this model."
                raise DipscopeError(f"unsupported by the local engine: {feature}", where, fix)
        heads = int(config["num_attention_heads"])
        bias = bool(config.get("attention_bias"))
        return cls(
            kind=str(kind),
            vocab=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            inner=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            eps=float(config.get("rms_norm_eps", 1e-6)),
            rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            qkv_bias=bias or kind == "qwen2",
            out_bias=bias and kind != "qwen2",
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def parameters(self) -> int:
        """Weights in the matrices of the layers and the head (biases and norms left out)."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocab * self.hidden


class _Layer:
    """Weights of one block; query, key and value share a matrix, and so do gate and up."""

    def __init__(self, arch: Architecture, empty: Callable[..., Tensor]) -> None:
        total = (arch.heads + 2 * arch.kv_heads) * arch.head_dim
        self.norm_in, self.norm_post = empty(arch.hidden), empty(arch.hidden)
        self.qkv, self.out = empty(arch.hidden, total), empty(arch.heads * arch.head_dim, arch.hidden)
        self.gate_up, self.down = empty(arch.hidden, 2 * arch.inner), empty(arch.inner, arch.hidden)
        self.qkv_bias = empty(total) if arch.qkv_bias else None
        self.out_bias = empty(arch.hidden) if arch.out_bias else None
        # one gain per head, so that queries and keys are normalised in one go
        self.qk_norm = empty(arch.heads + arch.kv_heads, arch.head_dim) if arch.kind == "qwen3" else None

    def places(self, arch: Architecture) -> dict[str, list[Tensor]]:
        """Checkpoint tensor name below the layer → views with the checkpoint's shape."""
        q, kv, inner = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim, arch.inner
        places = {
            "input_layernorm.weight": [self.norm_in],
            "post_attention_layernorm.weight": [self.norm_post],
            "self_attn.o_proj.weight": [self.out.t()],
            "mlp.gate_proj.weight": [self.gate_up[:, :inner].t()],
            "mlp.up_proj.weight": [self.gate_up[:, inner:].t()],
            "mlp.down_proj.weight": [self.down.t()],
        }
        for name, start, size in (("q", 0, q), ("k", q, kv), ("v", q + kv, kv)):
            places[f"self_attn.{name}_proj.weight"] = [self.qkv.narrow(1, start, size).t()]
            if self.qkv_bias is not None:
                places[f"self_attn.{name}_proj.bias"] = [self.qkv_bias.narrow(0, start, size)]
        if self.out_bias is not None:
            places["self_attn.o_proj.bias"] = [self.out_bias]
        if self.qk_norm is not None:
            places["self_attn.q_norm.weight"] = list(self.qk_norm[: arch.heads])
            places["self_attn.k_norm.weight"] = list(self.qk_norm[arch.heads :])
        return places


class Decoder:
    """Weights and forward of one architecture on one device, in one dtype. Weights start undefined."""

    def __init__(self, arch: Architecture, device: torch.device, dtype: torch.dtype) -> None:
        self.arch, self.device, self.dtype = arch, device, dtype

        def empty(*shape: int) -> Tensor:
            return torch.empty(*shape, device=device, dtype=dtype)

        self.embed, self.head = empty(arch.vocab, arch.hidden), empty(arch.hidden, arch.vocab)
        self.norm = empty(arch.hidden)
        self.layers = [_Layer(arch, empty) for _ in range(arch.layers)]
        self._cos = self._sin = torch.empty(0, 1, 2, arch.head_dim // 2, device=device)

    def places(self) -> dict[str, list[Tensor]]:
        """Where each tensor of a checkpoint belongs: name → views that have the checkpoint's shape."""
        head = "model.embed_tokens.weight" if self.arch.tied else "lm_head.weight"
        places = {"model.norm.weight": [self.norm], "model.embed_tokens.weight": [self.embed]}
        places.setdefault(head, []).append(self.head.t())
        for i, layer in enumerate(self.layers):
            places |= {f"model.layers.{i}.{name}": views for name, views in layer.places(self.arch).items()}
        return places

    def forward(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the blocks over packed tokens.

        Args:
            ids: token ids (N,), N a multiple of `ROW_MULTIPLE`.
            positions: position of each token in its own sequence (N,).
            attend: attention over whatever sequences the caller has in mind.

        Returns:
            Hidden states after the last norm (N, hidden).
        """
        arch, rows = self.arch, len(ids)
        rotated, split = arch.heads + arch.kv_heads, (arch.heads + arch.kv_heads) * arch.head_dim
        cos, sin = self._rope(positions)
        x = self.embed[ids]
        for i, layer in enumerate(self.layers):
            qkv = _product(self._norm(x, layer.norm_in), layer.qkv, layer.qkv_bias)
            qk, v = qkv[:, :split].view(rows, rotated, arch.head_dim), qkv[:, split:]
            if layer.qk_norm is not None:
                qk = rms_norm(qk, (arch.head_dim,), None, arch.eps) * layer.qk_norm
            halves = qk.reshape(rows, rotated, 2, arch.head_dim // 2)
            qk = torch.addcmul(halves * cos, halves.roll(1, -2), sin).flatten(-2).to(self.dtype)
            mixed = attend(i, qk[:, : arch.heads], qk[:, arch.heads :], v.view(rows, arch.kv_heads, -1))
            x = torch.addmm(x, mixed, layer.out)
            if layer.out_bias is not None:
                x += layer.out_bias
            both = self._norm(x, layer.norm_post) @ layer.gate_up
            x = torch.addmm(x, silu(both[:, : arch.inner]) * both[:, arch.inner :], layer.down)
        return self._norm(x, self.norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (n, vocab) in float32 of hidden states (n, hidden), for any n."""
        short = -len(hidden) % ROW_MULTIPLE
        padded = torch.nn.functional.pad(hidden, (0, 0, 0, short)) if short else hidden
        return (padded @ self.head)[: len(hidden)].float()

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, (self.arch.hidden,), weight, self.arch.eps)

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine (N, 1, 2, D/2); the table grows to the longest position asked for."""
        longest = int(positions.max()) + 1
        if longest > len(self._cos):
            half = self.arch.head_dim // 2
            exponents = torch.arange(half, dtype=torch.float32, device=self.device) / half
            reach = torch.arange(-(-longest // 256) * 256, dtype=torch.float32, device=self.device)
            angles = torch.outer(reach, 1.0 / self.arch.rope_theta**exponents)[:, None]
            self._cos = torch.stack((angles.cos(), angles.cos()), 2)
            self._sin = torch.stack((-angles.sin(), angles.sin()), 2)
        return self._cos[positions], self._sin[positions]

    def rows_agree(self, sizes: list[int]) -> bool:
        """Whether a row of every product has the same bits for each of these numbers of rows, here and now.

        It depends on the machine, its libraries and the number of threads, so it is tried and not assumed.
        """
        generator = torch.Generator().manual_seed(0)
        layer = self.layers[0]
        for weight in (layer.qkv, layer.out, layer.gate_up, layer.down, self.head):
            # the head is never applied to more than a few rows at once
            mine = sorted({min(size, 128) if weight is self.head else size for size in sizes})
            x = torch.randn(mine[-1], len(weight), generator=generator).to(self.device, self.dtype)
            trial = torch.randn(weight.shape, generator=generator).to(self.device, self.dtype)
            whole = x @ trial
            if not all(torch.equal(x[:size] @ trial, whole[:size]) for size in mine[:-1]):
                return False
        return True


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else torch.addmm(bias, x, weight)
