"""Judges that run here: a plain continuation, and reward models."""

import math

import pytest
import tinymodel
import torch
from test_judging import BENCH, case, record
from transformers import LlamaConfig, LlamaForSequenceClassification

from dipscope import records
from dipscope.engine.local import LocalEngine
from dipscope.errors import DipscopeError
from dipscope.judging import rubrics
from dipscope.judging.cases import wanted
from dipscope.judging.join import coverage, join
from dipscope.judging.judge import Judging
from dipscope.judging.judges import open_judge, plain
from dipscope.judging.reward import Rewarding, RewardModel
from dipscope.judging.rubrics import Case

PLAIN = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
PLAIN |= {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def rewarder(folder, labels=1, seed=0):
    torch.manual_seed(seed)
    LlamaForSequenceClassification(LlamaConfig(**PLAIN, num_labels=labels)).save_pretrained(folder)
    tinymodel.tokenizer().save_pretrained(folder)
    return folder


def texts(rows, make=case):
    return wanted(records.frame(rows), BENCH, make, "answer")


ROWS = [record(f"i{k}", " ".join(f"w{(k * j) % 40}" for j in range(1, 4 + k))) for k in range(8)]


def test_rewards_are_those_of_the_model_itself(tmp_path):
    folder = rewarder(tmp_path / "m")
    model = RewardModel(folder, "reward:m")
    reference = LlamaForSequenceClassification.from_pretrained(folder)
    tokenizer = tinymodel.tokenizer()
    for row in ROWS:
        turns = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": row["answer"]}]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            naive = reference(ids).logits.item()
        assert model.reward("w1 w2", row["answer"]) == pytest.approx(naive, abs=1e-5)


def test_the_raw_reward_is_kept_and_the_score_is_a_probability(tmp_path):
    model = RewardModel(rewarder(tmp_path / "m"), "reward:m")
    work = Rewarding(model, texts(ROWS), tmp_path / "j")
    assert (work.run().graded, Rewarding(model, texts(ROWS), tmp_path / "j").todo) == (8, [])
    raw = {r["item"]: model.reward(f"question {r['item']}", r["answer"]) for r in ROWS}
    joined = join(records.frame(ROWS), tmp_path / "j")
    for row in joined.iter_rows(named=True):
        assert float(row["extracted"]) == pytest.approx(raw[row["item"]], rel=1e-4)
        assert row["score"] == pytest.approx(1 / (1 + math.exp(-raw[row["item"]])))
    (found,) = coverage(records.frame(ROWS), tmp_path / "j")
    assert found.mean_label == pytest.approx(sum(raw.values()) / 8, rel=1e-4)


def test_with_a_reference_the_score_is_the_chance_to_be_preferred_to_it(tmp_path):
    model = RewardModel(rewarder(tmp_path / "m"), "reward:m")

    def against(item, text):
        return Case("w1", text, right=("w5 w6",))

    Rewarding(model, texts(ROWS, against), tmp_path / "j").run()
    reference = model.reward("w1", "w5 w6")
    for row in join(records.frame(ROWS), tmp_path / "j").iter_rows(named=True):
        ahead = model.reward("w1", row["answer"]) - reference
        assert row["score"] == pytest.approx(1 / (1 + math.exp(-ahead)))
        assert row["verdict"] == ("correct" if ahead > 0 else "wrong")


def test_a_text_that_does_not_fit_has_no_reward_and_is_never_cut(tmp_path):
    model = RewardModel(rewarder(tmp_path / "m"), "reward:m")
    rows = [*ROWS, record("i9", "w1 " * 100)]
    done = Rewarding(model, texts(rows), tmp_path / "j").run()
    assert (done.graded, done.invalid) == (8, 1)
    verdicts = dict(join(records.frame(rows), tmp_path / "j").select("item", "verdict").iter_rows())
    assert verdicts.pop("i9") == "error" and set(verdicts.values()) <= {"correct", "wrong"}


@pytest.mark.parametrize(
    "make", [lambda f: rewarder(f, labels=3), tinymodel.directory], ids=["three", "causal"]
)
def test_what_gives_no_single_reward_is_refused(tmp_path, make):
    with pytest.raises(DipscopeError, match="no classification head with one output"):
        RewardModel(make(tmp_path / "m"), "m")


def test_a_plain_judge_continues_the_text_itself(tmp_path):
    folder = tinymodel.directory(tmp_path / "m")
    chat = open_judge(str(folder), lambda name: folder)
    judge = plain(chat)
    asked = []
    engine = judge.engine
    generate = engine.generate

    def listening(requests):
        asked.extend(requests)
        return generate(requests)

    engine.generate = listening
    done = Judging(judge, rubrics.get("truth"), texts(ROWS), tmp_path / "j").run()
    assert done.graded + done.invalid == 8 and len(asked) >= 8
    prompt = judge.tokenizer.decode(list(asked[0].prompt_ids))
    assert "<|im_start|>" not in prompt and asked[0].sampling.max_tokens == 4
    assert isinstance(engine, LocalEngine)


def test_a_prompt_that_fills_the_context_is_not_had(tmp_path):
    folder = tinymodel.directory(tmp_path / "m")
    judge = plain(open_judge(str(folder), lambda name: folder))
    long = [record("i1", "w1 " * 300), record("i2", "w1")]
    done = Judging(judge, rubrics.get("truth"), texts(long), tmp_path / "j").run()
    assert done.failed == {"the prompt fills the model's context": 1}
