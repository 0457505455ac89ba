import pytest

from dipscope.errors import DipscopeError
from dipscope.study_files import load, presets, scales

STUDY = """
[study]
name = "small"
seeds = [0, 1]

[models.tiny]
organism = "XS"

[datasets.cot]
source = "countdown"
variant = "cot"
rows = 64

[datasets.no_cot]
source = "countdown"
variant = "no_cot"
rows = 64

[recipes.default]
lr = 1e-3
epochs = 2
batch_size = 16

[runs]
models = ["tiny"]
datasets = ["cot", "no_cot"]
recipes = ["default"]

[measure]
benchmarks = ["organism/sort"]

[scale.mini.study]
seeds = [3]
"""


COT = 'source = "countdown"\nvariant = "cot"\nrows = 64'


@pytest.fixture
def write(tmp_path):
    def write(text, name="study.toml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_the_product_of_models_datasets_recipes_and_seeds(write):
    names = [run.name for run in load(write(STUDY)).expand()]
    assert names == [f"tiny/{d}/default/seed{s}" for d in ("cot", "no_cot") for s in (0, 1)]


def test_a_scale_replaces_only_what_it_names(write):
    study = load(write(STUDY), "mini")
    assert study.study.seeds == (3,)
    assert study.study.name == "small"


def test_extends_composes_and_the_nearer_file_wins(write):
    write(STUDY, "base.toml")
    study = load(write('extends = "base.toml"\n[recipes.default]\nlr = 2e-4\n'))
    assert study.recipes["default"].lr == 2e-4
    assert study.recipes["default"].epochs == 2


def test_an_explicit_list_of_runs(write):
    text = STUDY.replace('models = ["tiny"]\ndatasets = ["cot", "no_cot"]\nrecipes = ["default"]', "")
    text = text.replace("[runs]", '[[runs.list]]\nmodel = "tiny"\ndataset = "cot"\nrecipe = "default"')
    assert [r.group for r in load(write(text)).expand()] == ["tiny/cot/default"] * 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = 1e-3", "lr = -1e-3", ("recipes.default.lr", "-0.001", "greater than 0")),
        ("epochs = 2", "epoch = 2", ("recipes.default.epoch", "did you mean 'epochs'")),
        ('variant = "cot"', 'variant = "cott"', ("datasets.cot.variant", "cott")),
        ('datasets = ["cot", "no_cot"]', 'datasets = ["cot", "nocot"]', ("'nocot'", "did you mean 'no_cot'")),
        ('datasets = ["cot", "no_cot"]', 'datasets = ["cot", "cot"]', ("tiny/cot/default", "named twice")),
        ('organism = "XS"', "", ("models.tiny", "name one of organism")),
        ('organism = "XS"', 'organism = "XS"\npath = "x"', ("models.tiny", "organism, path")),
        ("seeds = [0, 1]", "seeds = [0, 0]", ("study.seeds", "once")),
        ("[study]", "[study", ("not valid TOML",)),
        ('name = "small"', "", ("study.name", "missing")),
        ("[measure]", "[measurement]", ("measurement", "did you mean 'measure'")),
        ("rows = 64", "rows = 0", ("datasets.", "rows")),
        ('source = "countdown"', 'source = "magic"', ("datasets.cot.source", "'magic'")),
        ('source = "countdown"', "", ("datasets.cot", "name one of source, hub, path, mix")),
        (
            'source = "countdown"',
            'path = "a.jsonl"\noptions = { x = 1 }',
            ("options", "cannot be given with path"),
        ),
        ("rows = 64", "", ("datasets.cot", "number of rows has to be given")),
        (COT, "mix = { no_cot = 0.5, replay = 0.4 }\nrows = 64", ("datasets.cot", "sum to 1")),
        (COT, "mix = { nocot = 0.5, replay = 0.5 }\nrows = 64", ("mixes 'nocot'", "did you mean 'no_cot'")),
        (COT, "mix = { cot = 0.5, replay = 0.5 }\nrows = 64", ("itself a mix",)),
    ],
)
def test_bad_input_is_one_line_that_names_key_and_file(write, old, new, said):
    assert old in STUDY
    path = write(STUDY.replace(old, new))
    with pytest.raises(DipscopeError) as caught:
        load(path)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert path in message
    for part in said:
        assert part in message


@pytest.mark.parametrize("source", ["nowhere.toml", "no-such-preset"])
def test_a_missing_study_says_what_there_is(source):
    with pytest.raises(DipscopeError) as caught:
        load(source)
    assert source in str(caught.value)


def test_presets_that_extend_each_other_end_in_an_error(write):
    path = write('extends = "study.toml"\n')
    with pytest.raises(DipscopeError, match="circle"):
        load(path)


def test_an_unknown_scale_names_the_known_ones(write):
    with pytest.raises(DipscopeError, match="mini"):
        load(write(STUDY), "minu")


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_at_every_scale(name):
    for scale in (None, *scales(name)):
        assert load(name, scale).expand()


LIKE = (
    STUDY
    + """
[recipes.fast]
like = "default"
lr = 5e-3

[recipes.faster]
like = "fast"
batch_size = 32
"""
)


def test_a_table_is_like_another_but_for_what_it_says_itself(write):
    recipes = load(write(LIKE)).recipes
    assert (recipes["faster"].lr, recipes["faster"].epochs, recipes["faster"].batch_size) == (5e-3, 2, 32)
    assert recipes["fast"].batch_size == 16


def test_a_scale_changes_what_others_are_like(write):
    text = LIKE + "\n[scale.mini.recipes.default]\nepochs = 1\n"
    assert {r.epochs for r in load(write(text), "mini").recipes.values()} == {1}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('like = "fast"', 'like = "fsat"', ("recipes.faster.like", "'fsat'", "did you mean 'fast'")),
        ('like = "default"', 'like = "faster"', ("circle", "fast → faster → fast")),
        ('like = "default"', "like = 3", ("recipes.fast.like", "no '3'")),
    ],
)
def test_likeness_that_leads_nowhere_is_one_line(write, old, new, said):
    with pytest.raises(DipscopeError) as caught:
        load(write(LIKE.replace(old, new)))
    for part in said:
        assert part in str(caught.value)


def test_a_list_of_runs_and_a_product_replace_each_other(write):
    write(STUDY, "product.toml")
    listed = 'runs.list = [{ model = "tiny", dataset = "cot", recipe = "default" }]\n'
    path = write('extends = "product.toml"\n' + listed, "list.toml")
    assert [r.dataset for r in load(path).expand()] == ["cot", "cot"]
    axes = 'runs = { models = ["tiny"], datasets = ["no_cot"], recipes = ["default"] }\n'
    path = write('extends = "list.toml"\n' + axes, "again.toml")
    assert [r.dataset for r in load(path).expand()] == ["no_cot", "no_cot"]


def test_notes_of_a_study_are_kept(write):
    assert load(write(STUDY.replace("seeds =", 'notes = ["mind this"]\nseeds ='))).study.notes == (
        "mind this",
    )
