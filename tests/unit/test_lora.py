"""LoRA: what trains, what the merged weights are, and that a run with it resumes."""

import copy
import sys

import pytest
import tinymodel
import torch

from dipscope.errors import DipscopeError
from dipscope.study import Lora
from dipscope.train import attention, lora
from dipscope.train.step import accumulate

torch.set_num_threads(1)
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="LoRA needs peft")


def adapted(settings=None, seed=0, trained=True, **changes):
    """A model with adapters, B drawn too where it is to count as trained; and its base."""
    settings = settings or Lora(rank=4, alpha=6)
    base = tinymodel.model(**changes)
    model = copy.deepcopy(base)
    lora.attach(model, settings, seed)
    if trained:
        torch.manual_seed(1)
        for name, p in model.named_parameters():
            if name.endswith("lora_B.default.weight"):
                torch.nn.init.normal_(p, std=0.1)
    return model.eval(), base.eval()


def logits(model, ids=None):
    with torch.no_grad():
        return model(torch.arange(24)[None] if ids is None else ids, use_cache=False).logits


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_merged_model_computes_what_the_adapters_do(peft, family):
    settings = Lora(rank=4, alpha=6)
    model, base = adapted(settings, family=family)
    merged = lora.merged_state(model.state_dict(), settings, torch.float32)
    assert merged.keys() == base.state_dict().keys()
    assert not torch.allclose(logits(model), logits(base), atol=1e-2)
    base.load_state_dict(merged)
    torch.testing.assert_close(logits(base), logits(model), rtol=1e-5, atol=1e-5)


