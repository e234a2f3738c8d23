"""Tests captioned images: what is read, batches, the cache, and files that cannot be read."""

import io
import json
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from data.captioned.pictures import Unreadable, pixels
from data.kinds import KINDS
from data.kinds.captioned import images
from data.sources.drawn import digits, shapes, written
from tests.data.captioned.conftest import image

SHAPE = (6, 4, 3)


def file(picture, kind="PNG", **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has width × height pixels, in a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + name + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_image_is_read_as_it_was_written():
    want = image(0)
    np.testing.assert_array_equal(pixels(written.png(want), SHAPE, 99), want)
    grey = image(1, (6, 4, 1))
    np.testing.assert_array_equal(pixels(written.png(grey), (6, 4, 1), 99), grey)


def test_modes_that_conversion_would_spoil():
    deep = PIL.Image.fromarray(np.full((6, 4), 0x8001, np.uint16))
    assert (pixels(file(deep), (6, 4, 1), 99) == 0x80).all()
    clear = PIL.Image.new("RGBA", (4, 6), (0, 0, 0, 0))
    assert (pixels(file(clear), SHAPE, 99) == 255).all()
    turned = PIL.Image.fromarray(image(0))
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    upright = pixels(file(turned, exif=exif), SHAPE, 99)
    np.testing.assert_array_equal(upright, image(0)[::-1, ::-1])
    halved = pixels(written.png(np.repeat(np.repeat(image(0), 2, 0), 2, 1)), SHAPE, 99)
    assert halved.shape == SHAPE


JPEG = file(PIL.Image.fromarray(image(0, (60, 40, 3))), "JPEG")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not an image of the formats PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not an image of the formats PNG"),
        (JPEG[: len(JPEG) // 2], "damaged"),
        (bomb(3000, 3000), "3000 × 3000 pixels, more than data.max_pixels=5,000"),
        (bomb(60_000, 60_000), "pixels, more than data.max_pixels=5,000"),
        (file(PIL.Image.fromarray(np.zeros((6, 4), np.float32)), "TIFF"), "real numbers"),
    ],
)
def test_what_cannot_be_read_says_why(raw, reason):
    with pytest.raises(Unreadable, match=reason):
        pixels(raw, SHAPE, 5_000)


def test_rows_hold_image_caption_and_end(opened, drawn):
    dataset = opened(drawn)
    batch, eod = dataset.batch("train", 1, 0), dataset.tokenizer.eod
    lists = [json.loads(line) for line in open(drawn / "train" / "captions.jsonl")]
    captions = {row["caption"]: PIL.Image.open(drawn / "train" / row["file"]) for row in lists}
    assert {name: (x.dtype, x.shape[1:]) for name, x in batch.items()} == {
        name: (field.dtype, field.shape) for name, field in dataset.spec().items()
    }
    for row in range(8):
        count = int(batch["weights"][row].sum())
        written_ = batch["targets"][row, : count - 1]
        caption = dataset.tokenizer.decode(written_).strip()
        np.testing.assert_array_equal(batch["image"][row], np.asarray(captions[caption]))
        assert batch["targets"][row, count - 1] == eod
        np.testing.assert_array_equal(batch["tokens"][row, :count], [eod, *written_])


def test_batches_are_a_function_of_seed_step_and_row(opened, drawn):
    dataset, again = opened(drawn), opened(drawn)
    many = dataset.batches("train", 1, 3, 2)
    for step in (3, 4):
        one = again.batch("train", 1, step, rows=slice(2, 5))
        for name, x in one.items():
            np.testing.assert_array_equal(x, many[name][step - 3, 2:5])
    other = dataset.batch("train", 2, 3)
    assert (other["image"] != many["image"][0]).any()
    epoch = np.concatenate([dataset.batch("train", 1, s)["image"] for s in range(4)])
    assert len(np.unique(epoch.reshape(len(epoch), -1), axis=0)) == 32  # of 36, none twice


def test_the_evaluation_set_has_every_held_out_image_once(opened, drawn):
    found = list(opened(drawn).examples("validation"))
    assert [len(batch["image"]) for batch in found] == [3, 3]
    real = np.concatenate([batch["weights"].any(1) for batch in found])
    assert real.tolist() == [True] * 4 + [False] * 2


def test_the_hash_is_of_the_content(config, drawn, tmp_path):
    def hash_of(folder, **changes):
        return KINDS["images"].prepare(config(folder, **changes).data, progress=False).hash

    written.write(shapes.items(40, 0), tmp_path / "again", lambda count: None)
    assert hash_of(tmp_path / "again") == hash_of(drawn)
    written.write(shapes.items(40, 1), tmp_path / "other", lambda count: None)
    assert hash_of(tmp_path / "other") != hash_of(drawn)
    assert hash_of(drawn, channels=1) != hash_of(drawn)


def test_an_image_that_is_listed_twice_is_on_one_side(opened, listed):
    files = {f"{i}.png": written.png(image(i, (8, 8, 3))) for i in range(40)}
    rows = [{"file": name, "caption": f"{part} {name[0]}"} for part in "ab" for name in files]
    folder = listed(files, rows)
    changes = {"corpora": (str(folder),), "held_out": (), "validation": 0.3}
    store = opened(folder, height=8, width=8, **changes).store
    sides = {split: store.names(split) for split in ("train", "validation")}
    assert min(map(len, sides.values())) > 0 and sum(map(len, sides.values())) == 80
    assert not set(sides["train"]) & set(sides["validation"])


def test_unreadable_images_are_named_counted_and_limited(config, listed, capsys):
    files = {f"{i}.png": written.png(image(i, (8, 8, 3))) for i in range(20)}
    folder = listed(files | {"x.png": b"\x1b[31m no image", "y.jpg": JPEG[:200]})
    changes = {"corpora": (str(folder),), "held_out": (), "validation": 0.3}

    def prepared(most):
        cfg = config(folder, height=8, width=8, max_unreadable=most, **changes)
        return KINDS["images"].prepare(cfg.data)

    with pytest.raises(ValueError, match=r"max_unreadable=1 files.*'x.png' .*line 21.*'y.jpg' "):
        prepared(1)
    store = prepared(2).store
    assert sum(len(captions.lengths_N) for captions in store.captions.values()) == 20
    assert "2 unreadable files left out: 'x.png'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"more than data\.max_unreadable=0"):
        prepared(0)  # the cache does not hide them


def test_a_damaged_cache_is_found(config, drawn, tmp_path):
    def prepared():
        return KINDS["images"].prepare(config(drawn).data, progress=False)

    prepared()
    (shard,) = (tmp_path / "cache").glob("*/*.train.bin")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        prepared()
    (captions,) = (tmp_path / "cache").glob("*/captions.npz")
    content[100] ^= 1
    shard.write_bytes(content)
    captions.write_bytes(captions.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"captions\.npz is damaged"):
        prepared()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"file": "../../etc/passwd", "caption": "x"}, "is not below"),
        ({"file": "/etc/passwd", "caption": "x"}, "is not below"),
        ({"file": "a.png", "caption": "  "}, "no text under data.caption_key='caption'"),
        ({"picture": "a.png", "caption": "x"}, "no text under data.file_key='file'; keys: cap"),
        ({"file": "gone.png", "caption": "x"}, "'gone.png' .*No such file"),
        ({"file": "empty.png", "caption": "x"}, "'empty.png' .*it is empty"),
    ],
)
def test_a_bad_line_of_a_list_is_named(config, listed, row, fault):
    folder = listed({"a.png": written.png(image(0, (8, 8, 3))), "empty.png": b""}, [row])
    cfg = config(folder, corpora=(str(folder),), held_out=(), height=8, width=8)
    with pytest.raises(ValueError, match=f"line 1.*{fault}|{fault}"):
        KINDS["images"].prepare(cfg.data, progress=False)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"corpora": ("nowhere",)}, "does not exist; name a folder with captions.jsonl"),
        ({"channels": 4}, "data.channels=4 is unknown"),
        ({"height": 0}, "data.height=0 must be 1 or more"),
        ({"too_long": "drop"}, "data.too_long='drop' is unknown"),
        ({"max_unreadable": -1}, "data.max_unreadable=-1"),
    ],
)
def test_bad_keys_are_refused(opened, drawn, changes, fault):
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        opened(drawn, **changes)


