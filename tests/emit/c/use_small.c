/* Runs the library `small` on the numbers in a file, with and without a context, and writes its outputs to another:
 * use_small IN OUT. Exits with 0 where all of it went well, and says what did not. */
#include "small.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

static alignas(64) unsigned char arena[SMALL_ARENA_BYTES];

static int expect(int got, int wanted, const char *what) {
  if (got == wanted) return 0;
  fprintf(stderr, "%s: %d instead of %d: %s\n", what, got, wanted, small_error());
  return 1;
}

int main(int count, char **words) {
  float x[SMALL_INPUT_X_SIZE], y[2][SMALL_OUTPUT_Y_SIZE], state[2][SMALL_OUTPUT_STATE_SIZE];
  int32_t mode = 3, wrong = 4;
  int64_t n[2] = {0, 0};
  int bad = 0;
  FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
  if (file == NULL || fread(x, sizeof x, 1, file) != 1) return 2;
  fclose(file);

  bad += expect(small_run(x, &mode, y[0], state[0], &n[0]), SMALL_OK, "a run");
  bad += expect(small_init(2), SMALL_ERROR_ARGUMENT, "a late init");
  bad += expect(small_close(), SMALL_OK, "a close");
  bad += expect(small_init(2), SMALL_OK, "an init");
  bad += expect(small_verify(), SMALL_OK, "a verification");
  bad += expect(small_run(NULL, &mode, y[1], state[1], &n[1]), SMALL_ERROR_ARGUMENT, "no input");
  bad += expect(small_run(x, &wrong, y[1], state[1], &n[1]), SMALL_ERROR_INPUT, "another mode");
  bad += expect(small_context_run(NULL, NULL, x, &mode, y[1], state[1], &n[1]), SMALL_ERROR_ARGUMENT, "no context");

  small_context *context = small_context_open(1);
  if (context == NULL) return expect(1, 0, "a context");
  bad += expect(small_close(), SMALL_ERROR_ARGUMENT, "a close with a context");
  bad += expect(small_context_run(context, arena + 1, x, &mode, y[1], state[1], &n[1]), SMALL_ERROR_ARGUMENT, "an arena");
  for (int own = 0; own < 2; own++) {
    memset(y[1], 0, sizeof y[1]);
    bad += expect(small_context_run(context, own ? arena : NULL, x, &mode, y[1], state[1], &n[1]), SMALL_OK, "a run");
    bad += memcmp(y[0], y[1], sizeof y[0]) != 0 || memcmp(state[0], state[1], sizeof state[0]) != 0 || n[0] != n[1];
  }
  small_context_close(context);
  small_context_close(NULL);
  bad += expect(small_close(), SMALL_OK, "the last close");

  file = fopen(words[2], "wb");
  if (file == NULL) return 2;
  bad += fwrite(y[0], sizeof y[0], 1, file) != 1 || fwrite(state[0], sizeof state[0], 1, file) != 1;
  bad += fwrite(&n[0], sizeof n[0], 1, file) != 1;
  return fclose(file) != 0 || bad != 0;
}
