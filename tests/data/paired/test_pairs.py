"""Tests the kinds of sentence pairs: literal batches, packing, purity, splits, bad input."""

import gzip
import json
import struct

import numpy as np
import pytest

from configs import base
from data.kinds import KINDS
from data.kinds.joined_pairs import FIELDS
from data.paired.packing import packed
from data.sources import parallel_text
from launch.config import sections
from launch.trial import resolve
from tests.data.paired.conftest import WRITTEN

END = 255  # of the tokenizer `bytes`


def spelled(row) -> str:
    return "".join("." if token == END else chr(token) for token in row)


def pairs_in(batch) -> list[tuple[str, str]]:
    """The pairs of a batch, read back from its fields."""
    found = []
    for row in range(len(batch["tokens"])):
        for segment in range(1, batch["segments"][row].max() + 1):
            source = batch["source"][row][batch["source_segments"][row] == segment]
            here = batch["segments"][row] == segment
            target, read = batch["targets"][row][here], batch["tokens"][row][here]
            assert source[-1] == target[-1] == read[0] == END
            np.testing.assert_array_equal(read[1:], target[:-1])
            np.testing.assert_array_equal(batch["weights"][row], batch["segments"][row] > 0)
            found.append((spelled(source[:-1]), spelled(target[:-1])))
    return found


