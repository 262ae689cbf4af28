/* Looks at, verifies, runs and times a bundle.
 *
 *   cc -std=c11 -O2 -pthread -I tinyinfer/bundle/c examples/run_bundle.c tinyinfer/bundle/c/tinyinfer.c -lm -o run_bundle
 *   ./run_bundle model.tinf info
 *   ./run_bundle model.tinf verify --threads 4
 *   ./run_bundle model.tinf run in.bin out.bin        the inputs' bytes one after the other; so come the outputs'
 *   ./run_bundle model.tinf bench 1000                microseconds a run: the least and the mean
 *
 * --threads N, --target NAME, --key HEX (a trusted public key, 64 digits), --require-signature follow.
 * With -DWITH_OPENCL, tinyinfer_opencl.c in place of tinyinfer.c and -ldl: --opencl DEVICE (a number, a part of a name,
 * or "" for the first), --cache FILE (keeps the built program), --library FILE (in place of libOpenCL); on Qualcomm GPUs
 * --performance and --priority high, normal, low or driver, --recording off.
 * An installed package keeps tinyinfer.c and tinyinfer.h in tinyinfer/bundle/c. Exit codes: 0 good, 1 a golden vector failed, 2 anything else.
 */
#define _POSIX_C_SOURCE 200809L
#include "tinyinfer.h"
#ifdef WITH_OPENCL
#include "tinyinfer_opencl.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int complain(const char *text) {
  fprintf(stderr, "%s\n", text);
  return 2;
}

static void print_value(const char *what, const ti_value *value) {
  printf("%s %s %s [", what, value->name, ti_type_name(value->type));
  for (uint32_t i = 0; i < value->rank; i++) printf("%s%lld", i == 0 ? "" : ", ", (long long)value->dims[i]);
  printf("] %zu bytes\n", value->bytes);
}

static int show(const ti_model *model) {
  char machine[200];
  size_t size;
  ti_machine(machine, sizeof machine);
  printf("machine %s\ntarget %s\narena %zu bytes\nexpanded weights %zu bytes\n", machine, ti_target(model),
         ti_arena_bytes(model), ti_expanded_bytes(model));
  for (size_t i = 0; i < ti_input_count(model); i++) print_value("input", ti_input(model, i));
  for (size_t i = 0; i < ti_output_count(model); i++) print_value("output", ti_output(model, i));
  const char *manifest = ti_manifest(model, &size);
  printf("manifest %.*s\n", (int)size, manifest);
  return 0;
}

static void print_report(void *user, const ti_report *r) {
  (void)user;
  printf("vector %zu %s: %llu compared, %llu failed, largest error %.3g, %.3g of what is allowed\n", r->vector, r->name,
         (unsigned long long)r->compared, (unsigned long long)r->failed, r->worst_error, r->share);
  if (r->failed != 0) printf("  element %llu: %.9g, wanted %.9g\n", (unsigned long long)r->worst_element, r->got, r->wanted);
}

static int verify(ti_model *model) {
  ti_error error;
  ti_code code = ti_verify(model, print_report, NULL, &error);
  if (code != TI_OK) fprintf(stderr, "%s\n", ti_error_text(&error));
  return code == TI_OK ? 0 : code == TI_ERROR_VERIFY ? 1 : 2;
}

/* Memory for all inputs and outputs, zeros. */
static int allocate(const ti_model *model, void **inputs, void **outputs) {
  int good = 1;
  for (size_t i = 0; i < ti_input_count(model); i++) {
    inputs[i] = calloc(1, ti_input(model, i)->bytes + 1);
    good = good && inputs[i] != NULL;
  }
  for (size_t i = 0; i < ti_output_count(model); i++) {
    outputs[i] = calloc(1, ti_output(model, i)->bytes + 1);
    good = good && outputs[i] != NULL;
  }
  return good;
}

static int read_inputs(const ti_model *model, void **inputs, const char *path) {
  FILE *file = fopen(path, "rb");
  int good = file != NULL;
  for (size_t i = 0; good && i < ti_input_count(model); i++) {
    good = fread(inputs[i], 1, ti_input(model, i)->bytes, file) == ti_input(model, i)->bytes;
  }
  good = good && fgetc(file) == EOF;
  if (file != NULL) fclose(file);
  return good;
}

static int write_outputs(const ti_model *model, void *const *outputs, const char *path) {
  FILE *file = fopen(path, "wb");
  int good = file != NULL;
  for (size_t i = 0; good && i < ti_output_count(model); i++) {
    good = fwrite(outputs[i], 1, ti_output(model, i)->bytes, file) == ti_output(model, i)->bytes;
  }
  if (file != NULL) good = fclose(file) == 0 && good;
  return good;
}

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int bench(ti_model *model, const void *const *inputs, void *const *outputs, long runs, ti_error *error) {
  double least = 1e30, sum = 0;
  for (long i = 0; i < runs; i++) {
    double start = microseconds();
    if (ti_run(model, inputs, outputs, NULL, error) != TI_OK) return complain(ti_error_text(error));
    double taken = microseconds() - start;
    least = taken < least ? taken : least;
    sum += taken;
  }
  printf("%.2f least, %.2f mean\n", least, sum / (double)runs);
  return 0;
}

