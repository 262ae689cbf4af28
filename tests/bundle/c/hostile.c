/* The runtime against damaged, hostile and concurrent use. The first word says what to do:
 *
 *   damage FILE           every truncation and every byte changed in two ways: all must be refused
 *   mutants FILE SEED N   N bundles with sections changed and hashed again: none may crash
 *   race FILE THREADS N   N runs of one model and of two contexts at once, with kernels of this program
 *   ed25519               lines of key, signature and message (up to 32 bytes) in hexadecimal: 1 for each valid one
 *   sha256 FILE           digests of its beginnings of 0 to 300 bytes, in one piece and in two
 */
#include "attempt.h"

#define scale __attribute__((section("kernels"), used)) scale
#define step __attribute__((section("kernels"), used)) step
#define count __attribute__((section("kernels"), used)) count
void scale(void **, int64_t);
void step(void **, int64_t);
void count(void **, int64_t);
#undef scale
#undef step
#undef count
#include "kernels.c"

static byte *aligned(size_t size) {
  void *at = NULL;
  if (posix_memalign(&at, 64, size == 0 ? 1 : size) != 0) abort();
  return at;
}

static byte *load(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) abort();
  *size = (size_t)ftell(file);
  rewind(file);
  byte *bytes = aligned(*size);
  if (fread(bytes, 1, *size, file) != *size) abort();
  (void)fclose(file);
  return bytes;
}

static int damage(byte *file, size_t size) {
  unsigned long accepted = 0, tried = 0;
  for (size_t n = 0; n < size; n++, tried++) {
    byte *cut = aligned(n);
    memcpy(cut, file, n);
    accepted += attempt(cut, n, 1);
    free(cut);
  }
  for (size_t i = 0; i < 2 * size; i++, tried++) {
    byte mask = i % 2 == 0 ? 0xFF : (byte)(1 << (i / 2 % 8));
    file[i / 2] ^= mask;
    accepted += attempt(file, size, 1);
    file[i / 2] ^= mask;
  }
  accepted += !attempt(file, size, 1);
  printf("%lu tried, %lu wrongly accepted or refused\n", tried + 1, accepted);
  return accepted != 0;
}

static uint32_t random32(uint64_t *state) {
  *state = *state * 6364136223846793005U + 1442695040888963407U;
  return (uint32_t)(*state >> 33);
}

/* One to four numbers of a section become others: small, large, near what was there, or of another place. */
static void mutate(byte *file, uint64_t *state) {
  static const uint64_t odd[] = {0, 1, 2, 63, 64, 65, 0x7FFFFFFF, 0xFFFFFFFF, 0x100000000, INT64_MAX, UINT64_MAX, UINT64_MAX - 63};
  for (unsigned n = random32(state) % 4 + 1; n > 0; n--) {
    section s = section_at(file, random32(state) % section_count(file));
    if (s.at == NULL || s.size < 8 || strcmp(s.kind, "WGHT") == 0) continue;
    size_t width = random32(state) % 2 == 0 ? 4 : 8, places = (size_t)s.size / 4 - 1;
    byte *at = file + s.offset + 4 * (random32(state) % places), *other = file + s.offset + 4 * (random32(state) % places);
    uint64_t value = 0;
    memcpy(&value, at, width);
    switch (random32(state) % 4) {
      case 0: value = odd[random32(state) % (sizeof odd / sizeof *odd)]; break;
      case 1: value += random32(state) % 9; break;
      case 2: value -= random32(state) % 9; break;
      default: memcpy(&value, other, width);
    }
    memcpy(at, &value, width);
  }
}

static int mutants(const byte *file, size_t size, uint64_t seed, unsigned long n) {
  unsigned long accepted = 0;
  byte *changed = aligned(size);
  for (unsigned long i = 0; i < n; i++) {
    memcpy(changed, file, size);
    mutate(changed, &seed);
    hash_again(changed, size);
    accepted += attempt(changed, size, 1 + (i % 64 == 0));
  }
  free(changed);
  printf("%lu tried, %lu ran\n", n, accepted);
  return 0;
}

extern const byte __start_kernels[], __stop_kernels[];

/* Points the plan's kernels at those of this program, and the code section at where they lie. */
static void use_own_kernels(byte *file, size_t size) {
  const uintptr_t start = (uintptr_t)__start_kernels;
  const uint64_t offsets[] = {(uintptr_t)scale - start, (uintptr_t)step - start, (uintptr_t)count - start};
  const uint64_t bytes = (uint64_t)(__stop_kernels - __start_kernels);
  for (uint32_t i = 0; i < section_count(file); i++) {
    section s = section_at(file, i);
    byte *entry = file + HEADER + (size_t)i * ENTRY;
    if (strcmp(s.kind, "CODE") == 0) {
      memcpy(entry + 16, &bytes, sizeof bytes);
      sha256(NULL, 0, __start_kernels, (size_t)bytes, entry + 32);
    }
    byte *table_of_kernels = file + s.offset + u32_at(file + s.offset + PLAN_HEADER + 16 * KERNELS);
    for (size_t k = 0; strcmp(s.kind, "PLAN") == 0 && k < 3; k++) memcpy(table_of_kernels + 16 * k, &offsets[k], 8);
  }
  hash_again(file, size);
}

