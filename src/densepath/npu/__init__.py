"""INT8 program → compiled for an NPU → simulated → profiled."""
