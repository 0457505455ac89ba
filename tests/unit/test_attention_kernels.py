"""Document attention by other kernels: each against documents one by one, and what if one is wrong."""

import sys
import types

import pytest
import tinymodel
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.errors import DipscopeError
from dipscope.train import attention
from dipscope.train import attention_kernels as kernels
from dipscope.train.step import accumulate

torch.set_num_threads(1)
CPU = torch.device("cpu")
LENGTHS = (7, 7, 1, 30, 2)
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def naive(q, k, v, lengths, scale, dropout=0.0):
    """Softmax written out, one document and one head at a time."""
    outputs = []
    for a, b, c in zip(*(x[0].split(list(lengths), 1) for x in (q, k, v)), strict=True):
        heads = []
        for head in range(len(a)):
            key, value = (x[head * len(b) // len(a)] for x in (b, c))
            scores = a[head] @ key.T * scale
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            heads.append(scores.softmax(-1) @ value)
        outputs.append(torch.stack(heads, 1))
    return torch.cat(outputs)[None]


def qkv(lengths, heads=4, key_heads=2, size=8, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(1, n, sum(lengths), size, requires_grad=True) for n in (heads, key_heads, key_heads)]


class FlashStub:
    """`flash_attn_varlen_func` by the naive formula, remembering what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
        dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
        alibi_slopes=None, deterministic=False, return_attn_probs=False, block_table=None,
    ):  # fmt: skip
        self.calls.append((cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, deterministic))
        assert causal and window_size == (-1, -1) and not (softcap or return_attn_probs)
        self.dtypes = {x.dtype for x in (q, k, v)}
        self.scale = softmax_scale
        lengths = cu_seqlens_q.diff().tolist()
        return naive(*(x.transpose(0, 1)[None] for x in (q, k, v)), lengths, softmax_scale)[0]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.sampled_from([(4, 2), (3, 3), (4, 1)]))
@settings(max_examples=25)
def test_loop_and_mask_equal_documents_one_by_one(lengths, heads):
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (x.detach() for x in qkv(lengths, *heads))
    expected = naive(q, k, v, lengths, 0.3)
    for kernel in (kernels.loop, kernels.masked(flex_attention)):
        found = kernel(q, k, v, tuple(lengths), 0.3, 0.0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_mask_leaves_out_blocks_across_documents_and_is_made_once_a_pass():
    mask = kernels._block_mask((300, 300, 168), CPU)
    blocks = mask.to_dense()[0, 0].int().tolist()
    assert blocks == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert kernels._block_mask((300, 300, 168), CPU) is mask
    assert kernels._block_mask((300, 468), CPU) is not mask


def test_varlen_passes_documents_scale_dropout_and_determinism():
    stub = FlashStub()
    q, k, v = qkv(LENGTHS)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for fixed in (True, False):
            torch.use_deterministic_algorithms(fixed)
            out = kernels.varlen(stub)(q, k, v, LENGTHS, 0.25, 0.125)
            starts, same, longest, longest_key, dropout, deterministic = stub.calls[-1]
            assert (
                starts is same and starts.dtype == torch.int32 and starts.tolist() == [0, 7, 14, 15, 45, 47]
            )
            assert longest == longest_key == 30 and dropout == 0.125 and deterministic == fixed
            assert stub.scale == 0.25
    finally:
        torch.use_deterministic_algorithms(before)
    expected = kernels.loop(q, k, v, LENGTHS, 0.25, 0.0)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(out.square().sum(), (q, k, v)),
        torch.autograd.grad(expected.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_kernels_compute_in_the_format_of_autocast():
    from torch.nn.attention.flex_attention import flex_attention

    stub = FlashStub()
    q, k, v = (x.detach() for x in qkv(LENGTHS))
    with torch.autocast("cpu", torch.bfloat16):
        one = kernels.varlen(stub)(q, k, v.bfloat16(), LENGTHS, 0.3, 0.0)
        other = kernels.masked(flex_attention)(q, k, v.bfloat16(), LENGTHS, 0.3, 0.0)
    assert stub.dtypes == {torch.bfloat16} and one.dtype == other.dtype == torch.bfloat16


def test_torch_varlen_is_called_as_flash_attn_is(monkeypatch):
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    flash = FlashStub()

    def varlen_attn(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
        window_size=(-1, -1), enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
    ):  # fmt: skip
        assert window_size == (-1, 0), "causal"
        assert enable_gqa or query.shape[1] == key.shape[1]
        return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, softmax_scale=scale, causal=True)

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    found = dict(kernels.candidates(torch.device("cuda"), torch.bfloat16))
    for heads in ((4, 2), (2, 2)):
        q, k, v = qkv(LENGTHS, *heads)
        out = found["torch varlen"](q, k, v, LENGTHS, 0.25, 0.0)
        torch.testing.assert_close(out, naive(q, k, v, LENGTHS, 0.25), rtol=1e-5, atol=1e-5)


def test_candidates_are_what_is_installed_and_fits(monkeypatch):
    def names(device, dtype, dropout=0.0):
        return [name for name, _ in kernels.candidates(torch.device(device), dtype, dropout)]

    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert "flash-attn" not in names("cuda", torch.bfloat16)
    stub = types.SimpleNamespace(flash_attn_varlen_func=FlashStub())
    monkeypatch.setitem(sys.modules, "flash_attn", stub)
    found = names("cuda", torch.bfloat16)
    assert found[0] == "flash-attn" and found[-1] == "flex"
    assert names("cuda", torch.bfloat16, 0.1) == ["flash-attn"]
    assert names("cuda", torch.float32) == ["flex"]
    assert names("cpu", torch.bfloat16) == []


def leaking(q, k, v, lengths, scale, dropout):
    return kernels.loop(q, k, v, (sum(lengths),), scale, dropout)


def wrong_backwards(q, k, v, lengths, scale, dropout):
    return kernels.loop(q, k.detach() + 0 * k, v, lengths, scale, dropout)


def failing(q, k, v, lengths, scale, dropout):
    raise RuntimeError("no kernel image\nis available")


class Unsteady:
    calls = 0

    def __call__(self, q, k, v, lengths, scale, dropout):
        self.calls += 1
        return kernels.loop(q, k, v, lengths, scale, dropout) * (1 + 1e-6 * self.calls)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (kernels.loop, ""),
        (kernels.varlen(FlashStub()), ""),
        (leaking, "output differs"),
        (wrong_backwards, "gradient of the keys differs"),
        (failing, "RuntimeError: no kernel image is available"),
    ],
)
def test_a_trial_finds_the_flaw(kernel, expected, dtype):
    found = kernels.flaw(kernel, 4, 2, 8, CPU, dtype)
    assert expected in found and bool(expected) == bool(found)


def test_a_trial_finds_what_is_not_the_same_twice():
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        assert kernels.flaw(Unsteady(), 4, 2, 8, CPU, torch.float32) == "its output is not the same twice"
        torch.use_deterministic_algorithms(False)
        assert kernels.flaw(Unsteady(), 4, 2, 8, CPU, torch.float32) == ""
    finally:
        torch.use_deterministic_algorithms(before)


def attach(monkeypatch, *offered):
    monkeypatch.setattr(kernels, "candidates", lambda *_: iter(offered))
    model, notes = tinymodel.model(), []
    attention.attach(model, None, notes.append)
    return model, notes


def test_the_first_sound_kernel_is_used_and_gives_the_same_gradient(monkeypatch):
    stub = FlashStub()
    rows = tinymodel.examples(9)
    chosen, notes = attach(
        monkeypatch, ("leaky", leaking), ("stub", kernels.varlen(stub)), ("never", failing)
    )
    assert len(notes) == 1 and notes[0].startswith("leaky attention is not used: its output differs")
    tried = len(stub.calls)
    plain, none = attach(monkeypatch)
    assert none == []
    for model in (chosen, plain):
        accumulate(model, rows, tinymodel.recipe())
    assert len(stub.calls) > tried
    for (name, p), (_, q) in zip(chosen.named_parameters(), plain.named_parameters(), strict=True):
        assert (p.grad - q.grad).norm() < 1e-5 * q.grad.norm(), name


def test_without_a_sound_kernel_the_loop_is_used_with_a_note(monkeypatch):
    from torch.nn.attention.flex_attention import flex_attention

    model, notes = attach(monkeypatch, ("flex", kernels.masked(flex_attention)), ("other", failing))
    assert model.config._attn_implementation == attention.NAME
    assert ["it fails" in note for note in notes] == [True, True], "flex has no backward pass on a CPU"


def test_a_kernel_that_only_fails_inside_the_model_is_not_used(monkeypatch):
    def picky(q, k, v, lengths, scale, dropout):
        if sum(lengths) == 13:
            raise RuntimeError("too short for me")
        return kernels.loop(q, k, v, lengths, scale, dropout)

    model, notes = attach(monkeypatch, ("picky", picky))
    assert model.config._attn_implementation == attention.NAME and "too short for me" in notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"softcap": 30.0}, "not plain softmax"),
        ({"s_aux": torch.zeros(4)}, "not plain softmax"),
        ({"sliding_window": 8}, "sliding window"),
        ({"document_lengths": None}, "does not pass document lengths"),
    ],
)
def test_what_would_not_be_exact_is_refused_for_every_kernel(changes, message):
    inputs = qkv(LENGTHS)
    for kernel in (kernels.loop, kernels.varlen(FlashStub()), kernels.masked(failing)):
        attend = attention.interface(kernel)
        with pytest.raises(DipscopeError, match=message):
            attend(None, *inputs, None, **({"scaling": 0.3, "document_lengths": LENGTHS} | changes))
        with pytest.raises(DipscopeError, match="mask of its own"):
            attend(None, *inputs, torch.zeros(1), scaling=0.3, document_lengths=LENGTHS)
