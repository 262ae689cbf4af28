/* libFuzzer target: any bytes as a bundle, hashed again so that what is behind the hashes is reached.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -pthread -I tinyinfer/bundle/c -I tests/bundle/c \
 *     tests/fuzz/bundle_fuzzer.c -lm -o bundle_fuzzer
 *   mkdir corpus && python tests/bundle/small_bundle.py corpus/small
 *   ./bundle_fuzzer -max_len=40000 -max_total_time=3600 corpus
 */
#include "attempt.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
const char *__asan_default_options(void);

/* A bundle may ask for more memory than there is; that is an error of the runtime's, not a finding. */
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  void *file = NULL;
  if (posix_memalign(&file, 64, size + 1) != 0) abort();
  memcpy(file, bytes, size);
  hash_again(file, size);
  (void)attempt(file, size, 1);
  free(file);
  return 0;
}
