"""load → Predictor: reading, the flow, answers and explanations."""
