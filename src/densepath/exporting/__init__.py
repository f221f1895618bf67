"""Checkpoint → Bundle: the forms a network is deployed in, and the report that they agree."""
