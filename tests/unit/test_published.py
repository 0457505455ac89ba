"""The registry of the paper's sets."""

import pytest

from dipscope.data.reading import published
from dipscope.data.reading.sources import Source, count


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("Math-CoT-20k", "jasonrqh/Math-CoT-20k"),
        ("math-cot-20k", "jasonrqh/Math-CoT-20k"),
        ("jasonrqh/math-nocot-20K", "jasonrqh/Math-NoCoT-20k"),
        ("Numina-Math-20k", "jasonrqh/NuminaMath-20k"),
        ("JASONRQH/Countdown-CoT-20k", "jasonrqh/Countdown-CoT-20k"),
        ("DeepSeek-R1-20k", "jasonrqh/DeepSeek-R1-20k"),
        ("Math-CoT-44k", "jasonrqh/Math-CoT-44k-Qwen3-32b-n32-16384-with-logprob-and-entropy"),
    ],
)
def test_names_aliases_and_case(name: str, hub: str) -> None:
    found = published.find(name)
    assert found is not None and found.hub == hub
    assert Source.parse(name).pinned().hub == hub


def test_other_names_are_not_published() -> None:
    assert published.find("lab/Math-CoT-20k") is None
    assert published.find("Math-CoT") is None
    assert "Math-CoT-20k" in published.near("Math-CoT-2k")


def test_what_is_on_record_is_pinned_and_what_the_user_says_stays() -> None:
    pinned = Source(hub="math-cot-20k").pinned()
    assert pinned.revision == "1435fb21d4fecc8ad4966a26f22a874cf2b527f1"
    assert pinned.file == "Math-CoT-20k.parquet"
    assert pinned.sha256 == "3166f342ec838ebe0979be43923abb33fa1c80f33043aa6acc04e5d82161142a"
    other = Source(hub="Math-CoT-20k", revision="v2").pinned()
    assert (other.revision, other.file, other.sha256) == ("v2", None, None)
    assert Source(hub="Math-CoT-20k", file="other.parquet").pinned().sha256 is None
    assert Source(hub="Math-CoT-20k", sha256="0" * 64).pinned().sha256 == "0" * 64
    unpinned = Source(hub="NuminaMath-20k").pinned()
    assert (unpinned.revision, unpinned.sha256) == (None, None)


def test_rows_known_without_a_download() -> None:
    names = ["Math-CoT-20k", "Math-NoCoT-20k", "Countdown-CoT-20k", "NuminaMath-20k", "DeepSeek-R1-20k"]
    assert [count(Source.parse(n)) for n in names] == [20480] * 5
    assert count(Source.parse("Math-CoT-44k")) is None
    assert count(Source(hub="Math-CoT-20k", revision="another")) is None
    assert count(Source(hub="lab/other")) is None


def test_the_notes_say_what_is_pinned_and_what_is_not() -> None:
    for known in published.SETS:
        assert any("no licence" in note for note in known.notes)
        assert any("Pin it" in note for note in known.notes) == (known.sha256 is None)
