"""A float network → INT8: calibration images, methods, and the form that each runtime runs.

This package can be called: `densepath.quantize` is a public function, `quantize/quantize.py`'s.
"""

from densepath.packages import make_callable

make_callable(__name__)
