"""Our own kernels for CPUs: the C++ sources, which `deploy/cpp` uses too, and what compiles them."""
