"""Ranks in processes of their own: results and progress come back, and one that fails ends them all."""

import os
import signal
import sys
import time

import pytest

from dipscope.errors import DipscopeError
from dipscope.train import launch

TWO = launch.Team(size=2, here=2)


def add_up(values, report):
    import torch
    import torch.distributed as dist

    mine = torch.tensor(float(values[dist.get_rank()]))
    dist.all_reduce(mine)
    report(dist.get_rank(), len(values), "adding")
    print("printed by a rank")
    return mine.item()


def fail(how, report):
    import torch
    import torch.distributed as dist

    if dist.get_rank() == 1:
        if how == "explained":
            raise DipscopeError("the data are strange", "rows", "Look at them.")
        if how == "unexplained":
            raise ValueError("no such thing\nsecond line")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(3)
    dist.all_reduce(torch.zeros(1))  # waits for the other


def test_what_the_first_rank_returns_and_reports_comes_back(tmp_path):
    seen = []
    given = launch.run(add_up, ([3, 4],), TWO, lambda *progress: seen.append(progress), tmp_path / "log")
    assert given == 7.0
    assert (0, 2, "adding") in seen
    assert (tmp_path / "log").read_text().count("printed by a rank") == 2


@pytest.mark.parametrize(
    ("how", "said", "code"),
    [
        ("explained", "rows: the data are strange. Look at them.", 2),
        pytest.param(
            "unexplained",
            "process 2 of 2 failed unexpectedly (ValueError: no such thing). Details are in ranks.log.",
            1,
            marks=pytest.mark.slow,
        ),
        (
            "killed",
            "process 2 of 2 was killed (most often for want of memory). Lower pack_tokens or raise --world; "
            "then run again, nothing is lost.",
            1,
        ),
    ],
)
def test_a_rank_that_fails_ends_all_with_one_line(tmp_path, capfd, how, said, code):
    begun = time.monotonic()
    with pytest.raises(DipscopeError) as caught:
        launch.run(fail, (how,), TWO, lambda *progress: None, tmp_path / "log")
    assert str(caught.value) == said and caught.value.exit_code == code
    assert time.monotonic() - begun < 60
    assert capfd.readouterr() == ("", "")


def test_torchruns_environment_says_which_rank_this_is(monkeypatch):
    assert launch.team(None) == launch.Team()
    assert launch.team(3) == launch.Team(size=3, here=3)
    said = {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "2900"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    team = launch.team(None)
    assert (team.size, team.first, team.here, team.local) == (16, 5, 1, 1)
    assert team.meeting == ("node0", 2900) and team.follows and not team.served
    assert launch.team(16) == team
    with pytest.raises(DipscopeError, match="torchrun has started 16"):
        launch.team(8)
    launch.leave_environment()
    assert launch.team(None) == launch.Team()


def test_who_finds_nobody_says_so():
    members = launch.Team(size=2, first=1, meeting=("127.0.0.1", 1), served=True)
    with pytest.raises(DipscopeError, match=r"cannot meet at 127\.0\.0\.1:1"):
        launch.connect(members, patience=2)
