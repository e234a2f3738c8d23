"""A model family whose parameters are frozen and changed by trained adapters.

An `Adapted` family stands for the family that it wraps. Its trained parameters are those of the
adapters and of the heads, in a tree of their own; `whole` joins them with the frozen base, and the
functions of the family take the result.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model import families, parameters
from model.adapters import int8, lora, nf4

QUANTISED = {"int8": int8, "nf4": nf4}
KERNEL = "kernel"


@dataclass(frozen=True)
class Adapter:
    """The `adapter` section of a config; `configs/base.py` documents it. Raises ValueError that
    names the key, its value and the valid values."""

    name: str = ""
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = ""
    rslora: bool = False
    dora: bool = False
    base_dtype: str = ""

    def __post_init__(self):
        if self.name not in ("", "lora"):
            raise ValueError(f"adapter.name={self.name!r} is unknown; use lora, or '' for none")
        if self.base_dtype not in ("", *QUANTISED):
            raise ValueError(
                f"adapter.base_dtype={self.base_dtype!r} is unknown; use "
                f"{', '.join(QUANTISED)}, or '' for that of model.dtype"
            )
        if not self.name and (key := self._changed()):
            raise ValueError(
                f"adapter.{key}={getattr(self, key)!r}, but adapter.name='' trains no adapter; use "
                f"adapter.name=lora, or leave adapter.{key} at its default"
            )
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(f"adapter.targets={self.targets!r} is no regex: {error}") from None

    def _changed(self) -> str:
        """The first key that is not at its default."""
        fields = dataclasses.fields(self)
        return next((f.name for f in fields if getattr(self, f.name) != f.default), "")

    @property
    def scale(self) -> float:
        """What A B is multiplied by; rsLoRA: Kalajdzievski 2023, eq. 5."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def family_of(config: Mapping) -> tuple[families.Family, Any]:
    """(family, its Config) of a resolved config; an Adapted family if it has an adapter."""
    family, cfg = families.read(config["model"])
    adapter = adapter_of(config)
    return (Adapted(family, adapter), cfg) if adapter else (family, cfg)


def adapter_of(config: Mapping) -> Adapter | None:
    """The adapter of a config; None if it has none, as in older runs."""
    section = dict(config.get("adapter") or {})
    if unknown := sorted(set(section) - {field.name for field in dataclasses.fields(Adapter)}):
        raise ValueError(f"adapter.{unknown[0]} is unknown to this version of isoflop; drop it")
    adapter = Adapter(**section)
    return adapter if adapter.name else None


def require_base(config: Mapping) -> None:
    """ValueError for adapters without weights that they change."""
    name = config["adapter"]["name"]
    if name and not config["train"]["init_from"]:
        raise ValueError(
            f"adapter.name={name!r} changes the weights of train.init_from, which is empty; name a "
            "run or a folder of Hugging Face weights"
        )


def check(family: families.Family, cfg: Any) -> None:
    """ValueError, naming the key, if an Adapted family does not fit the model."""
    if isinstance(family, Adapted):
        family.check(cfg)


def counts(family: families.Family, cfg: Any) -> dict[str, int]:
    """The number of parameters that training changes, if it is not all of them."""
    if not isinstance(family, Adapted):
        return {}
    return {"params_trained": family.trained_parameters(cfg)}


