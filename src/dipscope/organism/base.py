"""The organism's base models: tiny Qwen3s, pretrained on the generated world, shipped in the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.errors import DipscopeError
from dipscope.organism import tokenizer as words
from dipscope.study import Recipe
from dipscope.workspace import writing

if TYPE_CHECKING:
    from dipscope.train.step import StepReport

HEAD = 32
RESUME_EVERY = 500  # steps
BATCH = 32  # documents of one optimizer step, about 34 tokens each


@dataclass(frozen=True)
class Size:
    """Architecture and pretraining of one size.

    Attributes:
        hidden: width of the residual stream.
        layers: transformer blocks.
        feed_forward: width inside the feed-forward blocks.
        heads: attention heads of `HEAD` dimensions each.
        steps: optimizer steps of pretraining.
        lr: peak learning rate.
        init: standard deviation of the initial weights.
    """

    hidden: int
    layers: int
    feed_forward: int
    heads: int
    steps: int
    lr: float
    init: float = 0.06

    @property
    def parameters(self) -> int:
        """Number of parameters, the tied embedding counted once."""
        attention = 4 * self.hidden * self.heads * HEAD + 2 * HEAD
        block = attention + 3 * self.hidden * self.feed_forward + 2 * self.hidden
        return len(words.vocabulary()) * self.hidden + self.layers * block + self.hidden


SIZES: dict[str, Size] = {
    "XS": Size(64, 2, 192, 2, 7_000, 1e-2),
    "S": Size(128, 3, 256, 4, 7_000, 6e-3),
    "M": Size(192, 4, 448, 6, 5_000, 4e-3),
}


def config(size: str) -> Any:
    """The transformers configuration of a size."""
    from transformers import Qwen3Config

    s = _known(size)
    ids = {token: i for i, token in enumerate(words.vocabulary())}
    return Qwen3Config(
        vocab_size=len(ids),
        hidden_size=s.hidden,
        num_hidden_layers=s.layers,
        intermediate_size=s.feed_forward,
        num_attention_heads=s.heads,
        num_key_value_heads=s.heads,
        head_dim=HEAD,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        initializer_range=s.init,
        eos_token_id=ids[words.END],
        pad_token_id=ids[words.PAD],
        bos_token_id=None,
    )


def pretrain(size: str, seed: int, out: Path, on_step: Callable[[StepReport], None] | None = None) -> Path:
    """Pretrain a base from random weights; an interrupted call goes on where it was.

    Args:
        size: one of `SIZES`.
        seed: of weights, documents and order.
        out: where the model will stand, in the Hugging Face layout; `out` itself appears when it is whole.
        on_step: told about every optimizer step.

    Raises:
        DipscopeError: the size is unknown, `out` exists already, or the disk refuses.
    """
    import torch
    from transformers import Qwen3ForCausalLM

    from dipscope.data.tokenize import Example
    from dipscope.organism.world import documents
    from dipscope.train.loop import train_model

    s = _known(size)
    if out.exists():
        raise DipscopeError("the folder exists already", str(out), "Name a new one, or remove it.")
    tokenizer = words.build()
    recipe = Recipe(
        lr=s.lr,
        epochs=1,
        batch_size=BATCH,
        warmup=0.02,
        betas=(0.9, 0.99),
        precision="fp32",
        pack_tokens=4096,
        max_length=512,
        checkpoints=(s.steps,),
        resume_every=RESUME_EVERY,
        save_dtype="bf16",
    )
    rows = [Example(p, r, False) for p, r in tokenized(tokenizer, islice(documents(seed), s.steps * BATCH))]
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config(size))
    work = out.with_name(f".{out.name}.pretraining")
    with writing(out):
        work.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(work)
        folder = train_model(model, work, rows, recipe, seed, work, on_step)[-1]
        folder.rename(out)
        shutil.rmtree(work)
    return out


def tokenized(
    tokenizer: Any, texts: Iterable[tuple[str, str]]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and target ids as `data.tokenize.render` makes them, many at a time: ten times faster."""
    source = iter(texts)
    while chunk := list(islice(source, 4096)):
        prompts = tokenizer([f"{words.USER}{p}{words.ASSISTANT}" for p, _ in chunk])["input_ids"]
        responses = tokenizer([f"{r}{words.END}" for _, r in chunk])["input_ids"]
        yield from zip(map(tuple, prompts), map(tuple, responses), strict=True)


def shipped(size: str) -> Path | None:
    """The folder of a base that comes with the package, or None."""
    folder = Path(str(resources.files("dipscope") / "organism" / "weights" / _known_name(size)))
    return folder if (folder / "model.safetensors").is_file() else None


def resolve(size: str, out: Path, on_step: Callable[[StepReport], None] | None = None) -> Path:
    """A base model: the shipped copy where there is one, else one pretrained into `out` (seed 0)."""
    here = shipped(size)
    if here is not None:
        return here
    return out if (out / "model.safetensors").is_file() else pretrain(size, 0, out, on_step)


def _known(size: str) -> Size:
    return SIZES[_known_name(size)]


def _known_name(size: str) -> str:
    if size not in SIZES:
        raise DipscopeError(
            f"there is no organism of size '{size}'", "models", f"Sizes are {', '.join(SIZES)}."
        )
    return size
