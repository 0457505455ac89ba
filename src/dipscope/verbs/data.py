"""`dipscope data …`: make, look at and check the tables that models are trained on."""

from __future__ import annotations

import typer

from dipscope.verbs import data_build, data_check, data_countdown, data_replay, data_sample

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make, check and sample training data: matched variants from a pool of responses, Countdown "
    "problems and traces, a teacher's responses, self-replay.",
)
app.command("build")(data_build.build)
app.command("sample")(data_sample.sample)
app.command("countdown")(data_countdown.countdown)
app.command("replay")(data_replay.replay)
app.command("check")(data_check.check)
