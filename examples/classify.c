/* Classifies a picture with a model that is a shared library, and prints the five best classes.
 *
 *   tinyinfer compile classifier.onnx --emit so -o libclassifier.so
 *   cc -std=c11 -O2 -I. examples/classify.c -L. -lclassifier -Wl,-rpath,'$ORIGIN' -o classify
 *   ./classify image.bin
 *
 * An object makes a program that needs no library beside it:
 *
 *   tinyinfer compile classifier.onnx --emit obj -o classifier.o
 *   cc -std=c11 -O2 -I. examples/classify.c classifier.o -pthread -lm -o classify_alone
 *   ./classify_alone image.bin
 *
 * The model has one input, `image`, and one output, `scores`; image.bin holds the input's floats. Functions and sizes
 * are named after the model's file and its inputs and outputs.
 */
#include "classifier.h"

#include <stdio.h>

static float image[CLASSIFIER_INPUT_IMAGE_SIZE];
static float scores[CLASSIFIER_OUTPUT_SCORES_SIZE];

static int complain(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

int main(int count, char **words) {
  const char *path = count == 2 ? words[1] : "";
  FILE *file = fopen(path, "rb");
  if (file == NULL) return complain(path, "cannot be opened");
  size_t got = fread(image, sizeof *image, CLASSIFIER_INPUT_IMAGE_SIZE, file);
  fclose(file);
  if (got != CLASSIFIER_INPUT_IMAGE_SIZE) return complain(path, "has too few bytes");

  if (classifier_init(0) != CLASSIFIER_OK) return complain("classifier", classifier_error());
  if (classifier_run(image, scores) != CLASSIFIER_OK) return complain("classifier", classifier_error());

  for (int place = 0; place < 5; place++) {
    int best = 0;
    for (int i = 1; i < CLASSIFIER_OUTPUT_SCORES_SIZE; i++) best = scores[i] > scores[best] ? i : best;
    printf("%d %.6g\n", best, (double)scores[best]);
    scores[best] = -1e30F;
  }
  return classifier_close();
}
