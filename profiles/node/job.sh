#!/bin/bash
# A study on all GPUs of one node. Type, with the options that your site wants:
#   sbatch --account=my-account --partition=gpu profiles/node/job.sh wild
#SBATCH --job-name=wildmerge
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --gpus-per-node=8
#SBATCH --time=1-00:00:00
# Half an hour before the end Snakemake starts no more jobs; the same command goes on.
#SBATCH --signal=B:TERM@1800
exec snakemake "$@" --profile profiles/node
