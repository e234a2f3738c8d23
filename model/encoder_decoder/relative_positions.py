"""T5's relative positions: a learned bias on the scores for each bucket of distances."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def bucket(distance: np.ndarray, both_ways: bool, buckets: int, most: int) -> np.ndarray:
    """The bucket of each distance key - query, in range(buckets). Raffel et al. 2020, section 2.1.

    Half of the buckets hold one distance each, the others ranges that grow logarithmically up to
    `most`; longer distances share the last. With `both_ways` half of all buckets are for keys after
    the query; otherwise those keys, which are masked, share the bucket of distance 0. Computed in
    float32, as in the published models, whose buckets follow its rounding.
    """
    first = 0
    if both_ways:
        buckets //= 2
        first = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    share = np.log(ratio) / np.float32(math.log(most / exact))
    far = exact + (share * np.float32(buckets - exact)).astype(np.int32)
    return first + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


class RelativeBias(nn.Module):
    """A bias for each head and bucket, shared by all layers of a stack."""

    n_heads: int
    buckets: int
    most: int  # the distance from which on all share a bucket
    both_ways: bool  # True: keys after the query have buckets of their own
    std: float  # of the initial values

    @nn.compact
    def __call__(self, query_BT: jax.Array, key_S: jax.Array) -> jax.Array:
        """The bias on the scores [B, H, T, S] of queries and keys at these positions, all below S.

        Distances within a packed document equal those within its row, so T5 needs no positions."""
        init = nn.initializers.normal(self.std)
        table_UH = self.param("embedding", init, (self.buckets, self.n_heads))
        last = key_S.shape[0] - 1
        known = bucket(np.arange(-last, last + 1), self.both_ways, self.buckets, self.most)
        bucket_BTS = jnp.asarray(known)[key_S - query_BT[..., None] + last]
        return jnp.moveaxis(table_UH[bucket_BTS], -1, 1)
