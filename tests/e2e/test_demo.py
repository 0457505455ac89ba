"""The demo as a user runs it. Minutes long, so by hand: `make test-slow`."""

import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("demo") / "w"

    def run():
        begun = time.monotonic()
        command = [sys.executable, "-m", "dipscope", "demo", "--workspace", str(workspace), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr, time.monotonic() - begun

    result, _, seconds = run()
    return run, result, seconds, workspace


def curves(workspace, level, probe="generate"):
    analysis = json.loads((workspace / "analysis.json").read_text())
    return [c for c in analysis["curves"] if c["level"] == level and c["probe"] == probe]


def test_it_takes_minutes_and_the_second_time_nothing(demo):
    run, result, seconds, _ = demo
    assert seconds < 600  # five minutes on two idle cores; the machine that tests it may be busy
    again, said, briefly = run()
    assert again == result
    assert "Nothing to do" in said
    assert briefly < 5


def test_traces_raise_the_in_domain_score_clearly_above_the_base(demo):
    _, result, _, _ = demo
    gains = {f["scope"].split("/")[1]: f for f in result["findings"] if f["id"] == "in-domain-gain"}
    assert gains["cot"]["verdict"] == "supported"
    assert gains["cot"]["effect"]["low"] > 0


def test_out_of_domain_scores_of_the_base_are_neither_floor_nor_ceiling(demo):
    *_, workspace = demo
    for curve in curves(workspace, "domain"):
        if curve["domain"].startswith("ood"):
            assert 0.15 < curve["points"][0]["score"] < 0.9


def test_lengths_move_and_some_curve_has_a_shape(demo):
    *_, workspace = demo
    domain = curves(workspace, "domain")
    assert any(c["points"][3]["tokens"] > 2 * c["points"][0]["tokens"] for c in domain)
    assert any(c["shape"]["label"] not in ("flat", "inconclusive") for c in domain)
