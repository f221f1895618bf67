#include "options.hpp"

#include <charconv>
#include <functional>
#include <map>
#include <utility>

#include "text.hpp"

namespace densepath {
namespace {

constexpr char HELP[] =
    R"(densepath-predict BUNDLE PATH... [options]

Names what is in images: one JSON line an image, in order, as `densepath predict --json` does.

  BUNDLE               a folder that `densepath export` or `quantize` wrote
  PATH                 JPEG and PNG files, folders (all images below them), or - for a list of
                       names on standard input

  --list FILE          names of images, one a line; - is standard input
  --top-k N            classes in each answer (5)
  --backend NAME       auto, native, openvino or onnxruntime (auto: the first of them that was
                       built in, whose format the bundle has, and that has the precision)
  --precision NAME     auto, float32 or bfloat16, the type of the arithmetic (auto: bfloat16 by
                       native where the processor has it and the bundle's report shows the same
                       answers, and says so; else float32)
  --batch-size N       images of one run (2 for each of several threads, else 8)
  --threads N          threads of the network (one a core)
  --benchmark          print latency and images a second instead of the answers
  --repeats N          timed runs of each batch size (20)
  --version, --help

Exits with 0 when an image was answered, 1 when none was or the bundle is not whole, 2 on a wrong
command line.

Example: densepath-predict my-bundle photos/ --top-k 3
)";

size_t positive(const std::string& option, const std::string& text) {
  size_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  constexpr size_t MOST = 1'000'000;
  if (error != std::errc{} || stop != end || value < 1 || value > MOST) {
    throw UsageError(option + " is '" + printable(text) +
                     "'; it must be a whole number from 1 to " + with_commas(MOST) + ".");
  }
  return value;
}

// What each option does with its value, by name; flags take none.
struct Table {
  std::map<std::string, std::function<void(const std::string&)>> with_value;
  std::map<std::string, bool*> flags;

  explicit Table(Options& options) {
    const auto number = [this](const std::string& name, size_t& target) {
      with_value[name] = [name, &target](const std::string& text) {
        target = positive(name, text);
      };
    };
    const auto text = [this](const std::string& name, std::string& target) {
      with_value[name] = [&target](const std::string& value) { target = value; };
    };
    text("--list", options.list);
    text("--backend", options.settings.backend);
    text("--precision", options.settings.precision);
    number("--top-k", options.top_k);
    number("--batch-size", options.settings.batch_size);
    number("--threads", options.settings.threads);
    number("--repeats", options.repeats);
    flags = {{"--benchmark", &options.benchmark},
             {"--help", &options.help},
             {"-h", &options.help},
             {"--version", &options.version}};
  }

  [[noreturn]] void unknown(const std::string& word) const {
    std::vector<std::string> names;
    for (const auto& [name, use] : with_value) names.push_back(name);
    for (const auto& [name, flag] : flags) names.push_back(name);
    throw UsageError("unknown option '" + printable(word) + "'. Choices: " + join(names, ", ") +
                     ".");
  }
};

bool is_option(const std::string& word) { return word.size() > 1 && word[0] == '-'; }

// Uses the option at `words[at]` and returns where the next word stands.
size_t use_option(const Table& table, const std::vector<std::string>& words, size_t at) {
  const std::string& word = words[at];
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  if (const auto flag = table.flags.find(name); flag != table.flags.end()) {
    if (equals != std::string::npos) throw UsageError(name + " takes no value.");
    *flag->second = true;
    return at + 1;
  }
  const auto option = table.with_value.find(name);
  if (option == table.with_value.end()) table.unknown(word);
  const bool joined = equals != std::string::npos;
  if (!joined && at + 1 == words.size()) throw UsageError(name + " needs a value.");
  option->second(joined ? word.substr(equals + 1) : words[at + 1]);
  return at + (joined ? 1 : 2);
}

}  // namespace

Options parse_options(const std::vector<std::string>& words) {
  Options options;
  const Table table(options);
  std::vector<std::string> names;
  bool only_names = false;
  for (size_t at = 0; at < words.size();) {
    if (!only_names && words[at] == "--") {
      only_names = true;
      ++at;
    } else if (!only_names && is_option(words[at])) {
      at = use_option(table, words, at);
    } else {
      names.push_back(words[at++]);
    }
  }
  if (options.help || options.version) return options;
  if (names.empty()) throw UsageError("no bundle is named. --help shows how.");
  options.bundle = names.front();
  options.paths.assign(names.begin() + 1, names.end());
  if (options.paths.empty() && options.list.empty()) {
    throw UsageError("no images are named: give files, folders, - or --list FILE.");
  }
  return options;
}

std::string help_text() { return HELP; }

}  // namespace densepath