def test_captions_that_are_too_long_are_refused_or_cut(config, drawn):
    cfg = config(drawn)
    cfg.model.context_length = 5
    dataset = KINDS["images"].prepare(cfg.data, progress=False)
    with pytest.raises(ValueError, match=r"captions \(train\) do not fit.*context_length=11"):
        dataset.for_run(cfg)
    cfg.data.too_long = "truncate"
    batch = dataset.for_run(cfg).batch("train", 0, 0)
    assert batch["weights"].sum(1).max() == 5


def test_a_spec_needs_no_data(config, tmp_path):
    assert images.spec(config(tmp_path / "nowhere"))["image"].shape == (32, 32, 3)


def held_in(held: str, caption: str) -> set:
    """The combinations of words in a caption."""
    said = [part.split()[1:] for part in caption.replace(" above ", " left of ").split(" left of ")]
    kinds = [tuple(words[-2:]) for words in said]
    whole = {("" if len(words) == 2 else words[0], *words[-2:]) for words in said}
    return {"scenes": {tuple(kinds)}, "triples": whole, "pairs": set(kinds)}[held]


@pytest.mark.parametrize("held", shapes.HELD)
def test_training_never_shows_a_held_out_combination(held):
    sides = {True: [], False: []}
    for item in shapes.items(300, 3, held):
        sides[item.held_out].append(held_in(held, item.caption))
    seen = set.union(*sides[False])
    assert len(sides[True]) == 30 and all(found - seen for found in sides[True])
    assert [item.caption for item in shapes.items(9, 4, held)] != [
        item.caption for item in shapes.items(9, 3, held)
    ]


def test_a_drawing_is_where_its_caption_says():
    """The mean place of each colour, for shapes of two pure colours."""
    tried = 0
    for item in shapes.items(200, 0):
        words = item.caption.split()
        colours = [word for word in words if word in ("red", "blue")]
        if len(set(colours)) < 2:
            continue
        x = item.content.astype(float)
        places = {}
        for colour, channel in (("red", 0), ("blue", 2)):
            strong = x[:, :, channel] - x.mean(2) > 60
            places[colour] = np.argwhere(strong).mean(0)[:: 1 if "above" in words else -1][0]
        assert places[colours[0]] < places[colours[1]]
        tried += 1
    assert tried > 5


def test_digits_are_those_of_scikit_learn():
    found = list(digits.items(0, 0))
    assert len(found) == 1797 and sum(item.held_out for item in found) == 360
    assert {item.caption for item in found} == set(digits.NAMES)
    assert found[0].content.shape == (8, 8, 1) and found[0].content.max() == 255
    with pytest.raises(ValueError, match="--count=1798 is above"):
        next(digits.items(1798, 0))
