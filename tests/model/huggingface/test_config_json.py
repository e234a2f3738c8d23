"""Tests that config.json is read and written correctly and unsupported keys are refused by name."""

import dataclasses

import pytest

from model.huggingface import config_json, weights
from model.huggingface.inert_keys import INERT, REASONS, SWITCHED_OFF
from model.huggingface.name_tables import FAMILIES
from model.transformer import count
from model.transformer.config import CHOICES
from tests.model import golden

HF = golden.FOLDER / "hf"

ROPE = dict(rope_type="default", rope_theta=500.0)
BAD_KEYS = {
    "model_type=.mamba. is not supported; supported are gpt2, llama,": (
        "llama", dict(model_type="mamba"),
    ),
    "model_type='gemma3' is a model of images and text": (
        "gemma3", dict(model_type="gemma3", text_config={}),
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
    "quantization_config=.* unknown for model_type='llama'": (
        "llama", dict(quantization_config=dict(bits=4)),
    ),
    "num_local_experts=8": ("mistral", dict(num_local_experts=8)),
    "attention_bias=True .only False. not supported for model_type='mistral'": (
        "mistral", dict(attention_bias=True),
    ),
    "mlp_bias=True .only False. not supported .*; quantization_config=.*, moe=1 unknown for": (
        "mistral", dict(mlp_bias=True, quantization_config=dict(bits=4), moe=1),
    ),
    "vocab_size='a' has the wrong type.*; config.json lacks hidden_size.*; .*moe=1.* unknown": (
        "llama", dict(hidden_size=None, vocab_size="a", moe=1, layer_types=3),
    ),
    "hidden_act='mish' is unknown.*; rope_type='llama3' lacks factor, high_.*; a=1, b=2 unknown": (
        "llama",
        dict(
            hidden_act="mish", a=1, b=2, attention_dropout=0.1,
            rope_parameters=ROPE | dict(
                rope_type="llama3", low_freq_factor=1, original_max_position_embeddings=64
            ),
        ),
    ),
    "beta_fast=32, beta_slow=1 beside rope_type='default' unknown": (
        "llama", dict(rope_parameters=ROPE | dict(beta_fast=32, beta_slow=1)),
    ),
    "rope_interleaved=True, pruned_heads=.* unknown": (
        "llama", dict(rope_interleaved=True, pruned_heads={"1": [0]}),
    ),
    "mlp_bias=True": ("qwen2", dict(mlp_bias=True)),
    "scale_attn_weights=False": ("gpt2", dict(scale_attn_weights=False)),
    "use_bidirectional_attention=True": ("gemma2", dict(use_bidirectional_attention=True)),
    "use_qk_norm=True": ("cohere", dict(use_qk_norm=True)),
    "layer_types=": ("qwen2", dict(layer_types=["chunked_attention", "full_attention"])),
    "hidden_size='36' has the wrong type; it must be int": ("llama", dict(hidden_size="36")),
    "vocab_size=True has the wrong type": ("llama", dict(vocab_size=True)),
    "rms_norm_eps=.0.5. has the wrong type; it must be float": (
        "llama", dict(rms_norm_eps=[0.5]),
    ),
    "a value has the wrong type": ("llama", dict(rope_parameters=[500.0])),
    "model.n_heads=0 must be": ("gpt2", dict(n_head=0)),
    "lacks hidden_size": ("llama", dict(hidden_size=None)),
    "model.n_kv_heads=4 does not divide": ("llama", dict(num_key_value_heads=4)),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_KEYS)
def test_a_config_that_means_something_else_is_refused(message, tmp_path):
    case, changes = BAD_KEYS[message]
    folder = golden.copy(case, tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        weights.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


# Published parameter counts, and the relevant keys of the config on the hub.
PUBLISHED = {
    124_439_808: dict(
        model_type="gpt2", n_ctx=1024, n_embd=768, n_head=12, n_layer=12, n_positions=1024,
        vocab_size=50257, activation_function="gelu_new", layer_norm_epsilon=1e-5,
        resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, task_specific_params={},
    ),
    1_235_814_400: dict(
        model_type="llama", hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, vocab_size=128256,
        max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
        rope_scaling=dict(
            factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
            original_max_position_embeddings=8192, rope_type="llama3",
        ),
        tie_word_embeddings=True, pretraining_tp=1, torch_dtype="bfloat16", eos_token_id=128001,
    ),
    7_241_732_096: dict(
        model_type="mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, vocab_size=32000, sliding_window=4096,
        max_position_embeddings=32768, rms_norm_eps=1e-5, rope_theta=10000.0,
    ),
    2_614_341_888: dict(
        model_type="gemma2", hidden_size=2304, intermediate_size=9216, num_hidden_layers=26,
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=256000,
        max_position_embeddings=8192, hidden_act="gelu_pytorch_tanh", sliding_window=4096,
        hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=256, rope_theta=10000.0,
        attn_logit_softcapping=50.0, final_logit_softcapping=30.0, cache_implementation="hybrid",
    ),
    999_885_952: dict(
        model_type="gemma3_text", hidden_size=1152, intermediate_size=6912, num_hidden_layers=26,
        num_attention_heads=4, num_key_value_heads=1, head_dim=256, vocab_size=262144,
        max_position_embeddings=32768, query_pre_attn_scalar=256, rope_theta=1000000,
        rope_local_base_freq=10000, rope_scaling=None, sliding_window=512,
        sliding_window_pattern=6, attn_logit_softcapping=None, final_logit_softcapping=None,
    ),
    3_821_079_552: dict(
        model_type="phi3", hidden_size=3072, intermediate_size=8192, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=32, vocab_size=32064, sliding_window=2047,
        max_position_embeddings=4096, original_max_position_embeddings=4096, rope_scaling=None,
        rope_theta=10000.0, attention_bias=False, resid_pdrop=0.0, embd_pdrop=0.0, auto_map={},
    ),
    494_032_768: dict(
        model_type="qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, vocab_size=151936, rope_theta=1000000.0,
        max_position_embeddings=32768, max_window_layers=24, sliding_window=32768,
        use_sliding_window=False, use_mrope=False, tie_word_embeddings=True,
    ),
    596_049_920: dict(
        model_type="qwen3", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, vocab_size=151936,
        max_position_embeddings=40960, max_window_layers=28, rope_theta=1000000,
        rope_scaling=None, sliding_window=None, use_sliding_window=False, attention_bias=False,
        tie_word_embeddings=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("total", PUBLISHED)
def test_a_published_config_gives_its_published_size(total):
    """The config also survives being written and read again."""
    cfg = config_json.read(PUBLISHED[total])
    assert sum(count.parameters(cfg).values()) == total
    model_type = PUBLISHED[total]["model_type"]
    assert config_json.misfit(cfg, model_type) == []
    smaller = dataclasses.replace(cfg, d_ff=cfg.d_ff - 8)
    assert sum(count.parameters(smaller).values()) != total


def test_what_changes_nothing_is_accepted(tmp_path):
    changes = dict(attention_dropout=0.1, _name_or_path="x", unsloth_version=None, auto_map={})
    cfg, _ = weights.load(golden.copy("mistral", tmp_path, **changes))
    assert cfg == weights.load(HF / "mistral")[0]


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2"])
def test_inert_keys_are_accepted_whatever_their_value(case):
    """No family reads any of them, and each has a reason."""
    config, names = golden.config_json(case), [*INERT]
    others = {key: "anything" for key in names if key not in ("model_type", "architectures")}
    assert config_json.read(config | others | SWITCHED_OFF) == config_json.read(config)
    read = {key for table in FAMILIES.values() for key in (*table.keys, *table.fixed)}
    assert not read & INERT.keys() and not SWITCHED_OFF.keys() & INERT.keys()
    assert len(names) == sum(map(len, REASONS.values()))


def test_a_model_that_no_family_computes_is_refused_by_key(tmp_path):
    cfg, params = golden.checkpoint("llama")
    for change, named in (
        (dict(activation="relu", positions="none", rope_theta=10_000.0), "model.positions='none'"),
        (dict(attention_softcap=3.0), "model.attention_softcap=3.0"),
        (dict(rope_layout="interleaved"), "model.rope_layout='interleaved'"),
    ):
        other = dataclasses.replace(cfg, **change)
        with pytest.raises(ValueError, match=named):
            weights.save(tmp_path / "no", other, params)
    assert not (tmp_path / "no").exists()


def test_the_family_that_fits_is_found():
    """Only Phi 3 has partial rotary positions."""
    cfg, _ = golden.checkpoint("llama")
    assert config_json.write(cfg)["model_type"] == "llama"
    assert config_json.misfit(cfg, "llama") == []
    partial = dataclasses.replace(cfg, head_dim=6, rope_fraction=0.7)
    assert config_json.write(partial)["model_type"] == "phi3"
    assert config_json.misfit(partial, "llama") == ["rope_fraction"]


def test_another_family_is_refused_where_it_computes_another_thing(tmp_path):
    cfg, params = golden.checkpoint("llama")
    weights.save(tmp_path / "as-mistral", cfg, params, "mistral")
    assert config_json.read_json(tmp_path / "as-mistral")["model_type"] == "mistral"
    with pytest.raises(ValueError, match="gemma computes something else"):
        weights.save(tmp_path / "no", cfg, params, "gemma")
    with pytest.raises(ValueError, match="model_type='mamba' is not supported"):
        weights.save(tmp_path / "no", cfg, params, "mamba")


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "phi3"])
def test_a_model_that_no_family_expresses_names_few_keys(case):
    cfg, _ = golden.checkpoint(case)
    refused = 0
    for key, choices in CHOICES.items():
        for choice in choices:
            try:
                config_json.write(dataclasses.replace(cfg, **{key: choice}))
            except ValueError as error:
                refused += 1
                assert str(error).count("model.") <= 4, error
    assert refused
