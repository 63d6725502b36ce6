"""Other machines: Ray and Slurm."""
