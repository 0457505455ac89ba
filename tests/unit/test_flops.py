"""The arithmetic of training, against torch's own count of what it runs; and peaks of devices."""

import pytest
import tinymodel
import torch
from torch.utils.flop_counter import FlopCounterMode

from dipscope import hardware
from dipscope.costs.shapes import Shape
from dipscope.data.tokenize import Example
from dipscope.train.flops import Flops
from dipscope.train.packing import input_length


def counted(model, row):
    """Operations that torch runs for one row, with attention over all pairs as `eager` computes it."""
    model.set_attn_implementation("eager")
    ids = torch.tensor([row.prompt_ids + row.target_ids])[:, :-1]
    with FlopCounterMode(display=False) as counter:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        chosen = hidden[:, len(row.prompt_ids) - 1 :]
        model.get_output_embeddings()(chosen).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4, "num_hidden_layers": 3, "head_dim": 16}])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_flops_are_those_that_torch_counts(family, changes):
    model = tinymodel.model(family, **changes)
    flops = Flops.of(model)
    rows = tinymodel.examples(4)
    for row in rows:
        n = input_length(row)
        unseen = flops.pair * (n * n - n * (n + 1) // 2)  # pairs that causal attention does not compute
        assert flops.of_rows([row]) + unseen == counted(model, row)
    assert flops.of_rows(rows) == sum(flops.of_rows([row]) for row in rows)


def test_a_frozen_weight_takes_no_gradient_of_its_own():
    model = tinymodel.model(tie_word_embeddings=False)
    trained, row = Flops.of(model), tinymodel.examples(1)[0]
    for layer in model.model.layers:
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            projection.weight.requires_grad_(False)
    frozen = 2 * 2 * 3 * 32 * 48  # two layers, 2 operations for each weight
    assert trained.token - Flops.of(model).token == frozen
    n = input_length(row)
    assert Flops.of(model).of_rows([row]) + trained.pair * (n * n - n) // 2 == counted(model, row)


def test_flops_agree_with_the_plan():
    """The plan counts the head at every token and half a square of attention; that is all they differ in."""
    model = tinymodel.model()
    shape = Shape.of_config(model.config.to_dict())
    row = Example(tuple(range(1)), tuple(range(200)), False)  # all its 200 inputs are supervised
    assert Flops.of(model).of_rows([row]) == pytest.approx(200 * shape.flops(200), rel=0.01)


def test_a_model_with_other_matrices_is_not_guessed():
    model = tinymodel.model()
    model.model.layers[0].extra = torch.nn.Bilinear(2, 2, 2)
    assert Flops.of(model) is None


def test_peaks_are_of_one_edition_of_a_name():
    assert hardware.gpu_rate("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert hardware.gpu_rate("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    for unknown in ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "NVIDIA H100", "Tesla T4", ""):
        assert hardware.gpu_rate(unknown, "bf16") is None
    names = [name for gpu in hardware.GPUS.values() for name in gpu.names]
    assert len(set(names)) == len(names)
    assert all(gpu.peak >= gpu.tf32 >= gpu.fp32 for gpu in hardware.GPUS.values())


def test_the_rate_of_a_processor_is_one_that_it_reaches():
    rate = hardware.peak_rate(torch.device("cpu"), bf16=False)
    assert rate == hardware.peak_rate(torch.device("cpu"), bf16=False)  # measured once
    assert 1e8 < rate < 1e14
    assert hardware.peak_rate(torch.device("meta"), bf16=False) is None


def test_memory_rises_with_what_is_held():
    device = torch.device("cpu")
    hardware.reset_peak_memory(device)
    before = hardware.peak_memory(device)
    held = torch.ones(30 << 20)  # 120 MB
    assert 100e6 < hardware.peak_memory(device) - before < 200e6
    del held
    assert hardware.peak_memory(device) - before > 100e6  # the highest, not the present
