// How many CPU cores this process may use.
#pragma once

#include <cstddef>

namespace densepath {

// The cores that the machine, the process's affinity and a container's quota leave; at least 1.
size_t usable_cores();

}  // namespace densepath