@dataclass(frozen=True)
class Adapted:
    """A family with an adapter. Members that are not here are those of the family."""

    family: Any
    adapter: Adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    @property
    def PARAMETER_AXES(self) -> tuple:
        """The rules of the family, and of the arrays beside or instead of each kernel."""
        found = []
        for pattern, axes in self.family.PARAMETER_AXES:
            if not pattern.endswith(f"{KERNEL}$"):
                continue
            stem, (*lead, fan_in, outputs) = pattern.removesuffix(f"{KERNEL}$"), axes
            found.append((f"{stem}{lora.A}$", (*lead, fan_in, "rank")))
            found.append((f"{stem}{lora.B}$", (*lead, "rank", outputs)))
            found.append((f"{stem}{lora.MAGNITUDE}$", (*lead, outputs)))
            if self.adapter.base_dtype:
                of = QUANTISED[self.adapter.base_dtype].axes(tuple(lead), fan_in, outputs)
                found += [(f"{stem}{KERNEL}/{name}$", axes) for name, axes in of.items()]
        return (*found, *self.family.PARAMETER_AXES)

    @property
    def MATRICES(self) -> tuple:
        """The rules of the family; A and B are matrices like their kernel."""
        return (
            (rf"{lora.MAGNITUDE}$", None),
            (rf"({lora.A}|{lora.B})$", (1, 2)),
            *self.family.MATRICES,
        )

    def update_scales(self, cfg: Any, optimizer: str) -> tuple:
        """No scaling for adapters, whose rank does not grow with the model."""
        rules = getattr(self.family, "update_scales", lambda cfg, optimizer: ((r"", (1, 1, 1)),))
        return (r"/lora_\w+$", (1, 1, 1)), *rules(cfg, optimizer)

    def parameters(self, cfg: Any) -> dict[str, int]:
        """The base's parameters by component, and those of the adapters."""
        return self.family.parameters(cfg) | {"adapter": self._added(cfg)}

    def trained_parameters(self, cfg: Any) -> int:
        """The parameters that training changes: adapters and heads."""
        shapes = parameters.flat(_shapes(self.family, cfg))
        heads = (leaf.size for path, leaf in shapes.items() if self.is_head(path))
        return self._added(cfg) + sum(heads)

    def _added(self, cfg: Any) -> int:
        shapes = self.targets(cfg).values()
        sizes = ((i + o) * self.adapter.rank + o * self.adapter.dora for *_, i, o in shapes)
        return sum(math.prod(s[:-2]) * n for s, n in zip(shapes, sizes, strict=True))

    def flops(self, cfg: Any) -> dict[str, float]:
        """FLOPs per token by convention. Frozen weights have no gradient, which saves one of their
        three products; adapters have all three."""
        of_weights, of_adapter = self.family.weight_flops(cfg), 6 * self._added(cfg)
        whole = self.family.flops(cfg)
        return {name: n - of_weights[name] + of_adapter for name, n in whole.items()}

    def matmul_flops(self, cfg: Any) -> float:
        """FLOPs of the matrix products per trained token, counted like `flops`."""
        saved = self.family.weight_flops(cfg)["matmul"]
        return self.family.matmul_flops(cfg) - saved + 6 * self._added(cfg)

    def is_head(self, path: str) -> bool:
        """Whether a parameter belongs to a head, which is trained in full."""
        return any(re.search(head, path) for head in getattr(self.family, "HEADS", ()))

    def targets(self, cfg: Any) -> dict[str, tuple[int, ...]]:
        """The paths of the kernels with an adapter, and their shapes [..., I, O]."""
        linears = _linears(self.family, cfg)
        return {k: shape for k, shape in linears.items() if re.search(self.adapter.targets, k)}

    def check(self, cfg: Any) -> None:
        """ValueError, naming the key, if the adapter does not fit the model."""
        linears, adapter = _linears(self.family, cfg), self.adapter
        if not self.targets(cfg):
            raise ValueError(
                f"adapter.targets={adapter.targets!r} matches no kernel; use a regex that occurs "
                f"in {', '.join(linears)}"
            )
        for path, (*_, fan_in, outputs) in self.targets(cfg).items():
            if adapter.rank > min(fan_in, outputs):
                raise ValueError(
                    f"adapter.rank={adapter.rank} is above the dimensions {fan_in} × {outputs} of "
                    f"{path}; use {min(fan_in, outputs)} or less"
                )
        for path, (*_, fan_in, _) in linears.items():
            if adapter.base_dtype == "nf4" and fan_in % nf4.BLOCK:
                raise ValueError(
                    f"adapter.base_dtype='nf4' quantises blocks of {nf4.BLOCK} inputs, which do "
                    f"not divide the {fan_in} of {path}; use int8, or ''"
                )

    def split(self, cfg: Any, params: dict, seed: int) -> tuple[dict, dict]:
        """(the fresh trained parameters, the frozen base), on the host, of a whole model."""
        leaves, linears = parameters.flat(params), _linears(self.family, cfg)
        base = {k: self._frozen(cfg, k, leaf, linears) for k, leaf in leaves.items()}
        heads = {k: np.asarray(leaf, np.float32) for k, leaf in leaves.items() if self.is_head(k)}
        base = {k: leaf for k, leaf in base.items() if k not in heads}
        trained, key = dict(heads), jax.random.key(seed)
        for number, (path, (*lead, i, o)) in enumerate(sorted(self.targets(cfg).items())):
            stem, bound = path.removesuffix(KERNEL), 1 / math.sqrt(i)
            draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
            a = draw(jax.random.fold_in(key, number), (*lead, i, self.adapter.rank))
            trained[stem + lora.A] = np.asarray(a)
            trained[stem + lora.B] = np.zeros((*lead, self.adapter.rank, o), np.float32)
            if self.adapter.dora:
                kernel = base[path]
                kernel = kernel.dense(jnp.float32) if hasattr(kernel, "dense") else kernel
                norms = np.sqrt(np.square(np.asarray(kernel, np.float32)).sum(-2))
                trained[stem + lora.MAGNITUDE] = norms
        return parameters.nested(trained), parameters.nested(base)

    def _frozen(self, cfg: Any, path: str, leaf: Any, linears: Mapping) -> Any:
        """A parameter as the frozen base stores it: kernels and embeddings in the dtype that the
        computation would round them to, or quantised."""
        leaf = np.asarray(leaf)
        if path in linears and self.adapter.base_dtype:
            return QUANTISED[self.adapter.base_dtype].quantised(leaf)
        rounded = re.search(r"(kernel|embedding)$", path)
        return leaf.astype(getattr(cfg, "dtype", "float32")) if rounded else leaf

    def split_shapes(self, cfg: Any) -> tuple[dict, dict]:
        """What `split` gives, without arrays."""
        linears, trained, base = _linears(self.family, cfg), {}, {}
        for path, leaf in parameters.flat(_shapes(self.family, cfg)).items():
            dtype = getattr(cfg, "dtype", "float32")
            if self.is_head(path):
                trained[path] = leaf
            elif path in linears and self.adapter.base_dtype:
                base[path] = QUANTISED[self.adapter.base_dtype].shapes(leaf.shape)
            else:
                rounded = re.search(r"(kernel|embedding)$", path)
                base[path] = jax.ShapeDtypeStruct(leaf.shape, dtype if rounded else leaf.dtype)
        make = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
        for path, (*lead, i, o) in self.targets(cfg).items():
            stem, rank = path.removesuffix(KERNEL), self.adapter.rank
            trained[stem + lora.A], trained[stem + lora.B] = (
                make(*lead, i, rank),
                make(*lead, rank, o),
            )
            if self.adapter.dora:
                trained[stem + lora.MAGNITUDE] = make(*lead, o)
        return parameters.nested(trained), parameters.nested(base)

    def scaled(self, trained: dict) -> dict:
        """The trained parameters with B times alpha / r, as a Linear reads them."""

        def scale(path, leaf):
            return leaf * self.adapter.scale if path[-1].key == lora.B else leaf

        return jax.tree_util.tree_map_with_path(scale, trained)

    def whole(self, base: dict, trained: dict, key: jax.Array | None = None) -> dict:
        """The parameters that the family's functions take, from the base and what `scaled` gave.
        With a `key`, the adapters have dropout."""
        if key is not None and self.adapter.dropout:
            trained = _with_dropout(trained, key, self.adapter.dropout)
        return _joined(base, trained)

    def merged(self, params: dict, trained: dict) -> dict:
        """A whole model with its adapters merged into its kernels, on the host, float32 where they
        are. `params` is the model that the base is made of: a quantised base is dequantised."""
        linears, leaves = _linears(self.family, None, params), parameters.flat(params)
        changes, merged = parameters.flat(self.scaled(trained)), dict(leaves)
        for path in linears:
            kernel = leaves[path]
            if self.adapter.base_dtype:
                kernel = QUANTISED[self.adapter.base_dtype].quantised(np.asarray(kernel))
                kernel = np.asarray(kernel.dense(jnp.float32))
            stem = path.removesuffix(KERNEL)
            change = {name: changes[stem + name] for name in lora.LEAVES if stem + name in changes}
            merged[path] = lora.merged(kernel, change) if change else kernel
        heads = {path: leaf for path, leaf in changes.items() if self.is_head(path)}
        return parameters.nested(merged | heads)


