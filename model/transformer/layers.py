"""The layers of a Transformer: Linear, Embed, Norm and the MLP.

Shape suffixes and einsum letters in the project:
B batch, T query time, S key time, D model width, H query heads, K key/value heads, G = H/K,
C head width, X = H*C or K*C (heads side by side), F mlp width, V vocabulary, L layers;
M = B*T, the tokens of a batch, I inputs and O outputs of a Linear.

Parameters are float32; the computation runs in `cfg.dtype`, norms and softmax in float32.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.adapters import lora
from model.partitioning import constrain, mesh_axes, spec, summed, ways
from model.transformer import parametrization
from model.transformer.config import ModelConfig
from model.transformer.hooks import hooked

ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),  # So et al. 2021
}

HEADS = ("query", "key", "value", "out")  # the Linears whose wide side is heads, not the MLP
# Bytes of an MLP kernel. Above this size the TPU compiler fuses what follows the input gradient
# into the product so badly that a separate pass is cheaper: docs/scaling-up.md.
LARGE = 64 << 20


def kernel_std(cfg: ModelConfig, fan_in: int, residual: bool, logits: bool) -> float:
    """Standard deviation of a kernel's initial values.

    gpt2: `init_std`, and init_std / sqrt(2L) where a branch writes to the residual stream (Radford
    et al. 2019, section 2.3). normal: `init_std` everywhere. fan_in: 1 / sqrt(fan_in). These hold
    at the base shape; `cfg.parametrization` scales them with width and depth.
    """
    base_fan_in = fan_in / parametrization.width_ratio(cfg)
    base_layers = cfg.n_layers / parametrization.depth_ratio(cfg)
    factor = 1 if logits else parametrization.kernels(cfg)
    if cfg.init == "fan_in":
        return factor / math.sqrt(base_fan_in)
    if cfg.init == "gpt2" and residual:
        return factor * cfg.init_std / math.sqrt(2 * base_layers)
    return factor * cfg.init_std


@jax.custom_vjp
def layout_kept(kernel: jax.Array) -> jax.Array:
    """Returns the same array, and keeps the layout of its gradient. Otherwise XLA transposes it."""
    return kernel


layout_kept.defvjp(lambda kernel: (kernel, None), lambda _, g: (jax.lax.optimization_barrier(g),))


def merged(x_BTI: jax.Array) -> jax.Array:
    """The 2-D view [M, I] that products contract; x itself if T is sharded, because M cannot be.

    XLA:CPU materialises transposed copies in the weight gradient of a 3-D contraction; the view
    avoids them and is free on other platforms.
    """
    return x_BTI if ways("seq") > 1 else x_BTI.reshape(-1, x_BTI.shape[-1])


def product(x_MI: jax.Array, kernel_IO: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """x W [M, O] as `dtype`. W's gradient has its longer side last: up to 2× faster on CPU."""
    if kernel_IO.shape[0] > kernel_IO.shape[1]:
        kernel_OI = layout_kept(kernel_IO.T)
        return jnp.einsum("...i,oi->...o", x_MI, kernel_OI, preferred_element_type=dtype)
    return jnp.matmul(x_MI, layout_kept(kernel_IO), preferred_element_type=dtype)


def spreads(x: jax.Array, kernel_IO: jax.Array, along: int) -> bool:
    """Whether the mesh shards the kernel, and divides every array of the product evenly."""
    rows = x.ndim == 3 and x.shape[0] % ways("batch") == 0 and x.shape[1] % ways("seq") == 0
    return ways("embed") > 1 and rows and kernel_IO.shape[along] % ways("embed") == 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def spread_product(
    x_BTI: jax.Array, kernel_IO: jax.Array, dtype: jnp.dtype, wide: str, along: int
) -> jax.Array:
    """`product` with a kernel whose dimension `along` is sharded by the logical axis "embed" and
    whose other dimension is sharded by `wide`.

    The kernel is gathered along "embed" for the forward pass and again for the backward pass. Its
    gradient is reduced to the shard that each device holds.
    """
    return _spread_forward(x_BTI, kernel_IO, dtype, wide, along)[0]


def _spread_forward(x_BTI, kernel_IO, dtype, wide, along):
    x_MI, whole_IO = merged(x_BTI), _gathered(kernel_IO, wide, along)
    y_MO = jnp.matmul(x_MI, whole_IO, preferred_element_type=dtype)
    return y_MO.reshape(*x_BTI.shape[:-1], -1), (x_BTI, kernel_IO)


