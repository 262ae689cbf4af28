/* Verifies a bundle and runs it on the numbers in a file: the C runtime with C++ owners.
 *
 *   tinyinfer compile classifier.onnx -o classifier.tinf
 *   cc -std=c11 -O2 -pthread -c tinyinfer/bundle/c/tinyinfer.c -o tinyinfer.o
 *   c++ -std=c++17 -O2 -pthread -I tinyinfer/bundle/c examples/run_bundle.cpp tinyinfer.o -lm -o run_bundle
 *   ./run_bundle classifier.tinf image.bin scores.bin
 *
 * image.bin holds the inputs' bytes one after the other; so come the outputs' in scores.bin. An installed package
 * keeps tinyinfer.c and tinyinfer.h in tinyinfer/bundle/c.
 */
#include "tinyinfer.h"

#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

class Model {
 public:
  explicit Model(const std::string &path, const ti_options &options = {})
      : model_(ti_open(path.c_str(), &options, &error_), ti_close) {
    if (model_ == nullptr) throw std::runtime_error(ti_error_text(&error_));
  }

  void verify() { check(ti_verify(model_.get(), nullptr, nullptr, &error_)); }

  void run(const std::vector<const void *> &inputs, const std::vector<void *> &outputs) {
    check(ti_run(model_.get(), inputs.data(), outputs.data(), nullptr, &error_));
  }

  std::vector<ti_value> inputs() const { return values(ti_input_count(model_.get()), ti_input); }
  std::vector<ti_value> outputs() const { return values(ti_output_count(model_.get()), ti_output); }

 private:
  void check(ti_code code) {
    if (code != TI_OK) throw std::runtime_error(ti_error_text(&error_));
  }

  template <class Get>
  std::vector<ti_value> values(size_t count, Get get) const {
    std::vector<ti_value> found;
    for (size_t i = 0; i < count; i++) found.push_back(*get(model_.get(), i));
    return found;
  }

  ti_error error_{};
  std::unique_ptr<ti_model, decltype(&ti_close)> model_;
};

int main(int count, char **words) try {
  if (count != 4) throw std::runtime_error("usage: run_bundle MODEL.tinf IN OUT");
  Model model(words[1]);
  model.verify();
  std::ifstream given(words[2], std::ios::binary);
  std::vector<std::vector<char>> memory; /* of inputs and outputs; elements need no more than new's alignment */
  std::vector<const void *> inputs;
  std::vector<void *> outputs;
  for (const ti_value &value : model.inputs()) {
    memory.emplace_back(value.bytes);
    given.read(memory.back().data(), static_cast<std::streamsize>(value.bytes));
    inputs.push_back(memory.back().data());
  }
  if (!given) throw std::runtime_error(std::string(words[2]) + ": has not the inputs' bytes");
  for (const ti_value &value : model.outputs()) outputs.push_back(memory.emplace_back(value.bytes).data());
  model.run(inputs, outputs);
  std::ofstream made(words[3], std::ios::binary);
  for (size_t i = 0; i < outputs.size(); i++) {
    made.write(static_cast<const char *>(outputs[i]), static_cast<std::streamsize>(model.outputs()[i].bytes));
  }
  return made.flush() ? 0 : 1;
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 2;
}
