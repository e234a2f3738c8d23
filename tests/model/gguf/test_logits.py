"""Tests GGUF files against llama.cpp: its logits of the same bytes, here or from a golden file.

The golden logits of GPT-2 and Gemma are those of a llama.cpp built without GGML_GELU_FP16, which
otherwise looks GELU up in a table of half precision (docs/quantisation.md).
"""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from model import parameters
from model.gguf import file, layouts, tensors
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, shapes
from model.transformer.layers import Linear
from tests.model.gguf import cases

FAST = ("gpt2", "llama_gqa")
CASES = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in cases.CHANGES]
CLOSE = 5e-5


@pytest.fixture(scope="module")
def kept():
    with np.load(cases.LOGITS, allow_pickle=False) as file:
        return dict(file)


def ours(cfg: ModelConfig, params: dict) -> np.ndarray:
    apply = jax.jit(lambda params: Decoder(cfg).apply({"params": params}, cases.TOKENS_T[None]))
    return np.asarray(apply(params))[0]


@pytest.mark.parametrize("name", CASES)
def test_the_file_is_the_one_that_llama_cpp_read(name, kept, tmp_path):
    digest = hashlib.sha256(cases.write(name, tmp_path).read_bytes()).digest()
    assert digest == kept[f"{name}/sha256"].tobytes()


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_llama_cpp(name, kept):
    cfg, params, _ = cases.case(name)
    assert np.abs(ours(cfg, params) - kept[f"{name}/logits"]).max() < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cases.CHANGES))
def test_llama_cpp_still_reads_the_files(name, kept, tmp_path):
    pytest.importorskip("llama_cpp", reason="this machine has no llama-cpp-python")
    from tests.model.gguf import llama_logits

    cfg, _, _ = cases.case(name)
    found = llama_logits.logits(cases.write(name, tmp_path), cases.TOKENS_T, cfg.vocab_size)
    close = 5e-3 if name in cases.GELU else CLOSE  # GELU in half precision: docs/quantisation.md
    assert np.abs(found - kept[f"{name}/logits"]).max() < close


@pytest.mark.slow
def test_permuted_rows_turn_halves_into_neighbours():
    """The permutation of the layout llama: with it, interleaved pairs compute the same function."""
    cfg, params, _ = cases.case("llama_gqa")
    leaves, changed = parameters.flat(params), dict(parameters.flat(params))
    for path in ("blocks/attention/query/kernel", "blocks/attention/key/kernel"):
        rows = [tensors.interleaved(np.asarray(k).T, cfg.head_dim).T for k in leaves[path]]
        changed[path] = np.stack(rows)
    neighbours = dataclasses.replace(cfg, rope_layout="interleaved")
    wanted = ours(cfg, params)
    assert np.abs(ours(neighbours, parameters.nested(changed)) - wanted).max() < 1e-5
    assert np.abs(ours(neighbours, params) - wanted).max() > 0.01  # control: not permuted


def small(d_ff: int = 96) -> tuple[ModelConfig, dict]:
    cfg = ModelConfig(
        vocab_size=97, context_length=32, n_layers=2, d_model=64, n_heads=2, n_kv_heads=2,
        head_dim=32, d_ff=d_ff, norm="rmsnorm", positions="rotary", activation="silu", gated=True,
        attention_bias=False, mlp_bias=False, init="fan_in",
    )  # fmt: skip
    draw = np.random.default_rng(0).standard_normal
    scaled = lambda leaf: draw(leaf.shape, np.float32) / np.float32(8)  # noqa: E731
    return cfg, jax.tree.map(scaled, shapes(cfg))


def rounded(x: jax.Array, kind: str) -> jax.Array:
    """Inputs of a product as llama.cpp rounds them for matrices of a type: to half precision, or to
    eight bits in blocks of 32."""
    if kind == "f16":
        return x.astype(jnp.float16).astype(jnp.float32)
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = jnp.abs(blocks).max(-1, keepdims=True) / 127
    codes = jnp.round(blocks / jnp.where(scale == 0, 1, scale))
    return (codes * scale.astype(jnp.float16).astype(jnp.float32)).reshape(x.shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_quantised_logits_are_those_of_the_same_weights_and_rounded_inputs(kind, tmp_path):
    pytest.importorskip("llama_cpp", reason="this machine has no llama-cpp-python")
    from tests.model.gguf import llama_logits

    cfg, params = small()
    path = tmp_path / f"{kind}.gguf"
    assert not file.write(path, cfg, params, "llama", {"model": "none"}, kind).left
    theirs = llama_logits.logits(path, cases.TOKENS_T, cfg.vocab_size)
    params = cases.decoded(params, kind)

    def with_rounded_inputs(product, args, kwargs, context):
        is_product = isinstance(context.module, Linear) or context.method_name == "score"
        return product(*(rounded(x, kind) for x in args) if is_product else args, **kwargs)

    with nn.intercept_methods(with_rounded_inputs):
        same = ours(cfg, params)
    rms = lambda a, b: float(np.sqrt(np.square(a - b).mean()))  # noqa: E731
    print(f"{kind}: root mean square difference {rms(theirs, same):.2g}")
    assert rms(theirs, same) < CLOSE / 2
    assert rms(theirs, ours(cfg, params)) > 3 * rms(theirs, same)  # control: inputs not rounded


def test_rows_that_no_block_divides_are_halves(tmp_path):
    pytest.importorskip("gguf")
    cfg, params = small(d_ff=88)
    written = file.write(tmp_path / "a.gguf", cfg, params, "llama", {"model": "none"}, "q8_0")
    assert written.left == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    assert written.size == (tmp_path / "a.gguf").stat().st_size


@pytest.mark.parametrize(
    ("changes", "model_type", "message"),
    [
        (dict(window=8), "mistral", "model.window=8: GGUF's layout 'llama' cannot hold it"),
        (dict(activation="gelu"), "llama", "model.activation='gelu'"),
        (dict(attention_bias=True), "phi3", "model.attention_bias=True"),
        (dict(tie_embeddings=False), "gemma", "model.tie_embeddings=False"),
        (dict(query_scale=0.3), "gemma2", "model.query_scale=0.3"),
        (dict(), "cohere", "has no GGUF layout here; use one of llama, mistral"),
    ],
)
def test_layouts_that_gguf_cannot_hold_are_refused(changes, model_type, message):
    cfg, _ = small()
    gemma = dict(activation="gelu_tanh") if model_type.startswith("gemma") else {}
    cfg = dataclasses.replace(cfg, **gemma | changes)
    with pytest.raises(ValueError) as error:
        layouts.check(cfg, model_type)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_vocabulary_of_another_size_and_unknown_types_are_refused(tmp_path):
    cfg, params = small()
    tokens = {"model": "gpt2", "tokens": [str(i) for i in range(90)]}
    with pytest.raises(ValueError, match=r"model\.vocab_size=97 rows .* for 90 tokens"):
        file.write(tmp_path / "a.gguf", cfg, params, "llama", tokens, "f32")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"llama-quantize FILE\.gguf Q4_K"):
        file.check_type("q4_k")
    with pytest.raises(ValueError, match="gguf_type='q9' is unknown; use one of f32, f16"):
        file.check_type("q9")


def test_a_cap_that_a_gemma_lacks_is_refused():
    """Zero would divide by zero in llama.cpp."""
    cfg, _, _ = cases.case("gemma2")
    layouts.check(cfg, "gemma2")
    with pytest.raises(ValueError, match=r"model\.attention_softcap=0"):
        layouts.check(dataclasses.replace(cfg, attention_softcap=0.0), "gemma2")
