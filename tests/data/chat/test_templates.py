"""Tests the chat templates and their pieces; transformers made tests/golden/chat_templates.json."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs.chat import TEMPLATES
from data import tokenizer as tokenizers
from data.chat import templates
from data.chat.encoding import ChatEncoder
from data.chat.templates import ROLES, Template, pieces, render, segments

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/chat_templates.json").read_text())
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes!"}
SYSTEM = {"role": "system", "content": "Be terse."}
EACH = pytest.mark.parametrize("name", TEMPLATES)
OURS = {name: Template(name, source) for name, source in TEMPLATES.items()}


@pytest.mark.parametrize("name", GOLDEN["rendered"])
def test_texts_are_those_of_transformers(name):
    about = GOLDEN["rendered"][name]
    marks = about["bos"], about["eos"]
    for source in (TEMPLATES[name], about["source"]):
        template, seen = Template(name, source, *marks), 0
        for talk, texts in zip(about["conversations"], about["texts"], strict=True):
            assert [render(template, talk, prompt) for prompt in (False, True)] == texts
            seen += len(talk)
        assert seen >= 14
    first = about["conversations"][0], about["texts"][0][0]
    others = [render(OURS[other], first[0]) for other in TEMPLATES if other != name]
    assert first[1] not in others  # a control: no other template writes this


def test_targets_are_those_that_transformers_marks(tmp_path):
    """The tokens and the mask of {% generation %}, by a byte-level BPE tokenizer."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(GOLDEN["tokenizer"]))
    tokenizer = tokenizers.from_spec(str(tmp_path / "tokenizer.json"))
    encoder = ChatEncoder(tokenizer, OURS["chatml"])
    marked = ChatEncoder(tokenizer, Template("marked", GOLDEN["marked"]))
    counted = 0
    for one in GOLDEN["masks"]:
        for encoding in (encoder, marked):
            ids, targets = encoding.encode(one["messages"])
            assert ids.tolist() == one["ids"]
            assert targets.astype(int).tolist() == one["mask"]
        counted += sum(one["mask"])
    assert counted > 30 and encoder.end == GOLDEN["masks"][0]["ids"][-2] != tokenizer.eod


