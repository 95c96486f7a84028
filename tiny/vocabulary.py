"""The words of the embedded model and their tokenizer: one token per word or character."""

import re

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiny import objects, questions

PAD, BOS, EOS, UNKNOWN, IMAGE, USER, ASSISTANT = SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<user>", "<assistant>",
)  # fmt: skip
_FORMS = (
    "is there a an in the image ? how many are to left or right of above below what top "
    "bottom corner color does sign say describe . yes no nothing and , which has first "
    "second third none way move up down appears appear last video picture "
).split()
WORDS = tuple(
    dict.fromkeys(
        (
            *SPECIAL,
            *_FORMS,
            *objects.CHARACTERS,
            *questions.NUMBERS,
            *objects.COLOURS,
            *objects.NAMES,
            *map(objects.plural, objects.NAMES),
        )
    )
)
ID = {word: i for i, word in enumerate(WORDS)}
CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{{ '<user>' if message['role'] == 'user' else '<assistant>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% set n = message['content'] | selectattr('type', 'equalto', 'image') | list | length %}"
    "{% for part in message['content'] if part['type'] == 'image' %}"
    "{% if n > 1 %}{{ loop.index }}{% endif %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
_TOKEN = re.compile(r"\w+|[^\w\s]")


def encode(text: str) -> list[int]:
    """Word ids of plain text, as the tokenizer gives them (a dictionary is quicker in training)."""
    return [ID.get(word, ID[UNKNOWN]) for word in _TOKEN.findall(text.lower())]


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the embedded model with its chat template."""
    backend = Tokenizer(models.WordLevel(ID, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN.pattern), "removed", invert=True)
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        pad_token=PAD,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
