"""Activation checkpointing: the same gradient, dropout included, from fewer stored values."""

import pytest
import tinymodel
import torch

from dipscope.study import Lora
from dipscope.train import attention, lora
from dipscope.train.step import accumulate

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")


def prepared(checkpointing, adapters=None, **changes):
    model = tinymodel.model(num_hidden_layers=4, **changes)
    if adapters:
        lora.attach(model, adapters, 0)
        torch.manual_seed(2)
        for name, p in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(p, std=0.1)
    attention.attach(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def gradient(model, recipe):
    """Gradient by name, and the bytes that autograd kept for the backward pass of each forward pass."""
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    model.zero_grad()
    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        accumulate(model, tinymodel.examples(9), recipe)
    size = sum({t.data_ptr(): t.untyped_storage().nbytes() for t in kept}.values())
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, size


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"attention_dropout": 0.3}, {"adapters": Lora(rank=4)}, {"adapters": Lora(rank=4, dropout=0.3)}],
    ids=["plain", "dropout", "lora", "lora with dropout"],
)
def test_gradient_is_the_same_and_less_is_kept(changes, precision):
    if "adapters" in changes:
        pytest.importorskip("peft", reason="LoRA needs peft")
    recipe = tinymodel.recipe(pack_tokens=8192, precision=precision)
    whole, kept = gradient(prepared(False, **changes), recipe)
    again, less = gradient(prepared(True, **changes), recipe)
    assert whole.keys() == again.keys()
    for name, expected in whole.items():
        assert (again[name] - expected).norm() <= 1e-6 * expected.norm(), name
    # What is left is mostly the loss and one input a layer.
    assert less < 0.5 * kept


def test_dropout_changes_the_gradient():
    recipe = tinymodel.recipe()
    plain, _ = gradient(prepared(False), recipe)
    dropped, _ = gradient(prepared(True, attention_dropout=0.3), recipe)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert not torch.allclose(plain[name], dropped[name], rtol=1e-2)
