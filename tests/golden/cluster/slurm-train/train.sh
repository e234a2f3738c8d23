#!/bin/bash
#SBATCH --job-name=ladder-0a1b2c
#SBATCH --comment=isoflop-cluster=ladder-0a1b2c
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --qos=normal
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/shared/ladder/machines/ladder-0a1b2c/%x-%j.log
#
# One run on all nodes.
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

supervise srun --kill-on-bad-exit=0 isoflop train --config=configs/isoflop.py --workdir=/shared/ladder
finish
