from hypothesis import given
from hypothesis import strategies as st

from dipscope.scoring.thinking import CLOSE, OPEN, split

plain = st.text().filter(lambda s: OPEN not in s and CLOSE not in s)


@given(plain)
def test_text_without_tags_is_all_answer(text):
    response = split(text)
    assert (response.answer, response.reasoning, response.closed) == (text, "", True)


@given(plain, plain)
def test_a_closed_block_gives_both_parts_verbatim(reasoning, answer):
    response = split(f"{OPEN}{reasoning}{CLOSE}{answer}")
    assert response.reasoning == reasoning
    assert response.answer == answer.strip("\n")
    assert response.closed


@given(plain, plain)
def test_unclosed_thinking_has_no_answer(before, reasoning):
    response = split(f"{before}{OPEN}{reasoning}")
    assert (response.answer, response.reasoning, response.closed) == ("", reasoning, False)


def test_a_block_opened_by_the_prompt_is_closed_by_the_response():
    response = split("so it is 4</think>\n4")
    assert (response.reasoning, response.answer, response.closed) == ("so it is 4", "4", True)


def test_the_last_closing_tag_counts():
    response = split("<think>a</think> b <think>c</think>d")
    assert response.answer == "d"


@given(st.text(alphabet="<>/think ab\n", max_size=60))
def test_nothing_is_invented(text):
    response = split(text)
    assert response.text == text
    assert response.answer in text
    assert response.reasoning in text


def test_a_prompt_that_opened_the_block_makes_a_text_without_marks_unfinished():
    response = split("so it is", opened=True)
    assert (response.reasoning, response.answer, response.closed) == ("so it is", "", False)
    assert split("so it is</think>4", opened=True).answer == "4"


def test_marks_of_another_family():
    text = "<|begin_of_thought|>\nhm\n<|end_of_thought|>\n\n<|begin_of_solution|>\n4\n<|end_of_solution|>"
    assert (split(text).reasoning, split(text).answer, split(text).closed) == ("\nhm\n", "4", True)
    assert not split("<|begin_of_thought|>\nhm").closed
