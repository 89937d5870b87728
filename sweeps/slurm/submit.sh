#!/bin/bash
# Run a sweep of this folder as SLURM workers that share its study:
#   sweeps/slurm/submit.sh paper_grid 16 hydra.launcher.partition=gpu hydra.launcher.gpus=1 data.n_stars=20000
# The same again while it runs adds workers; after a crash or a cancelled job it goes on.
set -eu
[ $# -ge 2 ] || { echo "usage: submit.sh SWEEP WORKERS [override ...]" >&2; exit 2; }
sweep=$1 workers=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)  # paths of the command line are those of the folder that it is given in
exec "${PYTHON:-python}" "$root/train.py" -cd "$root/sweeps" -cn "$sweep" hydra/launcher=slurm_workers "hydra.launcher.workers=$workers" "$@"
