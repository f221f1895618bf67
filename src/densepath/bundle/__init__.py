"""The Bundle: a folder with all that an answer needs, and the manifest that vouches for it."""
