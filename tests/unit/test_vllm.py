"""The vLLM engine against a fake of the few calls it makes, and, where vLLM is installed, against vLLM.

The proof of the real path takes one command on a machine with a GPU and vLLM:

    pytest tests/unit/test_vllm.py -m slow
"""

import importlib.util
import json
import shutil
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tinymodel
import torch

from dipscope.engine import swap, vllm
from dipscope.engine.base import Request, Sampling, ScoreRequest
from dipscope.engine.local import LocalEngine
from dipscope.errors import DipscopeError

STOP = 3  # <|im_end|> of the tiny tokenizer
HAVE_VLLM = importlib.util.find_spec("vllm") is not None


@dataclass
class Parameters:
    """The fields of vllm.SamplingParams that are used; anything else fails, as there."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    stop_token_ids: list | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    prompt_logprobs: int | None = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class Config:
    max_model_len = 40

    def get_vocab_size(self):
        return 48


class Core:
    def __init__(self):
        self.down = False

    def shutdown(self):
        self.down = True


@dataclass
class Fake:
    """What all fake engines of a test share: how they misbehave, and what was done to them."""

    starts: list = field(default_factory=list)
    reloads: list = field(default_factory=list)
    prompts: list = field(default_factory=list)
    parameters: list = field(default_factory=list)
    cores: list = field(default_factory=list)
    stale: bool = False  # reload_weights changes nothing
    wrong: bool = False  # it puts something else in place
    missing: bool = False  # it is not known
    keeps_cache: bool = False  # the prefix cache is not given up
    abort: bool = False
    broken: bool = False

    def module(self):
        fake = self

        class LLM:
            def __init__(self, model, **options):
                fake.starts.append((model, options))
                if fake.broken:
                    raise RuntimeError("traceback\nEngine core initialization failed")
                assert not [c for c in fake.cores if not c.down], "two engines on one GPU"
                fake.cores.append(Core())
                self.llm_engine = types.SimpleNamespace(model_config=Config(), engine_core=fake.cores[-1])
                self.engine = LocalEngine()
                self.engine.load(Path(model))

            def collective_rpc(self, method, timeout=None, args=(), kwargs=None):
                assert method == "reload_weights"
                if fake.missing:
                    raise TypeError("reload_weights() got an unexpected keyword argument 'weights_path'")
                fake.reloads.append(kwargs["weights_path"])
                if fake.wrong:
                    with torch.no_grad():
                        for places in self.engine._decoder.places().values():
                            places[0].mul_(1.5)
                elif not fake.stale:
                    self.engine.load(Path(kwargs["weights_path"]))
                return [None]

            def reset_prefix_cache(self, reset_running_requests=False, reset_connector=False):
                return not fake.keeps_cache

            def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
                assert use_tqdm is False
                given = sampling_params
                if not isinstance(given, list):
                    given = [given] * len(prompts)
                fake.prompts += prompts
                fake.parameters += given
                return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, given, strict=True)]

            def _one(self, ids, wanted):
                assert len(ids) < Config.max_model_len  # the real one raises for the whole call
                logprobs = None
                if wanted.prompt_logprobs is not None:
                    (scored,) = self.engine.score([ScoreRequest("", tuple(ids[:1]), tuple(ids[1:]))])
                    pairs = zip(ids[1:], scored.logprobs, strict=True)
                    logprobs = [None, *({0: Logprob(-9.0), token: Logprob(p)} for token, p in pairs)]
                stops = tuple(wanted.stop_token_ids or ())
                drawn = Sampling(wanted.temperature, wanted.top_p, max(wanted.top_k, 0), wanted.max_tokens)
                request = Request("", tuple(ids), drawn, wanted.seed or 0, stops)
                (done,) = self.engine.generate([request])
                # the real one leaves the stop token in
                made = list(done.token_ids) + ([STOP] if done.finish == "stop" else [])
                reason = "abort" if fake.abort else done.finish
                output = types.SimpleNamespace(token_ids=made, finish_reason=reason, stop_reason=None)
                return types.SimpleNamespace(outputs=[output], prompt_logprobs=logprobs, finished=True)

        module = types.ModuleType("vllm")
        module.LLM, module.SamplingParams, module.__version__ = LLM, Parameters, "0.26.0"
        return module


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setitem(sys.modules, "vllm", made.module())
    return made


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    base = tmp_path_factory.mktemp("checkpoints")
    made = [tinymodel.directory(base / f"seed{i}", seed=i) for i in range(3)]
    return [*made, tinymodel.directory(base / "llama", family="llama")]


def requests(n, prompt=(10, 11, 12), **sampling):
    drawn = Sampling(**{"temperature": 0.9, "top_p": 0.95, "top_k": 20, "max_tokens": 12} | sampling)
    return [Request(f"r{i}", (*prompt, 14 + i), drawn, 2**63 + i, (STOP, 1)) for i in range(n)]


def results(engine, wanted):
    return {c.key: (c.token_ids, c.finish) for c in engine.generate(wanted)}


def test_it_says_what_the_embedded_engine_says(fake, checkpoints):
    ours, theirs = vllm.VllmEngine(), LocalEngine()
    ours.load(checkpoints[0])
    theirs.load(checkpoints[0])
    wanted = requests(20, max_tokens=30)
    low = [Request(r.key, r.prompt_ids, r.sampling, r.seed % 2**63, r.stop_ids) for r in wanted]
    assert results(ours, wanted) == results(theirs, low)
    finishes = {finish for _, finish in results(ours, wanted).values()}
    assert finishes == {
        "stop",
        "length",
    }  # the stop token was taken off in the one case, nothing in the other
    asked = [
        ScoreRequest("a", (4, 5), (6, 7, 8)),
        ScoreRequest("b", (4,), (9,)),
        ScoreRequest("c", (4, 5), ()),
    ]
    scored = {s.key: s.logprobs for s in ours.score(asked)}
    reference = {s.key: s.logprobs for s in theirs.score(asked)}
    assert scored.keys() == reference.keys()
    for key, values in reference.items():
        assert scored[key] == pytest.approx(values, abs=1e-4)
    assert ours.name == "vllm-0.26.0/bfloat16"


def test_nothing_is_left_to_a_default(fake, checkpoints):
    engine = vllm.VllmEngine(tensor_parallel=2, gpu_memory_utilization=0.5)
    engine.load(checkpoints[0])
    assert fake.starts == [
        (
            str(checkpoints[0]),
            {
                "dtype": "bfloat16", "seed": 0, "tensor_parallel_size": 2, "generation_config": "vllm",
                "gpu_memory_utilization": 0.5,
            },
        )
    ]  # fmt: skip
    fake.parameters.clear()
    list(engine.generate(requests(1, top_k=0)))
    assert fake.parameters == [
        Parameters(
            temperature=0.9, top_p=0.95, top_k=-1, max_tokens=12, seed=0, stop_token_ids=[STOP, 1],
            ignore_eos=True, detokenize=False,
        )
    ]  # fmt: skip
    assert fake.prompts[-1] == {"prompt_token_ids": [10, 11, 12, 14]}


def test_a_prompt_without_room_is_an_error_and_the_others_are_answered(fake, checkpoints):
    engine = vllm.VllmEngine()
    engine.load(checkpoints[0])
    long = Request("long", tuple(range(4, 44)), Sampling(max_tokens=3), 0, (STOP,))
    found = results(engine, [long, *requests(2)])
    assert found["long"] == ((), "error") and {found["r0"][1], found["r1"][1]} <= {"stop", "length"}
    with pytest.raises(DipscopeError, match="fill the context of 40 tokens"):
        list(engine.score([ScoreRequest("x", tuple(range(4, 24)), tuple(range(4, 24)))]))


def test_other_ends_are_errors(fake, checkpoints):
    engine = vllm.VllmEngine()
    engine.load(checkpoints[0])
    fake.abort = True
    assert {finish for _, finish in results(engine, requests(2)).values()} == {"error"}


def test_the_first_swap_is_proven_by_a_fresh_start_and_the_next_ones_reload(fake, checkpoints):
    engine, reference = vllm.VllmEngine(), LocalEngine()
    seen = []
    for checkpoint in (*checkpoints[:3], checkpoints[0]):
        engine.load(checkpoint)
        reference.load(checkpoint)
        low = [Request(r.key, r.prompt_ids, r.sampling, r.seed % 2**63, r.stop_ids) for r in requests(3)]
        assert results(engine, requests(3)) == results(reference, low)
        seen.append(engine.swapped)
    assert seen == ["start", "restart", "reload", "reload"]
    assert len(fake.starts) == 2 and len(fake.reloads) == 3


def test_the_same_weights_are_left_in_place(fake, checkpoints, tmp_path):
    engine = vllm.VllmEngine()
    engine.load(checkpoints[0])
    engine.load(shutil.copytree(checkpoints[0], tmp_path / "copy"))
    assert len(fake.starts) == 1 and not fake.reloads


@pytest.mark.parametrize("trouble", ["stale", "wrong", "missing", "keeps_cache"])
def test_a_reload_that_does_not_work_is_not_used(fake, checkpoints, trouble):
    setattr(fake, trouble, True)
    engine, reference = vllm.VllmEngine(), LocalEngine()
    for checkpoint in checkpoints[:3]:
        engine.load(checkpoint)
        reference.load(checkpoint)
        low = [Request(r.key, r.prompt_ids, r.sampling, r.seed % 2**63, r.stop_ids) for r in requests(3)]
        assert results(engine, requests(3)) == results(reference, low)
    assert engine.swapped == "restart" and len(fake.starts) == 3
    assert len(fake.reloads) <= 1  # not tried again


def test_a_reload_that_stops_working_is_seen(fake, checkpoints):
    engine = vllm.VllmEngine()
    engine.load(checkpoints[0])
    engine.load(checkpoints[1])
    fake.stale = True
    engine.load(checkpoints[2])
    assert engine.swapped == "restart"
    engine.load(checkpoints[0])
    assert engine.swapped == "restart" and len(fake.reloads) == 2


def test_another_architecture_starts_anew(fake, checkpoints):
    engine = vllm.VllmEngine()
    engine.load(checkpoints[0])
    engine.load(checkpoints[3])
    assert engine.swapped == "restart" and not fake.reloads
    engine.load(checkpoints[0])
    assert not fake.reloads
    engine.load(checkpoints[1])
    assert len(fake.reloads) == 1 and engine.swapped == "restart"  # proven anew for this architecture


def test_a_start_that_fails_is_one_line(fake, checkpoints):
    fake.broken = True
    engine = vllm.VllmEngine()
    with pytest.raises(DipscopeError, match=r"vLLM does not start \(Engine core init") as caught:
        engine.load(checkpoints[0])
    assert caught.value.exit_code == 1
    with pytest.raises(DipscopeError, match="no checkpoint is loaded"):
        list(engine.generate(requests(1)))


def test_without_vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(DipscopeError, match="vLLM cannot be imported") as caught:
        vllm.VllmEngine()
    assert "http://HOST:PORT/v1" in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (HAVE_VLLM and torch.cuda.is_available()), reason="needs a GPU and vLLM")
def test_vllm_itself_agrees_with_the_embedded_engine(tmp_path):
    from dipscope.organism.base import shipped
    from dipscope.weights import weights_hash

    folders = [shipped("S"), tmp_path / "shifted"]
    _shift(folders[0], folders[1])
    engine = vllm.VllmEngine(max_model_len=512, gpu_memory_utilization=0.3)
    reference = LocalEngine(device="cpu")
    for turn, folder in enumerate([*folders, *folders]):
        engine.load(folder)
        reference.load(folder)
        assert engine.weights == weights_hash(folder)
        vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
        asked = swap.canaries(vocab)
        ours = torch.tensor([s.logprobs for s in sorted(engine.score(asked), key=lambda s: int(s.key))])
        theirs = torch.tensor([s.logprobs for s in sorted(reference.score(asked), key=lambda s: int(s.key))])
        assert float((ours - theirs).abs().mean()) < 0.1
        wanted = [Request(r.key, r.prompt_ids, r.sampling, 5, (4,)) for r in requests(8, temperature=0.0)]
        same = sum(results(engine, wanted)[k] == v for k, v in results(reference, wanted).items())
        assert same >= 6  # greedy, but in bfloat16
        print(f"load {turn}: {engine.swapped}")


def _shift(source, target):
    """A copy of a model with other weights."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    weights = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    noisy = {
        k: (v.float() + 0.05 * v.float().std() * torch.randn(v.shape, generator=generator)).to(v.dtype)
        for k, v in weights.items()
    }
    save_file(noisy, target / "model.safetensors", metadata={"format": "pt"})
