"""Checkpoints from a state dict: what stands in the files, what is refused, what a dropped one leaves."""

import json

import pytest
import tinymodel
import torch
from safetensors import torch as safetensors_torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dipscope.errors import DipscopeError
from dipscope.train import checkpoints
from dipscope.train.layout import Layout
from dipscope.train.loop import train

FAMILIES = ["qwen3", "llama"]  # tied and not


@pytest.fixture
def source(tmp_path):
    return tinymodel.directory(tmp_path / "source")


def rounded(model, dtype=torch.bfloat16):
    """The state of a model in another format, where names of one tensor share one again."""
    made = {id(v): v.detach().to(dtype) for v in model.state_dict(keep_vars=True).values()}
    return {name: made[id(v)] for name, v in model.state_dict(keep_vars=True).items()}


def saved(model, source, folder, dtype=torch.bfloat16, **more):
    layout = Layout.of(model, source, dtype)
    checkpoints.save(rounded(model, dtype), layout, folder, {"step": 3, "fingerprint": "f"}, **more)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_what_was_saved_is_what_transformers_loads(source, tmp_path, family, dtype):
    model = tinymodel.model(family)
    folder = saved(model, source, tmp_path / "c", dtype)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == dtype
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == (family == "qwen3")
    wanted, found = rounded(model, dtype), loaded.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    stored = safetensors_torch.load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in stored) == (family == "llama")
    assert checkpoints.verify(folder) == checkpoints.read_marker(folder)["weights"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_model_is_spread_over_files_with_an_index(source, tmp_path, family):
    model = tinymodel.model(family)
    whole, spread = (
        saved(model, source, tmp_path / "a"),
        saved(model, source, tmp_path / "b", shard_bytes=9000),
    )
    files = sorted(p.name for p in spread.glob("*.safetensors"))
    index = json.loads((spread / "model.safetensors.index.json").read_text())
    assert len(files) > 2 and set(index["weight_map"].values()) == set(files)
    assert max((spread / name).stat().st_size for name in files) < 12_000
    assert checkpoints.verify(spread) == checkpoints.verify(whole)
    one, two = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (whole, spread))
    assert all(torch.equal(one[name], two[name]) for name in one)
    (spread / files[1]).unlink()
    with pytest.raises(DipscopeError, match=r"has other weights|missing"):
        checkpoints.verify(spread)