def test_a_row_is_the_one_of_the_docstring(opened, tmp_path):
    (tmp_path / "one.tsv").write_text("abc\txy\n" * 3)
    batch = opened(tmp_path / "one.tsv").batch("train", 0, 0)
    rows = {name: batch[name][0] for name in batch}
    assert spelled(rows["source"]) == "abc..." and spelled(rows["tokens"]) == ".xy.."
    assert spelled(rows["targets"]) == "xy..."
    assert rows["source_segments"].tolist() == [1, 1, 1, 1, 0, 0]
    assert rows["segments"].tolist() == rows["weights"].tolist() == [1, 1, 1, 0, 0]
    joined = opened(tmp_path / "one.tsv", "joined_pairs", (0, 8)).batch("train", 0, 0)
    assert spelled(joined["tokens"][0]) == "abc.xy.."
    assert spelled(joined["targets"][0]) == "bc.xy..."
    assert joined["weights"][0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_every_epoch_has_every_pair_once_in_another_order(opened, pairs_file, rows):
    dataset = opened(pairs_file, rows=rows, lengths=(9, 8))
    steps = round(1 / dataset.epochs(1))
    assert (steps < 2) == (rows == "packed")
    epochs = []
    for epoch in range(2):
        batches = dataset.batches("train", 7, epoch * steps, steps)
        epochs.append(
            [p for k in range(steps) for p in pairs_in({n: b[k] for n, b in batches.items()})]
        )
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(WRITTEN)
    if rows == "padded":
        assert epochs[0] != epochs[1]


def test_positions_count_from_0_in_each_packed_pair(opened, pairs_file):
    batch = opened(pairs_file, rows="packed", lengths=(9, 8)).batch("train", 0, 0)
    for prefix in ("source_", ""):
        for segments, positions in zip(
            batch[f"{prefix}segments"], batch[f"{prefix}positions"], strict=True
        ):
            for segment in range(1, segments.max() + 1):
                here = positions[segments == segment]
                assert here.tolist() == list(range(len(here)))


@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_joined_rows_count_the_target_alone(opened, pairs_file, rows):
    dataset = opened(pairs_file, "joined_pairs", (0, 13), rows=rows)
    batch = {name: x[0] for name, x in dataset.batches("train", 0, 0, 2).items()}
    found = []
    for row in range(3):
        segments = batch.get("segments", np.ones((3, 13)))[row]
        for segment in range(1, int(segments.max()) + 1):
            here = segments == segment
            tokens, targets, weights = (batch[name][row][here] for name in FIELDS)
            source, target = spelled(tokens).rstrip(".").split(".")  # no side is empty
            assert spelled(targets).rstrip(".") == f"{source}.{target}"[1:]
            assert spelled(targets[weights > 0]) == f"{target}."
            found.append((source, target))
    assert len(found) == (3 if rows == "padded" else len(set(found))) and set(found) <= set(WRITTEN)
    assert len(found) > 3 or rows == "padded"


def test_a_batch_depends_on_seed_step_and_row_alone(opened, pairs_file):
    dataset = opened(pairs_file)
    whole = dataset.batches("train", 1, 0, 4)
    for step in range(4):
        np.testing.assert_array_equal(
            dataset.batch("train", 1, step)["source"], whole["source"][step]
        )
        part = dataset.batch("train", 1, step, rows=np.array([2, 0]))
        np.testing.assert_array_equal(part["targets"], whole["targets"][step][[2, 0]])
    assert (dataset.batches("train", 2, 0, 4)["source"] != whole["source"]).any()


def test_first_fit_leaves_room_that_no_later_pair_needed():
    rng = np.random.default_rng(0)
    room = rng.integers(1, 20, (500, 2))
    rows = packed(np.arange(500), room, (32, 40))
    assert sorted(rows.pairs_P) == list(range(500))
    for row in range(len(rows)):
        inside = rows.pairs_P[rows.begins[row] : rows.begins[row + 1]]
        assert (room[inside].sum(0) <= (32, 40)).all()
    assert len(rows) < 1.15 * room.sum(0).max() / 32


def test_the_evaluation_set_has_one_pair_a_row_and_its_bytes(opened, pairs_file):
    padded, packing = (opened(pairs_file, rows=rows) for rows in ("padded", "packed"))
    for one, other in zip(
        padded.examples("validation"), packing.examples("validation"), strict=True
    ):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
        assert one["bytes"].tolist() == [len(target) for _, target in pairs_in(one)]


@pytest.mark.parametrize("form", ["jsonl", "two files", "gz"])
def test_all_formats_are_one_dataset(opened, pairs_file, tmp_path, form):
    if form == "jsonl":
        corpora = tmp_path / "pairs.jsonl"
        corpora.write_text("".join(json.dumps({"de": s, "en": t}) + "\n" for s, t in WRITTEN))
    elif form == "gz":
        corpora = tmp_path / "pairs.tsv.gz"
        corpora.write_bytes(gzip.compress(pairs_file.read_bytes() + b"\n\n"))
    else:
        corpora = tmp_path / "x.de", tmp_path / "x.en"
        for side, file in enumerate(corpora):
            file.write_text("".join(f"{pair[side]} \r\n" for pair in WRITTEN))
    keys = {"source_key": "de", "target_key": "en"} if form == "jsonl" else {}
    assert opened(corpora, **keys).hash == opened(pairs_file).hash
    other = tmp_path / "other.tsv"
    other.write_text(pairs_file.read_text().replace("xyz", "xyy"))
    assert opened(other).hash != opened(pairs_file).hash


def test_messages_of_a_package_are_pairs(tmp_path, monkeypatch):
    folder = tmp_path / "some_ui" / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    said = {
        "": "Content-Type: text/plain; charset=UTF-8\n",
        "Open": "Öffnen",
        "menu\x04Cut": "Aus-\n schneiden",
    }
    said |= {"OK": "OK", "one file\0many files": "eine Datei\0viele Dateien"}
    (folder / "ui.mo").write_bytes(compiled(said))
    (tmp_path / "some_ui" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = list(parallel_text.pairs(["messages:some_ui:de"], "", ""))
    assert found == [("Open", "Öffnen"), ("Cut", "Aus- schneiden"), ("one file", "eine Datei")]
    for spec, message in (
        ("messages:some_ui:fr", "some_ui has no messages in 'fr'; languages that it has: de"),
        ("messages:no_such_package:fr", "the package 'no_such_package' is not installed"),
        ("messages:some_ui", "is not of the form 'messages:PACKAGE:LANGUAGE'"),
    ):
        with pytest.raises(ValueError, match=message):
            parallel_text.identity([spec])


def compiled(messages: dict[str, str]) -> bytes:
    """A catalogue as msgfmt writes it."""
    rows, texts, at = [[], []], b"", 28 + 16 * len(messages)
    for side, column in enumerate(zip(*messages.items(), strict=True)):
        for text in column:
            rows[side].append((len(text.encode()), at + len(texts)))
            texts += text.encode() + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(messages), 28, 28 + 8 * len(messages), 0, 0)
    return head + b"".join(struct.pack("<2I", *row) for row in (*rows[0], *rows[1])) + texts


def test_splits_go_by_content_and_the_tokenizer_sees_no_validation(config):
    cfg = config("synthetic_pairs:sentences=400:clauses=1", tokenizer="chars", validation=0.2)
    store = KINDS["pairs"].prepare(cfg.data, progress=False).store
    counts = {name: split.n_documents for name, split in store.splits.items()}
    assert sum(counts.values()) == 400 and 50 < counts["validation"] < 110
    more = config("synthetic_pairs:sentences=500:clauses=1", tokenizer="chars", validation=0.2)
    larger = KINDS["pairs"].prepare(more.data, progress=False).store
    assert larger.splits["validation"].n_documents >= counts["validation"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "x\ny\nz\n", "b": "x\ny\n"}, "b has 2 lines, but .*a has 3: line 3 has no counter"),
        ({"a": "x\n\n", "b": "x\ny\n"}, "line 2, has an empty source"),
        ({"a.tsv": "x\ty\nx\n"}, "line 2 has one column"),
        ({"a.tsv": "x\ty\nx\t \n"}, "line 2 has an empty target"),
        (
            {"a.jsonl": '{"source": "x", "en": "y"}\n'},
            "line 1 has no text under data.target_key='ta",
        ),
        ({"a.tsv": "\n"}, "holds no pairs"),
        ({"a.txt": "x\ty\n"}, "neither a .tsv nor a .jsonl"),
    ],
)
def test_bad_pairs_are_named(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(parallel_text.pairs([str(tmp_path / name) for name in files], "source", "target"))


def test_long_pairs_are_counted_named_and_cut_only_where_asked(opened, pairs_file):
    message = (
        r"1 of 6 pairs .*source_length=4 \(they need 5\).*'defg'.*Use model.source_length=5, or"
    )
    with pytest.raises(ValueError, match=message):
        opened(pairs_file, lengths=(4, 5))
    dropped = opened(pairs_file, lengths=(4, 5), too_long="drop").batches("train", 0, 0, 1)
    assert dropped["source"].shape == (1, 3, 4)
    cut = opened(pairs_file, lengths=(4, 5), too_long="truncate").batches("train", 0, 0, 2)
    found = [p for k in range(2) for p in pairs_in({name: b[k] for name, b in cut.items()})]
    assert sorted(found) == sorted([(s[:3], t) for s, t in WRITTEN])
    with pytest.raises(ValueError, match="3 of 6 pairs"):
        opened(pairs_file, "joined_pairs", (0, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "bucket"}, "data.rows='bucket' is unknown; use one of padded, packed"),
        ({"too_long": "cut"}, "data.too_long='cut' is unknown; use one of refuse, drop, truncate"),
        ({"validation": 1.0}, "data.validation=1.0"),
    ],
)
def test_bad_keys_are_named(config, pairs_file, changes, message):
    with pytest.raises(ValueError, match=message):
        KINDS["pairs"].prepare(config(pairs_file, **changes).data, progress=False)