def _with_dropout(trained: dict, key: jax.Array, rate: float) -> dict:
    """The parameters with a key and a rate for each layer of each adapter."""
    leaves = parameters.flat(trained)
    for number, path in enumerate(sorted(p for p in leaves if p.endswith(f"/{lora.A}"))):
        lead = leaves[path].shape[:-2]
        keys = jax.random.split(jax.random.fold_in(key, number), lead)
        leaves[path.removesuffix(lora.A) + lora.DROPOUT] = keys, jnp.full(lead, rate)
    return parameters.nested(leaves)


def _joined(a: Any, b: Any) -> Any:
    """The union of two trees without a path in common."""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        raise ValueError("two trees of parameters have a path in common")
    return {**a, **{k: _joined(a[k], v) if k in a else v for k, v in b.items()}}


@functools.lru_cache(maxsize=64)
def _shapes(family: families.Trained, cfg: Any) -> dict:
    return jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))


def _linears(family: families.Trained, cfg: Any, params: dict | None = None) -> dict:
    """The paths and shapes of the kernels that an adapter can change and a base can quantise.
    ValueError for a family that states none."""
    if not hasattr(family, "LINEARS"):
        fitting = [name for name, f in families.FAMILIES.items() if hasattr(f, "LINEARS")]
        raise ValueError(
            f"adapter.name='lora' cannot change a model.family={families.name_of(family)!r}; use "
            f"{', '.join(fitting)}, or adapter.name=''"
        )
    leaves = parameters.flat(_shapes(family, cfg) if params is None else params)
    return {path: leaf.shape for path, leaf in leaves.items() if re.search(family.LINEARS, path)}
