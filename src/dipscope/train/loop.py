"""The training loop: full-parameter supervised fine-tuning that does exactly what its recipe says."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from dipscope.data.tokenize import Example
from dipscope.errors import DipscopeError
from dipscope.study import Recipe
from dipscope.train import attention, checkpoints, compiling, lora, schedule, sharding
from dipscope.train.diagnostics import Diagnostics
from dipscope.train.health import Health, Unhealthy
from dipscope.train.launch import enough_rows
from dipscope.train.layout import Layout
from dipscope.train.optimizer import make_optimizer, set_precision
from dipscope.train.output import Output
from dipscope.train.resume import Resume
from dipscope.train.saver import Saver
from dipscope.train.step import Listener, StepReport, optimizer_step
from dipscope.train.steplog import StepLog
from dipscope.train.world import World, current
from dipscope.workspace import hash_json

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
    origin: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Fine-tune the model in directory `base` and write its checkpoints under `out`.

    An interrupted run goes on from its newest resume point, a finished one returns at once; both give, bit
    for bit on CPU, what an uninterrupted run gives.

    All processes of a group that this one has joined (train/world.py) train together; each must call. The
    result is that of one process up to the order of sums in fp32, and so is that of a run which goes on with
    another number of processes.

    Args:
        base: model in the Hugging Face layout, with tokenizer.
        examples: the rows.
        recipe: how to train.
        seed: decides the order of the rows (and dropout, where a model has it).
        out: gets `step-000010/` …, `train.jsonl` and, while training goes on, `resume/`.
        on_step: called after every step, on rank 0.
        on_note: told what the reader of the run should know, on rank 0.
        origin: what markers say besides, such as the cell and the hash of the base's weights.

    Returns:
        The checkpoint directories, by step.

    Raises:
        DipscopeError: the model cannot be trained exactly, a gradient is not finite, or the disk refuses.
    """
    model = _load(base, recipe, current())
    return train_model(model, base, examples, recipe, seed, out, on_step, on_note=on_note, origin=origin)


