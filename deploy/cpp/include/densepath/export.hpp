// What a shared library shows of itself. Included by the other headers.
#pragma once

#if defined(_WIN32)
#if defined(DENSEPATH_BUILDS_SHARED)
#define DENSEPATH_API __declspec(dllexport)
#elif defined(DENSEPATH_SHARED)
#define DENSEPATH_API __declspec(dllimport)
#else
#define DENSEPATH_API
#endif
#else
#define DENSEPATH_API __attribute__((visibility("default")))
#endif
