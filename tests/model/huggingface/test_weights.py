"""Tests that weights survive loading and saving bit by bit, and that errors name the tensor."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model import parameters
from model.huggingface import config_json, safetensors, weights
from model.huggingface.name_tables import FAMILIES
from model.transformer import decoder
from tests.model import golden

ROOT = Path(__file__).resolve().parents[3]
HF = golden.FOLDER / "hf"
HEAD = "lm_head.weight"


def bits(arrays: dict[str, np.ndarray]) -> dict[str, tuple]:
    return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()}


@pytest.mark.parametrize("case", [case for case in golden.HF if case != "gpt2_published"])
def test_what_is_loaded_and_saved_is_the_same_bit_by_bit(case, tmp_path):
    cfg, params = weights.load(HF / case)
    model_type = golden.config_json(case)["model_type"]
    weights.save(tmp_path / "saved", cfg, params, model_type)
    assert bits(golden.read_all(tmp_path / "saved")) == bits(golden.read_all(HF / case))
    config = config_json.read_json(tmp_path / "saved")
    assert config["model_type"] == model_type
    assert config["dtype"] == golden.config_json(case)["dtype"]
    assert config_json.read(config) == cfg


def test_the_first_gpt2_gets_todays_names(tmp_path):
    cfg, params = weights.load(HF / "gpt2_published")
    weights.save(tmp_path / "saved", cfg, params)
    before = bits(
        {f"transformer.{n}": a for n, a in golden.read_all(HF / "gpt2_published").items()}
    )
    assert bits(golden.read_all(tmp_path / "saved")) == before


def test_saved_in_shards(tmp_path):
    cfg, params = weights.load(HF / "phi3")
    weights.save(tmp_path / "saved", cfg, params, shard=20_000)
    files = list((tmp_path / "saved").glob("*.safetensors"))
    assert len(files) > 3 and (tmp_path / "saved" / safetensors.INDEX).exists()
    assert bits(golden.read_all(tmp_path / "saved")) == bits(golden.read_all(HF / "phi3"))


def test_the_library_reads_what_we_write():
    """Parses the safetensors format by hand; tests/golden/check_saved.py uses transformers."""
    path = HF / "llama" / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    about = json.loads(raw[8 : 8 + length])["model.norm.weight"]
    start, end = (8 + length + offset for offset in about["data_offsets"])
    _, params = weights.load(HF / "llama")
    assert raw[start:end] == np.asarray(params["final_norm"]["scale"]).tobytes()


@pytest.mark.parametrize("case", ["gpt2", "phi3", "mistral"])
def test_slices_are_read_alone(case, monkeypatch):
    """A slice equals the same slice of the whole tensor, and fewer bytes are read."""
    cfg, params = weights.load(HF / case)
    sources = weights.tensor_sources(cfg, FAMILIES[case])
    found = safetensors.tensors(HF / case)
    read = []
    fill = safetensors._fill
    monkeypatch.setattr(
        safetensors, "_fill", lambda f, a, t: (read.append(a.nbytes), fill(f, a, t))
    )
    for path, leaf in parameters.flat(params).items():
        index = tuple(slice(n // 3, n - n // 4) for n in leaf.shape)
        part = weights._read(sources[path], found, leaf.shape, path, index)
        np.testing.assert_array_equal(part, np.asarray(leaf)[index])
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert sum(read) < 0.8 * whole


def test_shardings_are_asked_for_shapes_and_kept():
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("fsdp",))
    asked = []

    def shardings(shapes):
        asked.append(shapes)
        return jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec()), shapes)

    cfg, params = weights.load(HF / "gemma2", shardings)
    assert asked == [decoder.shapes(cfg)]
    assert all(isinstance(leaf.sharding, NamedSharding) for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, weights.load(HF / "gemma2")[1])


EIGHT = """
import functools, jax, numpy as np
from pathlib import Path
from launch.verbs.models.convert import shardings
from model.huggingface import weights
from model.transformer import family as decoder
from tests.model.golden import FOLDER
folder = Path("{folder}")
cfg, params = weights.load(folder, functools.partial(shardings, decoder))
_, whole = weights.load(folder)
jax.tree.map(np.testing.assert_array_equal, params, whole)
kernel = params["blocks"]["mlp"]["up"]["kernel"]
assert len(jax.devices()) == 8 and kernel.addressable_shards[0].data.size * 8 == kernel.size
print("sharded")
"""


@pytest.mark.slow
def test_eight_devices_hold_an_eighth_each(tmp_path):
    cfg, params = weights.load(HF / "phi3")
    weights.save(tmp_path / "model", cfg, params)
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", EIGHT.format(folder=tmp_path / "model")],
        cwd=ROOT,
        env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "sharded", done.stderr


def rewrite(folder: Path, change) -> None:
    """Rewrites model.safetensors; `change` maps its {name: array} to the new one."""
    arrays = change(golden.read_all(folder))
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors.write(folder / "model.safetensors", layout, lambda name: [arrays[name]])


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


UP = "model.layers.1.mlp.up_proj.weight"
BAD_TENSORS = {
    f"lacks tensor {UP} \\[44, 36\\]": without(UP),
    "tensor model.layers.2.mlp.up_proj.weight does not belong to the model of config.json": (
        lambda arrays: arrays | {UP.replace("1", "2"): arrays[UP]}
    ),
    f"{UP} has shape \\[36, 44\\]; config.json needs \\[44, 36\\]": (
        lambda arrays: arrays | {UP: np.ascontiguousarray(arrays[UP].T)}
    ),
    "unlike the same tensor of layer 0": (
        lambda arrays: arrays | {UP: arrays[UP].astype(np.float16)}
    ),
}


@pytest.mark.parametrize("message", BAD_TENSORS)
def test_a_wrong_tensor_is_named(message, tmp_path):
    folder = golden.copy("llama", tmp_path)
    rewrite(folder, BAD_TENSORS[message])
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


@pytest.mark.parametrize(("family", "embedding"), [
    ("gemma", "model.embed_tokens.weight"), ("gpt2", "transformer.wte.weight"),
])  # fmt: skip
def test_a_tied_head_is_the_embedding_or_is_refused(family, embedding, tmp_path):
    folder = golden.copy(family, tmp_path)
    before = bits(golden.read_all(folder))
    head = golden.read_all(folder)[embedding]
    rewrite(folder, lambda arrays: arrays | {"lm_head.weight": head})
    weights.save(tmp_path / "saved", *weights.load(folder))
    assert bits(golden.read_all(tmp_path / "saved")) == before
    other = np.array(head)
    other[-1, -1] += 1
    for wrong in (other, head[:-1], head.astype(np.float16)):
        rewrite(folder, lambda arrays, wrong=wrong: arrays | {"lm_head.weight": wrong})
        with pytest.raises(ValueError, match=r"lm_head.weight differs .* tie_word_embeddings"):
            weights.load(folder)


def test_the_first_gpt2_may_repeat_its_head(tmp_path):
    folder = golden.copy("gpt2_published", tmp_path)
    head = golden.read_all(folder)["wte.weight"]
    rewrite(folder, lambda arrays: arrays | {HEAD: head})
    jax.tree.map(
        np.testing.assert_array_equal,
        weights.load(folder)[1],
        weights.load(HF / "gpt2_published")[1],
    )
    rewrite(folder, lambda arrays: arrays | {HEAD: head * 2})
    with pytest.raises(ValueError, match=r"lm_head.weight differs from wte.weight"):
        weights.load(folder)


def masks(size, dtype=np.float32):
    return {"h.0.attn.bias": np.tri(size, dtype=dtype)[None, None]}


def frequencies(theta, width=10, dtype=np.float32):
    """Rotary frequencies, computed in float32 like those of older checkpoints."""
    powers = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    return {"model.layers.0.self_attn.rotary_emb.inv_freq": (1 / theta**powers).astype(dtype)}


DERIVED = {
    "a mask": ("gpt2_published", masks(48), True),
    "a mask of half precision": ("gpt2_published", masks(48, np.float16), True),
    "a mask of a longer context": ("gpt2_published", masks(64), True),
    "a mask that sees ahead": (
        "gpt2_published", {"h.0.attn.bias": np.ones((1, 1, 48, 48), np.float32)}, False,
    ),
    "what a mask adds": ("gpt2_published", {"h.0.attn.masked_bias": np.float32([-1e4])}, True),
    "a mask that adds nothing": (
        "gpt2_published", {"h.0.attn.masked_bias": np.float32([0])}, False,
    ),
    "frequencies": ("llama", frequencies(500.0), True),
    "frequencies of half precision": ("llama", frequencies(500.0, dtype=np.float16), True),
    "frequencies of another theta": ("llama", frequencies(600.0), False),
    "frequencies of another width": ("llama", frequencies(500.0, 12), False),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_tensors_that_follow_from_the_config_are_compared_with_it(name, tmp_path):
    case, more, same = DERIVED[name]
    folder = golden.copy(case, tmp_path)
    rewrite(folder, lambda arrays: arrays | more)
    if same:
        jax.tree.map(
            np.testing.assert_array_equal, weights.load(folder)[1], weights.load(HF / case)[1]
        )
    else:
        with pytest.raises(
            ValueError,
            match=f"{next(iter(more))} differs from the values that follow from config.json",
        ):
            weights.load(folder)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    folder = golden.copy("llama_gqa", tmp_path)
    one, two = (folder / weights.file_name(number, 2) for number in (1, 2))
    name = next(iter(safetensors.read_header(one)))
    arrays = golden.read_all(folder)
    layout = {
        key: (arrays[key].dtype, arrays[key].shape) for key in [*safetensors.read_header(two), name]
    }
    safetensors.write(two, layout, lambda key: [arrays[key]])
    with pytest.raises(ValueError, match=rf"says that {name} is in|repeats {name}"):
        weights.load(folder)
    index = json.loads((folder / safetensors.INDEX).read_text())
    index["weight_map"][name] = two.name
    (folder / safetensors.INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"{two.name} repeats {name} from another file"):
        weights.load(folder)


def test_one_file_beside_an_index_of_others_is_refused(tmp_path):
    folder = golden.copy("llama_gqa", tmp_path)
    shutil.copy(HF / "llama" / safetensors.SINGLE, folder)
    with pytest.raises(ValueError, match=r"holds both model.safetensors and .*; remove one"):
        weights.load(folder)


def test_rewriting_alone_is_harmless(tmp_path):
    """Control for the tests above that change tensors."""
    folder = golden.copy("llama", tmp_path)
    rewrite(folder, lambda arrays: arrays)
    weights.load(folder)


def cut(folder, name, size):
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[:size])


def relabelled(folder):
    """Changes the dtype of the first tensor to int32 and keeps its bytes."""
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1))


BAD_FILES = {
    "truncated": ("llama", lambda folder: cut(folder, "model.safetensors", -100)),
    "is truncated, or not a safetensors": (
        "llama", lambda folder: cut(folder, "model.safetensors", 90),
    ),
    "truncated, or": ("llama", lambda folder: (folder / "model.safetensors").write_bytes(b"")),
    "damaged header": (
        "llama",
        lambda folder: (folder / "model.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"[]"),
    ),
    "is I32; only F64, F32, F16, BF16 are read": ("llama", relabelled),
    "00002-of-00002.safetensors is missing": (
        "llama_gqa", lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
    ),
    "says that .* is in model-00002": (
        "llama_gqa",
        lambda folder: shutil.copy(
            folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"
        ),
    ),
    "has no weight_map": (
        "llama_gqa", lambda folder: (folder / safetensors.INDEX).write_text("{}"),
    ),
    "pickle checkpoint, pytorch_model.bin": (
        "llama", lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    ),
    "holds neither model.safetensors nor": (
        "llama", lambda folder: (folder / "model.safetensors").unlink(),
    ),
    "has no config.json": ("llama", lambda folder: (folder / "config.json").unlink()),
    "not a JSON object": ("llama", lambda folder: (folder / "config.json").write_text("{")),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_FILES)
def test_a_damaged_or_missing_file_is_named(message, tmp_path):
    case, spoil = BAD_FILES[message]
    folder = golden.copy(case, tmp_path)
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        weights.load(folder)


def test_parameters_that_do_not_fit_are_named():
    cfg, params = golden.checkpoint("llama")
    leaves = parameters.flat(params)
    parameters.check(decoder.shapes(cfg), params)
    for change, message in (
        ({"final_norm/scale": None}, "parameter final_norm/scale .36,. is missing"),
        ({"final_norm/scale": np.zeros(35)}, "final_norm/scale has shape .35,.; the model needs"),
        ({"final_norm/bias": np.zeros(36)}, "final_norm/bias .36,. is unknown to the model"),
    ):
        found = {path: leaf for path, leaf in (leaves | change).items() if leaf is not None}
        with pytest.raises(ValueError, match=message):
            parameters.check(decoder.shapes(cfg), parameters.nested(found))


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    cfg, params = golden.checkpoint("llama")
    with pytest.raises(FileNotFoundError):
        weights.save(tmp_path / "no", cfg, params, files={"absent/x": b""})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="is not empty"):
        weights.save(tmp_path / "full", cfg, params)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
