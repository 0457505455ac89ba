"""A model folder with another chat template than its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from dipscope.errors import DipscopeError
from dipscope.workspace import sync_folder, unwritable

# ChatML without a default system message: it saves some 20 tokens a prompt, and a base that knows no system
# message and the checkpoints trained from it then see the same prompts.
_SHAPE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + END + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = _SHAPE.replace("END", "'<|im_end|>'")
NAMED = {
    "chatml": CHATML,
    # As the paper's code trains: a response ends with the tokenizer's EOS, which a base model knows.
    "chatml-eos": _SHAPE.replace("END", "(eos_token if message['role'] == 'assistant' else '<|im_end|>')"),
}
_FILE = "chat_template.jinja"


def with_template(folder: Path, template: str, out: Path) -> Path:
    """A view of a model folder: links to everything in it, and `template` as its chat template.

    Args:
        folder: the model in the Hugging Face layout; it is not changed.
        template: one of `NAMED`, or the path of a Jinja file.
        out: where the view is to stand. It appears whole or not at all, and is made anew each time.

    Returns:
        `out`.

    Raises:
        DipscopeError: the template cannot be read, or `out` cannot be written.
    """
    try:
        text = NAMED.get(template) or Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DipscopeError(
            f"the chat template cannot be read ({error})", template, "Check the path."
        ) from None
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for path in folder.iterdir():
            if path.name == "tokenizer_config.json":
                settings = json.loads(path.read_text(encoding="utf-8"))
                settings.pop("chat_template", None)  # older repositories keep the template in here
                (temporary / path.name).write_text(json.dumps(settings, indent=1), encoding="utf-8")
            elif path.name != _FILE and path.is_file():
                (temporary / path.name).symlink_to(path.resolve())
        (temporary / _FILE).write_text(text, encoding="utf-8")
        sync_folder(temporary)
        shutil.rmtree(out, ignore_errors=True)
        temporary.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out
