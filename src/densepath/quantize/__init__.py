"""A float network → INT8: calibration images, methods, and the form that each runtime runs."""
