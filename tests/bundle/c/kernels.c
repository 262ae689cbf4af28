/* Kernels of the small bundle in small_bundle.py; they need nothing but themselves. */
#include <stdint.h>

/* y[row] = x[row] * w, where w has a gap of two elements in its middle. */
void scale(void **arguments, int64_t chunk) {
  float *y = (float *)arguments[0] + 16 * chunk;
  const float *x = (const float *)arguments[1] + 16 * chunk;
  const float *w = (const float *)arguments[2];
  for (int i = 0; i < 16; i++) y[i] = x[i] * w[i < 8 ? i : i + 2];
}

/* next = state + row; out = 2 next */
void step(void **arguments, int64_t chunk) {
  float *next = (float *)arguments[0], *out = (float *)arguments[1];
  const float *state = (const float *)arguments[2], *row = (const float *)arguments[3];
  (void)chunk;
  for (int i = 0; i < 16; i++) {
    next[i] = state[i] + row[i];
    out[i] = 2 * next[i];
  }
}

/* total += 1 + b */
void count(void **arguments, int64_t chunk) {
  float *total = (float *)arguments[0];
  const float *b = (const float *)arguments[1];
  for (int i = 0; i < 8; i++) total[8 * chunk + i] += 1 + b[8 * chunk + i];
}
