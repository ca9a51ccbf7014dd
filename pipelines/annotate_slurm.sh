#!/bin/bash
# Annotate a folder on SLURM: this job schedules, and asks for the workers of configs/slurm.yaml.
# When its time limit ends it, it is put back into the queue and resumes.
#
# Run: sbatch pipelines/annotate_slurm.sh FOLDER OUT
#SBATCH --job-name=wsiseg
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
trap 'kill "$run"; wait "$run"; scontrol requeue "$SLURM_JOB_ID"' TERM
wsiseg annotate "$1" -o "$2" --nested --executor configs/slurm.yaml &
run=$!
wait "$run"
