// The version of these headers, for `#if`. CMakeLists.txt reads it here.
#pragma once

#define DENSEPATH_VERSION_MAJOR 0
#define DENSEPATH_VERSION_MINOR 1
#define DENSEPATH_VERSION_PATCH 0

/// "0.1.0", as the Python package of the same release says it.
#define DENSEPATH_VERSION "0.1.0"

/// One number to compare: `#if DENSEPATH_VERSION_NUMBER >= 100` asks for 0.1.0 or later.
#define DENSEPATH_VERSION_NUMBER \
  (DENSEPATH_VERSION_MAJOR * 10000 + DENSEPATH_VERSION_MINOR * 100 + DENSEPATH_VERSION_PATCH)