def _load(base: Path, recipe: Recipe, world: World) -> Any:
    """The model to train. Only rank 0 reads the weights; the others get an empty one of the same make.

    An empty tensor whose memory is never touched takes none, so a machine holds the whole model once.
    """
    try:
        if world.leader:
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        else:
            dtype = torch.bfloat16 if recipe.precision == "bf16_pure" else torch.float32
            make: Any = AutoModelForCausalLM.from_config
            with no_init_weights():
                model = make(AutoConfig.from_pretrained(base), dtype=dtype)
            model.tie_weights()
    except (OSError, ValueError) as error:
        raise DipscopeError(f"the model cannot be loaded ({error})", str(base)) from None
    return model if world.size > 1 else model.to(world.device)


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
    origin: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Train a model that is already in memory, for instance a freshly initialised one; see `train`.

    `source` is the directory whose tokenizer and generation settings the checkpoints get. Where several
    processes train, rank 0's values are taken.
    """
    if any(not e.prompt_ids or not e.target_ids for e in examples):
        raise DipscopeError("a row has no prompt or no target", "train", "Raise max_length or drop the row.")
    world = current()
    enough_rows(recipe, world.size, "recipe")
    set_precision(model, recipe)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    total = schedule.total_steps(recipe, len(examples))
    steps = schedule.checkpoint_steps(recipe.checkpoints, total)
    folders = {step: out / f"step-{step:06d}" for step in steps}
    resume = Resume(out / "resume", world.lead(lambda: _identity(model, examples, recipe, seed)))

    def begin() -> tuple[set[int], int]:
        for leftover in out.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a killed process
        intact = {s for s, folder in folders.items() if checkpoints.is_done(folder, resume.fingerprint)}
        if intact == set(steps):
            resume.remove()
            return intact, total
        done = resume.find(on_note)
        lost = [folders[step] for step in steps if step < done and step not in intact]
        if lost:
            on_note(f"{lost[0]}: the checkpoint is missing or damaged; training starts at step 1")
            done = 0
        return intact, done

    intact, done = world.lead(begin)
    missing = set(steps) - intact
    if not missing:
        return list(folders.values())

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True)
    layout = Layout.of(model, source, _DTYPES[recipe.save_dtype]) if world.leader else None
    note = on_note if world.leader else _log.debug
    optimizer = _set_up(model, recipe, seed, world, note)
    with contextlib.ExitStack() as stack:
        output = None
        if layout is not None:
            log = StepLog(out / "train.jsonl", max(done, *intact, 0))
            output = Output(stack.enter_context(Saver(layout)), log, Health(str(resume.folder)))
        computed = torch.bfloat16 if recipe.precision == "bf16" else None
        with sharding.as_computed(model, recipe):
            stack.enter_context(attention.attached(model, computed, note))
        if done:
            resume.load(model, optimizer, done)
        diagnostics = Diagnostics(model, optimizer, source, recipe)

        def leading(work: Callable[[Output], None]) -> None:
            """Let rank 0 do something with what the run leaves behind; the others wait for it."""
            world.lead(lambda: None if output is None else work(output))

        def do(step: int) -> StepReport:
            trained = step - 1  # the last step that the weights have taken in
            try:
                report = optimizer_step(model, optimizer, examples, recipe, seed, step, total, diagnostics)
                trained = step
                leading(lambda it: it.note(report))
            except Unhealthy as stop:
                leading(Output.settle)
                if trained > done:  # a look at what happened, with other code or another recipe, starts here
                    resume.save(model, optimizer, trained)
                raise Unhealthy(stop.what, str(resume.folder if trained else out), stop.fix) from None
            return report

        def save(step: int) -> None:
            meta = {**_meta(step, total, examples, recipe, seed, resume), **(origin or {})}
            if in_place := world.size == 1 and recipe.lora is None:
                state = model.state_dict()  # the saver copies it into memory that it keeps
            else:
                leading(Output.settle)  # the machine holds one copy at a time
                state = _whole(model, recipe)
            leading(lambda it: it.save(state, folders[step], meta, given=not in_place))

        leading(lambda it: it.recall(done))
        if done in missing:  # the resume point holds these weights
            save(done)
        model.train()
        # The last checkpoint that is not there ends the work: it may be an early one that was damaged.
        for step in range(done + 1, max(missing) + 1):
            report = do(step)
            if step in missing:
                save(step)
            if step % recipe.resume_every == 0 and step < total:
                leading(Output.settle)
                resume.save(model, optimizer, step)
            if on_step is not None and world.leader:
                on_step(report)
        leading(Output.settle)
    world.lead(resume.remove)
    return list(folders.values())


def _set_up(
    model: Any, recipe: Recipe, seed: int, world: World, note: Callable[[str], None]
) -> torch.optim.AdamW:
    """Bring a model into the shape that it is trained in, and make its optimizer."""
    if recipe.lora is not None:
        lora.attach(model, recipe.lora, seed, recipe.precision)
    if world.size > 1:
        sharding.shard(model, recipe, world)
    if recipe.compile:
        compiling.compile_layers(model, note)
    if recipe.activation_checkpointing:
        name = "activation_checkpointing_enable"  # its name from transformers 5.23 on
        getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
    return make_optimizer(model, recipe)


def _whole(model: Any, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint: those of the whole model, adapters merged. All ranks must ask."""
    dtype = _DTYPES[recipe.save_dtype]
    if recipe.lora is None:
        return sharding.full_state(model, dtype)
    return lora.merged_state(sharding.full_state(model), recipe.lora, dtype)


def _identity(model: Any, examples: Sequence[Example], recipe: Recipe, seed: int) -> dict[str, str]:
    """Everything that decides the weights of a checkpoint, by what a message calls it."""
    weights, rows = hashlib.sha256(), hashlib.sha256()
    for name, value in model.state_dict().items():
        weights.update(name.encode())
        weights.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for example in examples:
        rows.update(repr((example.prompt_ids, example.target_ids)).encode())
    settings = recipe.model_dump(mode="json", exclude={"resume_every", "checkpoints"})
    total = schedule.total_steps(recipe, len(examples))
    return {
        "settings": hash_json([settings, total, seed]),
        "data": rows.hexdigest(),
        "base weights": weights.hexdigest(),
    }


def _meta(
    step: int, total: int, examples: Sequence[Example], recipe: Recipe, seed: int, resume: Resume
) -> dict[str, Any]:
    return {
        "step": step,
        **checkpoints.amounts(examples, recipe, seed, step),
        "lr": schedule.lr_at(recipe, step, total),
        "seed": seed,
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": resume.fingerprint,
    }
