"""The paper's published runs by name: each is the row of the table that was read from its scripts."""

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from dipscope.data.reading import published
from dipscope.errors import DipscopeError
from dipscope.plan import make
from dipscope.study_files import load, presets, scales
from dipscope.train.schedule import lr_at

EVALUATED = [10, 20, 40, 80, 160, 320, 480, 640, 800, 960, 1120, 1280]
QWEN3 = {size: f"Qwen/Qwen3-{size}-Base" for size in ("14B", "8B", "4B", "1.7B")}
INTERN = "IntervitensInc/internlm2_5-20b-llamafied"  # for internlm/internlm2_5-20b, whose code is its own
SETS = {
    "math-cot": "Math-CoT-20k",
    "math-cot-2.5k": "Math-CoT-20k",
    "math-no-cot": "Math-NoCoT-20k",
    "numina-math": "NuminaMath-20k",
    "countdown": "Countdown-CoT-20k",
    "deepseek-r1": "DeepSeek-R1-20k",
}

# name: (model, data, epochs, batch, micro-batch, lr, schedule, steps, max_length), as published
TABLE = {
    "qwen3-14b-math-cot": (QWEN3["14B"], "math-cot", 8, 256, 4, 5e-5, "cosine", 640, 20000),
    "qwen3-14b-math-cot-ep1": (QWEN3["14B"], "math-cot", 1, 256, 4, 5e-5, "cosine", 80, 20000),
    "qwen3-14b-math-cot-lr1e-5-ep1": (QWEN3["14B"], "math-cot", 1, 256, 4, 1e-5, "cosine", 80, 20000),
    "qwen3-14b-math-cot-lr1e-5-ep2": (QWEN3["14B"], "math-cot", 2, 256, 4, 1e-5, "cosine", 160, 20000),
    "qwen3-14b-math-cot-ep16": (QWEN3["14B"], "math-cot", 16, 256, 4, 5e-5, "cosine", 1280, 20000),
    "qwen3-14b-math-cot-ep16-constant": (QWEN3["14B"], "math-cot", 16, 256, 4, 5e-5, "constant", 1280, 20000),
    "qwen3-14b-math-cot-lr1e-4-ep16-constant": (
        QWEN3["14B"], "math-cot", 16, 256, 4, 1e-4, "constant", 1280, 20000
    ),
    "qwen3-14b-math-cot-bs32-ep1": (QWEN3["14B"], "math-cot", 1, 32, 4, 5e-5, "cosine", 640, 20000),
    "qwen3-14b-math-cot-2.5k-bs32": (QWEN3["14B"], "math-cot-2.5k", 8, 32, 4, 5e-5, "cosine", 640, 20000),
    **{
        f"{model}-{data}": (hub, data, 8, 256, 4, 5e-5, "cosine", 640, 20000)
        for model, hub, learned in (
            ("qwen3-14b", QWEN3["14B"], ("math-no-cot", "numina-math", "countdown", "deepseek-r1")),
            ("qwen3-8b", QWEN3["8B"], ("math-cot", "math-no-cot", "numina-math", "countdown", "deepseek-r1")),
            ("qwen3-4b", QWEN3["4B"], ("math-cot", "math-no-cot", "countdown")),
            ("qwen3-1.7b", QWEN3["1.7B"], ("math-cot", "math-no-cot", "countdown")),
            ("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", ("math-cot",)),
            ("qwen2.5-3b", "Qwen/Qwen2.5-3B", ("math-cot",)),
            ("qwen2.5-7b", "Qwen/Qwen2.5-7B", ("math-cot",)),
            ("qwen2.5-14b", "Qwen/Qwen2.5-14B", ("math-cot",)),
        )
        for data in learned
    },
    **{
        f"internlm2.5-20b-{data}": (INTERN, data, 8, 256, 2, 5e-5, "cosine", 640, 20000)
        for data in ("math-cot", "math-no-cot", "countdown", "deepseek-r1")
    },
    "internlm2.5-20b-numina-math": (INTERN, "numina-math", 8, 256, 2, 5e-5, "cosine", 640, 10000),
}  # fmt: skip


def only(name, scale=None):
    """The one run of a preset: (study, plan entry)."""
    plan = make(load(name, scale))
    (run,) = plan.runs
    return plan.study, run


def test_there_are_thirty_three():
    assert len(TABLE) == 33
    names = [name.removeprefix("paper/") for name in presets() if name.startswith("paper/")]
    sets = ["all", "table1", "table2", "table4", "overfitting", "capability", "teacher", "qwen2.5"]
    assert sorted(names) == sorted([*TABLE, *sets])


