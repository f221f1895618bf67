"""From image files to batches: one file a source, the loader, the augmentations."""