def test_merged_weights_are_those_of_peft(peft):
    settings = Lora(rank=4, alpha=6)
    model, _ = adapted(settings)
    merged = lora.merged_state(model.state_dict(), settings, torch.float32)
    checked = 0
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.merge()
            torch.testing.assert_close(
                merged[f"{name}.weight"], module.base_layer.weight, rtol=1e-6, atol=1e-6
            )
            checked += 1
    assert checked == 2 * len(LAYERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_untrained_adapters_leave_every_bit_of_the_base(peft, dtype):
    settings = Lora(rank=4)
    model, base = adapted(settings, trained=False)
    with torch.no_grad():
        for one in (model.model.layers[0].mlp.up_proj.base_layer, base.model.layers[0].mlp.up_proj):
            one.weight[0] = -0.0
    assert torch.equal(logits(model), logits(base))
    merged = lora.merged_state(model.state_dict(), settings, dtype)
    for name, value in base.state_dict().items():
        assert merged[name].dtype == dtype
        assert torch.equal(merged[name].view(torch.uint8), value.to(dtype).view(torch.uint8)), name


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_ties_stay_as_they_are(peft, family):
    settings = Lora(rank=2)
    model, _ = adapted(settings, family=family)
    merged = lora.merged_state(model.state_dict(), settings, torch.bfloat16)
    tied = merged["lm_head.weight"] is merged["model.embed_tokens.weight"]
    assert tied == (family == "qwen3")


def test_merging_rounds_once(peft):
    settings = Lora(rank=4, alpha=6)
    model, _ = adapted(settings)
    model.to(torch.bfloat16)
    state = model.state_dict()
    name = "model.layers.1.self_attn.q_proj"
    exact = state[f"{name}.base_layer.weight"].double() + 1.5 * (
        state[f"{name}.lora_B.default.weight"].double() @ state[f"{name}.lora_A.default.weight"].double()
    )
    merged = lora.merged_state(state, settings, torch.bfloat16)[f"{name}.weight"]
    differing = (merged != exact.float().to(torch.bfloat16)).float().mean()
    assert differing < 0.01  # at most where fp32 and double fall to different sides


def test_only_adapters_of_all_layers_but_the_head_train(peft):
    model, base = adapted(family="llama")
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert all(".lora_" in n for n in names) and len(names) == 2 * 2 * len(LAYERS)
    assert {n.split(".")[-4] for n in names} == LAYERS
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == sum(
        p.numel() for p in base.parameters()
    )


def test_targets_choose_layers_even_the_head_where_it_has_its_own_weight(peft):
    model, base = adapted(Lora(rank=2, targets=("v_proj", "lm_head")), family="llama")
    names = {n.split(".")[-4] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {"v_proj", "lm_head"}
    base.load_state_dict(
        lora.merged_state(model.state_dict(), Lora(rank=2, targets=("v_proj", "lm_head")), torch.float32)
    )
    torch.testing.assert_close(logits(base), logits(model), rtol=1e-5, atol=1e-5)


def test_an_unknown_or_tied_target_is_one_clear_line(peft):
    with pytest.raises(
        DipscopeError, match=r"no linear layer 'q_prj'.*did you mean 'q_proj'.*down_proj, gate_proj"
    ):
        adapted(Lora(targets=("v_proj", "q_prj")))
    with pytest.raises(DipscopeError, match="'lm_head' that can be adapted"):
        adapted(Lora(targets=("lm_head",)))


def test_without_peft_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DipscopeError, match=r"pip install 'dipscope\[lora\]'"):
        lora.attach(tinymodel.model(), Lora(), 0)


def test_start_is_a_function_of_the_seed_and_disturbs_no_other_draw(peft):
    def start(seed):
        torch.manual_seed(5)
        model, _ = adapted(seed=seed, trained=False)
        return {n: p.detach() for n, p in model.named_parameters() if ".lora_A." in n}

    one, again, other = start(0), start(0), start(1)
    for name, value in one.items():
        assert torch.equal(value, again[name]) and not torch.equal(value, other[name])
        bound = value.shape[1] ** -0.5
        assert value.abs().max() <= bound and value.std() == pytest.approx(bound / 3**0.5, rel=0.3)
    base = tinymodel.model()
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    lora.attach(base, Lora(rank=4), 0)
    assert torch.equal(torch.rand(3), expected)


def test_gradient_is_that_of_the_formula(peft):
    """∂L/∂B = s·G·Aᵀ and ∂L/∂A = s·Bᵀ·G, with G the gradient of the merged weight in a plain model."""
    settings, rows = Lora(rank=4, alpha=6), tinymodel.examples(9)
    model, plain = adapted(settings)
    plain.load_state_dict(lora.merged_state(model.state_dict(), settings, torch.float32))
    for one in (model, plain):
        attention.attach(one)
        accumulate(one, rows, tinymodel.recipe())
    whole = {n: p.grad for n, p in plain.named_parameters()}
    parameters = dict(model.named_parameters())
    for name, p in parameters.items():
        assert (p.grad is None) == (".lora_" not in name)
        if name.endswith(".lora_A.default.weight"):
            layer = name.removesuffix(".lora_A.default.weight")
            b = parameters[f"{layer}.lora_B.default.weight"]
            g = whole[f"{layer}.weight"]
            for got, expected in ((p.grad, 1.5 * b.detach().T @ g), (b.grad, 1.5 * g @ p.detach().T)):
                assert (got - expected).norm() < 1e-5 * expected.norm(), name


def test_bf16_halves_frozen_matrices_without_a_changed_bit(peft):
    """Weights that bfloat16 holds exactly are stored in it; the computation is autocast's, bit for bit."""
    base = tinymodel.model()
    for p in base.parameters():
        p.data = p.data.to(torch.bfloat16).float()
    inexact = base.model.layers[1].mlp.down_proj.weight
    inexact.data[0, 0] = 1 / 3
    wide, narrow = copy.deepcopy(base), copy.deepcopy(base)
    lora.attach(wide, Lora(rank=4), 0, "fp32")
    lora.attach(narrow, Lora(rank=4), 0, "bf16")
    narrow_state = narrow.state_dict()
    halved = {n for n, v in narrow_state.items() if v.dtype == torch.bfloat16}
    assert len(halved) == 2 * len(LAYERS) - 1 and all(n.endswith("base_layer.weight") for n in halved)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits(wide), logits(narrow))
    merged = lora.merged_state(narrow_state, Lora(rank=4), torch.float32)
    assert all(torch.equal(merged[n], v) for n, v in base.state_dict().items())


def test_bf16_pure_keeps_nothing_in_fp32(peft):
    model = tinymodel.model().to(torch.bfloat16)
    lora.attach(model, Lora(rank=4), 0, "bf16_pure")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_dropout_is_drawn_in_training_only_and_again_the_same(peft):
    model, _ = adapted(Lora(rank=4, dropout=0.5))
    rows, recipe = tinymodel.examples(9), tinymodel.recipe()
    assert torch.equal(logits(model), logits(adapted(Lora(rank=4))[0]))
    attention.attach(model)

    def gradients(seed):
        model.zero_grad()
        torch.manual_seed(seed)
        accumulate(model.train(), rows, recipe)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(gradients(0), gradients(0)) and not torch.allclose(gradients(0), gradients(1))
