"""How a training computes its steps: plainly, or rounded as INT8."""
