"""Processes that stay joined in one group for many tests, and what they can be asked to do."""

import multiprocessing as mp
import traceback

import tinymodel
import torch

from dipscope.errors import DipscopeError


class Ranks:
    """`size` processes on CPU, connected by gloo; a context manager."""

    def __init__(self, size):
        from torch.distributed import TCPStore

        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.pipes, self.processes = [], []
        context = mp.get_context("spawn")
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, self.store.port, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.join()

    def __call__(self, function, *arguments, **named):
        """What each rank returned; the DipscopeError that all raised."""
        for pipe in self.pipes:
            pipe.send((function, arguments, named))
        answers = []
        for pipe in self.pipes:
            assert pipe.poll(120), "a rank does not answer"
            answers.append(pipe.recv())
        kinds = {kind for kind, _ in answers}
        assert len(kinds) == 1 and "crash" not in kinds, answers
        if kinds == {"error"}:
            assert len({str(error) for _, error in answers}) == 1, answers
            raise answers[0][1]
        return [answer for _, answer in answers]


def _serve(rank, size, port, pipe):
    from torch.distributed import TCPStore

    from dipscope.train.world import joined

    torch.set_num_threads(1)
    with joined(rank, size, rank, TCPStore("127.0.0.1", port, is_master=False)):
        while True:
            function, arguments, named = pipe.recv()
            try:
                pipe.send(("result", function(*arguments, **named)))
            except DipscopeError as error:
                pipe.send(("error", error))
            except BaseException:
                pipe.send(("crash", traceback.format_exc()))


def gradient(rows, family="qwen3", **changes):
    """Losses of all rows and the whole gradient, in this world, of a fresh tiny model."""
    from dipscope.train import attention, sharding
    from dipscope.train.optimizer import set_precision
    from dipscope.train.step import accumulate
    from dipscope.train.world import current

    torch.use_deterministic_algorithms(True)
    recipe, world = tinymodel.recipe(**changes), current()
    model = tinymodel.model(family, seed=world.rank)  # only rank 0's values count
    set_precision(model, recipe)
    if recipe.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if world.size > 1:
        sharding.shard(model, recipe, world)
    with sharding.as_computed(model, recipe):
        attention.attach(model)
    model.train()
    losses = accumulate(model, rows, recipe)
    grads = {name: sharding.gather(p.grad).clone() for name, p in model.named_parameters()}
    norm = sharding.clip(model.parameters(), recipe.clip)
    clipped = {name: sharding.gather(p.grad).clone() for name, p in model.named_parameters()}
    return losses, grads, norm, clipped


def train(base, rows, recipe, out, stop=None, seed=0):
    """Train to the end, or until all ranks stop after step `stop`; the notes that rank 0 was told."""
    from dipscope.train import loop

    step = loop.optimizer_step

    def stopping(*arguments):
        report = step(*arguments)
        if report.step == stop:
            raise DipscopeError(f"stopped at step {stop}")
        return report

    notes = []
    loop.optimizer_step = stopping
    try:
        loop.train(base, rows, recipe, seed, out, on_note=notes.append)
    finally:
        loop.optimizer_step = step
    return notes


def whole_state(family):
    """`full_state` of a tiny model that is sharded over this world."""
    from dipscope.train import sharding
    from dipscope.train.world import current

    model = tinymodel.model(family, seed=current().rank)
    sharding.shard(model, tinymodel.recipe(), current())
    state = sharding.full_state(model, torch.bfloat16)
    ties = {name: [n for n, other in state.items() if other is value] for name, value in state.items()}
    return state, ties


def check_sums(factor):
    """The start-up check on a machine whose sums come out divided."""
    from dipscope.train import sharding
    from dipscope.train.world import current

    wrap = sharding._wrap

    def wrong(module, *rest):
        wrap(module, *rest)
        module.set_gradient_divide_factor(factor)

    sharding._wrap = wrong
    try:
        sharding.check_sums(current())
    finally:
        sharding._wrap = wrap


def agreed(objections):
    """Ask the world about this rank's objection."""
    from dipscope.train.world import current

    world = current()
    return world.agreed(objections[world.rank])
