"""The keys of the kinds of data of post-training: conversations, preferences and tasks."""

from configs.sections.key import Key


def preferences() -> dict:
    """Prompts with a chosen and a rejected answer: `data/kinds/preferences.py`."""
    return dict(
        # *.jsonl of prompt, chosen, rejected and, optionally, margin | task:NAME[:examples=2000…]
        corpora=("task:addition_reversed",),
        # plain | chatml | llama3 | gemma | mistral | FILE.jinja | tokenizer_config.json | "": none
        template="plain",
        tokenizer="bytes",  # of the model: RUN/tokenizer/tokenizer.json
        validation=0.1,  # share of the preferences, chosen by a hash of the prompt
        too_long="refuse",  # preferences longer than the context: refuse | drop
        wrong_share=0.0,  # of the preferences of a task: these have the wrong answer chosen
        examples=Key(0, least=0),  # the first so many of the training split are used; 0: all
        cache="cache",  # folder of the tokens
        hash="",  # of the dataset, filled in by `resolve`; give it to insist on one
    )


def conversations() -> dict:
    """Messages through a chat template: `data/kinds/conversations.py`."""
    return preferences() | dict(
        # *.jsonl of messages, ShareGPT's conversations or Alpaca's instruction and output |
        # task:NAME[:examples=2000][:seed=0][:size=0]
        corpora=("task:addition_reversed",),
        rows="padded",  # padded: one conversation a row | packed: as many as fit
        too_long="refuse",  # conversations longer than the context: refuse | drop | truncate
        wrong_share=0.0,  # of the demonstrations of a task: these have a wrong answer
    )


def tasks() -> dict:
    """Prompts whose answers a rule can check: `data/kinds/tasks.py`."""
    return dict(
        # addition_reversed | sorting | spelling_backwards | letter_counting | style
        task="addition_reversed",
        size=Key(0, least=0),  # digits, numbers or letters of the task; 0: its default
        corpora=(),  # *.jsonl of {"prompt": …, "answer": …}, in place of a task
        checker="",  # package.module:function(prompt, answer, response) -> score; "": the task's
        # plain | chatml | llama3 | gemma | mistral | FILE.jinja | tokenizer_config.json | "": none
        template="plain",
        tokenizer="bytes",  # of the model: RUN/tokenizer/tokenizer.json
        validation=0.1,  # share of the prompts, chosen by a hash of each
        prompt_length=Key(48, least=1),  # tokens of the longest prompt, its template included
        answer_length=Key(16, least=1),  # tokens of the longest answer, its end included
        hash="",  # of the prompts, filled in by `resolve`; give it to insist on one
    )


DATA = {"conversations": conversations, "preferences": preferences, "tasks": tasks}
