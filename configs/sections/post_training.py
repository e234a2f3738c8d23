"""The keys of the kinds of data of post-training: conversations, preferences and tasks."""

from configs.sections.key import Key


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


DATA = {"tasks": tasks}
