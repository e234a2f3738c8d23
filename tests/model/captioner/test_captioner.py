"""Tests the captioner: patches, what tokens see, decoding as in one pass, counts, bad keys."""

import dataclasses

import jax
import numpy as np
import pytest

from model import parameters
from model.captioner import captioner, count, family, reading
from model.generation import sample
from model.generation.samplers import Sampler
from model.transformer import count as of_decoder
from model.transformer.decoder import Decoder
from tests.model.golden import jit
from train.parallel.mesh import MESH_AXES
from train.rules import map_with_rules

CFG = family.derive(
    dataclasses.asdict(
        family.Config(
            vocab_size=11, context_length=5, image=(4, 6, 2), patch=3, patch_height=2,
            encoder_layers=2, encoder_width=12, encoder_heads=2, projector="mlp", n_layers=2,
            d_model=8, n_heads=2, d_ff=16,
        )
    )
)  # fmt: skip
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 4, 6, 2), np.uint8)
TOKENS = RNG.integers(0, 11, (3, 5)).astype(np.int32)


@pytest.fixture(scope="module")
def params():
    """Large random weights, so that a wrong connection is seen."""
    shapes = jax.eval_shape(lambda: family.init(CFG, jax.random.key(0)))
    noisy = {
        path: np.float32(path.endswith("scale") + 0.3 * RNG.normal(size=leaf.shape))
        for path, leaf in parameters.flat(shapes).items()
    }
    return parameters.nested(noisy)


@jit
def hidden(params, images, tokens):
    return family.hidden(CFG, params, {"image": images, "tokens": tokens})


def test_patches_are_the_squares_of_an_image_row_by_row():
    found = captioner.patches(CFG, IMAGES)
    assert found.shape == (3, 4, 12)
    square = IMAGES[1, 2:4, 0:3].reshape(-1) / 127.5 - 1
    np.testing.assert_allclose(found[1, 2], square, atol=1e-6)


def test_tokens_see_the_image_and_earlier_tokens_of_their_row(params):
    before = hidden(params, IMAGES, TOKENS)
    assert before.shape == (3, 5, 8)
    images, tokens = IMAGES.copy(), TOKENS.copy()
    images[0, 3, 5, 1] ^= 255  # the last patch
    change = np.abs(hidden(params, images, tokens) - before).max(-1)
    assert (change[0] > 1e-3).all() and (change[1:] == 0).all()
    tokens[1, 3] = (tokens[1, 3] + 1) % 11
    change = np.abs(hidden(params, IMAGES, tokens) - before).max(-1)
    assert (change[1, :3] == 0).all() and (change[1, 3:] > 1e-3).all()


def test_every_patch_sees_every_patch(params):
    @jit
    def encode(images):
        x_BPI = captioner.patches(CFG, images)
        return captioner.Encoder(CFG).apply({"params": params["encoder"]}, x_BPI)

    images = IMAGES.copy()
    images[0, 3, 5, 1] ^= 255
    change = np.abs(encode(images) - encode(IMAGES)).max(-1)
    assert (change[0] > 1e-3).all() and (change[1:] == 0).all()


def test_a_prefix_of_embeddings_of_tokens_is_those_tokens(params):
    cfg = family.decoder(CFG)
    tree, tokens = {"params": params["decoder"]}, np.concatenate([TOKENS, TOKENS[:, :4]], 1)
    run = jit(lambda *rows, **prefix: Decoder(cfg).apply(tree, *rows, **prefix, method="hidden"))
    prefix_BPD = params["decoder"]["embed"]["embedding"][tokens[:, :4]]
    whole, _ = run(tokens)
    found, _ = run(tokens[:, 4:], prefix_BPD=prefix_BPD)
    np.testing.assert_allclose(found, whole, atol=1e-6)


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("rotary", "alibi", "none")]


