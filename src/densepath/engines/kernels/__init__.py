"""Our own kernels for CPUs: the C++ sources, what compiles them and what plans a network."""
