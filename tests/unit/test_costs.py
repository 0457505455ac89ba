"""What a plan costs: formulas against hand-computed cases and against torch itself."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.costs import cells, hardware, memory, outlook, rows, shapes
from dipscope.costs.shapes import Shape
from dipscope.plan import make
from dipscope.study import Lora, Model, Recipe, Study
from dipscope.study_files import load
from dipscope.workspace import Workspace

# 2 blocks: queries 4 · 4 = 16 wide, keys 2 · 4 = 8; matrices 10·16 + 2·10·8 + 16·10 + 3·10·20 = 1080
SMALL = Shape(layers=2, hidden=10, inner=20, heads=4, kv_heads=2, head_dim=4, vocabulary=50)
TREE = {
    "study": {"name": "s", "seeds": [0, 1]},
    "models": {"tiny": {"organism": "XS"}},
    "datasets": {"cot": {"source": "countdown", "rows": 64}},
    "recipes": {"r": {"epochs": 2, "batch_size": 16, "checkpoints": [2, 8], "max_length": 512}},
    "runs": {"models": ["tiny"], "datasets": ["cot"], "recipes": ["r"]},
    "measure": {"benchmarks": ["organism/sort"], "items": 10},
}


def plan_of(name):
    return make(load(name))


def test_parameters_of_a_small_shape_by_hand():
    assert SMALL.matrices == 1080
    assert SMALL.block == 1080 + 2 * 10
    assert SMALL.ends == 2 * 50 * 10 + 10
    assert SMALL.parameters == 2 * 1100 + 1010
    tied = Shape(2, 10, 20, 4, 2, 4, 50, tied=True, bias=True, qk_norm=True)
    assert tied.parameters == 2 * (1100 + 16 + 2 * 8 + 2 * 4) + 510


@pytest.mark.parametrize(
    ("hub", "count"),
    [
        # measured on the released weights
        ("Qwen/Qwen3-1.7B-Base", 1_720_574_976),
        ("Qwen/Qwen3-4B-Base", 4_022_468_096),
        ("Qwen/Qwen3-8B-Base", 8_190_735_360),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_parameters_of_hub_models_are_those_of_their_weights(hub, count):
    assert shapes.parameter_count(Model(hub=hub)) == count


@pytest.mark.parametrize(
    ("hub", "kind", "more"),
    [
        ("Qwen/Qwen3-14B", "Qwen3", {}),
        ("Qwen/Qwen2.5-3B", "Qwen2", {"tie_word_embeddings": True}),
        ("Qwen/Qwen2.5-14B", "Qwen2", {}),
        ("IntervitensInc/internlm2_5-20b-llamafied", "Llama", {}),
    ],
)
def test_parameters_agree_with_transformers(hub, kind, more):
    import torch
    import transformers

    s = shapes.HUB[hub]
    config = getattr(transformers, f"{kind}Config")(
        num_hidden_layers=s.layers, hidden_size=s.hidden, intermediate_size=s.inner, vocab_size=s.vocabulary,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.head_dim, **more,
    )  # fmt: skip
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    assert sum(p.numel() for p in model.parameters()) == s.parameters
    assert Shape.of_config(config.to_dict()) == s


def test_a_folder_is_counted_by_its_config_and_a_stranger_by_its_name(tmp_path):
    config = {
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 10, "intermediate_size": 20,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 50,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    assert shapes.parameter_count(Model(path=str(tmp_path))) == SMALL.parameters
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    assert shapes.parameter_count(Model(path=str(tmp_path))) == 50
    assert shapes.parameter_count(Model(hub="lab/Thing-3B-Base")) == 3_000_000_000
    assert shapes.parameter_count(Model(hub="lab/thing")) == 0


def test_arithmetic_agrees_with_torch_s_count():
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen3Config, Qwen3ForCausalLM

    n, s = 24, Shape(2, 32, 64, 4, 2, 8, 100, qk_norm=True)
    config = Qwen3Config(
        num_hidden_layers=s.layers, hidden_size=s.hidden, intermediate_size=s.inner, vocab_size=s.vocabulary,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.head_dim,
        attn_implementation="eager",
    )  # fmt: skip
    model, ids = Qwen3ForCausalLM(config), torch.arange(n)[None]
    with FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False).logits.sum().backward()
    # eager attention computes the masked half too: as long as twice the row
    assert counter.get_total_flops() == pytest.approx(n * s.flops(2 * n), rel=0.01)


def test_memory_by_hand():
    recipe = Recipe(pack_tokens=100, precision="fp32", loss_tokens=7)
    p = SMALL.parameters
    block = 100 * (2 * (8 + 4) * 10 + 2 * 4 * (16 + 8) + 4 * 4 * 20)
    made = memory.training(SMALL, recipe, longest=30)
    assert (made.weights, made.gradients, made.moments, made.copies) == (4 * p, 4 * p, 8 * p, 0)
    assert made.activations == 2 * block
    assert made.logits == 7 * 50 * 12
    assert made.total == 16 * p + 2 * block + 7 * 50 * 12


@pytest.mark.parametrize(
    ("change", "world", "per_parameter"),
    [
        ({"precision": "fp32"}, 1, 16),
        ({"precision": "bf16"}, 1, 18),  # and a copy to compute with
        ({"precision": "bf16_pure"}, 1, 8),
        ({"precision": "bf16"}, 8, 2),  # all sharded
        ({"precision": "bf16_pure"}, 8, 1),
    ],
)
def test_bytes_a_parameter(change, world, per_parameter):
    shape = shapes.HUB["Qwen/Qwen3-1.7B"]
    made = memory.training(shape, Recipe(pack_tokens=16, **change), 16, world)
    stored = made.total - made.activations - made.logits - (made.copies if world > 1 else 0)
    assert stored / shape.parameters == pytest.approx(per_parameter)


def test_what_fsdp_gathers_does_not_shrink_with_more_gpus():
    recipe = Recipe(pack_tokens=16, precision="bf16")
    few, many = (memory.training(SMALL, recipe, 16, world) for world in (2, 64))
    # embedding and head: gathered and their gradient in fp32, and cast; blocks: two gathered, one reduced
    assert few.copies == many.copies == (4 + 4 + 2) * SMALL.ends + (2 * 2 + 4) * SMALL.block
    assert few.weights == 2 * SMALL.parameters and many.activations == few.activations
    pure = memory.training(SMALL, recipe.model_copy(update={"precision": "bf16_pure"}), 16, 2)
    assert pure.copies == (2 + 2) * SMALL.ends + (2 * 2 + 4) * SMALL.block


def test_checkpointing_keeps_one_block_and_the_inputs_of_all():
    off, on = (
        memory.training(SMALL, Recipe(pack_tokens=50, precision="bf16", activation_checkpointing=c), 20)
        for c in (False, True)
    )
    assert off.activations - on.activations == off.activations // 2 - 2 * 50 * 2 * 10


def test_a_row_longer_than_a_pass_makes_the_pass():
    short, long = (memory.training(SMALL, Recipe(pack_tokens=100), longest) for longest in (100, 300))
    assert long.activations == 3 * short.activations


def test_lora_has_gradients_and_moments_of_its_adapters_alone():
    adapters = 2 * 4 * (10 + 16 + 10 + 8 + 10 + 8 + 16 + 10 + 10 + 20 + 10 + 20 + 20 + 10)
    assert SMALL.adapters(Lora(rank=4)) == adapters
    assert SMALL.adapters(Lora(rank=4, targets=("q_proj", "down_proj"))) == 2 * 4 * (10 + 16 + 20 + 10)
    made = memory.training(SMALL, Recipe(precision="fp32", lora=Lora(rank=4)), 16)
    assert (made.weights, made.gradients, made.moments) == (4 * SMALL.parameters, 4 * adapters, 8 * adapters)
    narrow = memory.training(SMALL, Recipe(precision="bf16", lora=Lora(rank=4)), 16)
    assert (narrow.weights, narrow.copies) == (4 * SMALL.ends + 2 * 2 * SMALL.block, 2 * SMALL.ends)
    many = memory.training(SMALL, Recipe(precision="bf16", lora=Lora(rank=4)), 16, 2)
    assert (many.weights, many.copies) == (
        narrow.weights // 2,
        (4 + 2) * SMALL.ends + 2 * 2 * SMALL.block,
    )


@pytest.mark.parametrize(("precision", "each"), [("fp32", 12), ("bf16", 12), ("bf16_pure", 6)])
def test_a_resume_point_is_as_large_as_its_file(precision, each, tmp_path):
    import tinymodel
    import torch

    from dipscope.train import lora, resume
    from dipscope.train.optimizer import make_optimizer, set_precision

    for chosen in (None, Lora(rank=4)):
        recipe = tinymodel.recipe(precision=precision, lora=chosen)
        model = tinymodel.model()
        set_precision(model, recipe)
        if chosen is not None:
            pytest.importorskip("peft", reason="LoRA needs peft")
            lora.attach(model, chosen, 0, precision)
        optimizer = make_optimizer(model, recipe)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        shape = Shape.of_config(model.config.to_dict())
        assert trained == (shape.adapters(chosen) if chosen else shape.parameters)
        resume.Resume(tmp_path, {}).save(model, optimizer, 2 if chosen else 1)
        (path,) = tmp_path.glob("*/state.safetensors")
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        counters = 4 * sum(p.requires_grad for p in model.parameters())
        assert path.stat().st_size - header - counters == each * trained
        assert cells.resume_point(trained, recipe) == 2 * each * trained


@pytest.mark.parametrize("computed", [4, 2], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["Qwen3", "Llama"])
def test_kept_activations_are_near_what_torch_keeps(kind, computed):
    import torch
    import transformers

    n, s = 256, Shape(4, 128, 384, 4, 2, 32, 100, qk_norm=kind == "Qwen3")
    config = getattr(transformers, f"{kind}Config")(
        num_hidden_layers=s.layers, hidden_size=s.hidden, intermediate_size=s.inner, vocab_size=s.vocabulary,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.head_dim,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForCausalLM")(config).model
    weights = {p.data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}
    alive = []  # a freed storage's address would be given away again

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            alive.append(tensor)
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=computed == 2),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model(torch.arange(n)[None] % 100, use_cache=False)
    copies = computed * s.layers * s.block if computed == 2 else 0  # of weights, which are counted elsewhere
    ratio = (sum(held.values()) - copies) / (s.layers * n * memory.kept(s, computed))
    assert 0.95 < ratio < 1.2


def test_as_many_logits_at_once_as_in_training():
    from dipscope.train import loss

    assert memory.LOGITS_AT_ONCE == loss.LOGITS_AT_ONCE


def test_gpu_hours_by_hand():
    # an hour at half of the peak
    assert hardware.hours(0.5 * 312e12 * 3600, hardware.GPUS["A100-80"], 0.5) == pytest.approx(1)


def test_a_run_of_the_paper_by_hand():
    plan = plan_of("paper/qwen3-8b-math-cot")
    seen = outlook.outlook(plan, mfu=0.4)
    (run,), (model,) = seen.runs, seen.models
    prompt, target = rows.ASSUMED["Math-CoT-20k"]
    assert (run.steps, run.checkpoints, run.seeds) == (640, 8, 1)
    assert run.tokens == 163_840 * (prompt + target)
    assert run.supervised == 163_840 * target
    assert run.padded == 163_840 * 20_000
    assert run.saved == pytest.approx(1 - (prompt + target) / 20_000)
    assert run.disk == 8 * 2 * 8_190_735_360
    met = 36 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288) + 151_936 * 4096
    each = 6 * met + 6 * 36 * 4096 * (prompt + target)
    assert run.flops == pytest.approx(run.tokens * each)
    assert seen.gpus["H100"].training == pytest.approx(run.tokens * each / 989e12 / 0.4 / 3600)
    answers = sum(b.items * b.samples * b.max_tokens // 2 for b in plan.benchmarks)
    assert answers > 1e6
    assert run.generated == 8 * answers
    flops = 9 * answers * 2 * 8_190_735_360  # the base is measured too
    assert seen.gpus["A100-80"].measuring == pytest.approx(flops / 31.2e12 / 3600)
    assert model.fewest["H200"] == 2 and model.memory[8].total < 0.9 * 80e9


def test_a_base_that_several_runs_share_is_measured_once():
    one = outlook.outlook(plan_of("paper/qwen3-14b-math-cot-ep1"))
    both = outlook.outlook(plan_of("paper/table4"))
    measured = sum(r.generate_flops for r in both.runs)
    (run,) = one.runs
    base = run.generate_flops / run.checkpoints
    assert both.gpus["H100"].measuring == pytest.approx(
        hardware.hours(measured + base, hardware.GPUS["H100"], hardware.GENERATION_MFU)
    )


def test_rows_that_are_too_long_are_cut():
    row = rows.RowTokens(100, 900, 1200, 4000, "assumed")
    cut = row.cut(400)
    assert (cut.prompt, cut.target, cut.longest) == (100, 300, 400)
    assert row.cut(2000) == rows.RowTokens(100, 900, 1200, 2000, "assumed")


@given(
    st.floats(1, 3000), st.floats(1, 20_000), st.floats(1, 3), st.integers(1, 80_000), st.integers(16, 20_000)
)
def test_cut_rows_fit_and_are_never_longer(prompt, target, spread, longest, limit):
    row = rows.RowTokens(prompt, target, spread * (prompt + target), longest, "sampled")
    cut = row.cut(limit)
    assert cut.total <= limit + 1e-6 and cut.attended <= limit and cut.longest <= limit
    assert cut.prompt <= prompt and cut.target <= target and cut.target >= 0
    assert cut.cut(limit) == cut


@given(st.sampled_from(["fp32", "bf16", "bf16_pure"]), st.integers(2, 512), st.integers(16, 30_000))
def test_more_gpus_never_need_more_memory_each(precision, world, longest):
    recipe = Recipe(precision=precision, activation_checkpointing=True)
    shape = shapes.HUB["Qwen/Qwen3-8B"]
    few, many = (memory.training(shape, recipe, longest, n).total for n in (world, 2 * world))
    assert many <= few


def test_lengths_are_sampled_then_counted(tmp_path):
    from dipscope.data.tokenize import Example, TokenTable

    plan = make(Study.model_validate(TREE))
    cell = next(c for c in plan.cells if c.kind == "tokenize")
    assert rows.Rows(plan).tokenized(cell).basis == "sampled"
    workspace = Workspace(tmp_path)
    path = tmp_path / "data" / "tokens.safetensors"
    TokenTable.of([Example((1,) * 2, (2,) * 4, False), Example((1,) * 4, (2,) * 8, False)]).write(path)
    workspace.complete(cell.id, {"tokens": workspace.relative(path), "sha256": "", "notes": []})
    counted = rows.Rows(plan, workspace).tokenized(cell)
    assert counted == rows.RowTokens(3, 6, (36 + 144) / 18, 12, "counted")
    run, *_ = outlook.outlook(plan, workspace).runs
    assert (run.tokens, run.supervised, run.seeds) == (8 * 16 * 9, 8 * 16 * 6, 2)


def test_a_finished_cell_s_speed_replaces_the_guess(tmp_path):
    plan = make(Study.model_validate(TREE))
    workspace = Workspace(tmp_path)
    guessed, _ = cells.estimate(plan, workspace, 1)
    workspace.log("cell", kind="train", name="tiny/cot/r/seed0", work=1000, seconds=10.0)
    measured, total = cells.estimate(plan, workspace, 1)
    train = [c for c in measured if c.kind == "train"]
    assert all(c.measured and c.seconds == pytest.approx(c.tokens / 100) for c in train)
    assert [c for c in measured if c.kind != "train"] == [c for c in guessed if c.kind != "train"]
    assert total.seconds == pytest.approx(sum(c.seconds for c in measured))


def test_what_is_complete_costs_no_more(tmp_path):
    plan = make(Study.model_validate(TREE))
    workspace = Workspace(tmp_path)
    _, before = cells.estimate(plan, workspace, 2)
    trained = next(c for c in plan.cells if c.kind == "train")
    workspace.complete(trained.id, {})
    each, after = cells.estimate(plan, workspace, 2)
    cost = next(c for c in each if c.cell == trained.id)
    assert (after.complete, before.tokens - after.tokens) == (1, cost.tokens)
    point = cells.resume_point(shapes.parameter_count(Model(organism="XS")), Recipe())
    assert before.disk - after.disk == cost.disk + point  # one resume point less: one run is left


def test_datasets_and_models_without_a_pin_are_named():
    notes = outlook.outlook(plan_of("paper/qwen2.5")).notes
    assert any("Qwen/Qwen2.5-3B" in n and "Qwen2.5-1.5B" not in n and "Math-CoT" not in n for n in notes)


@pytest.fixture
def screen(monkeypatch, capsys):
    from dipscope import cli

    def run(*words):
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr("sys.argv", ["dipscope", "plan", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return capsys.readouterr().out

    return run


def test_all_33_are_planned_in_less_than_three_seconds(screen):
    began = time.process_time()
    shown = screen("paper/all")
    assert time.process_time() - began < 3
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith(("qwen", "internlm")) and "×)" in line for line in lines) == 33
    assert any(line.startswith("33 runs ") and "21,440" in line for line in lines)


def test_the_screen_says_what_is_assumed(screen):
    shown = " ".join(screen("paper/table2", "--mfu", "0.5").split())
    for said in (
        "12 runs", "math-cot 6,650 (assumed)", "training reaches 50 % of the dense bfloat16 peak",
        "Note: internlm/internlm2_5-20b brings its own model code", "scales seeds, faithful",
    ):  # fmt: skip
        assert said in shown
    assert "0b0bd373…" in shown and "0b0bd3732e" not in shown


def test_json_has_all_of_it(screen):
    told = json.loads(screen("paper/table1", "--json"))
    assert {"study", "cells", "total", "outlook"} == set(told)
    seen = told["outlook"]
    assert [r["steps"] for r in seen["runs"]] == [640] * 3
    assert 0 < seen["runs"][0]["padding_saved"] < 1
    parts = seen["models"][0]["memory"]["8"]
    assert parts["total"] == sum(value for name, value in parts.items() if name != "total")
    assert set(seen["gpus"]) == set(hardware.GPUS)
    assert seen["rows"]["math-cot"]["basis"] == "assumed" and seen["mfu"] == hardware.ASSUMED_MFU
    assert any("Math-CoT-2.5k" in note for note in seen["notes"])
