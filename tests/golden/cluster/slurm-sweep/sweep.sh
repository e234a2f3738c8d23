#!/bin/bash
#SBATCH --job-name=ladder-0a1b2c
#SBATCH --comment=isoflop-cluster=ladder-0a1b2c
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --partition=gpu
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/shared/ladder/machines/ladder-0a1b2c/%x-%j.log
#
# Starts Ray on all nodes, the driver of the sweep on the first.
# Written by isoflop cluster up.
# A job that SLURM preempts comes back only if the partition has PreemptMode=REQUEUE, and has
# time to save only if its GraceTime is 120 s or more: see `scontrol show partition`.
# With PreemptMode=CANCEL, submit it again by hand; trials go on from their checkpoints.
set -u
cd /shared/isoflop || exit 2
export PATH=/shared/isoflop/.venv/bin:$PATH

child=
trap '[ -n "$child" ] && kill -TERM "$child"' TERM
supervise() {
  "$@" &
  child=$!
  until wait "$child"; code=$?; ! kill -0 "$child" 2>/dev/null; do :; done
  wait "$child" 2>/dev/null  # a signal may have interrupted the wait before
  again=$?
  [ "$again" = 127 ] || code=$again
}
finish() {
  echo "ended with $code"
  if [ "$code" = 42 ] || [ "$code" -gt 128 ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS="$address:$port" RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$address" --port="$port" --block &
ray=$!
until ray status >/dev/null 2>&1; do
  kill -0 "$ray" || { echo "Ray's head has ended"; exit 1; }
  sleep 1
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) \
    --exclude="$head" ray start --address="$address:$port" --block &
fi

supervise isoflop sweep --config=configs/isoflop.py --workdir=/shared/ladder --on=ray --address="$address:$port" --wait_for_nodes --platform=gpu
finish
