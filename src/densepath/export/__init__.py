"""Checkpoint → Bundle: the forms a network is deployed in, and the report that they agree.

This package can be called: `densepath.export` is a public function, `export/export.py`'s.
"""

from densepath.packages import make_callable

make_callable(__name__)
