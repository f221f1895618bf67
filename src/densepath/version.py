"""The version, in a file that imports nothing: `densepath` itself names all that there is."""

__version__ = "0.1.0"
