"""This file checks weights in and out: every byte comes back, and what is wrong is named."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model import hf_config, huggingface, parameters, safetensors
from model.hf_families import FAMILIES
from tests.model import golden

ROOT = Path(__file__).resolve().parents[2]
HF = golden.FOLDER / "hf"


def bits(arrays: dict[str, np.ndarray]) -> dict[str, tuple]:
    return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()}


@pytest.mark.parametrize("case", [case for case in golden.HF if case != "gpt2_published"])
def test_what_is_loaded_and_saved_is_the_same_bit_by_bit(case, tmp_path):
    cfg, params = huggingface.load(HF / case)
    model_type = golden.config_json(case)["model_type"]
    huggingface.save(tmp_path / "saved", cfg, params, model_type)
    assert bits(golden.read_all(tmp_path / "saved")) == bits(golden.read_all(HF / case))
    config = hf_config.read_json(tmp_path / "saved")
    assert config["model_type"] == model_type
    assert config["dtype"] == golden.config_json(case)["dtype"]
    assert hf_config.read(config) == cfg


def test_the_first_gpt2_gets_todays_names(tmp_path):
    cfg, params = huggingface.load(HF / "gpt2_published")
    huggingface.save(tmp_path / "saved", cfg, params)
    before = bits(
        {f"transformer.{n}": a for n, a in golden.read_all(HF / "gpt2_published").items()}
    )
    assert bits(golden.read_all(tmp_path / "saved")) == before


def test_saved_in_shards(tmp_path):
    cfg, params = huggingface.load(HF / "phi3")
    huggingface.save(tmp_path / "saved", cfg, params, shard=20_000)
    files = list((tmp_path / "saved").glob("*.safetensors"))
    assert len(files) > 3 and (tmp_path / "saved" / safetensors.INDEX).exists()
    assert bits(golden.read_all(tmp_path / "saved")) == bits(golden.read_all(HF / "phi3"))


def test_the_library_reads_what_we_write():
    """The format, from its description: checked here by hand, and by transformers itself in
    tests/golden/check_saved.py."""
    path = HF / "llama" / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    about = json.loads(raw[8 : 8 + length])["model.norm.weight"]
    start, end = (8 + length + offset for offset in about["data_offsets"])
    _, params = huggingface.load(HF / "llama")
    assert raw[start:end] == np.asarray(params["final_norm"]["scale"]).tobytes()


@pytest.mark.parametrize("case", ["gpt2", "phi3", "mistral"])
def test_slices_are_read_alone(case, monkeypatch):
    """Any slice equals that of the whole, and fewer rows are read for it."""
    cfg, params = huggingface.load(HF / case)
    sources = huggingface.plan(cfg, FAMILIES[case])
    found = safetensors.tensors(HF / case)
    read = []
    fill = safetensors._fill
    monkeypatch.setattr(
        safetensors, "_fill", lambda f, a, t: (read.append(a.nbytes), fill(f, a, t))
    )
    for path, leaf in parameters.flat(params).items():
        index = tuple(slice(n // 3, n - n // 4) for n in leaf.shape)
        part = huggingface._read(sources[path], found, leaf.shape, path, index)
        np.testing.assert_array_equal(part, np.asarray(leaf)[index])
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert sum(read) < 0.8 * whole


def test_shardings_are_asked_for_shapes_and_kept():
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("fsdp",))
    asked = []

    def shardings(shapes):
        asked.append(shapes)
        return jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec()), shapes)

    cfg, params = huggingface.load(HF / "gemma2", shardings)
    assert asked == [parameters.shapes(cfg)]
    assert all(isinstance(leaf.sharding, NamedSharding) for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, huggingface.load(HF / "gemma2")[1])


EIGHT = """
import jax, numpy as np
from pathlib import Path
from launch.convert import shardings
from model import huggingface
from tests.model.golden import FOLDER
folder = Path("{folder}")
cfg, params = huggingface.load(folder, shardings)
_, whole = huggingface.load(folder)
jax.tree.map(np.testing.assert_array_equal, params, whole)
kernel = params["blocks"]["mlp"]["up"]["kernel"]
assert len(jax.devices()) == 8 and kernel.addressable_shards[0].data.size * 8 == kernel.size
print("sharded")
"""


@pytest.mark.slow
def test_eight_devices_hold_an_eighth_each(tmp_path):
    cfg, params = huggingface.load(HF / "phi3")
    huggingface.save(tmp_path / "model", cfg, params)
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", EIGHT.format(folder=tmp_path / "model")],
        cwd=ROOT,
        env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "sharded", done.stderr


def copy(case: str, folder: Path, **changes) -> Path:
    """A case with other keys in config.json; None takes a key away."""
    shutil.copytree(HF / case, folder / "model")
    keys = golden.config_json(case) | changes
    keys = {key: value for key, value in keys.items() if value is not None}
    (folder / "model" / "config.json").write_text(json.dumps(keys))
    return folder / "model"


ROPE = dict(rope_type="default", rope_theta=500.0)
BAD_KEYS = {
    "model_type=.mamba. is not supported; supported are gpt2, llama,": (
        "llama", dict(model_type="mamba"),
    ),
    "model_type=None": ("llama", dict(model_type=None)),
    "rope_type='yarn' is unknown; known are default, linear, llama3": (
        "llama", dict(rope_parameters=ROPE | dict(rope_type="yarn", factor=4.0)),
    ),
    "rope_type='dynamic'": (
        "llama", dict(rope_parameters=None, rope_scaling=dict(type="dynamic", factor=2.0)),
    ),
    "beta_fast=32": ("llama", dict(rope_parameters=ROPE | dict(beta_fast=32))),
    "rope_type='linear' lacks factor": (
        "llama", dict(rope_parameters=ROPE | dict(rope_type="linear")),
    ),
    "contradicts the older rope_theta": ("llama", dict(rope_theta=600.0)),
    "partial_rotary_factor": (
        "llama", dict(rope_parameters=ROPE | dict(partial_rotary_factor=0.5)),
    ),
    "attention_factor": (
        "phi3_longrope",
        dict(rope_parameters=dict(
            golden.config_json("phi3_longrope")["rope_parameters"], attention_factor=1.0
        )),
    ),
    "they must be default": (
        "gemma3",
        dict(rope_parameters=dict(
            full_attention=ROPE, sliding_attention=ROPE | dict(rope_type="linear", factor=8.0)
        )),
    ),
    "hidden_act='mish' is unknown; known are gelu,": ("llama", dict(hidden_act="mish")),
    "quantization_config=.*is unknown for model_type='llama'": (
        "llama", dict(quantization_config=dict(bits=4)),
    ),
    "num_local_experts=8": ("mistral", dict(num_local_experts=8)),
    "attention_bias=True is not supported for model_type='mistral'": (
        "mistral", dict(attention_bias=True),
    ),
    "mlp_bias=True": ("qwen2", dict(mlp_bias=True)),
    "scale_attn_weights=False": ("gpt2", dict(scale_attn_weights=False)),
    "use_bidirectional_attention=True": ("gemma2", dict(use_bidirectional_attention=True)),
    "use_qk_norm=True": ("cohere", dict(use_qk_norm=True)),
    "layer_types=": ("qwen2", dict(layer_types=["chunked_attention", "full_attention"])),
    "lacks hidden_size": ("llama", dict(hidden_size=None)),
    "model.n_kv_heads=4 does not divide": ("llama", dict(num_key_value_heads=4)),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_KEYS)
def test_a_config_that_means_something_else_is_refused(message, tmp_path):
    case, changes = BAD_KEYS[message]
    folder = copy(case, tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        huggingface.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_what_changes_nothing_is_accepted(tmp_path):
    changes = dict(attention_dropout=0.1, _name_or_path="x", unsloth_version=None, auto_map={})
    cfg, _ = huggingface.load(copy("mistral", tmp_path, **changes))
    assert cfg == huggingface.load(HF / "mistral")[0]


def rewrite(folder: Path, change) -> None:
    """Other tensors in model.safetensors: `change` maps {name: array} to another."""
    arrays = change(golden.read_all(folder))
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors.write(folder / "model.safetensors", layout, lambda name: [arrays[name]])


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


UP = "model.layers.1.mlp.up_proj.weight"
BAD_TENSORS = {
    f"lacks tensor {UP} \\[44, 36\\]": without(UP),
    "tensor model.layers.2.mlp.up_proj.weight is one that config.json does not ask for": (
        lambda arrays: arrays | {UP.replace("1", "2"): arrays[UP]}
    ),
    f"{UP} has shape \\[36, 44\\]; config.json asks for \\[44, 36\\]": (
        lambda arrays: arrays | {UP: np.ascontiguousarray(arrays[UP].T)}
    ),
    "unlike the same tensor of layer 0": (
        lambda arrays: arrays | {UP: arrays[UP].astype(np.float16)}
    ),
}


@pytest.mark.parametrize("message", BAD_TENSORS)
def test_a_wrong_tensor_is_named(message, tmp_path):
    folder = copy("llama", tmp_path)
    rewrite(folder, BAD_TENSORS[message])
    with pytest.raises(ValueError, match=message):
        huggingface.load(folder)


def test_rewriting_alone_is_harmless(tmp_path):
    """The control of the test above."""
    folder = copy("llama", tmp_path)
    rewrite(folder, lambda arrays: arrays)
    huggingface.load(folder)


def cut(folder, name, size):
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[:size])


def relabelled(folder):
    """The first tensor becomes int8, of the same bytes."""
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1))


BAD_FILES = {
    "truncated": ("llama", lambda folder: cut(folder, "model.safetensors", -100)),
    "is truncated, or no safetensors": (
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
    folder = copy(case, tmp_path)
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        huggingface.load(folder)


def test_a_model_that_no_family_computes_is_refused_by_key(tmp_path):
    cfg, params = golden.checkpoint("llama")
    for change, named in (
        (dict(activation="relu", positions="none", rope_theta=10_000.0), "model.positions='none'"),
        (dict(attention_softcap=3.0), "model.attention_softcap=3.0"),
        (dict(rope_layout="interleaved"), "model.rope_layout='interleaved'"),
    ):
        other = dataclasses.replace(cfg, **change)
        with pytest.raises(ValueError, match=named):
            huggingface.save(tmp_path / "no", other, params)
    assert not (tmp_path / "no").exists()


def test_the_family_that_fits_is_found():
    """Of one that no key names: partial rotary positions are Phi 3's alone."""
    cfg, _ = golden.checkpoint("llama")
    assert hf_config.write(cfg)["model_type"] == "llama"
    assert hf_config.misfit(cfg, "llama") == []
    partial = dataclasses.replace(cfg, head_dim=6, rope_fraction=0.7)
    assert hf_config.write(partial)["model_type"] == "phi3"
    assert hf_config.misfit(partial, "llama") == ["rope_fraction"]


