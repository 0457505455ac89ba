"""Reward models as judges: any sequence-classification checkpoint with one output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipscope.errors import DipscopeError
from dipscope.judging import store
from dipscope.judging.cases import Wanted
from dipscope.judging.judge import Appending, Outcome, Report
from dipscope.weights import weights_hash

RUBRIC = "reward/1"


class RewardModel:
    """Rewards of responses, one at a time: a reward does not depend on its company, and nothing is padded.

    Args:
        folder: the checkpoint, with the chat template that it was trained with.
        name: as stored with every reward.

    Raises:
        DipscopeError: it is no such checkpoint, or has several outputs or no chat template.
    """

    def __init__(self, folder: Path, name: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

        # What it would say of a head that is missing is said below.
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
            model, told = AutoModelForSequenceClassification.from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True,
                dtype=torch.float32 if device == "cpu" else "auto",
            )  # fmt: skip
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DipscopeError(f"this is no reward model ({reason})", str(folder), "Check it.") from None
        if told["missing_keys"] or model.config.num_labels != 1:
            what = "the checkpoint has no classification head with one output, so it gives no reward"
            raise DipscopeError(what, str(folder), "Name a reward model.")
        if not self.tokenizer.chat_template:
            what = "the tokenizer has no chat template, which a reward model's input is rendered with"
            raise DipscopeError(what, str(folder), "Add its chat_template.jinja to the folder.")
        self.model: Any = model.to(device).eval()
        self.name = f"{name}@{weights_hash(folder)[:12]}"
        self.context = getattr(model.config, "max_position_embeddings", None)

    def reward(self, question: str, response: str) -> float | None:
        """The raw reward of a response; None where the two do not fit into the model's context together."""
        import torch

        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if self.context is not None and ids.shape[1] > self.context:
            return None
        with torch.inference_mode():
            return float(self.model(input_ids=ids.to(self.model.device)).logits[0, 0])


class Rewarding:
    """The rewards of one model on some texts.

    What is kept as the grade is the raw reward. The score is a probability under the Bradley–Terry model that
    such models are trained with: that the response is preferred to the reference answer of its case, or,
    without one, to a response of reward 0.

    Args:
        model: that rewards.
        texts: what is rewarded.
        folder: of the judgements.
        probe: where the verdicts go when they join the records.
    """

    def __init__(
        self, model: RewardModel, texts: Sequence[Wanted], folder: Path, probe: str = "generate"
    ) -> None:
        self.model, self.folder, self.probe = model, folder, probe
        known = set(store.read(folder).select(store.ONE).iter_rows())
        keyed = [({**t.row(), "key": self._key(t), "probe": probe}, t) for t in texts]
        self.todo = [(one["key"], t) for one, t in keyed if tuple(one[n] for n in store.ONE) not in known]
        self.present = len(texts) - len(self.todo)

    def run(self, report: Report | None = None) -> Outcome:
        """Reward what has no reward yet."""
        done, references = Outcome(asked=len(self.todo)), dict[tuple[str, str], float | None]()
        with Appending(self.folder) as kept:
            for key, text in self.todo:
                case = text.case
                reward = self.model.reward(case.question, case.response)
                against: float | None = 0.0
                if case.right:
                    pair = case.question, case.right[0]
                    if pair not in references:
                        references[pair] = self.model.reward(*pair)
                    against = references[pair]
                valid = reward is not None and against is not None
                done.graded, done.invalid = done.graded + valid, done.invalid + (not valid)
                kept.add([self._row(key, text, reward, against)])
                if report:
                    report(done.graded + done.invalid, done.asked, "rewarded")
        return done

    def _key(self, text: Wanted) -> str:
        case = text.case
        return store.key(self.model.name, RUBRIC, [case.question, case.response, case.right[:1]])

    def _row(self, key: str, text: Wanted, reward: float | None, against: float | None) -> dict[str, Any]:
        score = (
            None if reward is None or against is None else 1 / (1 + math.exp(min(against - reward, 700.0)))
        )
        return {
            **text.row(),
            "key": key,
            "judge": self.model.name,
            "rubric": RUBRIC,
            "probe": self.probe,
            "verdict": "error" if score is None else "correct" if score > 0.5 else "wrong",
            "score": score,
            "extracted": None if score is None else f"{reward:.6g}",
            "reply": "",
            "reason": "" if score is not None else "the text does not fit into the model's context",
            "tries": 1,
            "n_prompt_tokens": 0,
            "n_tokens": 0,
        }
