"""The training loop: full-parameter supervised fine-tuning that does exactly what its recipe says."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from dipscope.data.tokenize import Example
from dipscope.errors import DipscopeError
from dipscope.study import Recipe
from dipscope.train import attention, checkpoints, schedule
from dipscope.train.optimizer import make_optimizer, set_precision
from dipscope.train.resume import Resume
from dipscope.train.step import Listener, StepReport, optimizer_step
from dipscope.workspace import hash_json, unwritable, write_atomic

_log = logging.getLogger(__name__)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    base: Path,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    out: Path,
    on_step: Listener | None = None,
    *,
    on_note: Callable[[str], None] = _log.warning,
) -> list[Path]:
    """Fine-tune the model in directory `base` and write its checkpoints under `out`.

    An interrupted run goes on from its newest resume point, a finished one returns at once; both give, bit
    for bit on CPU, what an uninterrupted run gives.

    Args:
        base: model in the Hugging Face layout, with tokenizer.
        examples: the rows.
        recipe: how to train.
        seed: decides the order of the rows (and dropout, where a model has it).
        out: gets `step-000010/` …, `train.jsonl` and, while training goes on, `resume/`.
        on_step: called after every step.
        on_note: told what the reader of the run should know.

    Returns:
        The checkpoint directories, by step.

    Raises:
        DipscopeError: the model cannot be trained exactly, a gradient is not finite, or the disk refuses.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise DipscopeError(f"the model cannot be loaded ({error})", str(base)) from None
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return train_model(model, base, examples, recipe, seed, out, on_step, on_note=on_note)


def train_model(
    model: Any,
    source: Path,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    out: Path,
    on_step: Listener | None = None,
    *,
    on_note: Callable[[str], None] = _log.warning,
) -> list[Path]:
    """Train a model that is already in memory, for instance a freshly initialised one; see `train`.

    `source` is the directory whose tokenizer and generation settings the checkpoints get.
    """
    if any(not e.prompt_ids or not e.target_ids for e in examples):
        raise DipscopeError("a row has no prompt or no target", "train", "Raise max_length or drop the row.")
    set_precision(model, recipe)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    total = schedule.total_steps(recipe, len(examples))
    steps = schedule.checkpoint_steps(recipe.checkpoints, total)
    folders = {step: out / f"step-{step:06d}" for step in steps}
    fingerprint = _fingerprint(model, examples, recipe, seed)
    intact = {step for step, folder in folders.items() if _is_intact(folder, fingerprint)}
    resume = Resume(out / "resume", fingerprint)
    for leftover in out.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a killed process
    if intact == set(steps):
        resume.remove()
        return list(folders.values())

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True)
    optimizer = make_optimizer(model, recipe)
    done = resume.find(on_note)
    lost = [folders[step] for step in steps if step <= done and step not in intact]
    if lost:
        on_note(f"{lost[0]}: the checkpoint is missing or damaged; training starts at step 1")
        done = 0
    if recipe.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with attention.attached(model):
        if done:
            resume.load(model, optimizer, done)
        log = _Log(out / "train.jsonl", max(done, *intact, 0))
        model.train()
        # The last checkpoint that is not there ends the work: it may be an early one that was damaged.
        for step in range(done + 1, max(set(steps) - intact) + 1):
            report = optimizer_step(model, optimizer, examples, recipe, seed, step, total)
            log.add(report)
            if step in folders and step not in intact:
                meta = {"step": step, "seed": seed, "recipe": recipe.model_dump(), "fingerprint": fingerprint}
                checkpoints.save(model, source, folders[step], meta, _DTYPES[recipe.save_dtype])
            if step % recipe.resume_every == 0 and step < total:
                resume.save(model, optimizer, step)
            if on_step is not None:
                on_step(report)
    resume.remove()
    return list(folders.values())


def _fingerprint(model: Any, examples: Sequence[Example], recipe: Recipe, seed: int) -> str:
    """Everything that decides the weights of a checkpoint."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for example in examples:
        digest.update(repr((example.prompt_ids, example.target_ids)).encode())
    settings = recipe.model_dump(mode="json", exclude={"resume_every", "checkpoints"})
    return hash_json([settings, schedule.total_steps(recipe, len(examples)), seed, digest.hexdigest()])


def _is_intact(folder: Path, fingerprint: str) -> bool:
    try:
        checkpoints.verify(folder)
    except DipscopeError:
        return False
    marker = checkpoints.read_marker(folder)
    return marker is not None and marker.get("fingerprint") == fingerprint


class _Log:
    """`train.jsonl`: one line a step. Lines up to step `known` are of this run; later ones are taken back."""

    def __init__(self, path: Path, known: int) -> None:
        self.path = path
        kept = path.read_bytes().split(b"\n")[:-1][:known] if path.exists() else []
        write_atomic(path, b"".join(line + b"\n" for line in kept))
        self.lines = len(kept)

    def add(self, report: StepReport) -> None:
        """Write the line of a step, unless it stands there since it was done before."""
        if report.step <= self.lines:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(report)) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error