def _gathered(kernel_IO: jax.Array, wide: str, along: int) -> jax.Array:
    return constrain(kernel_IO, None, wide) if along == 0 else constrain(kernel_IO, wide, None)


def _spread_backward(dtype, wide, along, saved, g_BTO):
    x_BTI, kernel_IO = saved
    whole_IO = _gathered(kernel_IO, wide, along)
    if wide == "mlp":
        # Both products below read g. Without the barrier XLA recomputes it for every tile of each.
        g_BTO = jax.lax.optimization_barrier(g_BTO)
    dx_BTI = jnp.einsum("bto,io->bti", g_BTO, whole_IO, preferred_element_type=x_BTI.dtype)
    if wide == "mlp" and whole_IO.nbytes > LARGE:
        dx_BTI = jax.lax.optimization_barrier(dx_BTI)
    if wide == "vocab":
        # The input gradient comes first: it frees the gathered kernel before the kernel's gradient,
        # of the same size, is allocated.
        x_BTI, dx_BTI = jax.lax.optimization_barrier((x_BTI, dx_BTI))
    return dx_BTI, _kernel_gradient(x_BTI, g_BTO, whole_IO.dtype, wide, along)


def _kernel_gradient(x_BTI, g_BTO, dtype, wide, along) -> jax.Array:
    """x^T g [I, O], summed over the tokens of all devices. Each device keeps its shard."""
    sides = ("embed", wide) if along == 0 else (wide, "embed")
    of_kernel, over = spec(*sides), mesh_axes("batch") + mesh_axes("seq")

    def part(x_BTI, g_BTO):
        dw_IO = jnp.einsum("bti,bto->io", x_BTI, g_BTO, preferred_element_type=dtype)
        return summed(dw_IO, of_kernel, over)

    of_x, of_g = (spec("batch", "seq", None if side == "embed" else wide) for side in sides)
    sum_parts = jax.shard_map(part, in_specs=(of_x, of_g), out_specs=of_kernel, check_vma=False)
    return sum_parts(x_BTI, g_BTO)


spread_product.defvjp(_spread_forward, _spread_backward)


def multiplied(
    x: jax.Array, kernel_IO: jax.Array, dtype: jnp.dtype, wide: str, along: int
) -> jax.Array:
    """x W [..., O] as `dtype`, by `spread_product` if the current mesh shards W evenly."""
    if spreads(x, kernel_IO, along):
        return spread_product(x, kernel_IO, dtype, wide, along)
    return product(merged(x), kernel_IO, dtype).reshape(*x.shape[:-1], kernel_IO.shape[1])


def adapted(
    x: jax.Array, kernel: Any, change: dict, dtype: jnp.dtype, wide: str, along: int
) -> jax.Array:
    """x times a frozen kernel and its adapter [..., O] as `dtype`. The kernel is an array [I, O] or
    quantised; `change` has the parameters of `model/adapters/lora.py`, or none."""

    sides = (None, wide) if along == 0 else (wide, None)

    def of_dense(x, kernel):
        if hasattr(kernel, "dense"):  # devices send each other codes, not what they stand for
            kernel_IO = kernel.gathered(*sides).dense(x.dtype)
        else:
            kernel_IO = kernel.astype(x.dtype)
        y = multiplied(x, kernel_IO, dtype, wide, along)
        whole = jax.lax.stop_gradient(change) if lora.MAGNITUDE in change else None
        return y, lora.column_norms(kernel_IO, whole) if whole else None

    # The backward pass dequantises again: otherwise every matrix would be kept in full until then.
    y, norm_O = (jax.checkpoint(of_dense) if hasattr(kernel, "dense") else of_dense)(x, kernel)
    if not change:
        return y
    whole_on_fsdp = {
        lora.A: constrain(change[lora.A], sides[0], None),
        lora.B: constrain(change[lora.B], None, sides[1]),
    }
    y += lora.added(merged(x), change | whole_on_fsdp, dtype).reshape(y.shape)
    return y * lora.rescaling(change, norm_O).astype(dtype) if norm_O is not None else y


