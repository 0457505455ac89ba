"""Steps of a trace: nothing is lost, nothing that belongs together is cut."""

import gzip
import json
import re
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data import countdown
from dipscope.data.shaping import steps
from dipscope.scoring.thinking import split

PIECES = (
    "\n", "\n\n", "\n \n", " ", "  ", "\t", "\r\n", "$", "$$", "\\[", "\\]", "\\(", "\\)", "```", "~~~",
    "\\", "\\\\", "\\$", "\\begin{align}", "\\end{align}", "\\begin{cases}", "\\end{cases}", "[asy]",
    "[/asy]", "|", "| a | b |\n|---|---|\n", "Wait, ", "Alternatively, ", "Let me check. ", "So x = 3. ",
    "and then", "1. ", "- ", "## Step", "**Step 1**", "x = y", "word " * 60, "x" * 1500, "θ", "🙂", "\ue000",
    "A sentence of some length that ends here. " * 8,
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=40).map("".join)


@given(texts)
@settings(max_examples=400)
def test_concatenation_is_the_input_and_no_step_is_blank(text):
    found = steps.segment(text)
    assert "".join(found) == text
    if text.strip():
        assert all(step.strip() for step in found)
    else:
        assert found == ([text] if text else [])


@given(texts)
@settings(max_examples=400)
def test_a_mask_has_the_length_of_its_text_and_changes_only_what_it_blots_out(text):
    masked = steps.mask(text)
    assert len(masked) == len(text)
    assert all(m == t or m in (steps.BLOCK, steps.INLINE) for m, t in zip(masked, text, strict=True))


@given(texts)
@settings(max_examples=200)
def test_a_step_is_within_the_limit_unless_nothing_can_be_cut(text):
    for step in steps.segment(text):
        # What is beyond the limit is one block or word that began before it.
        beyond = steps.mask(text)[text.find(step) :][steps.LIMIT : len(step.rstrip())]
        assert not re.search(r"\s+\S", beyond)


BLOCKS = (
    "$$\nx = 1\n\n+ 2\n$$",
    "\\[\na\n\nb\n\\]",
    "```python\nprint(1)\n\nprint(2)\n```",
    "\\begin{align}\na &= b \\\\\n\n\\begin{align} c \\end{align}\n\\end{align}",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "[asy]\ndraw(A);\n\ndraw(B);\n[/asy]",
)
prose = st.sampled_from(
    ["Some words here.", "Wait, that is wrong.", "So x = 3.", "It costs 5 dollars. " * 40, "- one"]
)


@given(st.lists(st.tuples(prose, st.sampled_from(BLOCKS)), min_size=1, max_size=6))
def test_blocks_are_never_cut(parts):
    marked = [(words, f"{block}") for words, block in parts]
    found = steps.segment("\n\n".join(f"{words}\n\n{block}" for words, block in marked))
    for block in {block for _, block in marked}:
        expected = sum(b == block for _, b in marked)
        assert sum(step.count(block) for step in found) == expected


def test_paragraphs_go_with_what_introduces_them():
    text = (
        "First, the area.\n\nThe formula is:\n\nA = b h / 2\n\nso A is 6.\n\nNow the other side.\n\n"
        "$$\nc = 5\n$$\n\n## Check\n\nAll fine.\n\n1. One more thing here\n\n2. And another one here"
    )
    assert [s.strip() for s in steps.segment(text)] == [
        "First, the area.",
        "The formula is:\n\nA = b h / 2\n\nso A is 6.",
        "Now the other side.\n\n$$\nc = 5\n$$",
        "## Check\n\nAll fine.",
        "1. One more thing here",
        "2. And another one here",
    ]


def test_turns_of_thought_begin_a_step_in_long_paragraphs_only():
    first = "The area of the triangle is half the base times the height, and the base is known to be four. "
    second = (
        "Wait, the base was five, so that everything that follows from it has to be computed once again. "
    )
    third = (
        "Alternatively, Heron's formula gives the same without the height, which I do not really know yet."
    )
    assert steps.segment(f"{first}{second}") == [f"{first}{second}"]
    long = f"{first * 3}{second}{third}"
    assert steps.segment(long)[-2:] == [second, third]
    inside = f"{first * 4}$ x. Wait, y $ and so on. {first}"
    assert all(s.count("$") % 2 == 0 for s in steps.segment(inside))


def test_a_line_is_a_step_of_the_symbolic_teacher():
    for trace in countdown.traces(50, 1):
        thinking = split(trace.response).reasoning
        assert steps.segment(thinking) == [
            ("\n" if n == 0 else "") + line + "\n" for n, line in enumerate(thinking.strip("\n").split("\n"))
        ]


@pytest.mark.parametrize("mark", ["$", "\\(", "\\[", "```", "\\begin{a}", "\n|", "\n \n", "wait, ", " "])
def test_hostile_repetition_is_segmented(mark):
    text = mark * 20_000
    assert "".join(steps.segment(text)) == text


@pytest.fixture(scope="module")
def real(shared):
    """(trace, steps) of the long traces that are here: closed or cut, of two families of models."""
    found = []
    for name in (
        "long_cot/unireason_sft_math500", "skythought_outputs/skyt1_aime24_amc23",
        "skythought_outputs/skyt1_32b_perturbed_amc23",
    ):  # fmt: skip
        with gzip.open(shared / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            thoughts = [split(json.loads(line)["response"], opened=True).reasoning for line in file]
        found.append([(t, steps.segment(t)) for t in thoughts])
    return found


def test_real_traces_have_steps_of_a_sane_number_and_size(real):
    for family, (few, many) in zip(real, [(15, 35), (40, 900), (40, 130)], strict=True):
        assert few <= statistics.median(len(found) for _, found in family) <= many
        for text, found in family:
            assert "".join(found) == text
            assert max(len(step.rstrip()) for step in found) <= steps.LIMIT
        lengths = [len(step.strip()) for _, found in family for step in found]
        assert 60 <= statistics.median(lengths) <= 200


def test_real_traces_keep_their_math_whole(real):
    """A step has its marks in pairs wherever its trace has; a few traces are cut, or mix two marks up."""
    pairs = (("\\(", "\\)"), ("\\[", "\\]"), ("\\begin{", "\\end{"))

    def broken(text):
        plain = text.replace("\\\\", "")
        unequal = [plain.count(a) != plain.count(b) for a, b in pairs]
        return [*unequal, bool(plain.count("$$") % 2)]

    checked = 0
    for family in real:
        for text, found in family:
            whole = [not b for b in broken(text)]
            checked += any(whole)
            for step in found:
                assert not any(b and w for b, w in zip(broken(step), whole, strict=True)), step
    assert checked > 850


def test_real_traces_begin_steps_at_turns(real):
    begin = sum(
        step.lstrip().startswith(("Wait", "Alternatively"))
        for family in real
        for _, f in family
        for step in f
    )
    said = sum(len(re.findall(r"\b(?:Wait|Alternatively),", text)) for family in real for text, _ in family)
    assert begin > 0.5 * said