@pytest.mark.parametrize("name", TABLE)
def test_a_published_run_is_the_row_of_the_table(name):
    hub, data, epochs, batch, micro, lr, schedule, steps, longest = TABLE[name]
    study, (run, _, _, saved) = only(f"paper/{name}")
    model, dataset, recipe = study.models[run.model], study.datasets[run.dataset], study.recipes[run.recipe]
    assert (model.hub, run.dataset) == (hub, data)
    assert dataset.hub == f"jasonrqh/{SETS[data]}"
    assert dataset.rows == (2560 if data == "math-cot-2.5k" else 20480)
    assert (recipe.epochs, recipe.batch_size, recipe.virtual_micro) == (epochs, batch, micro)
    assert (recipe.lr, recipe.schedule, recipe.max_length) == (lr, schedule, longest)
    assert (recipe.betas, recipe.weight_decay, recipe.eps, recipe.clip) == ((0.9, 0.999), 0.01, 1e-8, 1.0)
    assert saved == tuple(step for step in EVALUATED if step <= steps)
    # a tenth of the steps rises; the last of them has the full rate
    assert lr_at(recipe, steps // 10, steps) == lr and lr_at(recipe, steps // 10 - 1, steps) < lr
    assert (lr_at(recipe, steps, steps) == lr) == (schedule == "constant")
    assert len(study.models) == len(study.datasets) == len(study.recipes) == len(study.expand()) == 1


@pytest.mark.parametrize("name", TABLE)
def test_numbers_are_right_by_default_and_the_reference_s_where_asked(name):
    study, (run, *_) = only(f"paper/{name}")
    recipe = study.recipes[run.recipe]
    assert (recipe.loss_norm, recipe.precision, recipe.shuffle) == ("tokens", "bf16", True)
    study, (run, *_) = only(f"paper/{name}", "faithful")
    faithful = study.recipes[run.recipe]
    assert (faithful.loss_norm, faithful.precision, faithful.shuffle) == ("paper", "bf16_pure", False)
    assert faithful.virtual_world == 8
    assert faithful.batch_size % (8 * faithful.virtual_micro) == 0
    changed = {key for key, value in faithful if value != getattr(recipe, key)}
    assert changed == {"loss_norm", "precision", "shuffle"}


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("all", list(TABLE)),
        ("table1", ["qwen3-14b-math-cot", "qwen3-14b-math-cot-2.5k-bs32", "qwen3-14b-math-cot-bs32-ep1"]),
        (
            "table2",
            [
                f"{model}-{data}"
                for model in ("qwen3-14b", "qwen3-8b", "internlm2.5-20b")
                for data in ("math-cot", "math-no-cot", "numina-math", "countdown")
            ],
        ),
        (
            "table4",
            [f"qwen3-14b-math-cot{suffix}" for suffix in ("", "-ep1", "-lr1e-5-ep1", "-lr1e-5-ep2")],
        ),
        (
            "overfitting",
            [
                f"qwen3-14b-math-cot{suffix}"
                for suffix in ("", "-ep16", "-ep16-constant", "-lr1e-4-ep16-constant")
            ],
        ),
        ("capability", [f"qwen3-{size}-math-cot" for size in ("14b", "8b", "4b", "1.7b")]),
        (
            "teacher",
            [
                f"{model}-{data}"
                for model in ("qwen3-14b", "qwen3-8b", "internlm2.5-20b")
                for data in ("math-cot", "deepseek-r1")
            ],
        ),
        ("qwen2.5", [f"qwen2.5-{size}-math-cot" for size in ("1.5b", "3b", "7b", "14b")]),
    ],
)
def test_a_set_has_the_runs_of_its_table_or_figure(name, runs):
    single = {only(f"paper/{run}")[1][0].group for run in runs}
    groups = [run.group for run in load(f"paper/{name}").expand()]
    assert set(groups) == single
    assert len(groups) == len(runs)


def test_pins_are_those_on_record():
    study = load("paper/all")
    for dataset in study.datasets.values():
        known = published.find(dataset.hub)
        assert known is not None
        assert (dataset.revision, dataset.file, dataset.sha256) == (known.revision, known.file, known.sha256)
    pinned = {name: m.revision for name, m in study.models.items() if m.revision}
    known = {
        "qwen3-14b": "0b0bd373",
        "qwen3-8b": "49e3418f",
        "qwen3-4b": "906bfd4b",
        "qwen3-1.7b": "ea980cb0",
    }
    known |= {"qwen2.5-1.5b": "8faed761"}
    assert {name: pinned[name][:8] for name in known} == known
    assert all(len(revision) == 40 for revision in pinned.values())  # the Hub resolves no shorter ones


