"""Trains one encoder–decoder here and in eager PyTorch, in turn, and prints target tokens/s.

    python -m tests.bench.encoder_decoder [TORCH_PYTHON]

Each is a process of one thread on one core, the same core. PyTorch's is its nn.Transformer with
norms after each branch and no norm at the ends, without padding masks, with fused AdamW.
Seconds are those of the process's CPU time, which other processes change little. TORCH_PYTHON is a
Python that has PyTorch; this one by default. Takes a minute.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

B, S, T, V, D, H, F, LAYERS = 32, 64, 64, 512, 128, 4, 512, 4
STEPS, ROUNDS, SECONDS = 4, 5, 3.0


def ours() -> tuple[Callable[[], None], int]:
    """(a function that takes STEPS steps, parameters)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from model.encoder_decoder.config import Config
    from tests.bench.ours import HYPER
    from train.objectives import next_token
    from train.step import StepConfig, init_state, train_chunk

    model = Config(
        vocab_size=V, source_length=S, context_length=T, n_layers=LAYERS, decoder_layers=LAYERS,
        d_model=D, n_heads=H, head_dim=D // H, d_ff=F, attention_bias=True,
    )  # fmt: skip
    cfg = StepConfig(model, next_token.Config(), "encoder_decoder", "next_token")
    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    state = jax.jit(init_state, static_argnums=0)(cfg, hyper, jnp.uint32(0))
    source, tokens, targets = np.random.default_rng(0).integers(0, V, (3, STEPS, B, T), np.int32)
    ones = np.ones(tokens.shape, np.int32)
    batch = dict(source=source, source_segments=ones, tokens=tokens, targets=targets)
    batch |= dict(segments=ones, weights=ones.astype(np.float32))

    def advance() -> None:
        nonlocal state
        state, metrics = train_chunk(cfg, state, jax.device_put(batch), jnp.int32(STEPS))
        metrics["loss"].block_until_ready()

    return advance, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def torchs() -> tuple[Callable[[], None], int]:
    """The same in PyTorch."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    keys = dict(d_model=D, nhead=H, dim_feedforward=F, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**keys), LAYERS, enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**keys), LAYERS)
    inner = nn.Transformer(D, H, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
    embed = nn.Embedding(V, D)
    angle = torch.arange(T)[:, None] / 10_000 ** (torch.arange(0, D, 2) / D)
    waves_TD = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    mask_TT = nn.Transformer.generate_square_subsequent_mask(T)
    weights = [*inner.parameters(), *embed.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batches = torch.randint(V, (STEPS, 3, B, T))

    def advance() -> None:
        for source_BS, tokens_BT, targets_BT in batches:
            x_BSD, y_BTD = (embed(ids) * D**0.5 + waves_TD for ids in (source_BS, tokens_BT))
            z_BTD = inner(x_BSD, y_BTD, tgt_mask=mask_TT, tgt_is_causal=True)
            logits_BTV = z_BTD @ embed.weight.T
            loss = nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        loss.item()

    return advance, sum(p.numel() for p in weights)


PEERS = {"ours": ours, "torch": torchs}


def contest(name: str) -> None:
    """Prints the number of parameters, then tokens/s for each line of stdin."""
    advance, parameters = PEERS[name]()
    advance()
    print(json.dumps(parameters), flush=True)
    for _ in sys.stdin:
        calls, begun = 0, time.process_time()
        while (elapsed := time.process_time() - begun) < SECONDS:
            advance()
            calls += 1
        print(json.dumps(calls * STEPS * B * T / elapsed), flush=True)


def main(torch_python: str) -> None:
    from launch.runners import local
    from launch.runners.tasks import Resources
    from tests.bench import referee

    slot = local.slots(referee.CORES, Resources())[0]
    pythons = {"ours": sys.executable, "torch": torch_python}
    peers = {
        name: subprocess.Popen(
            [python, "-m", "tests.bench.encoder_decoder", "--contest", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=referee.REPOSITORY,
            env=referee.environment(slot.environment | {"OMP_NUM_THREADS": "1"}),
            preexec_fn=referee.pin(slot.cores),
        )
        for name, python in pythons.items()
    }  # fmt: skip
    sizes = {name: int(peer.stdout.readline()) for name, peer in peers.items()}
    if len(set(sizes.values())) > 1:
        raise SystemExit(f"the models differ in their parameters: {sizes}")
    found = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            peer.stdin.write("\n")
            peer.stdin.flush()
            found[name].append(float(peer.stdout.readline()))
    for peer in peers.values():
        peer.stdin.close()
        peer.wait()
    ratios = [a / b for a, b in zip(found["ours"], found["torch"], strict=True)]
    print(f"{sizes['ours']:,} parameters; target tokens per CPU second, median of {ROUNDS} rounds:")
    for name, rates in found.items():
        print(f"  {name:5}  {statistics.median(rates):,.0f}")
    print(f"  ratio  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contest"]:
        contest(sys.argv[2])
    else:
        main(sys.argv[1] if sys.argv[1:] else sys.executable)
