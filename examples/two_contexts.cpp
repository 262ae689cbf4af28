// Two threads that run one bundle at once, each with a context and an arena of its own, and owners that clean up.
//
//   cc -std=c11 -O2 -c tinyinfer/bundle/c/tinyinfer.c
//   c++ -std=c++17 -O2 -pthread -I tinyinfer/bundle/c examples/two_contexts.cpp tinyinfer.o -lm -o two_contexts
//   ./two_contexts model.tinf
//
// Feeds every input with ones and prints the first elements of every float output. Exit code 0 where both threads
// computed the same, 1 where not, 2 where the bundle does not open or run.
#include "tinyinfer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using Model = std::unique_ptr<ti_model, decltype(&ti_close)>;
using Context = std::unique_ptr<ti_context, decltype(&ti_context_close)>;
using Bytes = std::vector<unsigned char>;

Bytes ones(const ti_value &value) {
  Bytes bytes(value.bytes);
  const float one = 1;
  for (std::size_t i = 0; i < value.elements; i++) {
    if (value.type == TI_FLOAT32) {
      std::memcpy(bytes.data() + i * sizeof one, &one, sizeof one);
    } else {
      bytes[i * ti_type_bytes(value.type)] = 1;  // integers, little-endian
    }
  }
  return bytes;
}

std::vector<Bytes> run(ti_context *context, const ti_model *model) {
  std::vector<Bytes> fed, made;
  for (std::size_t i = 0; i < ti_input_count(model); i++) fed.push_back(ones(*ti_input(model, i)));
  for (std::size_t i = 0; i < ti_output_count(model); i++) made.emplace_back(ti_output(model, i)->bytes);
  std::vector<const void *> inputs;
  std::vector<void *> outputs;
  for (const Bytes &bytes : fed) inputs.push_back(bytes.data());
  for (Bytes &bytes : made) outputs.push_back(bytes.data());
  // memory of the caller's: aligned to 64, and free to be used for something else between runs
  Bytes memory(ti_arena_bytes(model) + 64);
  void *arena = memory.data();
  std::size_t room = memory.size();
  std::align(64, ti_arena_bytes(model), arena, room);
  ti_error error;
  if (ti_context_run(context, inputs.data(), outputs.data(), arena, &error) != TI_OK) {
    throw std::runtime_error(ti_error_text(&error));
  }
  return made;
}

}  // namespace

int main(int count, char **words) try {
  if (count != 2) throw std::runtime_error("usage: two_contexts model.tinf");
  ti_error error;
  ti_options options{};
  options.threads = 1;  // of each context
  Model model(ti_open(words[1], &options, &error), ti_close);
  if (!model) throw std::runtime_error(ti_error_text(&error));
  std::vector<Bytes> results[2];
  std::string problems[2];
  std::vector<std::thread> threads;
  for (int which = 0; which < 2; which++) {
    threads.emplace_back([&, which] {
      try {
        ti_error why;
        Context context(ti_context_open(model.get(), 0, &why), ti_context_close);
        if (!context) throw std::runtime_error(ti_error_text(&why));
        results[which] = run(context.get(), model.get());
      } catch (const std::exception &problem) {
        problems[which] = problem.what();
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (const std::string &problem : problems) {
    if (!problem.empty()) throw std::runtime_error(problem);
  }
  for (std::size_t i = 0; i < ti_output_count(model.get()); i++) {
    const ti_value &value = *ti_output(model.get(), i);
    if (value.type != TI_FLOAT32) continue;
    std::printf("%s:", value.name);
    for (std::size_t j = 0; j < std::min<std::size_t>(value.elements, 5); j++) {
      float element;
      std::memcpy(&element, results[0][i].data() + j * sizeof element, sizeof element);
      std::printf(" %.6g", static_cast<double>(element));
    }
    std::printf("\n");
  }
  return results[0] == results[1] ? 0 : 1;
} catch (const std::exception &problem) {
  std::fprintf(stderr, "%s\n", problem.what());
  return 2;
}
