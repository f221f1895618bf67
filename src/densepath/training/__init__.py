"""Recipe and images → Checkpoint: the loop, a step, and a run folder that it can go on from."""
