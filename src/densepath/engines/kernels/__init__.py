"""Our own kernels for the two families on CPUs: C++ sources, what compiles them, what plans them."""