class Linear(nn.Module):
    """y = x W + b over the last axis.

    `residual` marks outputs added to the residual stream, `logits` those that stay float32. `gain`
    multiplies the standard deviation of the initial values. The output carries the module's name as
    a checkpoint name: see `model/transformer/remat.py`. A kernel may be quantised, and may have the
    parameters of an adapter beside it: see `model/adapters/`.
    """

    cfg: ModelConfig
    features: int
    bias: bool = False
    residual: bool = False
    logits: bool = False
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fan_in, dtype = x.shape[-1], jnp.dtype(self.cfg.dtype)
        std = self.gain * kernel_std(self.cfg, fan_in, self.residual, self.logits)
        init = nn.initializers.normal(std)
        given = self.variables.get("params", {})
        kernel = given.get("kernel")
        if not hasattr(kernel, "dense"):
            kernel = self.param("kernel", init, (fan_in, self.features))
        change = {name: given[name] for name in lora.LEAVES if name in given}
        out = jnp.dtype(jnp.float32) if self.logits else dtype
        wide = "vocab" if self.logits else "heads" if self.name in HEADS else "mlp"
        along = 1 if self.residual else 0
        if change or hasattr(kernel, "dense"):
            y = adapted(x.astype(dtype), kernel, change, out, wide, along)
        else:
            y = multiplied(x.astype(dtype), kernel.astype(dtype), out, wide, along)
        if self.bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(out)
        return checkpoint_name(y, self.name or "linear")


@jax.custom_vjp
def rows(table_ID: jax.Array, index: jax.Array) -> jax.Array:
    """The table's rows at `index`. A row's gradient is summed in float32 for every dtype.

    If the tokens of a sequence are sharded, every device gathers the table. Without this, XLA would
    gather the embedded tokens of all devices on every device.
    """
    return _rows_forward(table_ID, index)[0]


def _rows_forward(table_ID, index):
    whole_ID = constrain(table_ID, "vocab", None) if ways("seq") > 1 else table_ID
    return whole_ID[index], (table_ID, index)


def _rows_backward(saved, g):
    table_ID, index = saved

    def sums(index, g):
        sums_ID = jnp.zeros(table_ID.shape, jnp.float32).at[index].add(g.astype(jnp.float32))
        return sums_ID.astype(table_ID.dtype)

    over = mesh_axes("batch") + mesh_axes("seq")
    even = index.shape[0] % ways("batch") == 0 and index.shape[-1] % ways("seq") == 0
    if ways("seq") == 1 or not even or table_ID.shape[1] % ways("embed"):
        return sums(index, g), None
    of_table, of_row = spec(None, "embed"), spec("batch", "seq")
    sum_parts = jax.shard_map(
        lambda index, g: summed(sums(index, g), of_table, over),
        in_specs=(of_row, of_row),
        out_specs=of_table,
        axis_names=set(over),
        check_vma=False,
    )
    return sum_parts(index, g), None


rows.defvjp(_rows_forward, _rows_backward)


class Embed(nn.Module):
    """A table [rows, D]: looked up by index, or multiplied with x as the logits of a tied head."""

    cfg: ModelConfig
    rows: int
    std: float  # of the initial values

    def setup(self):
        init = nn.initializers.normal(self.std)
        self.embedding = self.param("embedding", init, (self.rows, self.cfg.d_model))

    def __call__(self, index: jax.Array) -> jax.Array:
        return rows(self.embedding, index).astype(self.cfg.dtype)

    def score(self, x_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, rows], float32."""
        kernel_DV = self.embedding.astype(self.cfg.dtype).T
        return multiplied(x_BTD, kernel_DV, jnp.dtype(jnp.float32), "vocab", 0)


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last axis, in float32.

    With `norm_offset` the scale is 1 + the parameter, as in Gemma.
    """

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg, width, dtype = self.cfg, x.shape[-1], x.dtype
        x = x.astype(jnp.float32)
        if cfg.norm == "layernorm":
            x -= x.mean(-1, keepdims=True)
        x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + cfg.norm_eps)
        if cfg.norm_offset:
            x *= 1 + self.param("scale", nn.initializers.zeros, (width,)).astype(jnp.float32)
        else:
            x *= self.param("scale", nn.initializers.ones, (width,)).astype(jnp.float32)
        if cfg.norm == "layernorm" and cfg.norm_bias:
            x += self.param("bias", nn.initializers.zeros, (width,))
        return x.astype(dtype)


class MLP(nn.Module):
    """act(x W_up) W_down, or (act(x W_gate) * x W_up) W_down when gated (Shazeer 2020)."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        cfg, bias = self.cfg, self.cfg.mlp_bias
        act = ACTIVATIONS[cfg.activation]
        h_BTF = Linear(cfg, cfg.d_ff, bias, name="up")(x_BTD)
        if cfg.gated:
            h_BTF = act(Linear(cfg, cfg.d_ff, bias, name="gate")(x_BTD)) * h_BTF
        else:
            h_BTF = act(h_BTF)
        h_BTF = hooked(self, "neurons", constrain(h_BTF, "batch", "seq", "mlp"))
        return Linear(cfg, cfg.d_model, bias, residual=True, name="down")(h_BTF)
