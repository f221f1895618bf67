"""ONNX files of any exporter: tensors, operators, and the graph that they make."""
