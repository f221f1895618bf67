"""The operating points that torchxrayvision has for each file that it publishes.

The files are whole models without them; the library keeps them in its code, NaN (here None) for a
finding that the network was not trained on.

Source: torchxrayvision 1.5.7 `models.py` (`model_urls`), Apache-2.0.
"""

from __future__ import annotations

Points = tuple[float | None, ...]
_ENDING = "-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
_N: None = None  # was not trained on
# fmt: off
# The beginning of a file's name → its operating points, in the order of `xray.FINDINGS`.
_POINTS: dict[str, Points] = {
    "nih-pc-chex-mimic_ch-google-openi-kaggle": (
        0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358, 0.010060724,
        0.103246614, 0.056810737, 0.026791653, 0.050318155, 0.023985857, 0.01939503, 0.042889766,
        0.053369623, 0.035975814, 0.20204692, 0.05015312,
    ),
    "nih": (
        0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932,
        0.012037827, 0.038744126, 0.0037213727, 0.014730946, 0.016149804, 0.054241467,
        0.037198864, 0.0004403434, _N, _N, _N, _N,
    ),
    "pc": (
        0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257, 0.0023071,
        0.055412333, 0.044385884, 0.042766232, 0.043258056, 0.037629247, 0.005658899,
        0.0091741895, _N, 0.026507627, _N, _N,
    ),
    "chex": (
        0.1988969, 0.05710573, _N, 0.0531293, 0.1435217, _N, _N, 0.27212676, 0.07749717, _N,
        0.19712369, _N, _N, _N, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
    ),
    "kaggle": (
        _N, _N, _N, _N, _N, _N, _N, _N, 0.13486601, _N, _N, _N, _N, _N, _N, _N, 0.13511065, _N,
    ),
    "mimic_nb": (
        0.08558747, 0.011884617, _N, 0.0040595434, 0.010733786, _N, _N, 0.118761964, 0.022924708,
        _N, 0.06358637, _N, _N, _N, 0.022143636, 0.017476924, 0.1258702, 0.014020768,
    ),
    "mimic_ch": (
        0.09121389, 0.010573786, _N, 0.005023008, 0.003698257, _N, _N, 0.08001232, 0.037242252, _N,
        0.05006329, _N, _N, _N, 0.019866971, 0.03823637, 0.11303808, 0.0069147074,
    ),
}
# fmt: on


def points_of(file_name: str) -> Points | None:
    """The operating points of a published file, by its name; None of any other."""
    if not file_name.endswith(_ENDING):
        return None
    return _POINTS.get(file_name.removesuffix(_ENDING))
