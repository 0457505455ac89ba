"""What chat templates of the common families do, each found and said; and rows of tokens on disk."""

import json
from dataclasses import replace

import pytest
import tinymodel
from hypothesis import given
from hypothesis import strategies as st

from dipscope.data import template
from dipscope.data.tokenize import Example, TokenTable, opens_thinking, render, render_prompt
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.interop.chat_template import CHATML, NAMED, with_template
from dipscope.train.preflight import preflight

TURN = "<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> "
ASK = "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
PLAIN = "{% for m in messages %}" + TURN + "{% endfor %}" + ASK
# A default system prompt where none is given, as Qwen2.5 has it.
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|> system w1 w2 <|im_end|> {% endif %}" + PLAIN
# Thinking of earlier turns is dropped, as Qwen3 does it.
FORGETS = (
    "{% for m in messages %}{% if m.role == 'assistant' and '</think>' in m.content and not loop.last %}"
    "<|im_start|> assistant {{ m.content.split('</think>')[-1] }} <|im_end|> {% else %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + ASK
)
# A beginning-of-text token first, as InternLM and Llama have it, and no end of the assistant's turn.
BOS = "{{ bos_token }} " + PLAIN
ENDLESS = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
# The thinking opened by the generation prompt, or closed at once.
OPENS = (
    "{% for m in messages %}"
    + TURN
    + "{% endfor %}{% if add_generation_prompt %}assistant <think> {% endif %}"
)
CLOSES = OPENS.replace("<think> {% endif", "<think> </think> {% endif")


def tokenizer(chat_template):
    made = tinymodel.tokenizer(chat_template)
    made.bos_token = "<unk>"
    return made


def test_a_default_system_prompt_is_found():
    assert "w1 w2" in template.default_system(tokenizer(SYSTEM))
    for harmless in (PLAIN, FORGETS, BOS, ENDLESS, CHATML):
        assert template.default_system(tokenizer(harmless)) == ""
    assert any("system prompt before every conversation" in n for n in template.notes(tokenizer(SYSTEM)))


def test_thinking_that_is_dropped_from_history_is_found():
    assert not template.keeps_thinking(tokenizer(FORGETS))
    for keeps in (PLAIN, SYSTEM, BOS):
        assert template.keeps_thinking(tokenizer(keeps))
    assert any("drops the thinking" in n for n in template.notes(tokenizer(FORGETS)))


def test_how_a_turn_ends_is_said():
    assert any("not the tokenizer's EOS" in n for n in template.notes(tokenizer(PLAIN)))
    assert any("ends no assistant turn" in n for n in template.notes(tokenizer(ENDLESS)))


def test_a_template_that_opens_the_thinking_takes_the_mark_out_of_the_target():
    made = tokenizer(OPENS)
    example = render(made, Trace("a", "a", "w1", "<think> w2 </think> w3"), 100)
    assert made.decode(example.prompt_ids).endswith("assistant <think>")
    assert made.decode(example.target_ids) == "w2 </think> w3 <|im_end|>"
    assert opens_thinking(made, example.prompt_ids)
    assert not opens_thinking(tokenizer(PLAIN), render_prompt(tokenizer(PLAIN), "<think> w1"))
    notes = preflight(made, [example], [Trace("a", "a", "w1", "<think> w2 </think> w3")])
    assert any("opens the thinking itself" in n for n in notes)


def test_a_template_that_forbids_thinking_is_refused_for_traces_that_think():
    made = tokenizer(CLOSES)
    thinks, says = Trace("a", "a", "w1", "<think> w2 </think> w3"), Trace("b", "b", "w1", "w3")
    with pytest.raises(DipscopeError, match="closes an empty thinking block"):
        preflight(made, [render(made, thinks, 100)], [thinks])
    assert preflight(made, [render(made, says, 100)], [says])


def test_turns_before_the_prompt_are_rendered_and_not_supervised():
    made = tokenizer(PLAIN)
    before = [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]
    example = render(made, Trace("a", "a", "w1", "w2", context=json.dumps(before)), 100)
    assert "w5 <|im_end|> <|im_start|> assistant w6" in made.decode(example.prompt_ids)
    assert made.decode(example.target_ids) == "w2 <|im_end|>"


def test_a_response_that_the_tokenizer_changes_is_counted():
    trace = Trace("a", "a", "w1", "w2  w3")  # two spaces, which a word-level tokenizer cannot keep
    made = tokenizer(PLAIN)
    assert any(
        "1 of 1 responses come back changed" in n
        for n in preflight(made, [render(made, trace, 100)], [trace])
    )


def test_a_model_gets_another_template_and_keeps_its_weights(tmp_path):
    from transformers import AutoTokenizer

    folder = tinymodel.directory(tmp_path / "model")
    view = with_template(folder, "chatml", tmp_path / "view")
    assert AutoTokenizer.from_pretrained(view).chat_template == CHATML
    assert (view / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert AutoTokenizer.from_pretrained(folder).chat_template == tinymodel.TEMPLATE
    own = tmp_path / "own.jinja"
    own.write_text(PLAIN)
    assert AutoTokenizer.from_pretrained(with_template(folder, str(own), view)).chat_template == PLAIN
    with pytest.raises(DipscopeError, match="cannot be read"):
        with_template(folder, str(tmp_path / "none.jinja"), view)


def test_responses_end_with_the_eos_where_the_template_says_so():
    turn_end, eos = (tokenizer(CHATML).convert_tokens_to_ids(t) for t in ("<|im_end|>", "<eos>"))
    for name, expected in (("chatml", turn_end), ("chatml-eos", eos)):
        made = tokenizer(NAMED[name])
        assert render(made, Trace("a", "a", "w1", "w2"), 100).target_ids[-1] == expected
        assert turn_end in render_prompt(made, "w1"), "turns that are asked end as before"


ids = st.lists(st.integers(0, 200_000), max_size=6).map(tuple)
rows = st.lists(st.builds(Example, ids, ids, st.booleans()), max_size=8)


@given(rows)
def test_a_token_table_comes_back_from_disk_as_it_was(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("tokens") / "tokens.parquet"
    TokenTable.of(examples).write(path)
    table = TokenTable.read(path)
    assert list(table) == table[:] == examples
    assert table[-1:] == examples[-1:]
    if examples:
        assert table[-1] == examples[-1]
        assert replace(table[0]) == examples[0]
    with pytest.raises(IndexError):
        table[len(examples)]
