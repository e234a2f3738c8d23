"""Adds special tokens to a tokenizer, after its own."""

import json
from collections.abc import Sequence

from data.local import parse_object
from data.tokenizer import Tokenizer
from data.tokenizer_files import exported, sentencepiece_model
from data.tokenizer_files.special_strings import SpecialString


def with_special_tokens(tokenizer: Tokenizer, names: Sequence[str]) -> Tokenizer:
    """The tokenizer with one more token for each of `names`, such as <|im_start|>, whose ids follow
    the others in this order. Texts keep their tokens: a new token is read in prompts only, and
    no document yields it. ValueError for a name that is empty, given twice or a
    token already, here or in a tokenizer.json."""
    exported_names = exported.names(tokenizer)
    for name in names:
        if not name.strip() or names.count(name) > 1:
            why = "is given twice" if name.strip() else "is empty"
            raise ValueError(f"token={name!r} {why}; give each new token once")
        ids = tokenizer.encode_prompt(name)
        if len(ids) == 1 and tokenizer.decode(ids) in ("", name, name.lower()):
            raise ValueError(
                f"token={name!r} is token {ids[0]} of the tokenizer {tokenizer.name!r} already; "
                "leave it out, or use a longer string such as <|name|>"
            )
        if name in exported_names:
            raise ValueError(
                f"token={name!r} is the name of token {exported_names[name]} of the tokenizer "
                f"{tokenizer.name!r} in a tokenizer.json; use another string"
            )
    added = [SpecialString(name, tokenizer.vocab_size + n) for n, name in enumerate(names)]
    kind, model, specials = tokenizer.kind, tokenizer.model, (*tokenizer.specials, *added)
    if kind == "huggingface":
        about = parse_object(model)
        listed = about.get("added_tokens") or []
        more = [exported.added(one.id, one.text) for one in added]
        model = json.dumps(about | {"added_tokens": [*listed, *more]}, ensure_ascii=False).encode()
        specials = ()  # a tokenizer.json lists its own
    elif kind == "sentencepiece":
        model = sentencepiece_model.with_tokens(model, {one.id: (one.text, True) for one in added})
    options = (tokenizer.prefix, tokenizer.end, specials, tokenizer.space_after)
    made = Tokenizer(kind, tokenizer.name, model, *options)
    for one in added:
        if made.encode_prompt(one.text).tolist() != [one.id]:
            raise ValueError(
                f"token={one.text!r} cannot be added to the tokenizer {tokenizer.name!r}: a prompt "
                "that spells it has other tokens; use another string"
            )
    return made