def test_the_state_is_saved_and_not_the_model(source, tmp_path):
    """A gathered or merged state belongs to no module: the layout's model gives names only."""
    model = tinymodel.model("llama")
    layout = Layout.of(model, source, torch.float32)
    state = {name: torch.full_like(value, 0.5) for name, value in model.state_dict().items()}
    checkpoints.save(state, layout, tmp_path / "c", {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    assert all((value == 0.5).all() for value in loaded.state_dict().values())


def test_a_layout_needs_no_weights(source):
    with torch.device("meta"):
        empty = type(tinymodel.model())(tinymodel.model().config)
    layout, full = (Layout.of(m, source, torch.bfloat16) for m in (empty, tinymodel.model()))
    assert layout.ties == full.ties == {"lm_head.weight": "model.embed_tokens.weight"}
    assert layout.shapes == full.shapes
    assert layout.beside == full.beside


@pytest.mark.parametrize("shared", [True, False], ids=["shared unsaid", "said and not shared"])
def test_ties_that_the_config_does_not_tell_are_refused(source, shared):
    model = tinymodel.model(tie_word_embeddings=not shared)
    weight = model.model.embed_tokens.weight
    model.lm_head.weight = weight if shared else torch.nn.Parameter(weight.detach().clone())
    with pytest.raises(DipscopeError, match="other names or ties"):
        Layout.of(model, source, torch.float32)


@pytest.mark.parametrize("how", ["name", "extra", "shape", "dtype", "tie"])
def test_a_state_that_is_not_the_models_is_refused(source, tmp_path, how):
    model = tinymodel.model()
    state, name = rounded(model), "model.norm.weight"
    if how == "name":
        del state[name]
    elif how == "tie":
        name = "lm_head.weight"
        state[name] = state[name] + 1
    else:
        name = "model.more" if how == "extra" else name
        value = torch.ones(
            2 if how == "shape" else 32, dtype=torch.float32 if how == "dtype" else torch.bfloat16
        )
        state[name] = value
    with pytest.raises(DipscopeError, match=name):
        checkpoints.save(state, Layout.of(model, source, torch.bfloat16), tmp_path / "c", {})
    assert not (tmp_path / "c").exists()


def test_a_disk_that_gives_back_other_bytes_is_noticed(source, tmp_path, monkeypatch):
    real = safetensors_torch.save_file

    def bad(tensors, path, metadata):
        real(tensors, path, metadata)
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(safetensors_torch, "save_file", bad)
    with pytest.raises(DipscopeError, match="reads back different") as caught:
        saved(tinymodel.model(), source, tmp_path / "c")
    assert caught.value.exit_code == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_weights_that_are_not_numbers_are_kept_as_they_are(source, tmp_path):
    model = tinymodel.model()
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    assert checkpoints.verify(saved(model, source, tmp_path / "c"))


def test_equal_states_give_equal_bytes(source, tmp_path):
    one, two = (saved(tinymodel.model(), source, tmp_path / name) for name in "ab")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_generation_ends_where_training_ended(source, tmp_path):
    """The source names <eos> alone, training ends turns with <|im_end|>: generation stops at both."""
    GenerationConfig(eos_token_id=1, temperature=0.6, do_sample=True).save_pretrained(source)
    made = GenerationConfig.from_pretrained(saved(tinymodel.model(), source, tmp_path / "c"))
    end = tinymodel.tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert made.eos_token_id == [1, end] and made.temperature == 0.6
    GenerationConfig(eos_token_id=[end, 7]).save_pretrained(source)
    kept = saved(tinymodel.model(), source, tmp_path / "d") / "generation_config.json"
    assert kept.read_bytes() == (source / "generation_config.json").read_bytes()


def test_tokenizer_and_settings_are_written_where_the_source_has_none(tmp_path):
    (tmp_path / "bare").mkdir()
    tokenizer = tinymodel.tokenizer()
    layout = Layout.of(tinymodel.model(), tmp_path / "bare", torch.float32, tokenizer)
    checkpoints.save(tinymodel.model().state_dict(), layout, tmp_path / "c", {})
    assert AutoTokenizer.from_pretrained(tmp_path / "c").get_vocab() == tokenizer.get_vocab()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in GenerationConfig.from_pretrained(tmp_path / "c").eos_token_id
    marker = checkpoints.read_marker(tmp_path / "c")
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= marker["files"].keys()


def test_amounts_are_those_of_the_log(source, tmp_path):
    rows, recipe = tinymodel.examples(16), tinymodel.recipe(max_steps=7, checkpoints=(7,))
    train(source, rows, recipe, 3, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    for step in (1, 4, 7):
        sums = {key: sum(line[key] for line in lines[:step]) for key in ("tokens", "supervised")}
        assert checkpoints.amounts(rows, recipe, 3, step) == sums


@pytest.mark.parametrize("left", ["model.safetensors", "dipscope.json", "config.json", "nothing"])
def test_half_a_checkpoint_is_one_line(source, tmp_path, left):
    folder = saved(tinymodel.model(), source, tmp_path / "c")
    for path in folder.iterdir():
        if path.name != left:
            path.unlink()
    with pytest.raises(DipscopeError, match=r"is incomplete|is missing|no safetensors") as caught:
        checkpoints.verify(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not checkpoints.is_done(folder, "f")


def test_a_dropped_checkpoint_leaves_its_marker_and_is_done_until_it_is_wanted(source, tmp_path):
    folder = saved(tinymodel.model(), source, tmp_path / "c")
    before = checkpoints.read_marker(folder)
    checkpoints.drop(folder)
    assert [p.name for p in folder.iterdir()] == ["dipscope.json"]
    assert before.items() <= checkpoints.read_marker(folder).items()
    assert checkpoints.is_done(folder, "f") and not checkpoints.is_done(folder, "other")
    with pytest.raises(DipscopeError, match="dropped"):
        checkpoints.verify(folder)
    checkpoints.drop(folder)  # once more changes nothing
    assert checkpoints.is_done(folder, "f")
    assert checkpoints.want(folder) and not checkpoints.is_done(folder, "f")
    again = saved(tinymodel.model(), source, tmp_path / "c")
    assert checkpoints.read_marker(again) == before
    assert not checkpoints.want(again)


def test_a_drop_that_was_interrupted_is_finished_by_the_next(source, tmp_path, monkeypatch):
    folder = saved(tinymodel.model(), source, tmp_path / "c")
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(
            "pathlib.Path.unlink", lambda path, missing_ok=False: (_ for _ in ()).throw(PermissionError)
        )
        checkpoints.drop(folder)
    assert (folder / "model.safetensors").is_file()
    with pytest.raises(DipscopeError, match="dropped"):
        checkpoints.verify(folder)
    checkpoints.drop(folder)
    assert [p.name for p in folder.iterdir()] == ["dipscope.json"]


def test_other_weights_than_before_the_drop_are_said(source, tmp_path):
    folder = saved(tinymodel.model(seed=0), source, tmp_path / "c")
    first = checkpoints.verify(folder)
    checkpoints.drop(folder)
    saved(tinymodel.model(seed=1), source, folder)
    assert checkpoints.read_marker(folder)["replaces"] == first != checkpoints.verify(folder)
