"""A Predictor over a Dataset → Report, in any form of a network; the ladder of several forms."""
