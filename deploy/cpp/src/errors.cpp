// The errors' own functions, here alone: a program and a shared library then mean the same types.
#include "densepath/predictor.hpp"

namespace densepath {

Error::Error(const std::string& message, int code) : std::runtime_error(message), code_(code) {}
Error::~Error() = default;

UsageError::UsageError(const std::string& message) : Error(message, 2) {}
UsageError::~UsageError() = default;

BundleError::BundleError(const std::string& message) : Error(message) {}
BundleError::~BundleError() = default;

ImageError::ImageError(const std::string& message) : Error(message) {}
ImageError::~ImageError() = default;

}  // namespace densepath
