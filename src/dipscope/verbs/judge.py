"""`dipscope judge`: have another model judge stored responses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dipscope.engine.text import Writer
    from dipscope.judging.join import Coverage
    from dipscope.judging.judge import Judging, Options, Outcome
    from dipscope.verbs.judge_targets import Target


def judge(
    workspace: Annotated[Path, typer.Argument(help="A study's workspace.")],
    judge: Annotated[
        str,
        typer.Option(
            help="http://HOST:PORT/v1#MODEL, a model's folder, OWNER/NAME@REVISION on the Hub, vllm:MODEL, "
            "or reward:MODEL for a reward model."
        ),
    ],
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            help="Which of the study's benchmarks (default: all that name a rubric for this judge)."
        ),
    ] = None,
    rubric: Annotated[
        str | None,
        typer.Option(
            help="harm, strongreject, refusal, truth, info or truth-references "
            "(default: the one each benchmark names)."
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            help="answer, trace (thinking and answer) or paper (all of it where thinking never ended); "
            "default: the benchmark's own."
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Of the items, chosen by their hashes.")
    ] = 1.0,
    calibrated_by: Annotated[
        str | None,
        typer.Option(help="A stronger judge that judged a share before: its grades correct the means."),
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0.0, help="Price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0.0, help="Price of a million reply tokens.")] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(min=0.0, help="Most that all of this judge's verdicts here may cost; it stops before."),
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's API key.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for one reply of a server.")] = 600.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Most requests that the server holds.")] = 64,
    tries: Annotated[int, typer.Option(min=1, help="Of a text whose reply has no grade.")] = 2,
    again: Annotated[
        bool, typer.Option("--again", help="Ask again where earlier replies had no grade.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the requests.")] = 0,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it will take, and stop.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Have another model judge stored responses; nothing is generated again.

    Requests, tokens and price are estimated first. Verdicts are kept as they come: stop it whenever you like
    and run the same command again, only what is missing is asked for. A reply without a grade is no score:
    coverage and bounds (everything ungraded at its worst, and at its best) are printed beside each mean.

    Example: dipscope judge workspaces/mine --judge https://api.example.com/v1#some-model --key-env API_KEY
    --price-in 0.15 --price-out 0.6 --max-cost 5
    """
    import json

    from dipscope import status
    from dipscope.data.teaching.cost import Prices
    from dipscope.errors import DipscopeError
    from dipscope.judging import store
    from dipscope.judging.join import coverage
    from dipscope.judging.judge import Options
    from dipscope.verbs import judge_targets

    plan, place = status.recall(workspace)
    kind, _, named = judge.partition(":")
    reward, seen = kind == judge_targets.REWARD, judge_targets.checked_view(view)
    chosen = judge_targets.chosen(plan, benchmarks, rubric, reward=reward)
    table = judge_targets.measured(plan, place, {b.name for b in chosen})
    targets = judge_targets.targets(plan, table, chosen, rubric=rubric, view=seen, share=share, reward=reward)
    folder = place.root / store.FOLDER
    if max_cost is not None and None in (price_in, price_out):
        fix = "Give --price-in and --price-out, for a million tokens; 0 where nothing is charged."
        raise DipscopeError("a cost limit needs prices, in and out", "--max-cost", fix)
    judges = sorted(store.read(folder)["judge"].unique())
    if calibrated_by is not None and calibrated_by not in judges:
        fix = f"Judges here: {', '.join(judges)}." if judges else "Let it judge a --share first."
        raise DipscopeError("this judge has no verdicts here", f"--calibrated-by {calibrated_by}", fix)
    if reward:
        name, summary = _reward(named, targets, folder, estimate)
    else:
        priced = price_in is not None or price_out is not None
        options = Options(
            tries, seed, Prices(price_in or 0.0, price_out or 0.0) if priced else None, max_cost, again
        )
        server = {"key_variable": key_env, "timeout": timeout, "in_flight": in_flight}
        name, summary = _ask(judge, targets, folder, options, server, estimate)
    found = coverage(table, folder, name, calibrated_by)
    if not estimate:
        for line in _lines(found):
            _say(line)
    if json_:
        print(json.dumps({"judge": name, **summary, "results": [c.as_dict() for c in found]}))


