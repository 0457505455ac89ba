"""`loss_norm = "paper"`: one process has the gradient of the eight that the paper's code used."""

import functools

import pytest
import ranks
import tinymodel
import torch
from torch.utils.data import DistributedSampler

from dipscope.train.schedule import rows_of_step

torch.set_num_threads(1)
WORLD, MICRO, BATCH = 8, 4, 64
ROWS = tinymodel.examples(3 * BATCH, longest=12)
OPTIONS = {
    "loss_norm": "paper",
    "virtual_world": WORLD,
    "virtual_micro": MICRO,
    "batch_size": BATCH,
    "shuffle": False,
}


@functools.cache
def reference(step):
    """Written from the formula alone: rows dealt by PyTorch's sampler, padded micro-batches, eight ranks.

    L_m is the mean over a micro-batch's own supervised tokens; the gradients of a rank's micro-batches are
    summed, those of the ranks averaged; the norm is that of the result.
    """
    model = tinymodel.model()
    share, losses = BATCH // WORLD, []
    for rank in range(WORLD):
        sampler = DistributedSampler(ROWS, WORLD, rank, shuffle=False, drop_last=True)
        own = list(sampler)[(step - 1) * share : step * share]
        for first in range(0, share, MICRO):
            micro = [ROWS[i] for i in own[first : first + MICRO]]
            longest = max(len(row.prompt_ids) + len(row.target_ids) for row in micro)
            ids = torch.zeros(MICRO, longest, dtype=torch.long)
            labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
            for i, row in enumerate(micro):
                start, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.target_ids)
                ids[i, :end] = torch.tensor(row.prompt_ids + row.target_ids)
                labels[i, start:end] = torch.tensor(row.target_ids)
                mask[i, :end] = 1
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            losses.append(
                torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            )
    (sum(losses) / WORLD).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    return grads, torch.sqrt(sum(g.square().sum() for g in grads.values())).item()


def rows(step):
    return [ROWS[i] for i in rows_of_step(0, step, BATCH, len(ROWS), shuffle=False)]


def assert_faithful(answer, step):
    _, grads, norm, clipped = answer
    expected, whole = reference(step)
    assert norm == pytest.approx(whole, rel=1e-5)
    assert norm > 1.0, "the clip is at work"
    for name, value in expected.items():
        assert (grads[name] - value).norm() / value.norm() < 1e-5, name
        assert (clipped[name] - value / whole).norm() * whole / value.norm() < 1e-5, name


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("pack_tokens", [40, 8192])
def test_one_process_has_the_gradient_of_eight(step, pack_tokens):
    assert_faithful(ranks.gradient(rows(step), pack_tokens=pack_tokens, **OPTIONS), step)


def test_it_is_not_the_gradient_of_the_mean_over_tokens():
    answer = ranks.gradient(rows(1), **(OPTIONS | {"loss_norm": "tokens"}))
    with pytest.raises(AssertionError):
        assert_faithful(answer, 1)