@EACH
def test_long_conversations_take_few_renderings(name, monkeypatch):
    """The time is linear in the length, and the pieces are those of each turn alone."""
    template = OURS[name]
    talk = [USER, ANSWER, {"role": "user", "content": " spaced "}, ANSWER] * 50 + [USER]
    calls = []
    real = templates.render
    monkeypatch.setattr(templates, "render", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    found = pieces(template, talk, add_generation_prompt=True)
    assert len(calls) < 20
    assert "".join(piece.text for piece in found) == render(template, talk, True)
    said = [piece.text for piece in pieces(template, talk[:2]) if piece.is_target]
    assert [piece.text for piece in found if piece.is_target] == said * 100
    contents = [piece.text for piece in found if piece.is_content]
    assert len(contents) == len(talk) and contents[2].strip() == "spaced"


@EACH
def test_segments_join_to_the_text_and_cover_what_the_model_writes(name):
    template = OURS[name]
    talk = [USER, ANSWER, USER, {"role": "assistant", "content": "No.\nNever"}]
    found = segments(template, talk)
    assert "".join(text for text, _ in found) == render(template, talk)
    said = [text for text, is_target in found if is_target]
    stop = template.stops[0]
    assert [text.strip() for text in said] == [f"Yes!{stop}", f"No.\nNever{stop}"]
    # Generation starts exactly where the target does.
    assert render(template, talk[:1], True) + said[0] == render(template, talk[:2]).rstrip("\n")
    prompt = pieces(template, talk[:1], add_generation_prompt=True)
    assert not any(piece.is_target for piece in prompt)


def test_roles_that_templates_have():
    with_system = {name for name, template in OURS.items() if template.roles == ROLES}
    assert with_system == {"plain", "chatml", "llama3"}
    assert OURS["gemma"].roles == OURS["mistral"].roles == ("user", "assistant")


@pytest.mark.parametrize(
    ("source", "talk", "message"),
    [
        (TEMPLATES["gemma"], [SYSTEM, USER, ANSWER], "of system, user, assistant: System role not"),
        (TEMPLATES["mistral"], [USER, USER, ANSWER], "Conversation roles must alternate"),
        ("{{ messages[-1].content }}</s>", [USER, ANSWER], "role 'user': it leaves it out"),
        ("{% for m in messages %}{{ m.content }}{{ '!' if m.content | length < 5 }}.{% endfor %}",
         [USER, ANSWER],
         "'assistant': it changes it"),
        ("{% for m in messages %}{{ m.content * 2 }}.{% endfor %}", [USER, ANSWER], "writes it tw"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", [USER, ANSWER], "writes nothing af"),
        ("{% for m in messages %}{{ m.content }}{% if loop.index < 3 %}.{% endif %}{% endfor %}",
         [USER, ANSWER, USER, ANSWER], r"does not end every answer with '\.'"),
        ("{{ messages.__class__.__mro__ }}", [USER], "unsafe"),
        ("{% if %}", [USER], "refuses"),
        (TEMPLATES["plain"], [{"role": "tool", "content": ""}], "role 'tool' is unknown"),
        (TEMPLATES["plain"], [{"role": "user", "content": "\ue001"}], "reserved"),
    ],
)  # fmt: skip
def test_what_is_refused(source, talk, message):
    with pytest.raises(ValueError, match=message) as caught:
        pieces(Template("it", source), talk)
    assert "\n" not in str(caught.value)


def test_the_sandbox_keeps_a_template_from_its_messages():
    talk = [dict(USER)]
    with pytest.raises(ValueError):
        render(Template("it", "{{ messages.append(1) }}"), talk)
    with pytest.raises(ValueError):
        render(Template("it", "{{ messages[0].update(role='x') }}"), talk)
    assert talk == [USER]


def test_white_space_may_be_dropped_around_some_messages_only():
    source = (
        "{% for m in messages %}{{ m.content | trim if m.role == 'user' else m.content }}</s>"
        "{% endfor %}"
    )
    talk = [{"role": "user", "content": " a "}, {"role": "assistant", "content": " b "}]
    found = segments(Template("it", source), talk)
    assert found == [("a</s>", False), (" b </s>", True)]


@EACH
def test_bytes_have_one_end_token_in_every_template(name):
    encoder = ChatEncoder(tokenizers.from_spec("bytes"), OURS[name])
    talk = [USER, ANSWER, USER, ANSWER]
    ids, targets = encoder.encode(talk)
    assert encoder.end == 255
    assert bytes(ids[targets].tolist()).split(b"\xff")[:-1] in (
        [b"Yes!"] * 2, [b" Yes!"] * 2)  # fmt: skip
    prompt = encoder.prompt(talk[:3])
    assert np.array_equal(prompt, ids[: len(prompt)]) and targets[len(prompt)]


@EACH
def test_no_message_can_end_its_turn(name, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(GOLDEN["tokenizer"]))
    for spec in ("bytes", str(tmp_path / "tokenizer.json")):
        encoder = ChatEncoder(tokenizers.from_spec(spec), OURS[name])
        stop = encoder.template.stops[0]
        spelled = [{"role": "user", "content": f"a{stop}<|im_end|><|endoftext|>b"}, ANSWER]
        plain = [{"role": "user", "content": "ab"}, ANSWER]
        ends = [(encoder.encode(talk)[0] == encoder.end).sum() for talk in (spelled, plain)]
        assert ends[0] == ends[1] > 0


def test_a_model_that_puts_a_space_before_texts_reads_answers_as_they_are_drawn():
    """Pieces after the first have no space of their own; the parts join to the whole."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["USER: Hi ASSISTANT: Yes! no"] * 9), model_writer=model,
        vocab_size=300, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    tokenizer = tokenizers.Tokenizer("sentencepiece", "test", model.getvalue())
    assert tokenizer.dummy_prefix
    encoder = ChatEncoder(tokenizer, OURS["plain"])
    ids, targets = encoder.encode([USER, ANSWER])
    assert tokenizer.decode(ids).replace("\n", "|") == "USER: Hi|ASSISTANT: Yes!|"
    assert tokenizer.decode([*ids[:1], *ids[targets]]).endswith(" Yes!")
