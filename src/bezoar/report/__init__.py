"""What bezoar shows: figures, one self-contained page per result, tables. Nothing is drawn anywhere else."""
