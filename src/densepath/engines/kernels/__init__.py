"""Our own kernels for CPUs: the C++ sources, of `deploy/cpp` too, and what compiles them."""
