"""Mathematics as the paper judges it: math-verify on the whole response, thinking included.

Gold is the full text of the published solution, or the answer in a box where it has none, and both sides are
parsed with math-verify's own settings, as in the code of arXiv 2604.06628. Only its alarms are off: they
count wall time, so that a busy machine would change verdicts; `verifiers` limits CPU time instead.
"""

from __future__ import annotations

import logging
from importlib.metadata import version

from dipscope.scoring.verify import Finding

VERSION = f"whole/1+math-verify-{version('math-verify')}"


def decide(gold: str, response: str) -> Finding:
    """The verdict; `missing` where math-verify finds nothing to compare, which it calls wrong."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its alarms are off
    wanted = parse(gold if "boxed" in gold else rf"\boxed{{{gold}}}", parsing_timeout=None)
    if not wanted:
        return "error", "the gold is not understood"
    said = parse(response, parsing_timeout=None)
    if not said:
        return "missing", ""
    return ("correct" if verify(wanted, said, timeout_seconds=None) else "wrong"), ""
