/* Classifies pictures at the same time, each in a thread with a context of its own.
 *
 *   tinyinfer compile classifier.onnx --emit so -o libclassifier.so
 *   c++ -std=c++17 -O2 -I. examples/classify.cpp -L. -lclassifier -Wl,-rpath,'$ORIGIN' -pthread -o classify_all
 *   ./classify_all image.bin other.bin
 *
 * The model has one input, `image`, and one output, `scores`; the files hold the input's floats.
 */
#include "classifier.h"

#include <algorithm>
#include <fstream>
#include <future>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

/* What one thread needs to run the model: a context with one thread, which is the caller's, and memory of its own. */
class Classifier {
 public:
  Classifier() : context_(classifier_context_open(1), classifier_context_close) {
    if (context_ == nullptr) throw std::runtime_error(classifier_error());
  }

  std::vector<float> operator()(const std::vector<float> &image) {
    if (image.size() != CLASSIFIER_INPUT_IMAGE_SIZE) throw std::invalid_argument("an image of another size");
    std::vector<float> scores(CLASSIFIER_OUTPUT_SCORES_SIZE);
    int code = classifier_context_run(context_.get(), nullptr, image.data(), scores.data());
    if (code != CLASSIFIER_OK) throw std::runtime_error(classifier_error());
    return scores;
  }

 private:
  std::unique_ptr<classifier_context, decltype(&classifier_context_close)> context_;
};

static std::string classified(const std::string &path) {
  std::vector<float> image(CLASSIFIER_INPUT_IMAGE_SIZE);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char *>(image.data()), static_cast<std::streamsize>(image.size() * sizeof(float)));
  if (!file) throw std::runtime_error(path + ": cannot be read");
  Classifier classifier;
  std::vector<float> scores = classifier(image);
  auto best = std::max_element(scores.begin(), scores.end());
  return path + ": class " + std::to_string(best - scores.begin()) + ", score " + std::to_string(*best);
}

int main(int count, char **words) try {
  if (classifier_init(1) != CLASSIFIER_OK) throw std::runtime_error(classifier_error());
  std::vector<std::future<std::string>> lines;
  for (int i = 1; i < count; i++) lines.push_back(std::async(std::launch::async, classified, std::string(words[i])));
  for (auto &line : lines) std::cout << line.get() << "\n";
  return classifier_close();
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 1;
}
