"""Tests that adapters written by PEFT are read, and ours written so that PEFT reads them."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from model import parameters
from model.adapters.adapted import Adapted, Adapter
from model.huggingface import peft, safetensors
from model.transformer import family as decoder
from tests.model.golden import FOLDER, TOLERANCE, checkpoint, jit

ADAPTERS = FOLDER / "adapters"
CASES = {"gpt2": "gpt2", "llama_gqa": "llama"}


@functools.partial(jit, static_argnums=0)
def logits(cfg, params, tokens):
    x_BTD = decoder.hidden(cfg, params, {"tokens": tokens})
    return decoder.logits(cfg, decoder.head(cfg, params), x_BTD)


def merged(case: str, adapter: Adapter, trained: dict) -> dict:
    return Adapted(decoder, adapter).merged(jax.device_get(checkpoint(case)[1]), trained)


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_of_peft_gives_its_logits(case):
    cfg, params = checkpoint(case)
    loaded = peft.load(ADAPTERS / case, cfg, CASES[case], "any")
    with np.load(ADAPTERS / case / "expected.npz") as file:
        tokens, expected = file["tokens"], file["logits"]
    found = logits(cfg, merged(case, *loaded), tokens)
    assert np.abs(found - expected).max() < TOLERANCE
    plain = logits(cfg, jax.device_get(params), tokens)
    assert np.abs(plain - expected).max() > 100 * TOLERANCE  # the base alone


def tensors(folder) -> dict[str, np.ndarray]:
    header = safetensors.read_header(folder / peft.TENSORS)
    return {name: peft._array(tensor) for name, tensor in header.items()}


def test_a_round_trip_keeps_every_tensor(tmp_path):
    """Also of a module of three kernels that share one A."""
    cfg, _ = checkpoint("gpt2")
    adapter, trained = peft.load(ADAPTERS / "gpt2", cfg, "gpt2", "any")
    peft.save(tmp_path / "ours", adapter, cfg, trained, "base", "hash", "gpt2")
    ours, theirs = tensors(tmp_path / "ours"), tensors(ADAPTERS / "gpt2")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    written = json.loads((tmp_path / "ours" / peft.CONFIG).read_bytes())
    original = json.loads((ADAPTERS / "gpt2" / peft.CONFIG).read_bytes())
    for key in ("peft_type", "r", "lora_alpha", "fan_in_fan_out", "use_dora", "bias"):
        assert written[key] == original[key]
    assert sorted(written["target_modules"]) == sorted(original["target_modules"])


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", ["", "query|value", "attention"])
def test_kernels_with_an_a_of_their_own_become_blocks(tmp_path, targets, dora):
    cfg, params = checkpoint("gpt2")
    adapter = Adapter("lora", rank=2, alpha=3.0, rslora=True, dora=dora, targets=targets)
    trained, _ = Adapted(decoder, adapter).split(cfg, jax.device_get(params), 0)
    rng = np.random.default_rng(0)
    trained = jax.tree.map(lambda x: x + rng.standard_normal(x.shape).astype(x.dtype), trained)
    save = functools.partial(peft.save, tmp_path / "x", adapter, cfg, trained, "base", "hash")
    if dora and targets == "query|value":
        with pytest.raises(ValueError, match=r"DoRA of .* alone cannot be written"):
            save("gpt2")
        return
    save("gpt2")
    back = merged("gpt2", *peft.load(tmp_path / "x", cfg, "gpt2", "hash"))
    whole = merged("gpt2", adapter, trained)
    for path, leaf in parameters.flat(whole).items():
        np.testing.assert_allclose(parameters.flat(back)[path], leaf, rtol=1e-5, atol=1e-5)
    assert parameters.flat(back).keys() == parameters.flat(whole).keys()


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ADAPTERS / "llama_gqa", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changes the base"),
        ({"lora_alpha": None}, "lora_alpha=None is no number above 0"),
        ({"lora_alpha": 0}, "lora_alpha=0 is no number above 0"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=.*lm_head.* is not supported"),
    ],
)
def test_what_is_not_supported_is_refused(copy, keys, message):
    file = copy / peft.CONFIG
    file.write_text(json.dumps(json.loads(file.read_bytes()) | keys))
    with pytest.raises(ValueError, match=message):
        peft.load(copy, checkpoint("llama_gqa")[0], "llama", "any")


def test_an_adapter_of_another_base_is_refused(copy, tmp_path):
    cfg, _ = checkpoint("llama_gqa")
    adapter, trained = peft.load(copy, cfg, "llama", "any")
    peft.save(tmp_path / "ours", adapter, cfg, trained, "base", "0123", "llama")
    with pytest.raises(ValueError, match=r"the hash '0123', but its base has .*'4567'"):
        peft.load(tmp_path / "ours", cfg, "llama", "4567")
    with pytest.raises(ValueError, match=r"it is of another base|belongs to no kernel"):
        peft.load(copy, checkpoint("llama")[0], "llama", "any")
    with pytest.raises(ValueError, match=r"'../../hf/llama_gqa', which is no folder"):
        peft.base_of(copy)
    assert peft.base_of(ADAPTERS / "llama_gqa").samefile(FOLDER / "hf" / "llama_gqa")
