"""How many steps of training one jitted call takes."""

from ml_collections import ConfigDict

from data import kinds
from model import families
from model.adapters import adapted
from train import duration, objectives
from train.policy.sizes import updates

CPU_CHUNK_FLOPS = 1.5e10  # about a quarter second of one core
ACCELERATOR_CHUNK_FLOPS = 1.5e13
LARGEST_CHUNK = 64  # steps
LARGEST_CPU_MESH_CHUNK = 16  # steps: more in flight deadlock the collectives of virtual devices


def chunk_steps(resolved: ConfigDict, cpu: bool | None = None, lanes: int = 1) -> int:
    """Steps of one jitted call when `train.chunk` is 0: about a quarter second of work.

    `cpu` says whether it runs on CPUs; None: as the devices of this process. `lanes` trials share a
    device.
    """
    import jax  # the parent of a sweep needs no devices

    cpu = jax.default_backend() == "cpu" if cpu is None else cpu
    if hasattr(objectives.find(resolved.objective.name), "rollout"):
        count = updates(resolved)  # the next batches depend on the parameters after them
        if cpu and jax.device_count() > 1 and count > LARGEST_CPU_MESH_CHUNK:
            raise ValueError(
                f"objective.epochs times objective.minibatches is {count}, and on several virtual "
                f"devices of a CPU a rollout can have {LARGEST_CPU_MESH_CHUNK} updates at most; "
                "use fewer, or one device"
            )
        return count
    family, cfg = adapted.family_of(resolved)
    if families.is_counted(family):
        return 1  # one pass over the text
    tokens = lanes * resolved.train.batch_size * kinds.KINDS[resolved.data.kind].tokens(resolved)
    step = tokens * family.flops(cfg)["palm"]
    wanted = (CPU_CHUNK_FLOPS if cpu else ACCELERATOR_CHUNK_FLOPS) / step
    most = LARGEST_CPU_MESH_CHUNK if cpu and jax.device_count() > 1 else LARGEST_CHUNK
    return max(1, min(most, round(wanted), duration.steps(resolved.train.duration)))
