"""The Open Inference Protocol V2: its tensors, its inference, and gRPC."""
