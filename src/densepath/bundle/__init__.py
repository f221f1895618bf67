"""The Bundle: a folder with everything that an answer needs, and the manifest that vouches for it."""
