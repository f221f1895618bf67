#include "intensity.hpp"

#include <cmath>
#include <locale>
#include <sstream>

namespace densepath {
namespace {

// A number as short as it is exact in most cases: 40, 0.5.
std::string short_number(double value) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(15);
  text << value;
  return text.str();
}

}  // namespace

std::string Intensity::wrong() const {
  static const char* kinds = "is no kind of intensity; choices: file, range, window, percentiles";
  const bool is_file = kind == "file", is_window = kind == "window";
  if (!is_file && !is_window && kind != "range" && kind != "percentiles") return kinds;
  if (values.size() != (is_file ? 0 : 2)) return "must have two values, and file none";
  if (is_file) return "";
  if (!std::isfinite(values[0]) || !std::isfinite(values[1])) return "must have finite values";
  if (is_window) return values[1] < 1 ? "has a width below 1" : "";
  if (!(values[0] < values[1])) return "must have the lesser value first";
  const bool shares = values[0] >= 0 && values[1] <= 100;
  return kind == "percentiles" && !shares ? "must have percentiles of 0 to 100" : "";
}

std::string Intensity::to_text() const {
  if (values.empty()) return kind;
  return kind + ":" + short_number(values[0]) + "," + short_number(values[1]);
}

std::optional<std::pair<double, double>> Intensity::span() const {
  if (kind == "range") return std::make_pair(values[0], values[1]);
  if (kind == "window") return linear_window(values[0], values[1]);
  return std::nullopt;
}

std::pair<double, double> linear_window(double centre, double width) {
  return {centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2};
}

}  // namespace densepath