def test_faithful_responses_of_qwen_end_with_the_eos():
    models = load("paper/all", "faithful").models
    assert {n: m.chat_template for n, m in models.items() if n.startswith("qwen")} == {
        n: "chatml-eos" for n in models if n.startswith("qwen")
    }
    assert models["internlm2.5-20b"].chat_template is None


def test_qwen25_is_trained_without_its_default_system_prompt():
    assert {m.chat_template for m in load("paper/qwen2.5").models.values()} == {"chatml"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("table1", "Math-CoT-2.5k was not released"),
        ("internlm2.5-20b-math-cot", "brings its own model code"),
        ("table2", "short human solutions"),
    ],
)
def test_what_stands_in_for_something_is_said(name, said):
    assert any(said in note for note in load(f"paper/{name}").study.notes)


def test_nothing_is_said_of_what_is_not_used():
    assert load("paper/qwen3-8b-math-cot").study.notes == ()


def test_one_seed_as_published_and_three_where_asked():
    assert scales("paper/table2") == ["seeds", "faithful"]
    assert load("paper/table2").study.seeds == (0,)
    assert len(load("paper/table2", "seeds").expand()) == 36


@pytest.mark.parametrize(
    ("name", "near"),
    [("paper/tabel2", "paper/table2"), ("paper/qwen3-14b-mathcot", "paper/qwen3-14b-math-cot")],
)
def test_an_unknown_name_is_one_clear_line(name, near):
    with pytest.raises(DipscopeError) as caught:
        load(name)
    message = str(caught.value)
    assert f"there is no preset '{name}'; did you mean '{near}'?" in message
    assert "paper/all" in message and "\n" not in message and len(message) < 250


def test_a_study_of_one_s_own_extends_a_published_run(tmp_path):
    path = tmp_path / "warmup.toml"
    path.write_text(
        'extends = "paper/qwen3-1.7b-math-cot"\n'
        'recipes.cold = { like = "default", warmup = 0.0 }\n'
        'runs.recipes = ["default", "cold"]\n'
    )
    study = load(str(path))
    warm, cold = study.recipes["default"], study.recipes["cold"]
    assert {key for key, value in cold if value != getattr(warm, key)} == {"warmup"}
    assert [run.group for run in study.expand()] == [
        "qwen3-1.7b/math-cot/default", "qwen3-1.7b/math-cot/cold"
    ]  # fmt: skip
    assert load(str(path), "faithful").recipes["cold"].precision == "bf16_pure"


def test_a_study_of_one_s_own_extends_a_set(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "paper/table2"\n[models.mine]\norganism = "S"\n'
        '[runs]\nmodels = ["mine"]\ndatasets = ["math-cot"]\nrecipes = ["ep1"]\n'
    )
    study = load(str(path))
    assert [run.group for run in study.expand()] == ["mine/math-cot/ep1"]
    assert list(study.models) == ["mine"]


def test_the_matrix_names_only_what_it_defines():
    text = (resources.files("dipscope") / "presets" / "paper.toml").read_text()
    tree = tomllib.loads(text)
    for axis, place in (("models", 0), ("datasets", 1), ("recipes", 2)):
        used = {run[place] for run in tree["matrix"]["runs"].values()}
        assert used == set(tree[axis])
    assert set(tree["matrix"]["notes"]) <= {*tree["models"], *tree["datasets"], *tree["recipes"]}


def documented():
    text = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    return [block for block in re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S) if '"paper/' in block]


@pytest.mark.parametrize("number", range(5))
def test_the_studies_of_the_guide_differ_in_what_they_ask(number, tmp_path):
    changed = [
        {"cold": {"warmup"}},
        {"slow": {"lr"}, "rounded": {"precision"}, "slow-rounded": {"lr", "precision"}},
        {"summed": {"loss_norm"}},
        {"unclipped": {"clip"}},
        {"default": {"lora"}},
    ]
    path = tmp_path / "study.toml"
    path.write_text(documented()[number])
    study = load(str(path))
    published = load("paper/qwen3-1.7b-math-cot").recipes["default"]
    differences = {
        name: {key for key, value in recipe if value != getattr(published, key)}
        for name, recipe in study.recipes.items()
    }
    assert {name: keys for name, keys in differences.items() if keys} == changed[number]
    assert {run.recipe for run in study.expand()} == {"default", *changed[number]}
    assert len(make(study).runs) == len(study.recipes)


def test_every_name_in_the_guide_and_the_help_exists():
    from dipscope import cli

    guide = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    told = guide + str(cli.StudyArg.__metadata__[0].help)
    names = {name.rstrip(".") for name in re.findall(r"\bpaper/[a-z][\w.-]*", told)}
    assert names - {"paper/table1"} and names <= set(presets())
