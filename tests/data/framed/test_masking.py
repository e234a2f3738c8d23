"""Tests which tokens are masked, by what, and that masks are a pure function of the row."""

import json

import numpy as np
import pytest

from configs import base
from data.framed import masking
from data.framed.marks import Marks, marks_of, with_masks
from data.kinds import masked_text
from data.tokenizer import Tokenizer

BYTES = Tokenizer("bytes", "bytes")
MARKS = marks_of(BYTES)
ORDINARY = 200


def masked(key=("data", 0), rows=range(2000), length=40, share=0.15):
    text = np.full((len(rows), length), ORDINARY, np.int32)  # no replacement equals it
    return text, masking.masked(text, MARKS, ORDINARY, share, key, np.array(rows))


def test_a_share_of_each_row_is_masked_by_the_published_rates():
    text, (tokens, places, wanted) = masked()
    assert places.shape == (2000, 6) and (wanted == ORDINARY).all()  # 15 % of 40
    assert (np.diff(places) > 0).all()
    shown = np.take_along_axis(tokens, places, 1)
    rates = [(shown == MARKS.mask).mean(), (shown < ORDINARY).mean(), (shown == ORDINARY).mean()]
    for rate, expected in zip(rates, (0.8, 0.1, 0.1), strict=True):
        error = (expected * (1 - expected) / shown.size) ** 0.5
        assert abs(rate - expected) < 4 * error
    others = np.ones_like(text, bool)
    np.put_along_axis(others, places, False, 1)
    assert (tokens == text)[others].all()
    of_each = np.bincount(places.ravel(), minlength=40) / 2000
    assert np.abs(of_each - 0.15).max() < 4 * (0.15 * 0.85 / 2000) ** 0.5
    replaced = np.bincount(shown[shown < ORDINARY], minlength=ORDINARY)
    chi2 = (np.square(replaced - replaced.mean()) / replaced.mean()).sum()
    assert abs(chi2 - ORDINARY) < 5 * (2 * ORDINARY) ** 0.5


def test_masks_depend_on_key_and_row_only():
    _, whole = masked()
    _, part = masked(rows=[7, 1999, 3])
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[[7, 1999, 3]], other)
    for key in (("data", 1), ("other", 0)):
        share_equal = (masked(key)[1][1] == whole[1]).mean()
        assert share_equal < 0.2
    assert (whole[1][1:] != whole[1][:-1]).any(axis=1).mean() > 0.99


def test_at_least_one_token_is_masked():
    assert masking.places_in(3, 0.15) == 1
    assert masking.places_in(126, 0.15) == 19
    assert masking.places_in(2, 0.99) == 2


@pytest.fixture(scope="module")
def dataset(text_folder):
    config = base.get_config("encoder", "masked", "masked_text")
    config.data.corpora = (str(text_folder),)
    config.data.cache = str(text_folder / ".cache")
    config.data.validation = 0.5
    (text_folder / "more.txt").write_text("so it goes " * 300)
    config.model.unlock()
    config.model.context_length = 18
    config.train.batch_size, config.eval.batch_size, config.eval.sequences = 4, 4, 6
    return masked_text.prepare(config.data, progress=False).for_run(config)


def test_rows_are_framed_windows_of_text(dataset):
    batch = dataset.batch("train", 0, 3)
    assert {k: v.shape for k, v in batch.items()} == {
        "tokens": (4, 18), "segments": (4, 18), "masked_places": (4, 2), "masked_tokens": (4, 2)
    }  # fmt: skip
    assert {k: v.shape[1:] for k, v in batch.items()} == {k: f.shape for k, f in dataset.spec().items()}  # fmt: skip  # noqa: E501
    assert (batch["tokens"][:, 0] == 256).all() and (batch["tokens"][:, -1] == 255).all()
    assert dataset.vocab_size == 258 and MARKS.mask == 257
    restored = batch["tokens"].copy()
    np.put_along_axis(restored, batch["masked_places"], batch["masked_tokens"], 1)
    text = "".join(map(BYTES.decode, restored[:, 1:-1])).replace(" ", "")
    assert set(text) <= set("tobeornotthatsoitgoes\n")


def test_a_batch_is_a_pure_function_of_its_step(dataset):
    batches = dataset.batches("train", 0, 2, 3)
    for name, values in dataset.batch("train", 0, 4, [1, 3]).items():
        np.testing.assert_array_equal(values, batches[name][2][[1, 3]])
    other = dataset.batch("train", 1, 4)
    assert (other["tokens"] != batches["tokens"][2]).any()


def test_the_evaluation_set_is_fixed_and_rows_that_fill_it_up_do_not_count(dataset):
    one, other = (list(dataset.examples("validation")) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    counted = np.concatenate([(batch["masked_tokens"] >= 0).all(1) for batch in one])
    assert counted.tolist() == [True] * 6 + [False] * 2


def test_a_mask_in_a_text_is_one_token():
    tokens = with_masks(BYTES, MARKS, "a[MASK]b[MASK]")
    assert tokens.tolist() == [256, 97, 257, 98, 257, 255]


def test_the_tokenizer_of_a_bert_has_its_own_marks():
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "soup", "good", "##ness", "the", "a"]
    special = [
        dict(id=i, content=name, special=True, single_word=False, lstrip=False, rstrip=False,
             normalized=False)
        for i, name in enumerate(names[:5])
    ]  # fmt: skip
    model = dict(
        type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##",
        max_input_chars_per_word=100, vocab={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    about = dict(
        version="1.0", truncation=None, padding=None, added_tokens=special, model=model,
        normalizer=dict(type="Lowercase"), pre_tokenizer=dict(type="BertPreTokenizer"),
        post_processor=None, decoder=dict(type="WordPiece", prefix="##", cleanup=True),
    )  # fmt: skip
    bert = Tokenizer("huggingface", "tokenizer", json.dumps(about).encode())
    marks = marks_of(bert)
    assert marks == Marks(begin=2, end=3, mask=4, padding=0, vocab_size=10)
    tokens = with_masks(bert, marks, "The soup [MASK] goodness")
    assert tokens.tolist() == [2, 8, 5, 4, 6, 7, 3]
    assert bert.decode(tokens) == "the soup goodness"
    assert bert.encode("[MASK]").tolist() != [4]  # a document never yields it
