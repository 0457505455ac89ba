"""What a run leaves behind while it trains: its log, its checkpoints, and the decision to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dipscope.train.health import Health
from dipscope.train.saver import Saver
from dipscope.train.step import StepReport
from dipscope.train.steplog import StepLog


class Output:
    """Log, checkpoints and health of one run; where several processes train, rank 0 alone has one.

    Args:
        saver: writes checkpoints.
        log: its lines up to the resume point are there already.
        health: has been told nothing yet.
    """

    def __init__(self, saver: Saver, log: StepLog, health: Health) -> None:
        self.saver, self.log, self.health = saver, log, health

    def recall(self, done: int) -> None:
        """Tell the health check the steps before a resume: it stops a run where it would have stopped it.

        Raises:
            Unhealthy: it was stopped by one of these.
        """
        for line in self.log.known(done):
            self._look(line)

    def note(self, report: StepReport) -> None:
        """Log a step, and look whether training should go on.

        Raises:
            Unhealthy: it should not.
        """
        self._look(self.log.add(report))

    def save(
        self, state: Mapping[str, torch.Tensor], folder: Path, meta: Mapping[str, Any], given: bool
    ) -> None:
        """Begin to write a checkpoint; see `Saver.save`."""
        self.log.sync()
        self.saver.save(state, folder, meta, given=given)

    def settle(self) -> None:
        """Return when the log and the last checkpoint stand complete: a resume point says that they do."""
        self.log.sync()
        self.saver.wait()

    def _look(self, line: Mapping[str, Any]) -> None:
        self.health.check(line["step"], line["loss"], line["loss_eos"], line["ends"], line["grad_norm"])
