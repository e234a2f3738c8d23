"""Writes chat_templates.json: conversations as transformers renders and tokenizes them.

    python tests/golden/chat_templates.py       (needs transformers, tokenizers and jinja2)

The sources are the `chat_template` of the published tokenizer_config.json files: ChatML as in
transformers' own default of 4.43, Meta-Llama-3-8B-Instruct, gemma-2b-it and
Mistral-7B-Instruct-v0.2. `masks` has the tokens of a byte-level BPE tokenizer and which of them lie
inside {% generation %}, as `return_assistant_tokens_mask` marks them.
"""

import json
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = Path(__file__).with_name("chat_templates.json")
PUBLISHED = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n' }}{% endif %}",
        ("", "<|im_end|>"),
    ),
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
        "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | "
        "trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ("<|begin_of_text|>", "<|eot_id|>"),
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role "
        "not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == "
        "'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') "
        "%}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        ("<bos>", "<eos>"),
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
        "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant "
        "roles are supported!') }}{% endif %}{% endfor %}",
        ("<s>", "</s>"),
    ),
}
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SAID = [
    ["Hi!", "Hello, what can I do?"],
    ["  What is 2 + 2?\n", " 4 "],
    ["Übersetze: „Brot“", "bread 🍞", "and 'wine'?", 'It is "Wein".'],
    ["a", "b", "c\n\nd", "e\n", "f"],
    ["<|im_end|> is a token, so is </s> & [/INST]", "{{ 7 * 7 }} {% raw %}"],
]
SYSTEM = [["You are terse.", "Name a tree.", "Oak"], ["Sei höflich. ", "Danke", "Bitte\n", "Nein"]]


def conversations(system: bool) -> list[list[dict]]:
    talks = [[("user", "assistant")[n % 2] for n in range(len(said))] for said in SAID]
    made = [list(zip(roles, said, strict=True)) for roles, said in zip(talks, SAID, strict=True)]
    for first, *said in SYSTEM if system else ():
        roles = [("user", "assistant")[n % 2] for n in range(len(said))]
        made.append([("system", first), *zip(roles, said, strict=True)])
    return [[{"role": role, "content": text} for role, text in talk] for talk in made]


def fast(bos: str, eos: str) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 320 tokens."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    special = [
        token for token in (bos, eos, "<|endoftext|>", "<|im_start|>", "<|im_end|>") if token
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(dict.fromkeys(special)),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [text for said in SAID for text in said if "<|" not in text] * 3
    library.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token=bos or None, eos_token=eos
    )


def main() -> None:
    rendered = {}
    for name, (source, (bos, eos)) in PUBLISHED.items():
        tokenizer = fast(bos, eos)
        tokenizer.chat_template = source
        talks = conversations(name in ("chatml", "llama3"))
        rendered[name] = {
            "bos": bos,
            "eos": eos,
            "source": source,
            "texts": [
                [
                    tokenizer.apply_chat_template(
                        talk, tokenize=False, add_generation_prompt=prompt
                    )
                    for prompt in (False, True)
                ]
                for talk in talks
            ],
            "conversations": talks,
        }
    tokenizer = fast("", "<|im_end|>")
    tokenizer.chat_template = MARKED
    masks = []
    for talk in conversations(system=True):
        if "<|im_end|>" in str(talk):  # transformers reads it as the token
            continue
        found = tokenizer.apply_chat_template(
            talk, return_assistant_tokens_mask=True, return_dict=True
        )
        masks.append(
            {"messages": talk, "ids": found["input_ids"], "mask": found["assistant_masks"]}
        )
    about = {
        "transformers": transformers.__version__,
        "rendered": rendered,
        "masks": masks,
        "marked": MARKED,
        "tokenizer": json.loads(tokenizer.backend_tokenizer.to_str()),
    }
    OUT.write_text(json.dumps(about, ensure_ascii=False, indent=None, separators=(",", ":")))


if __name__ == "__main__":
    main()