def test_too_few_pairs_are_counted(opened, pairs_file, tmp_path):
    (tmp_path / "two.tsv").write_text("a\tb\nc\td\n")
    with pytest.raises(ValueError, match=r"fills 2 rows for training, but a batch needs .*=3"):
        opened(tmp_path / "two.tsv")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        opened(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("kind", "family"), [("pairs", "encoder_decoder"), ("joined_pairs", "decoder")]
)
def test_the_defaults_of_a_kind_fit_together(tmp_path, kind, family):
    """The sentences of the default corpus are as long as those of this smaller one."""
    cfg = base.get_config(family, kind=kind)
    sections.complete(cfg)
    assert cfg.data.corpora == ("synthetic_pairs",)
    cfg.data.update(corpora=("synthetic_pairs:sentences=2000",), cache=str(tmp_path))
    dataset = resolve.prepare(cfg, progress=False)
    assert dataset.for_run(resolve.resolve(cfg, dataset)).epochs(1) > 0
    cfg.data.tokenizer = "bytes"
    with pytest.raises(ValueError, match="are longer than model"):
        resolve.resolve(cfg, resolve.prepare(cfg, progress=False))


def test_runs_with_the_same_validation_pairs_have_the_same_hash_of_them(opened, pairs_file):
    def evaluated(kind, *lengths, **changes):
        return opened(pairs_file, kind, lengths, **changes).evaluated

    whole = evaluated("pairs", 6, 5)
    assert whole == evaluated("joined_pairs", 0, 8) == evaluated("pairs", 9, 9, rows="packed")
    for too_long in ("drop", "truncate"):
        assert evaluated("pairs", 6, 5, too_long=too_long) == whole  # all fit
        assert evaluated("pairs", 4, 5, too_long=too_long) != whole
    dropped = evaluated("pairs", 4, 5, too_long="drop")
    assert dropped == evaluated("joined_pairs", 0, 6, too_long="drop")  # the same one
    assert dropped != evaluated("joined_pairs", 0, 5, too_long="drop")


@pytest.mark.parametrize(
    ("kind", "lengths", "key"),
    [
        ("pairs", (1, 5), "source"),
        ("pairs", (6, 1), "context"),
        ("joined_pairs", (0, 2), "context"),
    ],
)
def test_sides_have_room_for_a_token(opened, pairs_file, kind, lengths, key):
    with pytest.raises(ValueError, match=f"model.{key}_length=[12] has no room for a .* or more"):
        opened(pairs_file, kind, lengths, too_long="truncate")
    least = {"pairs": (2, 2), "joined_pairs": (0, 3)}[kind]
    batch = opened(pairs_file, kind, least, too_long="truncate").batch("train", 0, 0)
    assert (batch["weights"].sum(-1) == 2).all()  # a token and the end
