"""A graph without names we know → a DenseNet or DPN of ours, found by how it computes."""
