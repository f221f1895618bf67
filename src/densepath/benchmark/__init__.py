"""Measurements beside each other: accuracy, agreement, size and latency of many forms."""
