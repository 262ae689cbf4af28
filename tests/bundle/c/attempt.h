/* What tests do to a bundle: hash it again, and open, run and verify it with kernels that only return. Includes the
 * runtime itself, for its hash and its tables. With OPENCL_LIBRARY, the file of one, it is the launcher for OpenCL. */
#ifdef OPENCL_LIBRARY
#include "tinyinfer_opencl.c"
#else
#include "tinyinfer.c"
#endif

enum { CODE_BYTES = 256, MAX_ATTEMPT_BYTES = 1 << 24, MAX_ATTEMPT_CHUNKS = 100000 };

/* Makes the hashes of sections and of the table of contents right again, as far as they lie inside. */
static void hash_again(byte *file, size_t size) {
  if (size < HEADER) return;
  uint64_t count = u32_at(file + 12), stated = size;
  if (count > MAX_SECTIONS || HEADER + count * ENTRY > size) return;
  memcpy(file + 16, &stated, sizeof stated);
  for (uint64_t i = 0; i < count; i++) {
    byte *entry = file + HEADER + i * ENTRY;
    uint64_t offset = u64_at(entry + 8), bytes = u64_at(entry + 16);
    if ((entry[4] & 2) == 0 && inside(offset, bytes, size)) sha256(NULL, 0, file + offset, (size_t)bytes, entry + 32);
  }
  sha256(file, 32, file + HEADER, (size_t)count * ENTRY, file + 32);
}

/* Pages of instructions that return. */
static const void *code_that_returns(void) {
  static void *code;
#if defined(__x86_64__)
  if (code != NULL) return code;
  code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) abort();
  memset(code, 0xC3, 4096);
  if (mprotect(code, 4096, PROT_READ | PROT_EXEC) != 0) abort();
#endif
  return code;
}

/* Opens `size` bytes that begin at a multiple of 64; where that works, looks at everything and runs it. */
static bool attempt(const byte *file, size_t size, unsigned threads) {
  ti_error error;
  ti_options options = {.threads = threads, .max_loop_iterations = 1000};
  options.code = code_that_returns();
  options.code_size = CODE_BYTES;
#ifdef OPENCL_LIBRARY
  static const ti_opencl_options opencl = {.library = OPENCL_LIBRARY};
  ti_model *m = ti_opencl_open_memory(file, size, &options, &opencl, &error);
#else
  ti_model *m = ti_open_memory(file, size, &options, &error);
#endif
  if (m == NULL) {
    if (error.code == TI_OK || strncmp(error.text, "bundle: ", 8) != 0 || strchr(error.text, '\n') != NULL) abort();
    return false;
  }
  size_t count = m->input_count + m->output_count, bytes = (size_t)m->arena_bytes;
  uint64_t chunks = 0;
  for (size_t i = 0; i < count; i++) bytes += m->values[i].bytes < MAX_ATTEMPT_BYTES ? m->values[i].bytes : MAX_ATTEMPT_BYTES;
  for (uint32_t i = 0; i < m->tables[LAUNCHES].count; i++) chunks += m->launches[i].chunks;
  if (bytes < MAX_ATTEMPT_BYTES && m->arena_bytes < MAX_ATTEMPT_BYTES && chunks < MAX_ATTEMPT_CHUNKS) {
    void **places = calloc(count + 1, sizeof *places);
    if (places == NULL) abort();
    for (size_t i = 0; i < count; i++) {
      uint32_t fixed = u32_at(record(m->tables[VALUES], (uint32_t)i) + 32);
      if ((places[i] = calloc(1, m->values[i].bytes + 1)) == NULL) abort();
      if (fixed != 0) memcpy(places[i], m->tensors[fixed - 1], m->values[i].bytes);
    }
    (void)ti_run(m, (const void *const *)places, places + m->input_count, NULL, &error);
    (void)ti_verify(m, NULL, NULL, &error);
    for (size_t i = 0; i < count; i++) free(places[i]);
    free(places);
  }
  ti_close(m);
  return true;
}
