"""Paddle's inference models: a program, the tensors that it names, and `inference.yml`."""
