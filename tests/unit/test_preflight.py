"""Data from which a model cannot learn to stop or think is refused before training."""

from dataclasses import replace

import pytest
import tinymodel

from dipscope.data.tokenize import Example, render, render_prompt, stop_ids
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.train.preflight import preflight

PLAIN = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"


def checked(traces, max_length=256, tokenizer=None):
    tokenizer = tokenizer or tinymodel.tokenizer()
    return preflight(tokenizer, [render(tokenizer, t, max_length) for t in traces], traces)


def test_sound_data_pass_with_notes():
    notes = checked(tinymodel.traces(5))
    assert "5 rows" in notes[0] and notes[-1].endswith("<|im_end|>")
    assert not any("cut" in note or "unknown" in note for note in notes)


def test_a_turn_ends_with_the_templates_token_then_eos():
    tokenizer = tinymodel.tokenizer()
    im_end, eos = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<eos>"))
    assert stop_ids(tokenizer) == (im_end, eos)
    assert stop_ids(tinymodel.tokenizer(PLAIN)) == (eos,)
    assert stop_ids(tinymodel.tokenizer(PLAIN + "{{ eos_token }}")) == (eos,)


def test_no_token_that_ends_a_turn_is_explained():
    tokenizer = tinymodel.tokenizer(PLAIN)
    tokenizer.eos_token = None
    with pytest.raises(DipscopeError, match="no token ends a turn"):
        stop_ids(tokenizer)
    with pytest.raises(DipscopeError, match="no chat template"):
        render_prompt(tinymodel.tokenizer(None), "w1")


def test_render_is_prompt_response_and_end():
    tokenizer = tinymodel.tokenizer()
    trace = Trace("a", "q", "w1 w2", "<think> w3 </think> w4")
    example = render(tokenizer, trace, 100)
    assert example.prompt_ids == tuple(render_prompt(tokenizer, "w1 w2"))
    assert tokenizer.decode(example.prompt_ids) == "<|im_start|> user w1 w2 <|im_end|> <|im_start|> assistant"
    assert tokenizer.decode(example.target_ids) == "<think> w3 </think> w4 <|im_end|>"
    assert not example.cut
    short = render(tokenizer, trace, len(example.prompt_ids) + 4)
    assert short == Example(example.prompt_ids, example.target_ids[:4], True)
    assert render(tokenizer, trace, 3) == Example(example.prompt_ids, (), True)


def test_cut_rows_are_counted():
    traces = [Trace("a", "a", "w1", "w2"), Trace("b", "b", "w1", " ".join(["w2"] * 50))]
    assert "1 of 2 rows are cut and do not show how to stop" in checked(traces, 20)


def test_unknown_tokens_are_counted():
    assert "1 of 3 target tokens are unknown to the tokenizer" in checked([Trace("a", "a", "w1", "w2 zebra")])


@pytest.mark.parametrize(
    ("response", "max_length", "says"),
    [("w2 w3 w4 w5 w6", 10, "every row is cut"), ("w2", 5, "nothing is left of the response")],
)
def test_rows_without_an_end_are_refused(response, max_length, says):
    with pytest.raises(DipscopeError, match=says):
        checked([Trace("a", "a", "w1", response)], max_length)


def test_a_target_without_end_of_turn_is_refused():
    tokenizer, trace = tinymodel.tokenizer(), Trace("a", "a", "w1", "w2")
    example = render(tokenizer, trace, 100)
    bare = replace(example, target_ids=example.target_ids[:-1])
    with pytest.raises(DipscopeError, match="ends with 'w2' and not with the end of a turn"):
        preflight(tokenizer, [bare], [trace])


def test_lost_thinking_tags_are_refused():
    with pytest.raises(DipscopeError, match="<think> does not survive"):
        checked(tinymodel.traces(2), tokenizer=tinymodel.tokenizer(think=False))


def test_traces_that_never_ended_teach_no_end_and_are_not_refused():
    endless = [replace(t, response="<think> w1", finish="length") for t in tinymodel.traces(2)]
    tokenizer = tinymodel.tokenizer()
    example = render(tokenizer, endless[0], 100)
    assert example.cut and tokenizer.decode(example.target_ids) == "<think> w1"
    assert checked(endless)[-1] == "no row shows the model how to stop"