static int parse_key(const char *hex, uint8_t key[32]) {
  if (strlen(hex) != 64 || strspn(hex, "0123456789abcdefABCDEF") != 64) return 0;
  for (int i = 0; i < 32; i++) {
    char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
    key[i] = (uint8_t)strtoul(digits, NULL, 16);
  }
  return 1;
}

#ifdef WITH_OPENCL
static ti_opencl_options opencl;
static int on_opencl;
static void print_log(void *user, const char *text) {
  (void)user;
  fprintf(stderr, "%s\n", text);
}
/* Whether `word` is one of this device's options, whose value is `value`. */
static int takes(const char *word, const char *value) {
  opencl.log = print_log;
  if (strcmp(word, "--opencl") == 0) {
    on_opencl = 1;
    opencl.device = value;
    return 1;
  }
  static const char *const levels[] = {"default", "high", "normal", "low", "driver"};
  ti_opencl_level *level = strcmp(word, "--performance") == 0 ? &opencl.performance
                           : strcmp(word, "--priority") == 0  ? &opencl.priority : NULL;
  for (int i = 0; level != NULL && i < 5; i++)
    if (strcmp(value, levels[i]) == 0) {
      *level = (ti_opencl_level)i;
      return 1;
    }
  if (strcmp(word, "--recording") == 0) {
    opencl.no_recording = strcmp(value, "off") == 0;
    return 1;
  }
  const char **place = strcmp(word, "--cache") == 0 ? &opencl.cache : strcmp(word, "--library") == 0 ? &opencl.library : NULL;
  if (place != NULL) *place = value;
  return place != NULL;
}
static ti_model *open_bundle(const char *path, const ti_options *options, ti_error *error) {
  if (!on_opencl) return ti_open(path, options, error);
  ti_model *model = ti_opencl_open(path, options, &opencl, error);
  if (model != NULL) fprintf(stderr, "on %s\n", ti_opencl_device(model));
  return model;
}
#else
static int takes(const char *word, const char *value) {
  (void)word, (void)value;
  return 0;
}
static ti_model *open_bundle(const char *path, const ti_options *options, ti_error *error) {
  return ti_open(path, options, error);
}
#endif

int main(int count, char **words) {
  ti_options options = {0};
  ti_error error;
  uint8_t key[1][32];
  const char *places[4] = {"", "info", "", ""};
  int place = 0;
  for (int i = 1; i < count; i++) {
    int more = i + 1 < count;
    if (strcmp(words[i], "--threads") == 0 && more) {
      options.threads = (unsigned)strtoul(words[++i], NULL, 10);
    } else if (strcmp(words[i], "--target") == 0 && more) {
      options.target = words[++i];
    } else if (strcmp(words[i], "--key") == 0 && more) {
      if (!parse_key(words[++i], key[0])) return complain("--key takes 64 hexadecimal digits");
      options.keys = (const uint8_t(*)[32])key;
      options.key_count = 1;
    } else if (strcmp(words[i], "--require-signature") == 0) {
      options.require_signature = 1;
    } else if (more && takes(words[i], words[i + 1])) {
      i++;
    } else if (place < 4) {
      places[place++] = words[i];
    }
  }
  if (place == 0) return complain("usage: run_bundle model.tinf [info | verify | run IN OUT | bench RUNS] [options]");
  double start = microseconds();
  ti_model *model = open_bundle(places[0], &options, &error);
  if (model == NULL) return complain(ti_error_text(&error));
  fprintf(stderr, "opened in %.2f ms\n", (microseconds() - start) * 1e-3);

  int result = 2;
  void **inputs = calloc(ti_input_count(model) + 1, sizeof *inputs);
  void **outputs = calloc(ti_output_count(model) + 1, sizeof *outputs);
  if (inputs == NULL || outputs == NULL || !allocate(model, inputs, outputs)) {
    result = complain("no memory");
  } else if (strcmp(places[1], "info") == 0) {
    result = show(model);
  } else if (strcmp(places[1], "verify") == 0) {
    result = verify(model);
  } else if (strcmp(places[1], "bench") == 0) {
    result = bench(model, (const void *const *)inputs, outputs, strtol(places[2], NULL, 10), &error);
  } else if (strcmp(places[1], "run") != 0) {
    result = complain("info, verify, run or bench");
  } else if (!read_inputs(model, inputs, places[2])) {
    result = complain("the file of inputs has not the inputs' bytes");
  } else if (ti_run(model, (const void *const *)inputs, outputs, NULL, &error) != TI_OK) {
    result = complain(ti_error_text(&error));
  } else {
    result = write_outputs(model, outputs, places[3]) ? 0 : complain("the outputs cannot be written");
  }
  for (size_t i = 0; inputs != NULL && i < ti_input_count(model); i++) free(inputs[i]);
  for (size_t i = 0; outputs != NULL && i < ti_output_count(model); i++) free(outputs[i]);
  free(inputs);
  free(outputs);
  ti_close(model);
  return result;
}
