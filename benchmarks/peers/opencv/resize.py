"""OpenCV's INTER_LINEAR on small images, kept as the reference of our `cv2_bilinear`.

    python3 -m venv .venv && .venv/bin/pip install opencv-python-headless==4.12.0.88
    .venv/bin/python resize.py > ../../../tests/images/opencv_resize.json

Run with OpenCV 4.12.0 and 5.0.0, which agree; PaddleClas asks for 4.6.0.66, which needs an older
NumPy. Pixel (y, x, channel) of an input is (31·y + 17·x² + 101·c + 7·x·y) mod 256.
"""

import json

import cv2
import numpy as np

# (old height, old width) → (new height, new width)
CASES = [
    ((7, 5), (4, 3)),
    ((5, 7), (11, 9)),
    ((13, 17), (8, 16)),
    ((1, 1), (3, 2)),
    ((1, 9), (4, 4)),
    ((32, 32), (16, 16)),
    ((30, 40), (10, 13)),
    ((9, 100), (8, 30)),
    ((6, 6), (6, 12)),
]


def picture(height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] by the formula above."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((31 * y + 17 * x**2 + 101 * c + 7 * x * y) % 256).astype(np.uint8)


rows = []
for old, new in CASES:
    resized = cv2.resize(picture(*old), new[::-1], interpolation=cv2.INTER_LINEAR)
    rows.append({"old": old, "new": new, "pixels": resized.ravel().tolist()})
print(json.dumps({"opencv": cv2.__version__, "cases": rows}, separators=(",", ":")))