def _ask(
    name: str,
    targets: Sequence[Target],
    folder: Path,
    options: Options,
    server: dict[str, Any],
    estimate: bool,
) -> tuple[str, dict[str, Any]]:
    """Ask a model that writes, one rubric after the other; the cost limit holds for all of them."""
    from dipscope.bases import from_command_line
    from dipscope.judging import rubrics
    from dipscope.judging.judge import Judging, judge_name
    from dipscope.judging.judges import open_judge, plain
    from dipscope.progress import bar

    writer = open_judge(name, from_command_line, **server)

    def judging(target: Target) -> Judging:
        rubric = rubrics.get(target.rubric)
        asked: Writer = plain(writer) if rubric.plain else writer
        return Judging(asked, rubric, target.texts, folder, options, target.probe)

    cost = 0.0
    for target in targets:
        forecast = judging(target).estimate()
        cost += forecast.cost or 0.0
        for line in forecast.lines():
            _say(f"{target.benchmark}, {target.rubric}: {line}")
    if options.max_cost is not None and cost + judging(targets[0]).spent > options.max_cost:
        _say(f"That is more than --max-cost {options.max_cost:g}: judging will stop before it is reached.")
    done: dict[str, Any] = {"estimated_cost": cost if options.prices else None}
    if not estimate:
        with bar("judging") as report:
            outcomes = [judging(target).run(report) for target in targets]
        done |= _summed(outcomes)
        done["cost"] = judging(targets[0]).spent if options.prices else None
    return judge_name(writer), done


def _reward(name: str, targets: Sequence[Target], folder: Path, estimate: bool) -> tuple[str, dict[str, Any]]:
    from dipscope.bases import from_command_line
    from dipscope.judging.reward import Rewarding, RewardModel
    from dipscope.progress import bar

    model = RewardModel(from_command_line(name), f"reward:{Path(name).name}")
    work = [Rewarding(model, t.texts, folder, t.probe) for t in targets]
    _say(f"Missing: {sum(len(w.todo) for w in work):,} rewards.")
    if estimate:
        return model.name, {}
    with bar("rewarding") as report:
        return model.name, _summed([w.run(report) for w in work])


def _summed(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    from collections import Counter

    failed: Counter[str] = sum((o.failed for o in outcomes), Counter())
    for reason, count in failed.most_common(5):
        _say(f"Not had: {count:,} ({reason}). Run the same command again to ask for them once more.")
    stopped = any(o.stopped for o in outcomes)
    if stopped:
        _say("The cost limit stopped it; run again with a higher --max-cost to go on.")
    return {
        "asked": sum(o.asked for o in outcomes),
        "graded": sum(o.graded for o in outcomes),
        "invalid": sum(o.invalid for o in outcomes),
        "failed": dict(failed),
        "stopped": stopped,
    }


def _lines(found: Sequence[Coverage]) -> list[str]:
    """What the judgements say, a line for each checkpoint and benchmark."""
    said = []
    for c in found:
        mean = "no grade yet" if c.score is None else f"{c.score:.3f}"
        line = (
            f"{c.benchmark} {c.probe} @ {c.checkpoint[:8]}: {mean} [{c.low:.3f} to {c.high:.3f} with all "
            f"that is ungraded at worst and best], coverage {c.coverage:.1%} of {c.records:,}"
        )
        line += f", {c.invalid:,} invalid" if c.invalid else ""
        line += f", {c.unasked:,} without a reply" if c.unasked else ""
        line += f", mean grade {c.mean_label:.3f}" if c.mean_label is not None else ""
        if c.rubric.startswith("harm/") and (five := c.share("5")) is not None:
            line += f", {five:.1%} of grade 5"
        if c.calibrated is not None:
            k = c.calibrated
            line += f"; corrected by {k.labelled} items: {k.value:.3f} [{k.low:.3f}, {k.high:.3f}]"
        said.append(line)
    return said


def _say(line: str) -> None:
    print(line, file=sys.stderr)