static void *run_often(void *given) {
  ti_context *c = given;
  const ti_model *m = c->model;
  ti_error error;
  float x[128], y[128], state[16], first[128] = {0};
  int32_t mode = 3;
  int64_t n;
  for (int i = 0; i < 128; i++) x[i] = (float)i / 64 - 1;
  const void *inputs[] = {x, &mode};
  void *outputs[] = {y, state, &n};
  for (unsigned i = 0; i < 300; i++) {
    if (ti_context_run(c, inputs, outputs, NULL, &error) != TI_OK) abort();
    if (i == 0) memcpy(first, y, sizeof y);
    if (n != 8 || memcmp(first, y, sizeof y) != 0) abort();
  }
  (void)m;
  return NULL;
}

static int race(byte *file, size_t size, unsigned threads, unsigned long n) {
  ti_error error;
  ti_options options = {.threads = threads};
  use_own_kernels(file, size);
  options.code = __start_kernels;
  options.code_size = (size_t)(__stop_kernels - __start_kernels);
  ti_model *m = ti_open_memory(file, size, &options, &error);
  if (m == NULL) return fprintf(stderr, "%s\n", ti_error_text(&error)), 2;
  for (unsigned long i = 0; i < n; i++) {
    if (ti_verify(m, NULL, NULL, &error) != TI_OK) return fprintf(stderr, "%s\n", ti_error_text(&error)), 1;
    if (i % 50 == 0) (void)usleep(2000); /* workers fall asleep */
  }
  pthread_t second;
  ti_context *other = ti_context_open(m, threads, &error);
  if (other == NULL || pthread_create(&second, NULL, run_often, other) != 0) return 2;
  (void)run_often(m->context);
  (void)pthread_join(second, NULL);
  ti_context_close(other);
  ti_close(m);
  puts("the same results");
  return 0;
}

static size_t from_hex(const char *text, byte *bytes) {
  size_t n = strlen(text) / 2;
  for (size_t i = 0; i < n; i++) {
    char digits[3] = {text[2 * i], text[2 * i + 1], 0};
    bytes[i] = (byte)strtoul(digits, NULL, 16);
  }
  return n;
}

static int signatures(void) {
  char words[3][140];
  byte key[70], signature[70], message[70];
  while (scanf("%139s %139s %139s", words[0], words[1], words[2]) == 3) {
    size_t n = from_hex(words[2], message);
    if (from_hex(words[0], key) != 32 || from_hex(words[1], signature) != 64 || n > 32) return 2;
    printf("%d\n", ed25519_valid(key, signature, message, words[2][0] == '-' ? 0 : n));
  }
  return 0;
}

static int digests(const byte *file, size_t size) {
  byte digest[32], again[32];
  uint32_t one_state[8] = {1}, other_state[8] = {1};
  if (size < 1024) return 2;
  sha256_portable(one_state, file, 16);
  sha256_blocks(other_state, file, 16);
  if (memcmp(one_state, other_state, sizeof one_state) != 0) return 1;
  for (size_t n = 0; n <= 300; n++) {
    sha256(NULL, 0, file, n, digest);
    sha256(file, n < 63 ? n : 63, file + (n < 63 ? n : 63), n - (n < 63 ? n : 63), again);
    if (memcmp(digest, again, 32) != 0) return 1;
    for (unsigned i = 0; i < 32; i++) printf("%02x", digest[i]);
    printf("\n");
  }
  return 0;
}

int main(int n, char **words) {
  size_t size = 0;
  if (n > 1 && strcmp(words[1], "ed25519") == 0) return signatures();
  if (n < 3) return 2;
  byte *file = load(words[2], &size);
  unsigned long a = n > 3 ? strtoul(words[3], NULL, 10) : 0, b = n > 4 ? strtoul(words[4], NULL, 10) : 0;
  int result = 2;
  if (strcmp(words[1], "damage") == 0) result = damage(file, size);
  if (strcmp(words[1], "mutants") == 0) result = mutants(file, size, a, b);
  if (strcmp(words[1], "race") == 0) result = race(file, size, (unsigned)a, b);
  if (strcmp(words[1], "sha256") == 0) result = digests(file, size);
  free(file);
  return result;
}
