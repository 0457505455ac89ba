"""compile = true: the same gradient, one compilation for all lengths, and a clear line where it cannot be."""

import pytest
import tinymodel
import torch

from dipscope.errors import DipscopeError
from dipscope.study import Lora
from dipscope.train import attention, compiling, lora
from dipscope.train.step import accumulate

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing_enable", "ignore::DeprecationWarning"
)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradient(model, pack_tokens=64):
    model.zero_grad()
    accumulate(model.train(), tinymodel.examples(9), tinymodel.recipe(pack_tokens=pack_tokens))
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("adapters", "checkpointing"), [(False, True), (True, False)], ids=["full", "lora"])
def test_gradient_is_the_same_and_lengths_share_a_compilation(adapters, checkpointing):
    if adapters:
        pytest.importorskip("peft", reason="LoRA needs peft")
    found = []
    for compiled in (False, True):
        model = tinymodel.model()
        names = list(model.state_dict())
        if adapters:
            lora.attach(model, Lora(rank=4), 0)
            names = list(model.state_dict())
        if compiled:
            compiling.compile_layers(model, pytest.fail, "aot_eager")
        attention.attach(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        assert list(model.state_dict()) == names
        gradient(model, 64)
        torch._dynamo.utils.counters.clear()
        found.append(gradient(model, 48))
    assert not torch._dynamo.utils.counters["frames"], "compiled again for another length"
    for name, expected in found[0].items():
        assert (found[1][name] - expected).norm() <= 1e-5 * expected.norm(), name


def test_parts_are_really_compiled():
    model = tinymodel.model()
    compiling.compile_layers(model, pytest.fail, "aot_eager")
    attention.attach(model)
    torch._dynamo.utils.counters.clear()
    gradient(model)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2, "norm and feed-forward block"


def test_a_cpu_is_told_why_not():
    notes, model = [], tinymodel.model()
    compiling.compile_layers(model, notes.append)
    assert len(notes) == 1 and "left out on a CPU" in notes[0]
    assert not any(m._compiled_call_impl for m in model.modules())


def test_where_torch_cannot_compile_one_line_says_so(monkeypatch):
    def compile(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(
        DipscopeError, match=r"cannot compile here \(Failed to find C compiler.\).*compile = false"
    ):
        compiling.compile_layers(tinymodel.model(), print, "aot_eager")
