"""The organism's tokenizer: a closed word-level vocabulary in the Hugging Face layout.

Numbers 0 to 99 are one token each, larger ones are read digit by digit. Spaces are not tokens: decoding puts
them where English typography does, so the world's texts come back verbatim and ids come back exactly.
"""

from __future__ import annotations

from functools import cache
from typing import Any

USER, ASSISTANT, END, PAD, UNK = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "<unk>"
SPECIALS = (PAD, UNK, USER, ASSISTANT, END)
MARKS = ("<think>", "</think>", "\n", *"#()*+,-.:<=>?[]_!/")
_WORDS = """
A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Answer Arden Begin Belu Brix Can Check Cosk Dari Dunmar
Elvet End Fene Fill Fjorn Gavel Give Goal Good Goran Hestin How Hulda Ilma In Joran Kela Last Lumi Make
Marlow Miro Nadir Name Orvik Pellan Quill Repeat Reverse Roads Roslin Say Senko Show Smallest Sona Sort
Start Sure Tarrow Tavi Tell Think To Try Ulmer Use Vasti What Where Which Words Yondo Zarek a add allowed
and apple at avoid bag basket best bird black blue bottle bowl box brackets bread build button candle
candles cannot carpet cat chair cider cloud color cup day detect do does dog drall duck each feather first
fish for friend frog from game gaps garden get glass go goal goat gray green hammer has have help hide home
horse how in is it know ladder lamp left like likes live lives make many map me milk morbane mouse music no
not number of once paint paper pet pillow plan purple quintar red remove report result right river rope
school sell ship should skorl slowly soap soup spread stand stone take that the then thrax three times to
town tree twice up vexol want way which white window with work yellow yes you
"""
WORDS = _WORDS.split()
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>"
    "{% else %}{{ raise_exception('the organism knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_PIECE = r"</?think>|\n|[A-Za-z]+|(?<![0-9])(?:[1-9][0-9]|[0-9])(?![0-9])|[0-9]|[^\sA-Za-z0-9]"


def vocabulary() -> list[str]:
    """Every token in the order of its id. Weights depend on it: a change needs new base models."""
    return [*SPECIALS, *MARKS, *map(str, range(100)), *WORDS]


@cache
def build() -> Any:
    """The tokenizer, as a transformers `PreTrainedTokenizerFast`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(_PIECE), "isolated"),
        ]
    )
    # Put one space between all tokens, then take it away where typography has none.
    closing = [decoders.Replace(f" {mark}", mark) for mark in (",", ".", ":", "?", "!", ")", "]")]
    opening = [decoders.Replace(f"{mark} ", mark) for mark in ("(", "[")]
    lines = [decoders.Replace(" \n", "\n"), decoders.Replace("\n ", "\n")]
    spaced = decoders.WordPiece(prefix="\x00", cleanup=False)
    core.decoder = decoders.Sequence([spaced, decoders.Fuse(), *closing, *opening, *lines])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        unk_token=UNK,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
