"""What the checkpoints of a run have in common: names, ties, number format, files beside the weights."""

from __future__ import annotations

import copy
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.data.tokenize import stop_ids
from dipscope.errors import DipscopeError

if TYPE_CHECKING:
    import torch

_GENERATION = "generation_config.json"
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How the tensors of a model become files that transformers reads back as the same model.

    Attributes:
        shapes: every name in the model's state dict with its shape.
        ties: names that share another's tensor and are not stored, with that other name.
        dtype: number format of the stored weights.
        beside: the other files of every checkpoint: config, generation settings, tokenizer.
        model: whose class and config say under which names the files hold the tensors.
    """

    shapes: Mapping[str, tuple[int, ...]]
    ties: Mapping[str, str]
    dtype: torch.dtype
    beside: Mapping[str, bytes]
    model: Any

    @classmethod
    def of(cls, model: Any, source: Path, dtype: torch.dtype, tokenizer: Any = None) -> Layout:
        """The layout of a transformers model, checked by transformers' own loader.

        The loader is given stand-ins that have the shapes of the weights and no memory of their own, so the
        check takes no second model. It changes torch's default dtype while it runs: call this on the thread
        that trains, before adapters are attached and before the model is sharded.

        Args:
            model: as it was loaded or initialised; its weights may lie on any device, the meta device too.
            source: directory whose tokenizer and generation settings go along.
            dtype: number format of the files.
            tokenizer: is written where `source` holds none.

        Raises:
            DipscopeError: the loader would make another model of the stored names than this one.
        """
        state = model.state_dict(keep_vars=True)
        ties = _ties(model, state)
        layout = cls(
            {name: tuple(value.shape) for name, value in state.items()},
            ties,
            dtype,
            _beside(model, source, dtype, tokenizer),
            model,
        )
        stand_ins = {name: _stand_in(value, dtype) for name, value in state.items() if name not in ties}
        loaded, said = type(model).from_pretrained(
            None,
            config=copy.deepcopy(model.config),
            state_dict=layout.stored(stand_ins),
            dtype=dtype,
            output_loading_info=True,
        )
        found = loaded.state_dict(keep_vars=True)
        if any(said.values()) or found.keys() != state.keys() or _groups(found) != _groups(state):
            raise _other_model(source)
        return layout

    def stored(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a state dict under the names that the files give them, tied ones once."""
        from transformers.core_model_loading import revert_weight_conversion

        kept = {name: value for name, value in state.items() if name not in self.ties}
        renamed: dict[str, torch.Tensor] = revert_weight_conversion(self.model, kept)
        return renamed


def _ties(model: Any, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names that are left out of the files, each with the one that shares its tensor and stays."""
    declared = getattr(model, "all_tied_weights_keys", None) or {}
    ties = {name: kept for name, kept in declared.items() if state[name] is state[kept]}
    if any(len([name for name in group if name not in ties]) > 1 for group in _groups(state)):
        raise _other_model(Path(model.config.name_or_path or type(model).__name__))
    return ties


def _groups(state: Mapping[str, torch.Tensor]) -> set[frozenset[str]]:
    """Which names stand for one tensor."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in state.items():
        names[id(value)].append(name)
    return {frozenset(group) for group in names.values()}


def _stand_in(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    import torch

    return torch.zeros((), dtype=dtype if value.is_floating_point() else value.dtype).expand(value.shape)


def _other_model(where: Path) -> DipscopeError:
    return DipscopeError(
        "the weights read back would have other names or ties than the model",
        str(where),
        "Check tie_word_embeddings in the model's config.",
        fault=True,
    )


def _beside(model: Any, source: Path, dtype: torch.dtype, tokenizer: Any) -> dict[str, bytes]:
    """The files of a checkpoint that hold no weights, by name."""
    files = {name: (source / name).read_bytes() for name in _TOKENIZER if (source / name).is_file()}
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as scratch:
        config.save_pretrained(scratch)
        if not files and tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        if (source / _GENERATION).is_file():
            (Path(scratch) / _GENERATION).write_bytes((source / _GENERATION).read_bytes())
        elif model.can_generate():
            model.generation_config.save_pretrained(scratch)
        files |= {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir()) if path.is_file()}
    if _GENERATION in files:
        files[_GENERATION] = _stopping(files[_GENERATION], source, tokenizer)
    return files


def _stopping(settings: bytes, source: Path, tokenizer: Any) -> bytes:
    """Generation settings that end at the token which training ends responses with.

    A base model's settings name its EOS alone; whoever generates with them would run past the end of a turn.
    """
    from transformers import AutoTokenizer

    try:
        ends = stop_ids(tokenizer or AutoTokenizer.from_pretrained(str(source)))
    except (OSError, ValueError, DipscopeError):
        return settings  # no tokenizer or no chat template: nothing is known about the end of a turn
    given = json.loads(settings)
    known = given.get("eos_token_id")
    known = known if isinstance(known, list) else [] if known is None else [known]
    if ends[0] in known:
        return settings
    # With it transformers would make the settings anew from config.json.
    given.pop("_from_model_config", None)
    every = [*known, *(end for end in ends if end not in known)]
    changed = given | {"eos_token_id": every if len(every) > 1 else every[0]}
    return (json.dumps(changed, indent=2, sort_keys=True) + "\n").encode()
