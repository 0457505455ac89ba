"""A run's `train.jsonl`, copied step by step into trackio, Weights & Biases or TensorBoard.

The log is the truth and the copy a convenience: nothing here can end a run or change what it learns. A
tracker that fails is given up with one note; the next stretch of the run sends it what it missed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dipscope.errors import DipscopeError

NAMES = ("trackio", "wandb", "tensorboard")
Note = Callable[[str], None]


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told about a run.

    Attributes:
        project: the study.
        run: the run as a reader knows it.
        key: names this run and no other, whatever a study's names come to mean.
        config: the recipe and what else decides the run.
        folder: where files may be put: TensorBoard's events and what W&B keeps on disk.
    """

    project: str
    run: str
    key: str
    config: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """The run's name in the tracker: two runs of one name, but of different settings, stay apart."""
        return f"{self.run}.{self.key[:8]}"


class Tracker(Protocol):
    """One run in one tracker.

    Attributes:
        last: the last step that it holds already; None where it cannot tell.
    """

    last: int | None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take in one step; steps come in order and each once."""

    def close(self, failed: bool) -> None:
        """Hand over what is not yet written."""


def require(names: Sequence[str]) -> None:
    """Refuse trackers whose package is missing, before anything runs.

    Raises:
        DipscopeError: one cannot be imported here.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise DipscopeError(
                f"the package {name} is not installed", f"track {name}", "pip install 'dipscope[track]'"
            )


def asked(root: Path) -> tuple[str, tuple[str, ...]]:
    """The project that a workspace's runs belong to in trackers, and the trackers that its study asks for."""
    try:
        study = json.loads((root / "study.json").read_text(encoding="utf-8"))
        track = study.get("track", {})
        return track.get("project") or study["study"]["name"], tuple(track.get("to", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return root.name, ()


@contextlib.contextmanager
def following(
    names: Sequence[str], log: Path, tracked: Tracked, on_note: Note
) -> Iterator[Callable[[], None]]:
    """Copy what is new in `log` whenever the yielded function is called, and once more at the end.

    Args:
        names: of the trackers, among `NAMES`.
        log: the run's `train.jsonl`. Beside it `tracked-NAME.txt` keeps the last step that was sent.
        tracked: what the run is.
        on_note: told when a tracker is given up.
    """
    followers = [_Follower(name, log, tracked, on_note) for name in names]

    def follow() -> None:
        for follower in followers:
            follower.follow()

    failed = True
    try:
        yield follow
        follow()
        failed = False
    finally:
        for follower in followers:
            follower.close(failed)


class _Follower:
    """Reads a log as it grows and sends each of its steps to one tracker, once."""

    def __init__(self, name: str, log: Path, tracked: Tracked, on_note: Note) -> None:
        self.name, self.source, self.tracked, self.on_note = name, log, tracked, on_note
        self.marker = log.with_name(f"tracked-{name}.txt")
        self.tracker: Tracker | None = None
        self.read = self.sent = 0
        self.alive = True

    def follow(self) -> None:
        with self._guarded():
            if not self.alive or not (lines := self._news()):
                return
            if self.tracker is None:
                self.sent = _number(self.marker)
                self.tracker = _OPEN[self.name](self.tracked, self.sent == 0)
                if self.tracker.last is not None:
                    self.sent = self.tracker.last
            news = [line for line in lines if line["step"] > self.sent]
            if news:
                # Marked before it is sent: a kill in between loses a step of the copy and repeats none.
                self._mark(news[-1]["step"])
            for line in news:
                self.tracker.log(line["step"], _values(line))

    def close(self, failed: bool) -> None:
        with self._guarded():
            if self.tracker is not None:
                self.tracker.close(failed)

    def _news(self) -> list[dict[str, Any]]:
        if not self.source.is_file():
            return []
        with self.source.open("rb") as file:
            file.seek(self.read)
            whole = file.read().rpartition(b"\n")[0]
        self.read += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.splitlines()]

    def _mark(self, step: int) -> None:
        self.sent = step
        temporary = self.marker.with_suffix(".tmp")
        temporary.write_text(str(step))
        temporary.replace(self.marker)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever a tracker raises ends the tracker, and nothing else."""
        try:
            yield
        except Exception as error:
            if self.alive:
                told = (str(error) or type(error).__name__).splitlines()[0]
                self.on_note(
                    f"{self.name} was given up ({told}); training went on, train.jsonl has every step"
                )
            self.alive = False


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"train/{name}": float(value)
        for name, value in line.items()
        if name not in ("step", "total") and isinstance(value, int | float)
    }


class _TensorBoard:
    last: int | None = None

    def __init__(self, tracked: Tracked, fresh: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = tracked.folder / "tensorboard" / tracked.name
        self.writer: Any = SummaryWriter(str(folder))
        if fresh:
            config = json.dumps(tracked.config, indent=1, sort_keys=True)
            self.writer.add_text("config", f"```json\n{config}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        self.writer.close()


class _Trackio:
    def __init__(self, tracked: Tracked, fresh: bool) -> None:
        import trackio

        self.trackio: Any = trackio
        with contextlib.redirect_stdout(io.StringIO()):  # standard output is the verb's
            run = trackio.init(
                project=tracked.project,
                name=tracked.name,
                config=dict(tracked.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        # It writes in the background, half a second late: what a killed run had sent may not be there.
        following = getattr(run, "_next_step", 0)
        self.last: int | None = following - 1 if following else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.trackio.finish()


class _Wandb:
    def __init__(self, tracked: Tracked, fresh: bool) -> None:
        import wandb

        tracked.folder.mkdir(parents=True, exist_ok=True)
        # Online or offline, account and project's owner are the environment's to say (WANDB_MODE …).
        self.run: Any = wandb.init(
            project=tracked.project,
            name=tracked.name,
            id=tracked.key,
            config=dict(tracked.config),
            resume="allow",
            dir=str(tracked.folder),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        self.last: int | None = self.run.step - 1 if self.run.step else None
        if self.run.offline:
            self._replace(tracked)

    def _replace(self, tracked: Tracked) -> None:
        """Take the place of offline copies that were not synced: one that was killed may lack any step."""
        here = Path(self.run.dir).parent
        others = [
            folder
            for folder in here.parent.glob(f"offline-run-*-{tracked.key}")
            if folder != here and not list(folder.glob("*.synced"))
        ]
        for folder in others:
            shutil.rmtree(folder, ignore_errors=True)
        if others:
            self.last = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


_OPEN: dict[str, Callable[[Tracked, bool], Tracker]] = {
    "trackio": _Trackio,
    "wandb": _Wandb,
    "tensorboard": _TensorBoard,
}
