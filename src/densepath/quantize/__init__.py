"""A float network → its INT8 forms: calibration images, methods, the forms that each runtime runs."""
