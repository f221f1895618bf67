"""Dense blocks, transitions and dual-path stages as one autograd operation each."""
