"""The C++ kernels of dense blocks and dual paths, and how they are compiled on this machine."""
