"""Memory of training on one GPU, as a sum of what has to be there at once."""

from __future__ import annotations

from dataclasses import dataclass

from dipscope.costs.shapes import Shape
from dipscope.study import Recipe

LOGITS_AT_ONCE = 1 << 24  # entries where a recipe leaves loss_tokens at 0, as in train/loss.py


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU while a training step is at its peak.

    Attributes:
        weights: the stored (master) weights.
        gradients: of the trained weights, in their format.
        moments: Adam's two, in the format of the weights.
        copies: weights in the format of the computation, and what FSDP2 gathers to compute with.
        activations: kept for the backward pass.
        logits: of the tokens whose loss is computed at once.
    """

    weights: int
    gradients: int
    moments: int
    copies: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights + self.gradients + self.moments + self.copies + self.activations + self.logits
        )  # fmt: skip


def training(shape: Shape, recipe: Recipe, longest: int, world: int = 1) -> Memory:
    """Memory of one of `world` GPUs that train together with FSDP2.

    With P parameters, E of them outside the blocks, T of them trained (all, or the adapters of LoRA), w bytes
    a stored weight (4, or 2 with `bf16_pure`) and c bytes a computed value (2, or 4 with `fp32`):

    - weights w·P / world; gradients w·T / world; moments 2·w·T / world. With `bf16` under LoRA the frozen
      blocks take 2 bytes instead (train/lora.py), as long as the base was published in bfloat16.
    - copies: on one GPU autocast keeps what it casts in bfloat16 through a pass, 2·P with `bf16`, 2·E of it
      under LoRA, and nothing otherwise. With several, embedding and head are gathered as they are stored and
      stay so through a pass, w·E, and with `bf16` autocast's 2·E beside them; two blocks are gathered in c
      bytes. Where these are trained, the gradient of embedding and head waits for the end of the pass in
      w·E, and one block's is reduced in fp32.
    - activations of n = max(`pack_tokens`, longest row) tokens, see `kept`: all blocks; with
      `activation_checkpointing` c·hidden a block and token, and one block in full.
    - logits: entries = tokens at once · vocabulary, held as c bytes, as fp32 and as gradient in fp32.

    What libraries hold besides (CUDA context, buffers of communication, fragmentation) is left to
    `hardware.USABLE`.

    Args:
        shape: of the model.
        recipe: precision, packing, checkpointing.
        longest: tokens of the longest row: it is never split, so a pass is at least as long.
        world: GPUs that share the weights.
    """
    width = 2 if recipe.precision == "bf16_pure" else 4
    computed = 4 if recipe.precision == "fp32" else 2
    trained = shape.adapters(recipe.lora) if recipe.lora else shape.parameters
    cast = recipe.precision == "bf16"
    narrow = shape.layers * shape.block if cast and recipe.lora else 0
    if world > 1:
        copies = width * shape.ends + 2 * computed * shape.block + (2 * shape.ends if cast else 0)
        copies += 0 if recipe.lora else width * shape.ends + 4 * shape.block
    else:
        copies = 2 * (shape.parameters - narrow) if cast else 0
    tokens = max(recipe.pack_tokens, longest)
    block = tokens * kept(shape, computed)
    if recipe.activation_checkpointing:
        activations = shape.layers * tokens * computed * shape.hidden + block
    else:
        activations = shape.layers * block
    at_once = min(recipe.loss_tokens or max(1, LOGITS_AT_ONCE // shape.vocabulary), tokens)
    return Memory(
        weights=(width * (shape.parameters - narrow) + 2 * narrow) // world,
        gradients=width * trained // world,
        moments=2 * width * trained // world,
        copies=copies,
        activations=activations,
        logits=at_once * shape.vocabulary * (computed + 4 + 4),
    )


def kept(shape: Shape, computed: int) -> int:
    """Bytes of a token that one block keeps for its backward pass, with attention that stores no scores.

    With c = `computed` bytes a value. Around each of the two norms: its input and the normalised input in
    fp32, and the output (8 + c a channel). Queries and keys after rotation, values and the output of
    attention (c each); where queries and keys are normalised, that norm's input in fp32 and output too
    (4 + c). In the feed-forward block gate, its activation, up and their product (4·c an inner channel).
    """
    norms = 2 * (8 + computed) * shape.hidden
    attention = (2 * computed + (4 + computed if shape.qk_norm else 0)) * (shape.queries + shape.keys)
    return norms + attention + 4 * computed * shape.inner