@pytest.mark.parametrize("positions", ["learned", *SLOW])
def test_greedy_decoding_is_that_of_whole_passes(params, positions):
    cfg, tree = dataclasses.replace(CFG, positions=positions), dict(params)
    if positions != "learned":
        tree["decoder"] = {k: v for k, v in params["decoder"].items() if k != "position"}

    @jit
    def scores(tokens):
        x_BTD = family.hidden(cfg, tree, {"image": IMAGES, "tokens": tokens})
        return family.logits(cfg, family.head(cfg, tree), x_BTD)

    def drawn(images):
        sampler = Sampler(temperature=0.0, vocab_size=11)
        about = reading.with_images(tree, images), cfg, prompts, 3, sampler
        return sample.sample(*about, reader=family.READER)

    prompts = [[3], [3, 7], [5]]
    tokens, ends = np.zeros((3, 5), np.int32), np.array([len(prompt) for prompt in prompts])
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    for step in range(3):
        found = scores(tokens)[np.arange(3), ends + step - 1].argmax(-1)
        tokens[np.arange(3), ends + step] = found
    first = drawn(IMAGES)
    for row, end in enumerate(ends):
        assert first.tokens_BN[row].tolist() == tokens[row, end : end + 3].tolist()
    assert (drawn(IMAGES[::-1]).logprobs_BN[0] != first.logprobs_BN[0]).all()  # it sees the image


@pytest.mark.parametrize("changes", [{}, {"projector": "linear"}, {"encoder": "frozen"},
                                     {"tie_embeddings": False, "gated": True}])  # fmt: skip
def test_counts_are_those_of_the_arrays(changes):
    cfg = dataclasses.replace(CFG, **changes)
    tree = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    found = family.parameters(cfg)
    for name in ("encoder", "projector"):
        assert sum(leaf.size for leaf in jax.tree.leaves(tree.get(name, {}))) == found[name]
    assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == sum(found.values())
    assert sum(count.encoder_parameters(cfg).values()) > 0
    for rules in (family.PARAMETER_AXES, family.MATRICES):
        map_with_rules(lambda name, leaf, value: value, rules, tree, "rules")
    axes = {axis for _, names in family.PARAMETER_AXES for axis in names}
    assert axes <= {*MESH_AXES, "classes"}


def test_flops_count_patches_and_tokens_by_hand():
    """matmul: 6 per weight and place; P = 4 patches, T = 5 tokens."""
    encoder = 2 * (4 * 12 * 12 + 2 * 12 * 48) + 12 * 12
    decoder = 2 * (4 * 8 * 8 + 2 * 8 * 16)
    projector = 12 * 8 + 8 * 8
    products = 6 * (4 * (encoder + projector) + 9 * decoder + 5 * 8 * 11)
    scores = 12 * (2 * 12 * 4 * 4 + 2 * 8 * 9 * 9)
    assert family.matmul_flops(CFG) == pytest.approx((products + scores) / 5)
    frozen = dataclasses.replace(CFG, encoder="frozen")
    saved = 4 * 4 * encoder + 8 * 2 * 12 * 4 * 4
    assert family.matmul_flops(frozen) == pytest.approx((products + scores - saved) / 5)
    found, same = family.flops(CFG), family.flops(frozen)
    assert all(same[name] < found[name] for name in found)
    # Without an image's parts, a token costs what it costs a decoder.
    assert found["chinchilla"] > of_decoder.chinchilla(family.decoder(CFG))
    assert found["6nd"] > 6 * sum(family.parameters(CFG).values()) * 4 / 5


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"image": ()}, "model.image=.* must be height, width and channels.*data.kind=images or s"),
        (
            {"patch": 4},
            r"model.patch=4 does not divide 6, .*data.width.*frames of sounds.*; use 1, 2, 3",
        ),
        (
            {"patch_height": 3},
            r"model.patch_height=3 does not divide 4, .*\(data.height\) or data.mels",
        ),
        ({"encoder_heads": 5}, "model.encoder_heads=5 does not divide model.encoder_width=12"),
        ({"projector": "none"}, "model.projector='none' is unknown; use one of linear, mlp"),
        ({"encoder": "thawed"}, "use one of learned, frozen"),
    ],
)
def test_bad_keys_are_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        dataclasses.replace(CFG, **changes)