def test_another_family_is_refused_where_it_computes_another_thing(tmp_path):
    cfg, params = golden.checkpoint("llama")
    huggingface.save(tmp_path / "as-mistral", cfg, params, "mistral")
    assert hf_config.read_json(tmp_path / "as-mistral")["model_type"] == "mistral"
    with pytest.raises(ValueError, match="gemma computes something else"):
        huggingface.save(tmp_path / "no", cfg, params, "gemma")
    with pytest.raises(ValueError, match="model_type='mamba' is not supported"):
        huggingface.save(tmp_path / "no", cfg, params, "mamba")


def test_parameters_that_do_not_fit_are_named():
    cfg, params = golden.checkpoint("llama")
    leaves = parameters.flat(params)
    parameters.check(cfg, params)
    for change, message in (
        ({"final_norm/scale": None}, "parameter final_norm/scale .36,. is missing"),
        ({"final_norm/scale": np.zeros(35)}, "final_norm/scale has shape .35,.; the model needs"),
        ({"final_norm/bias": np.zeros(36)}, "final_norm/bias .36,. is unknown to the model"),
    ):
        found = {path: leaf for path, leaf in (leaves | change).items() if leaf is not None}
        with pytest.raises(ValueError, match=message):
            parameters.check(cfg, parameters.nested(found))


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    cfg, params = golden.checkpoint("llama")
    with pytest.raises(FileNotFoundError):
        huggingface.save(tmp_path / "no", cfg, params, files={"x": tmp_path / "absent"})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="is not empty"):
        huggingface.save(tmp_path / "full", cfg, params)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
