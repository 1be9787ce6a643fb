"""The outside world, one thing a file. Foreign errors become domain errors here and nowhere else."""
