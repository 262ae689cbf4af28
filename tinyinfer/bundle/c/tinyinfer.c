/* The tinyinfer runtime: reads a bundle, checks all of it, and runs it. The interface is in tinyinfer.h, the format in
 * docs/bundle.md. Parts, in order: bytes and errors, SHA-2, Ed25519, element types, the machine, memory, the container, the
 * plan, tensors, running, golden vectors.
 *
 * Numbers of the file are read by u32_at and u64_at only, and added or multiplied by the checked functions below,
 * or after a comparison that makes an overflow impossible. */
#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "tinyinfer.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define PRINTF(text, first)
#endif

enum {
  HEADER = 64, ENTRY = 96, MAX_SECTIONS = 1024, PLAN_HEADER = 64, TABLES = 9,
  MAX_THREADS = 256, MAX_LOOP_DEPTH = 32, LINE = 64, PAGE_OF_TENSORS = 5 * LINE
};

typedef unsigned char byte;

/* ---- Bytes and errors ---- */

static uint16_t u16_at(const byte *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32_at(const byte *p) { return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16; }
static uint64_t u64_at(const byte *p) { return (uint64_t)u32_at(p) | (uint64_t)u32_at(p + 4) << 32; }

static int64_t i64_at(const byte *p) {
  uint64_t bits = u64_at(p);
  int64_t value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static double f64_at(const byte *p) {
  uint64_t bits = u64_at(p);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static bool add_u64(uint64_t a, uint64_t b, uint64_t *sum) {
  *sum = a + b;
  return *sum >= a;
}

static bool mul_u64(uint64_t a, uint64_t b, uint64_t *product) {
  if (a != 0 && b > UINT64_MAX / a) return false;
  *product = a * b;
  return true;
}

static bool add_i64(int64_t a, int64_t b, int64_t *sum) {
  if (b > 0 ? a > INT64_MAX - b : a < INT64_MIN - b) return false;
  *sum = a + b;
  return true;
}

/* a >= 0 */
static bool mul_i64(int64_t a, int64_t b, int64_t *product) {
  if (a != 0 && (b > INT64_MAX / a || b < INT64_MIN / a)) return false;
  *product = a * b;
  return true;
}

/* Whether `bytes` from `offset` on are inside of `size`. */
static bool inside(uint64_t offset, uint64_t bytes, uint64_t size) { return offset <= size && bytes <= size - offset; }

static bool all_zero(const byte *p, size_t size) {
  if (size == 0) return true;
  return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

/* Where messages go: the name of the bundle comes first in each. */
typedef struct {
  const char *name;
  ti_error *error;
} voice;

PRINTF(3, 4) static bool fail(const voice *v, ti_code code, const char *format, ...) {
  va_list list;
  if (v->error == NULL) return false;
  v->error->code = code;
  int used = snprintf(v->error->text, sizeof v->error->text, "%s: ", v->name);
  size_t start = used < 0 ? 0 : (size_t)used < sizeof v->error->text ? (size_t)used : sizeof v->error->text - 1;
  va_start(list, format);
  (void)vsnprintf(v->error->text + start, sizeof v->error->text - start, format, list);
  va_end(list);
  return false;
}

const char *ti_error_text(const ti_error *error) { return error == NULL || error->code == TI_OK ? "" : error->text; }

/* ---- SHA-2 (FIPS 180-4) ---- */

/* SHA-512's constants; their upper halves are SHA-256's. */
static const uint64_t sha_k[80] = {
    0x428A2F98D728AE22, 0x7137449123EF65CD, 0xB5C0FBCFEC4D3B2F, 0xE9B5DBA58189DBBC,
    0x3956C25BF348B538, 0x59F111F1B605D019, 0x923F82A4AF194F9B, 0xAB1C5ED5DA6D8118,
    0xD807AA98A3030242, 0x12835B0145706FBE, 0x243185BE4EE4B28C, 0x550C7DC3D5FFB4E2,
    0x72BE5D74F27B896F, 0x80DEB1FE3B1696B1, 0x9BDC06A725C71235, 0xC19BF174CF692694,
    0xE49B69C19EF14AD2, 0xEFBE4786384F25E3, 0x0FC19DC68B8CD5B5, 0x240CA1CC77AC9C65,
    0x2DE92C6F592B0275, 0x4A7484AA6EA6E483, 0x5CB0A9DCBD41FBD4, 0x76F988DA831153B5,
    0x983E5152EE66DFAB, 0xA831C66D2DB43210, 0xB00327C898FB213F, 0xBF597FC7BEEF0EE4,
    0xC6E00BF33DA88FC2, 0xD5A79147930AA725, 0x06CA6351E003826F, 0x142929670A0E6E70,
    0x27B70A8546D22FFC, 0x2E1B21385C26C926, 0x4D2C6DFC5AC42AED, 0x53380D139D95B3DF,
    0x650A73548BAF63DE, 0x766A0ABB3C77B2A8, 0x81C2C92E47EDAEE6, 0x92722C851482353B,
    0xA2BFE8A14CF10364, 0xA81A664BBC423001, 0xC24B8B70D0F89791, 0xC76C51A30654BE30,
    0xD192E819D6EF5218, 0xD69906245565A910, 0xF40E35855771202A, 0x106AA07032BBD1B8,
    0x19A4C116B8D2D0C8, 0x1E376C085141AB53, 0x2748774CDF8EEB99, 0x34B0BCB5E19B48A8,
    0x391C0CB3C5C95A63, 0x4ED8AA4AE3418ACB, 0x5B9CCA4F7763E373, 0x682E6FF3D6B2B8A3,
    0x748F82EE5DEFB2FC, 0x78A5636F43172F60, 0x84C87814A1F0AB72, 0x8CC702081A6439EC,
    0x90BEFFFA23631E28, 0xA4506CEBDE82BDE9, 0xBEF9A3F7B2C67915, 0xC67178F2E372532B,
    0xCA273ECEEA26619C, 0xD186B8C721C0C207, 0xEADA7DD6CDE0EB1E, 0xF57D4F7FEE6ED178,
    0x06F067AA72176FBA, 0x0A637DC5A2C898A6, 0x113F9804BEF90DAE, 0x1B710B35131C471B,
    0x28DB77F523047D84, 0x32CAAB7B40C72493, 0x3C9EBE0A15C9BEBC, 0x431D67C49C100D4C,
    0x4CC5D4BECB3E42B6, 0x597F299CFC657E2A, 0x5FCB6FAB3AD6FAEC, 0x6C44198C4A475817};
static const uint64_t sha_start[8] = {0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
                                      0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};

typedef struct {
  uint32_t state[8];
  byte block[64];
  uint64_t size;
} sha256;

static uint32_t rotate32(uint32_t x, unsigned by) { return x >> by | x << (32 - by); }
static uint64_t rotate64(uint64_t x, unsigned by) { return x >> by | x << (64 - by); }

static void sha256_portable(uint32_t state[8], const byte *p, size_t blocks, const uint32_t k[64]) {
  for (; blocks > 0; blocks--, p += 64) {
    uint32_t w[64], s[8];
    for (unsigned i = 0; i < 16; i++) {
      w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (unsigned i = 16; i < 64; i++) {
      uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + (rotate32(a, 7) ^ rotate32(a, 18) ^ a >> 3) + w[i - 7] +
             (rotate32(b, 17) ^ rotate32(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (unsigned i = 0; i < 64; i++) {
      uint32_t e = s[4], a = s[0];
      uint32_t t = s[7] + (rotate32(e, 6) ^ rotate32(e, 11) ^ rotate32(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
      uint32_t u = (rotate32(a, 2) ^ rotate32(a, 13) ^ rotate32(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
      memmove(s + 1, s, 7 * sizeof *s);
      s[4] += t;
      s[0] = t + u;
    }
    for (unsigned i = 0; i < 8; i++) state[i] += s[i];
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
#define SHA256_INSTRUCTIONS
static bool has_sha256_instructions(void) {
  unsigned a, b, c, d, leaf1;
  if (!__get_cpuid(1, &a, &b, &leaf1, &d) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (b >> 29 & 1) != 0 && (leaf1 >> 19 & 1) != 0 && (leaf1 >> 9 & 1) != 0;
}

/* Four rounds, and the message words that are needed sixteen rounds later in place of `w0`. */
#define ROUNDS(w0, w1, w2, w3, at, more)                                                                           \
  do {                                                                                                             \
    __m128i sum = _mm_add_epi32(w0, _mm_loadu_si128((const void *)(k + (at))));                                    \
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);                                                                 \
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));                                        \
    if (more) {                                                                                                    \
      __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));                      \
      w0 = _mm_sha256msg2_epu32(next, w3);                                                                         \
    }                                                                                                              \
  } while (0)

__attribute__((target("sha,sse4.1,ssse3"))) static void sha256_instructions(uint32_t state[8], const byte *p,
                                                                              size_t blocks, const uint32_t k[64]) {
  const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const void *)state), 0xB1);
  __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const void *)(state + 4)), 0x1B);
  __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
  for (; blocks > 0; blocks--, p += 64) {
    __m128i w[4], abef_before = abef, cdgh_before = cdgh;
    for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(p + 16 * i)), swap);
    for (int i = 0; i < 64; i += 16) {
      ROUNDS(w[0], w[1], w[2], w[3], i, i < 48);
      ROUNDS(w[1], w[2], w[3], w[0], i + 4, i < 48);
      ROUNDS(w[2], w[3], w[0], w[1], i + 8, i < 48);
      ROUNDS(w[3], w[0], w[1], w[2], i + 12, i < 48);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  low = _mm_shuffle_epi32(abef, 0x1B);
  high = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128((void *)state, _mm_blend_epi16(low, high, 0xF0));
  _mm_storeu_si128((void *)(state + 4), _mm_alignr_epi8(high, low, 8));
}
#undef ROUNDS
#elif defined(__aarch64__) && (defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO) || \
                               (defined(__GNUC__) && !defined(__clang__)) || __clang_major__ >= 16)
#define SHA256_INSTRUCTIONS
static bool has_sha256_instructions(void) {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) >> 6 & 1) != 0;
#else
  return true; /* every Apple processor with 64 bits */
#endif
}

#if defined(__clang__)
__attribute__((target("sha2")))
#else
__attribute__((target("+crypto")))
#endif
static void sha256_instructions(uint32_t state[8], const byte *p, size_t blocks, const uint32_t k[64]) {
  uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
  for (; blocks > 0; blocks--, p += 64) {
    uint32x4_t w[4], abcd_before = abcd, efgh_before = efgh;
    for (int i = 0; i < 4; i++) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
    for (int i = 0; i < 16; i++) {
      uint32x4_t sum = vaddq_u32(w[i & 3], vld1q_u32(k + 4 * i)), old = abcd;
      abcd = vsha256hq_u32(abcd, efgh, sum);
      efgh = vsha256h2q_u32(efgh, old, sum);
      if (i < 12) {
        uint32x4_t next = vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]);
        w[i & 3] = vsha256su1q_u32(next, w[(i + 2) & 3], w[(i + 3) & 3]);
      }
    }
    abcd = vaddq_u32(abcd, abcd_before);
    efgh = vaddq_u32(efgh, efgh_before);
  }
  vst1q_u32(state, abcd);
  vst1q_u32(state + 4, efgh);
}
#endif

static void sha256_blocks(uint32_t state[8], const byte *p, size_t blocks) {
  uint32_t k[64];
  for (unsigned i = 0; i < 64; i++) k[i] = (uint32_t)(sha_k[i] >> 32);
#if defined(SHA256_INSTRUCTIONS)
  if (has_sha256_instructions()) {
    sha256_instructions(state, p, blocks, k);
    return;
  }
#endif
  sha256_portable(state, p, blocks, k);
}

static void sha256_begin(sha256 *h) {
  for (unsigned i = 0; i < 8; i++) h->state[i] = (uint32_t)(sha_start[i] >> 32);
  h->size = 0;
}

static void sha256_add(sha256 *h, const byte *p, size_t size) {
  size_t held = (size_t)(h->size % 64);
  h->size += size;
  if (held != 0) {
    size_t part = size < 64 - held ? size : 64 - held;
    memcpy(h->block + held, p, part);
    if (held + part < 64) return;
    sha256_blocks(h->state, h->block, 1);
    p += part;
    size -= part;
  }
  sha256_blocks(h->state, p, size / 64);
  memcpy(h->block, p + size / 64 * 64, size % 64);
}

static void sha256_end(sha256 *h, byte digest[32]) {
  byte tail[72] = {0x80};
  uint64_t bits = h->size * 8;
  size_t zeros = (size_t)((119 - h->size % 64) % 64) + 1;
  for (unsigned i = 0; i < 8; i++) tail[zeros + i] = (byte)(bits >> (56 - 8 * i));
  sha256_add(h, tail, zeros + 8);
  for (unsigned i = 0; i < 32; i++) digest[i] = (byte)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

static bool sha256_is(const byte *p, size_t size, const byte digest[32]) {
  sha256 h;
  byte found[32];
  sha256_begin(&h);
  sha256_add(&h, p, size);
  sha256_end(&h, found);
  return memcmp(found, digest, 32) == 0;
}

static void sha512_block(uint64_t state[8], const byte p[128]) {
  uint64_t w[80], s[8];
  for (unsigned i = 0; i < 16; i++) {
    w[i] = 0;
    for (unsigned j = 0; j < 8; j++) w[i] = w[i] << 8 | p[8 * i + j];
  }
  for (unsigned i = 16; i < 80; i++) {
    uint64_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotate64(a, 1) ^ rotate64(a, 8) ^ a >> 7) + w[i - 7] +
           (rotate64(b, 19) ^ rotate64(b, 61) ^ b >> 6);
  }
  memcpy(s, state, sizeof s);
  for (unsigned i = 0; i < 80; i++) {
    uint64_t e = s[4], a = s[0];
    uint64_t t = s[7] + (rotate64(e, 14) ^ rotate64(e, 18) ^ rotate64(e, 41)) + ((e & s[5]) ^ (~e & s[6])) + sha_k[i] + w[i];
    uint64_t u = (rotate64(a, 28) ^ rotate64(a, 34) ^ rotate64(a, 39)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t;
    s[0] = t + u;
  }
  for (unsigned i = 0; i < 8; i++) state[i] += s[i];
}

/* SHA-512 of up to 96 bytes: what a signature of a digest needs. */
static void sha512_short(const byte *p, size_t size, byte digest[64]) {
  byte block[128] = {0};
  uint64_t state[8];
  memcpy(block, p, size);
  block[size] = 0x80;
  block[126] = (byte)(size >> 5);
  block[127] = (byte)(size << 3);
  memcpy(state, sha_start, sizeof state);
  sha512_block(state, block);
  for (unsigned i = 0; i < 64; i++) digest[i] = (byte)(state[i / 8] >> (56 - 8 * (i % 8)));
}

/* ---- Ed25519 (RFC 8032), verification only: nothing here is secret, so nothing takes constant time ---- */

/* A number modulo p = 2^255 - 19, any representative below 2^256, lowest word first. */
typedef struct {
  uint32_t v[8];
} field;

/* A point (X/Z, Y/Z) with T = XY/Z. */
typedef struct {
  field x, y, z, t;
} point;

static const field field_one = {{1}};
static const field field_prime = {{0xFFFFFFED, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF,
                                   0x7FFFFFFF}};
static const field field_d = {{0x135978A3, 0x75EB4DCA, 0x4141D8AB, 0x00700A4D, 0x7779E898, 0x8CC74079, 0x2B6FFE73,
                               0x52036CEE}};
static const field field_root = {{0x4A0EA0B0, 0xC4EE1B27, 0xAD2FE478, 0x2F431806, 0x3DFBD7A7, 0x2B4D0099, 0x4FC1DF0B,
                                  0x2B832480}}; /* of -1 */
static const field group_order = {{0x5CF5D3ED, 0x5812631A, 0xA2F79CD6, 0x14DEF9DE, 0, 0, 0, 0x10000000}};

static bool words_below(const field *a, const field *b) {
  for (int i = 7; i > 0; i--) {
    if (a->v[i] != b->v[i]) return a->v[i] < b->v[i];
  }
  return a->v[0] < b->v[0];
}

static uint32_t words_subtract(field *a, const field *b) {
  uint64_t borrow = 0;
  for (int i = 0; i < 8; i++) {
    uint64_t x = (uint64_t)a->v[i] - b->v[i] - borrow;
    a->v[i] = (uint32_t)x;
    borrow = x >> 63;
  }
  return (uint32_t)borrow;
}

/* r = low + 2^256 * high, with 2^256 = 38. */
static field field_fold(const uint32_t low[8], const uint32_t high[8]) {
  field r;
  uint64_t carry = 0;
  for (int i = 0; i < 8; i++) {
    carry += low[i] + (uint64_t)38 * high[i];
    r.v[i] = (uint32_t)carry;
    carry >>= 32;
  }
  while (carry != 0) {
    carry *= 38;
    for (int i = 0; i < 8; i++) {
      carry += r.v[i];
      r.v[i] = (uint32_t)carry;
      carry >>= 32;
    }
  }
  return r;
}

static field field_multiply(field a, field b) {
  uint32_t t[16] = {0};
  for (int i = 0; i < 8; i++) {
    uint64_t carry = 0;
    for (int j = 0; j < 8; j++) {
      carry += (uint64_t)a.v[i] * b.v[j] + t[i + j];
      t[i + j] = (uint32_t)carry;
      carry >>= 32;
    }
    t[i + 8] = (uint32_t)carry;
  }
  return field_fold(t, t + 8);
}

static field field_add(field a, field b) {
  uint32_t high[8] = {0};
  uint64_t carry = 0;
  for (int i = 0; i < 8; i++) {
    carry += (uint64_t)a.v[i] + b.v[i];
    a.v[i] = (uint32_t)carry;
    carry >>= 32;
  }
  high[0] = (uint32_t)carry;
  return field_fold(a.v, high);
}

static field field_subtract(field a, field b) {
  static const field fold = {{38}};
  uint32_t borrow = words_subtract(&a, &b);
  while (borrow != 0) borrow = words_subtract(&a, &fold);
  return a;
}

/* The representative below p. */
static field field_canonical(field a) {
  while (!words_below(&a, &field_prime)) (void)words_subtract(&a, &field_prime);
  return a;
}

static bool field_equal(field a, field b) {
  a = field_canonical(a);
  b = field_canonical(b);
  return memcmp(&a, &b, sizeof a) == 0;
}

/* a to the power of 2^n - k, k below 256. */
static field field_power(field a, int n, unsigned k) {
  field r = field_one;
  for (int i = n - 1; i >= 0; i--) {
    r = field_multiply(r, r);
    if (i >= 8 || ((256 - k) >> i & 1) != 0) r = field_multiply(r, a);
  }
  return r;
}

static field field_read(const byte *p) {
  field r;
  for (int i = 0; i < 8; i++) r.v[i] = u32_at(p + 4 * i);
  return r;
}

static point point_add(const point *p, const point *q) {
  field a = field_multiply(field_subtract(p->y, p->x), field_subtract(q->y, q->x));
  field b = field_multiply(field_add(p->y, p->x), field_add(q->y, q->x));
  field c = field_multiply(field_multiply(p->t, field_d), field_add(q->t, q->t));
  field d = field_multiply(p->z, field_add(q->z, q->z));
  field e = field_subtract(b, a), f = field_subtract(d, c), g = field_add(d, c), h = field_add(b, a);
  return (point){field_multiply(e, f), field_multiply(g, h), field_multiply(f, g), field_multiply(e, h)};
}

/* Section 5.1.3. False where the bytes are not the encoding of a point. */
static bool point_read(point *r, const byte encoded[32]) {
  field y = field_read(encoded);
  uint32_t sign = y.v[7] >> 31;
  y.v[7] &= 0x7FFFFFFF;
  if (!words_below(&y, &field_prime)) return false;
  field y2 = field_multiply(y, y), u = field_subtract(y2, field_one);
  field v = field_add(field_multiply(y2, field_d), field_one), v3 = field_multiply(field_multiply(v, v), v);
  field power = field_power(field_multiply(u, field_multiply(v3, field_multiply(v3, v))), 252, 3);
  field x = field_multiply(field_multiply(u, v3), power), check = field_multiply(v, field_multiply(x, x));
  if (!field_equal(check, u)) {
    if (!field_equal(field_add(check, u), (field){{0}})) return false;
    x = field_multiply(x, field_root);
  }
  x = field_canonical(x);
  if (field_equal(x, (field){{0}}) && sign != 0) return false;
  if ((x.v[0] & 1) != sign) x = field_subtract((field){{0}}, x);
  *r = (point){x, y, field_one, field_multiply(x, y)};
  return true;
}

static void point_write(const point *p, byte encoded[32]) {
  field inverse = field_power(p->z, 255, 21);
  field x = field_canonical(field_multiply(p->x, inverse)), y = field_canonical(field_multiply(p->y, inverse));
  for (int i = 0; i < 32; i++) encoded[i] = (byte)(y.v[i / 4] >> (8 * (i % 4)));
  encoded[31] = (byte)(encoded[31] | (x.v[0] & 1) << 7);
}

/* Section 5.1.7: whether S·B - k·A encodes as R, with k the SHA-512 of R, A and the message (32 bytes at most), modulo the
 * order. */
static bool ed25519_valid(const byte key[32], const byte signature[64], const byte *message, size_t size) {
  static const byte base[32] = {0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                0x66, 0x66};
  byte text[96], digest[64], encoded[32];
  field s = field_read(signature + 32), k = {{0}};
  point sums[4] = {{{{0}}, field_one, field_one, {{0}}}}, r;
  if (!words_below(&s, &group_order) || !point_read(&sums[1], base) || !point_read(&sums[2], key)) return false;
  memcpy(text, signature, 32);
  memcpy(text + 32, key, 32);
  memcpy(text + 64, message, size);
  sha512_short(text, 64 + size, digest);
  for (int i = 511; i >= 0; i--) {
    for (int j = 7; j >= 0; j--) k.v[j] = k.v[j] << 1 | (j > 0 ? k.v[j - 1] >> 31 : digest[i / 8] >> (i % 8) & 1U);
    if (!words_below(&k, &group_order)) (void)words_subtract(&k, &group_order);
  }
  sums[2].x = field_subtract((field){{0}}, sums[2].x);
  sums[2].t = field_subtract((field){{0}}, sums[2].t);
  sums[3] = point_add(&sums[1], &sums[2]);
  r = sums[0];
  for (int i = 255; i >= 0; i--) {
    unsigned which = (s.v[i / 32] >> (i % 32) & 1) | (k.v[i / 32] >> (i % 32) & 1) << 1;
    r = point_add(&r, &r);
    if (which != 0) r = point_add(&r, &sums[which]);
  }
  point_write(&r, encoded);
  return memcmp(encoded, signature, 32) == 0;
}

/* ---- Element types ---- */

typedef enum { SIGNED = 1, UNSIGNED, REAL, COMPLEX, OPAQUE } kind_of_type;

static const struct {
  const char *name;
  byte bytes;
  byte kind;
} types[24] = {
    [TI_FLOAT32] = {"float32", 4, REAL}, [TI_UINT8] = {"uint8", 1, UNSIGNED}, [TI_INT8] = {"int8", 1, SIGNED},
    [TI_UINT16] = {"uint16", 2, UNSIGNED}, [TI_INT16] = {"int16", 2, SIGNED}, [TI_INT32] = {"int32", 4, SIGNED},
    [TI_INT64] = {"int64", 8, SIGNED}, [TI_BOOL] = {"bool", 1, UNSIGNED}, [TI_FLOAT16] = {"float16", 2, REAL},
    [TI_FLOAT64] = {"float64", 8, REAL}, [TI_UINT32] = {"uint32", 4, UNSIGNED}, [TI_UINT64] = {"uint64", 8, UNSIGNED},
    [TI_COMPLEX64] = {"complex64", 8, COMPLEX}, [TI_COMPLEX128] = {"complex128", 16, COMPLEX},
    [TI_BFLOAT16] = {"bfloat16", 2, REAL}, [TI_FLOAT8E4M3FN] = {"float8_e4m3fn", 1, OPAQUE},
    [TI_FLOAT8E4M3FNUZ] = {"float8_e4m3fnuz", 1, OPAQUE}, [TI_FLOAT8E5M2] = {"float8_e5m2", 1, OPAQUE},
    [TI_FLOAT8E5M2FNUZ] = {"float8_e5m2fnuz", 1, OPAQUE}, [TI_UINT4] = {"uint4", 1, UNSIGNED},
    [TI_INT4] = {"int4", 1, SIGNED}, [TI_FLOAT4E2M1] = {"float4_e2m1fn", 1, OPAQUE}};

size_t ti_type_bytes(ti_type type) { return (unsigned)type < 24 ? types[type].bytes : 0; }
const char *ti_type_name(ti_type type) { return ti_type_bytes(type) != 0 ? types[type].name : "unknown"; }
static kind_of_type kind_of(ti_type type) { return (kind_of_type)types[type].kind; }

/* A binary float of `mantissa` and `exponent` bits, as a double. */
static double unpack_float(uint32_t bits, int mantissa, int exponent) {
  int power = (int)(bits >> mantissa & ((1U << exponent) - 1)), bias = (1 << (exponent - 1)) - 1;
  uint32_t fraction = bits & ((1U << mantissa) - 1);
  bool negative = (bits >> (mantissa + exponent) & 1) != 0;
  double value;
  if (power == (1 << exponent) - 1) {
    value = fraction != 0 ? (double)NAN : (double)INFINITY;
  } else if (power == 0) {
    value = ldexp((double)fraction, 1 - bias - mantissa);
  } else {
    value = ldexp((double)(fraction | 1U << mantissa), power - bias - mantissa);
  }
  return negative ? -value : value;
}

/* The nearest such float, ties to even. */
static uint32_t pack_float(double value, int mantissa, int exponent) {
  uint32_t sign = (signbit(value) ? 1U : 0U) << (mantissa + exponent), infinity = ((1U << exponent) - 1) << mantissa;
  int bias = (1 << (exponent - 1)) - 1, power;
  double magnitude = fabs(value);
  if (isnan(value)) return sign | infinity | 1U << (mantissa - 1);
  if (isinf(value)) return sign | infinity;
  (void)frexp(magnitude, &power); /* magnitude < 2^power */
  power = magnitude == 0 || power < 2 - bias ? 2 - bias : power;
  if (power > bias + 1) return sign | infinity;
  /* In units of the last place, below 2^(mantissa + 1); adding the exponent carries where rounding does. */
  uint32_t units = (uint32_t)nearbyint(ldexp(magnitude, mantissa + 1 - power));
  return sign | (units + ((uint32_t)(power - 2 + bias) << mantissa));
}

static double load_real(ti_type type, const byte *p) {
  float single;
  switch (type) {
    case TI_FLOAT32: memcpy(&single, p, sizeof single); return (double)single;
    case TI_FLOAT64: return f64_at(p);
    case TI_BFLOAT16: return unpack_float(u16_at(p), 7, 8);
    default: return unpack_float(u16_at(p), 10, 5);
  }
}

static void store_real(ti_type type, byte *p, double value) {
  float single = (float)value;
  uint32_t half;
  switch (type) {
    case TI_FLOAT32: memcpy(p, &single, sizeof single); return;
    case TI_FLOAT64: memcpy(p, &value, sizeof value); return;
    default:
      half = type == TI_BFLOAT16 ? pack_float(value, 7, 8) : pack_float(value, 10, 5);
      p[0] = (byte)half;
      p[1] = (byte)(half >> 8);
  }
}

/* Integers as 64 bits; those of uint64 keep theirs. */
static int64_t load_integer(ti_type type, const byte *p) {
  switch (types[type].bytes) {
    case 1: return kind_of(type) == SIGNED ? (p[0] ^ 0x80) - 0x80 : p[0];
    case 2: return kind_of(type) == SIGNED ? (u16_at(p) ^ 0x8000) - 0x8000 : u16_at(p);
    case 4: return kind_of(type) == SIGNED ? (int64_t)(u32_at(p) ^ 0x80000000U) - INT64_C(0x80000000) : u32_at(p);
    default: return i64_at(p);
  }
}

static void store_integer(ti_type type, byte *p, int64_t value) {
  for (unsigned i = 0; i < types[type].bytes; i++) p[i] = (byte)((uint64_t)value >> (8 * i));
}

/* ---- The machine ---- */

enum { X86_64 = 1, AARCH64, ARMV7, RISCV64, WASM32, ARCHITECTURES };

static const struct {
  const char *name;
  const char *features[8];
} architectures[ARCHITECTURES] = {
    [X86_64] = {"x86_64", {"x86-64-v3", "AVX-512 F BW CD DQ VL", "AVX512-VNNI", "AVX512-BF16", "AVX-VNNI", "AVX512-FP16"}},
    [AARCH64] = {"aarch64", {"Advanced SIMD", "FP16", "dot product", "I8MM", "BF16", "SVE", "SVE2"}},
    [ARMV7] = {"armv7", {"NEON", "VFPv4", "integer division"}},
    [RISCV64] = {"riscv64", {"V", "Zvfh", "Zba", "Zbb"}},
    [WASM32] = {"wasm32", {"simd128", "relaxed-simd"}}};

#define BIT(word, from, to) (((uint64_t)(word) >> (from) & 1) << (to))

#if defined(__x86_64__)
static const unsigned this_architecture = X86_64;

static uint64_t machine_features(void) {
  unsigned a, b, c, d, basic, extended, seven_b, seven_c, seven_d, states = 0;
  uint64_t features = 0;
  if (!__get_cpuid(1, &a, &b, &basic, &d) || !__get_cpuid(0x80000001U, &a, &b, &extended, &d)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &seven_b, &seven_c, &seven_d)) return 0;
  if ((basic >> 27 & 1) != 0) __asm__ volatile("xgetbv" : "=a"(states), "=d"(d) : "c"(0));
  const unsigned level3 = 1U << 12 | 1U << 22 | 1U << 29, level3_seven = 1U << 3 | 1U << 5 | 1U << 8;
  const unsigned level4_seven = 1U << 16 | 1U << 17 | 1U << 28 | 1U << 30 | 1U << 31;
  if ((states & 6) != 6 || (basic & level3) != level3 || (seven_b & level3_seven) != level3_seven) return 0;
  if ((extended >> 5 & 1) == 0) return 0;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) a = 0;
  features = 1 | BIT(a, 4, 4);
  if ((states & 0xE0) == 0xE0 && (seven_b & level4_seven) == level4_seven) {
    features |= 2 | BIT(seven_c, 11, 2) | BIT(a, 5, 3) | BIT(seven_d, 23, 5);
  }
  return features;
}
#elif defined(__aarch64__)
static const unsigned this_architecture = AARCH64;

#if defined(__APPLE__)
static unsigned has(const char *name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

static uint64_t machine_features(void) {
  return 1 | BIT(has("hw.optional.arm.FEAT_FP16"), 0, 1) | BIT(has("hw.optional.arm.FEAT_DotProd"), 0, 2) |
         BIT(has("hw.optional.arm.FEAT_I8MM"), 0, 3) | BIT(has("hw.optional.arm.FEAT_BF16"), 0, 4);
}
#else
static uint64_t machine_features(void) {
  unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
  return BIT(one, 1, 0) | BIT(one, 10, 1) | BIT(one, 20, 2) | BIT(two, 13, 3) | BIT(two, 14, 4) | BIT(one, 22, 5) |
         BIT(two, 1, 6);
}
#endif
#elif defined(__arm__)
static const unsigned this_architecture = ARMV7;

static uint64_t machine_features(void) {
  unsigned long one = getauxval(AT_HWCAP);
  return BIT(one, 12, 0) | BIT(one, 16, 1) | BIT(one, 17, 2);
}
#elif defined(__riscv) && __riscv_xlen == 64
static const unsigned this_architecture = RISCV64;

static uint64_t machine_features(void) {
  unsigned long base = getauxval(AT_HWCAP), length = 0;
  uint64_t features = 0;
  int64_t probe[2] = {4, 0}; /* riscv_hwprobe's key of the extensions */
  if (syscall(258, probe, 1, 0, NULL, 0) == 0) {
    features = BIT(probe[1], 2, 0) | BIT(probe[1], 30, 1) | BIT(probe[1], 3, 2) | BIT(probe[1], 4, 3);
  }
  features |= BIT(base, 'V' - 'A', 0);
  if ((features & 1) != 0) __asm__ volatile("csrr %0, 0xC22" : "=r"(length)); /* vlenb */
  return length >= 16 ? features : features & ~UINT64_C(3);
}
#else
static const unsigned this_architecture = 0;
static uint64_t machine_features(void) { return 0; }
#endif

/* The names of `features`, each after `before`; returns how many there are. */
static unsigned feature_names(unsigned architecture, uint64_t features, const char *before, char *text, size_t size) {
  unsigned count = 0;
  size_t used = 0;
  text[0] = 0;
  for (unsigned i = 0; i < 64; i++) {
    if ((features >> i & 1) == 0) continue;
    const char *name = i < 8 ? architectures[architecture].features[i] : NULL;
    char number[24];
    (void)snprintf(number, sizeof number, "feature %u", i);
    int more = snprintf(text + used, size - used, "%s%s", count == 0 ? "" : before, name != NULL ? name : number);
    if (more < 0 || (size_t)more >= size - used) break;
    used += (size_t)more;
    count++;
  }
  return count;
}

void ti_machine(char *text, size_t size) {
  char names[160];
  if (size == 0) return;
  if (this_architecture == 0) {
    (void)snprintf(text, size, "a processor without bundles");
    return;
  }
  const char *name = architectures[this_architecture].name;
  unsigned count = feature_names(this_architecture, machine_features(), ", ", names, sizeof names);
  (void)snprintf(text, size, "%s%s%s", name, count == 0 ? "" : " with ", names);
}

/* Subnormal numbers count as zero from here on; returns what `restore_subnormals` takes. */
static uintptr_t flush_subnormals(void) {
#if defined(__x86_64__)
  unsigned old = _mm_getcsr();
  _mm_setcsr(old | 0x8040U);
  return old;
#elif defined(__aarch64__)
  uint64_t old;
  __asm__ volatile("mrs %0, fpcr" : "=r"(old));
  __asm__ volatile("msr fpcr, %0" : : "r"(old | UINT64_C(1) << 24));
  return old;
#elif defined(__arm__) && defined(__ARM_FP)
  uint32_t old;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(old));
  __asm__ volatile("vmsr fpscr, %0" : : "r"(old | 1U << 24));
  return old;
#else
  return 0;
#endif
}

static void restore_subnormals(uintptr_t old) {
#if defined(__x86_64__)
  _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)old));
#elif defined(__arm__) && defined(__ARM_FP)
  __asm__ volatile("vmsr fpscr, %0" : : "r"((uint32_t)old));
#else
  (void)old;
#endif
}

static void pause_briefly(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

/* ---- Memory ---- */

/* Zeros at a multiple of 64, or of the size of a huge page where that pays. `memory` is what to free. */
typedef struct {
  byte *at;
  void *memory;
} block;

static bool block_make(block *b, uint64_t size) {
  size_t unit = size >= (2U << 20) ? 2U << 20 : LINE;
  *b = (block){NULL, NULL};
  if (size > SIZE_MAX / 2 - unit) return false;
  b->memory = calloc(1, (size_t)size + unit);
  if (b->memory == NULL) return false;
  b->at = (byte *)b->memory + (unit - (uintptr_t)b->memory % unit) % unit;
#if defined(MADV_HUGEPAGE)
  if (unit > LINE) (void)madvise(b->at, (size_t)size / unit * unit, MADV_HUGEPAGE);
#endif
  return true;
}

/* Pages of the system: read-only bytes of a file, or code. */
typedef struct {
  void *at;
  size_t size;
} pages;

static void pages_drop(pages *p) {
  if (p->at != NULL) (void)munmap(p->at, p->size);
  *p = (pages){NULL, 0};
}

static bool pages_of(pages *p, size_t size, int protection, int flags, int file, off_t offset) {
  void *at = mmap(NULL, size, protection, flags, file, offset);
  *p = (pages){at == MAP_FAILED ? NULL : at, at == MAP_FAILED ? 0 : size};
  return at != MAP_FAILED;
}

/* Maps code for execution: from the file where it can be, else as a copy. It is never writable and executable at once. */
static bool pages_of_code(pages *p, const byte *code, size_t size, int file, uint64_t offset) {
  long page = sysconf(_SC_PAGESIZE);
  if (file >= 0 && page > 0 && offset % (uint64_t)page == 0 &&
      pages_of(p, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, (off_t)offset)) {
    return true;
  }
  if (!pages_of(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) return false;
  memcpy(p->at, code, size);
  if (mprotect(p->at, size, PROT_READ | PROT_EXEC) != 0) {
    pages_drop(p);
    return false;
  }
#if defined(__GNUC__)
  __builtin___clear_cache((char *)p->at, (char *)p->at + size);
#endif
  return true;
}

/* ---- The container ---- */

/* Records of a table: record i is `step` bytes at `at + i * step`. */
typedef struct {
  const byte *at;
  uint32_t count;
  uint32_t step;
} table;

enum { STRINGS, DIMS, VALUES, TENSORS, RUNS, KERNELS, LAUNCHES, REFERENCES, LOOPS };
enum { NOWHERE, ARENA, TENSOR, INPUT, OUTPUT };

static const byte *record(table t, uint32_t i) { return t.at + (size_t)i * t.step; }

typedef void kernel(void **arguments, int64_t chunk);

/* A launch, made of its record. Its arguments are slots of the context, filled from `references` on. */
typedef struct {
  kernel *function;
  struct loop *loop;
  uint64_t chunks;
  uint32_t references;
  uint32_t count;
  size_t slot;
  bool waits;
  bool taken;
} launch;

/* A slot whose pointer moves after even and odd iterations. */
typedef struct {
  size_t slot;
  int64_t even, odd;
} mover;

/* A loop, made of its record. Its inputs and then its outputs are slots from `slot` on. */
typedef struct loop {
  uint64_t steps;
  uint32_t first, launches, arena, iteration;
  uint32_t inputs, input_count, outputs, output_count;
  uint32_t cleared, cleared_count, before, before_count, after, after_count;
  uint32_t trips, enter, go_on, done;
  size_t slot, movers, mover_count;
  bool taken;
} loop;

struct ti_model {
  char *name;
  const byte *file;
  size_t size;
  pages mapped, code_pages;
  const byte *code;
  uint64_t code_size;
  const byte *manifest, *golden;
  size_t manifest_size, golden_size;
  table stored;
  const byte *weights;
  uint64_t weights_size;
  char target[33];
  table tables[TABLES];
  uint64_t arena_bytes, expanded_bytes, max_iterations;
  uint32_t main_first, main_count;
  size_t input_count, output_count, slot_count, mover_count, mover_room;
  ti_value *values;
  int64_t *dims;
  char *names;
  const byte **tensors;
  block expanded;
  launch *launches;
  loop *loops;
  mover *movers;
  ti_context *context;
};

/* A section as the table of contents states it. `at` is NULL where it is held elsewhere. */
typedef struct {
  char kind[5];
  bool critical, elsewhere;
  const byte *at, *digest, *name;
  uint64_t offset, size;
  uint32_t group;
} section;

enum { PLAIN, PER_TARGET };

static const struct {
  char kind[5];
  byte group, least, most;
  uint32_t alignment;
} kinds[] = {{"MANI", PLAIN, 1, 1, 64},     {"PLAN", PER_TARGET, 0, 0, 64}, {"CODE", PER_TARGET, 0, 0, 16384},
             {"WIDX", PLAIN, 1, 1, 64},     {"WGHT", PLAIN, 1, 1, 16384},   {"GOLD", PLAIN, 0, 1, 64},
             {"PROV", PLAIN, 0, 0, 64},     {"TUNE", PLAIN, 0, 0, 64},      {"TRNG", PLAIN, 0, 0, 64},
             {"SIGN", PLAIN, 0, 1, 64}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static section section_at(const byte *file, uint32_t i) {
  const byte *entry = file + HEADER + (size_t)i * ENTRY;
  section s = {{0}, (entry[4] & 1) != 0, (entry[4] & 2) != 0, NULL, entry + 32, entry + 64, u64_at(entry + 8),
               u64_at(entry + 16), u32_at(entry + 24)};
  for (unsigned j = 0; j < 4; j++) s.kind[j] = entry[j] >= 32 && entry[j] < 127 ? (char)entry[j] : '?';
  if (!s.elsewhere && s.offset <= u64_at(file + 16)) s.at = file + s.offset;
  return s;
}

static uint32_t section_count(const byte *file) { return u32_at(file + 12); }

/* The first section of a kind, and of a group where that is not 0. */
static bool section_find(const byte *file, const char *kind, uint32_t group, section *found) {
  for (uint32_t i = 0; i < section_count(file); i++) {
    *found = section_at(file, i);
    if (strcmp(found->kind, kind) == 0 && found->group == group) return true;
  }
  return false;
}

static bool check_header(const voice *v, const byte *file, size_t size) {
  static const byte magic[8] = {0x89, 'T', 'I', 'N', 'F', 0x0D, 0x0A, 0x1A};
  sha256 h;
  byte digest[32];
  if (size < HEADER) return fail(v, TI_ERROR_FORMAT, "no bundle: it has %zu bytes, and a header alone has 64", size);
  if (memcmp(file, magic, sizeof magic) != 0) return fail(v, TI_ERROR_FORMAT, "no bundle: it does not begin as one");
  if (u16_at(file + 8) != TI_VERSION_MAJOR) {
    return fail(v, TI_ERROR_FORMAT, "version %u.%u of the bundle format; this runtime reads version %d", u16_at(file + 8),
                u16_at(file + 10), TI_VERSION_MAJOR);
  }
  uint32_t count = section_count(file);
  if (count < 1 || count > MAX_SECTIONS) {
    return fail(v, TI_ERROR_FORMAT, "%lu sections; a bundle has 1 to 1024", (unsigned long)count);
  }
  if (u64_at(file + 16) != size) {
    return fail(v, TI_ERROR_FORMAT, "cut or grown: it has %zu bytes and should have %llu", size,
                (unsigned long long)u64_at(file + 16));
  }
  if (HEADER + (size_t)count * ENTRY > size) return fail(v, TI_ERROR_FORMAT, "cut inside of its table of contents");
  sha256_begin(&h);
  sha256_add(&h, file, 32);
  sha256_add(&h, file + HEADER, (size_t)count * ENTRY);
  sha256_end(&h, digest);
  if (memcmp(digest, file + 32, 32) != 0) {
    return fail(v, TI_ERROR_HASH, "damaged: header and table of contents are not those that were written");
  }
  if (u64_at(file + 24) != 0) return fail(v, TI_ERROR_FORMAT, "the header's reserved bytes are not zero");
  return true;
}

static bool check_section(const voice *v, const byte *file, size_t size, uint32_t i, unsigned counts[KINDS]) {
  const byte *entry = file + HEADER + (size_t)i * ENTRY;
  section s = section_at(file, i);
  unsigned long number = i;
  uint32_t alignment = 64, which;
  for (which = 0; which < KINDS && strcmp(kinds[which].kind, s.kind) != 0; which++) continue;
  if (memcmp(entry, s.kind, 4) != 0) return fail(v, TI_ERROR_FORMAT, "section %lu: its kind is no text", number);
  if ((u32_at(entry + 4) & ~3U) != 0 || u32_at(entry + 28) != 0) {
    return fail(v, TI_ERROR_FORMAT, "section %lu (%s): reserved bits are not zero", number, s.kind);
  }
  if (which == KINDS && s.critical) {
    return fail(v, TI_ERROR_FORMAT, "section %lu is of kind %s, which this runtime does not know and may not skip", number,
                s.kind);
  }
  if (which < KINDS) {
    alignment = kinds[which].alignment;
    if ((kinds[which].group == PER_TARGET) != (s.group != 0)) {
      return fail(v, TI_ERROR_FORMAT, "section %lu (%s): group %lu", number, s.kind, (unsigned long)s.group);
    }
    if (kinds[which].most != 0 && ++counts[which] > kinds[which].most) {
      return fail(v, TI_ERROR_FORMAT, "section %lu: a second %s", number, s.kind);
    }
    for (uint32_t j = 0; s.group != 0 && j < i; j++) {
      section other = section_at(file, j);
      if (other.group == s.group && strcmp(other.kind, s.kind) == 0) {
        return fail(v, TI_ERROR_FORMAT, "section %lu: a second %s of group %lu", number, s.kind, (unsigned long)s.group);
      }
    }
  }
  const byte *end = memchr(s.name, 0, 32);
  if (!all_zero(end != NULL ? end : s.name + 32, end != NULL ? (size_t)(s.name + 32 - end) : 0)) {
    return fail(v, TI_ERROR_FORMAT, "section %lu (%s): bytes after its name are not zero", number, s.kind);
  }
  for (const byte *p = s.name; p < s.name + 32 && *p != 0; p++) {
    if (*p < 32 || *p > 126) return fail(v, TI_ERROR_FORMAT, "section %lu (%s): its name is no ASCII", number, s.kind);
  }
  if (s.elsewhere) {
    if (strcmp(s.kind, "CODE") == 0 && s.offset == 0) return true;
    return fail(v, TI_ERROR_FORMAT, "section %lu (%s): cannot be held elsewhere", number, s.kind);
  }
  if (s.offset % alignment != 0) return fail(v, TI_ERROR_FORMAT, "section %lu (%s): not aligned", number, s.kind);
  if (!inside(s.offset, s.size, size)) {
    return fail(v, TI_ERROR_FORMAT, "section %lu (%s): ends outside of the file", number, s.kind);
  }
  return true;
}

/* Step 3 of docs/bundle.md: order and bounds of all sections before the hash of any. */
static bool check_sections(const voice *v, const byte *file, size_t size) {
  uint32_t count = section_count(file);
  uint64_t end = HEADER + (uint64_t)count * ENTRY;
  unsigned counts[KINDS] = {0};
  for (uint32_t i = 0; i < count; i++) {
    if (!check_section(v, file, size, i, counts)) return false;
    section s = section_at(file, i);
    if ((i == 0) != (strcmp(s.kind, "MANI") == 0)) {
      return fail(v, TI_ERROR_FORMAT, "the manifest is not the first section");
    }
    if (strcmp(s.kind, "SIGN") == 0 && (i + 1 != count || s.size != 96)) {
      return fail(v, TI_ERROR_FORMAT, "the signature is not the last section, or not 96 bytes long");
    }
    if (s.elsewhere) continue;
    if (s.offset < end) return fail(v, TI_ERROR_FORMAT, "section %lu (%s): overlaps another", (unsigned long)i, s.kind);
    if (!all_zero(file + end, (size_t)(s.offset - end))) {
      return fail(v, TI_ERROR_HASH, "damaged: bytes before section %lu (%s) are not zero", (unsigned long)i, s.kind);
    }
    end = s.offset + s.size;
  }
  if (!all_zero(file + end, (size_t)(size - end))) {
    return fail(v, TI_ERROR_HASH, "damaged: bytes after the last section are not zero");
  }
  for (unsigned k = 0; k < KINDS; k++) {
    if (counts[k] < kinds[k].least) return fail(v, TI_ERROR_FORMAT, "no section %s", kinds[k].kind);
  }
  for (uint32_t i = 0; i < count; i++) {
    section s = section_at(file, i);
    if (!s.elsewhere && !sha256_is(s.at, (size_t)s.size, s.digest)) {
      return fail(v, TI_ERROR_HASH, "damaged: section %lu (%s) is not what was written", (unsigned long)i, s.kind);
    }
  }
  return true;
}

static bool check_signature(const voice *v, const byte *file, const ti_options *options) {
  static const char text[] = "tinyinfer bundle signature 1";
  section s;
  sha256 h;
  byte digest[32];
  if (!section_find(file, "SIGN", 0, &s)) {
    if (options->require_signature == 0 && options->key_count == 0) return true;
    return fail(v, TI_ERROR_SIGNATURE, "not signed, and a signature is required");
  }
  bool trusted = options->key_count == 0;
  for (size_t i = 0; i < options->key_count; i++) trusted = trusted || memcmp(options->keys[i], s.at, 32) == 0;
  if (!trusted) return fail(v, TI_ERROR_SIGNATURE, "signed with a key that is not trusted");
  sha256_begin(&h);
  sha256_add(&h, (const byte *)text, sizeof text);
  sha256_add(&h, file, 12);
  sha256_add(&h, file + HEADER, ((size_t)section_count(file) - 1) * ENTRY); /* SIGN is the last entry */
  sha256_end(&h, digest);
  if (!ed25519_valid(s.at, s.at + 32, digest, sizeof digest)) {
    return fail(v, TI_ERROR_SIGNATURE, "the signature is not one of this bundle");
  }
  return true;
}

/* Tries PLAN sections in order of file, and says of each why not where none will do. */
static bool choose_target(const voice *v, ti_model *m, const char *wanted, section *plan) {
  char machine[200], reasons[360] = "", names[160];
  size_t used = 0;
  uint64_t features = machine_features();
  for (uint32_t i = 0; i < section_count(m->file); i++) {
    *plan = section_at(m->file, i);
    if (strcmp(plan->kind, "PLAN") != 0) continue;
    memcpy(m->target, plan->name, 32);
    if (plan->size < PLAN_HEADER) return fail(v, TI_ERROR_FORMAT, "the plan of %s is shorter than its header", m->target);
    uint32_t architecture = u32_at(plan->at), pointer = u32_at(plan->at + 4);
    uint64_t missing = u64_at(plan->at + 8) & ~features;
    const char *separator = used == 0 ? "" : "; ";
    int more;
    if (wanted != NULL && strcmp(wanted, m->target) != 0) {
      more = snprintf(reasons + used, sizeof reasons - used, "%s%s is not wanted", separator, m->target);
    } else if (architecture == WASM32) {
      more = snprintf(reasons + used, sizeof reasons - used, "%s%s is for the JavaScript loader", separator, m->target);
    } else if (architecture == 0 || architecture >= ARCHITECTURES) {
      more = snprintf(reasons + used, sizeof reasons - used, "%s%s is for a newer runtime", separator, m->target);
    } else if (architecture != this_architecture || pointer != sizeof(void *)) {
      more = snprintf(reasons + used, sizeof reasons - used, "%s%s is for %s", separator, m->target,
                      architectures[architecture].name);
    } else if (missing != 0) {
      (void)feature_names(architecture, missing, ", ", names, sizeof names);
      more = snprintf(reasons + used, sizeof reasons - used, "%s%s needs %s", separator, m->target, names);
    } else {
      return true;
    }
    if (more > 0) used = used + (size_t)more < sizeof reasons ? used + (size_t)more : sizeof reasons - 1;
  }
  ti_machine(machine, sizeof machine);
  if (wanted != NULL) {
    return fail(v, TI_ERROR_TARGET, "no target %s for this machine (%s): %s", wanted, machine, reasons);
  }
  return fail(v, TI_ERROR_TARGET, "no target for this machine (%s): %s", machine, used == 0 ? "it has none" : reasons);
}

/* The code of the chosen target, not yet executable. */
static bool find_code(const voice *v, ti_model *m, uint32_t group, const ti_options *options, section *code) {
  if (!section_find(m->file, "CODE", group, code)) return fail(v, TI_ERROR_FORMAT, "%s has no code", m->target);
  m->code_size = code->size;
  if (!code->elsewhere) return true;
  if (options->code == NULL) {
    return fail(v, TI_ERROR_ARGUMENT, "the code of %s is held elsewhere, and none was given", m->target);
  }
  if (options->code_size != code->size || !sha256_is(options->code, options->code_size, code->digest)) {
    return fail(v, TI_ERROR_HASH, "the code that was given for %s is not the bundle's", m->target);
  }
  m->code = options->code;
  return true;
}

/* ---- The plan: every number in it is checked here, once ---- */

static bool read_tables(const voice *v, ti_model *m, const section *plan) {
  static const byte least[TABLES] = {1, 8, 48, 56, 24, 16, 48, 32, 96};
  const uint64_t start = PLAN_HEADER + TABLES * 16;
  if (plan->size < start || u32_at(plan->at + 24) != TABLES) {
    return fail(v, TI_ERROR_FORMAT, "the plan of %s has not %d tables", m->target, TABLES);
  }
  m->arena_bytes = u64_at(plan->at + 16);
  m->main_first = u32_at(plan->at + 28);
  m->main_count = u32_at(plan->at + 32);
  if (m->arena_bytes > SIZE_MAX / 4) return fail(v, TI_ERROR_MEMORY, "the arena is larger than this machine's memory");
  for (unsigned i = 0; i < TABLES; i++) {
    const byte *p = plan->at + PLAN_HEADER + 16 * i;
    uint64_t offset = u32_at(p), bytes;
    table t = {NULL, u32_at(p + 4), u32_at(p + 8)};
    if (t.count == 0) {
      m->tables[i] = t;
      continue;
    }
    if (t.step < least[i] || offset % 8 != 0 || offset < start || !mul_u64(t.count, t.step, &bytes) ||
        !inside(offset, bytes, plan->size)) {
      return fail(v, TI_ERROR_FORMAT, "the plan of %s: table %u is outside of it", m->target, i);
    }
    t.at = plan->at + offset;
    for (unsigned j = 0; j < i; j++) {
      table other = m->tables[j];
      if (other.count != 0 && t.at < other.at + (size_t)other.count * other.step && other.at < t.at + bytes) {
        return fail(v, TI_ERROR_FORMAT, "the plan of %s: tables %u and %u overlap", m->target, j, i);
      }
    }
    m->tables[i] = t;
  }
  return true;
}

static bool range_in(table t, uint32_t first, uint32_t count) { return inside(first, count, t.count); }

static void *make(size_t count, size_t bytes) { return calloc(count == 0 ? 1 : count, bytes); }

static bool read_values(const voice *v, ti_model *m) {
  table values = m->tables[VALUES], dims = m->tables[DIMS], strings = m->tables[STRINGS];
  uint64_t characters = 0;
  for (uint32_t i = 0; i < values.count; i++) {
    const byte *p = record(values, i);
    if (!range_in(strings, u32_at(p), u32_at(p + 4)) || strings.step > 1) {
      return fail(v, TI_ERROR_FORMAT, "value %lu: its name is outside of the strings", (unsigned long)i);
    }
    characters += (uint64_t)u32_at(p + 4) + 1;
  }
  if (characters > SIZE_MAX / 2) return fail(v, TI_ERROR_MEMORY, "the names are larger than this machine's memory");
  m->values = make(values.count, sizeof *m->values);
  m->dims = make(dims.count, sizeof *m->dims);
  m->names = make((size_t)characters, 1);
  if (m->values == NULL || m->dims == NULL || m->names == NULL) return fail(v, TI_ERROR_MEMORY, "no memory for the plan");
  for (uint32_t i = 0; i < dims.count; i++) m->dims[i] = i64_at(record(dims, i));
  char *name = m->names;
  for (uint32_t i = 0; i < values.count; i++) {
    const byte *p = record(values, i);
    ti_value *value = &m->values[i];
    uint32_t length = u32_at(p + 4), first = u32_at(p + 16), direction = u32_at(p + 20), fixed = u32_at(p + 32);
    uint64_t elements = 1, bytes;
    if (length > 0) memcpy(name, record(strings, u32_at(p)), length);
    value->name = name;
    name += length + 1;
    value->type = (ti_type)u32_at(p + 8);
    value->rank = u32_at(p + 12);
    if (ti_type_bytes(value->type) == 0) return fail(v, TI_ERROR_FORMAT, "'%s' has an unknown type", value->name);
    if (!range_in(dims, first, value->rank)) {
      return fail(v, TI_ERROR_FORMAT, "'%s': its dimensions are outside of the plan's", value->name);
    }
    value->dims = m->dims + first;
    for (uint32_t d = 0; d < value->rank; d++) {
      if (value->dims[d] < 0 || !mul_u64(elements, (uint64_t)value->dims[d], &elements)) {
        return fail(v, TI_ERROR_FORMAT, "'%s' has no possible shape", value->name);
      }
    }
    if (!mul_u64(elements, ti_type_bytes(value->type), &bytes) || bytes != u64_at(p + 24) || bytes > SIZE_MAX / 4) {
      return fail(v, TI_ERROR_FORMAT, "'%s': its shape does not make its bytes", value->name);
    }
    value->elements = (size_t)elements;
    value->bytes = (size_t)bytes;
    if (direction > 1 || (direction == 0 && m->output_count != 0)) {
      return fail(v, TI_ERROR_FORMAT, "'%s' is in the wrong place", value->name);
    }
    *(direction == 0 ? &m->input_count : &m->output_count) += 1;
    if (fixed == 0) continue;
    table tensors = m->tables[TENSORS];
    if (direction != 0 || fixed > tensors.count || u64_at(record(tensors, fixed - 1) + 8) != bytes) {
      return fail(v, TI_ERROR_FORMAT, "'%s': the value that it must have is none", value->name);
    }
  }
  return true;
}

static bool check_tensor(const voice *v, const ti_model *m, uint32_t i) {
  const byte *p = record(m->tables[TENSORS], i), *stored;
  unsigned long number = i;
  uint32_t encoding = u32_at(p + 4), first = u32_at(p + 32), count = u32_at(p + 36);
  ti_type type = (ti_type)u32_at(p + 16), stored_type = (ti_type)u32_at(p + 20);
  uint64_t bytes = u64_at(p + 8), copied = 0, covered = 0;
  size_t width = ti_type_bytes(type), stored_width = ti_type_bytes(stored_type);
  if (u32_at(p) >= m->stored.count) return fail(v, TI_ERROR_FORMAT, "tensor %lu is not among the stored ones", number);
  stored = record(m->stored, u32_at(p));
  if (width == 0 || stored_width == 0) return fail(v, TI_ERROR_FORMAT, "tensor %lu has an unknown type", number);
  if (encoding == 0) {
    return bytes == u64_at(stored + 40) || fail(v, TI_ERROR_FORMAT, "tensor %lu has not the bytes it is stored in", number);
  }
  if (encoding != 1) return fail(v, TI_ERROR_FORMAT, "tensor %lu has an unknown encoding", number);
  bool same = type == stored_type && i64_at(p + 24) == 0;
  bool whole = kind_of(stored_type) == SIGNED || kind_of(stored_type) == UNSIGNED;
  bool possible = whole ? kind_of(type) <= REAL : kind_of(stored_type) == REAL && kind_of(type) == REAL;
  if (!same && !possible) return fail(v, TI_ERROR_FORMAT, "tensor %lu: its type cannot be made of the stored one", number);
  if (u64_at(stored + 40) % stored_width != 0 || bytes % width != 0) {
    return fail(v, TI_ERROR_FORMAT, "tensor %lu is no whole number of elements", number);
  }
  if (!range_in(m->tables[RUNS], first, count)) return fail(v, TI_ERROR_FORMAT, "tensor %lu: no such runs", number);
  for (uint32_t r = first; r < first + count; r++) {
    const byte *run = record(m->tables[RUNS], r);
    uint64_t part, whole_run;
    if (!mul_u64(u64_at(run), u64_at(run + 16), &part) || !add_u64(copied, part, &copied) ||
        !add_u64(u64_at(run), u64_at(run + 8), &whole_run) || (whole_run == 0 && u64_at(run + 16) != 0) ||
        !mul_u64(whole_run, u64_at(run + 16), &part) || !add_u64(covered, part, &covered)) {
      return fail(v, TI_ERROR_FORMAT, "tensor %lu: its runs are endless", number);
    }
  }
  if (count == 0) copied = covered = u64_at(stored + 40) / stored_width;
  if (copied != u64_at(stored + 40) / stored_width || covered > bytes / width) {
    return fail(v, TI_ERROR_FORMAT, "tensor %lu: its runs do not fit", number);
  }
  return true;
}

static bool check_stored(const voice *v, ti_model *m, const section *index, const section *weights) {
  uint64_t end = 0;
  if (index->size % 48 != 0 || index->size / 48 > UINT32_MAX) {
    return fail(v, TI_ERROR_FORMAT, "the index of stored tensors is no whole number of records");
  }
  m->stored = (table){index->at, (uint32_t)(index->size / 48), 48};
  m->weights = weights->at;
  for (uint32_t i = 0; i < m->stored.count; i++) {
    const byte *p = record(m->stored, i);
    uint64_t offset = u64_at(p + 32), bytes = u64_at(p + 40);
    if (offset % LINE != 0 || offset < end || !inside(offset, bytes, weights->size)) {
      return fail(v, TI_ERROR_FORMAT, "stored tensor %lu is outside of the weights or out of order", (unsigned long)i);
    }
    end = offset + bytes;
  }
  return true;
}

/* What references may point to, in the launches around a loop or in its body: bytes that are there. */
typedef struct {
  uint64_t arena;
  const uint64_t *inputs, *outputs;
  size_t input_count, output_count;
} scope_sizes;

/* The bytes from where reference `number` points to the end of what it points into, wherever it moves in `iterations`. */
static bool reach(const ti_model *m, const scope_sizes *sizes, uint32_t number, uint64_t iterations, bool written,
                  uint64_t *bytes) {
  if (number >= m->tables[REFERENCES].count) return false;
  const byte *p = record(m->tables[REFERENCES], number);
  uint32_t space = u32_at(p), which = u32_at(p + 4);
  uint64_t size, offset = u64_at(p + 8);
  int64_t even = i64_at(p + 16), odd = i64_at(p + 24), highest = 0;
  if (space == ARENA) {
    size = sizes->arena;
  } else if (space == TENSOR && which < m->tables[TENSORS].count && !written) {
    size = u64_at(record(m->tables[TENSORS], which) + 8);
  } else if (space == INPUT && which < sizes->input_count && !written) {
    size = sizes->inputs[which];
  } else if (space == OUTPUT && which < sizes->output_count) {
    size = sizes->outputs[which];
  } else {
    return false;
  }
  if (offset > size || size > INT64_MAX || iterations > INT64_MAX) return false;
  /* A place moves by even + odd every two iterations, so it is farthest out in one of the first or last two. */
  for (unsigned i = 0; i < 4; i++) {
    uint64_t t = i < 2 ? i : iterations + 1 - i;
    int64_t evens, odds, at;
    if (t >= iterations) continue;
    if (!mul_i64((int64_t)(t / 2), even, &evens) || !mul_i64((int64_t)(t / 2), odd, &odds)) return false;
    if (t % 2 != 0 && !add_i64(evens, even, &evens)) return false;
    if (!add_i64(evens, odds, &at) || !add_i64((int64_t)offset, at, &at) || at < 0 || (uint64_t)at > size) return false;
    if (at > highest) highest = at;
  }
  if (iterations == 0) highest = (int64_t)offset;
  *bytes = size - (uint64_t)highest;
  return true;
}

/* Whether `bytes` lie at a reference that does not move, or at one that need not be there and is not. */
static bool holds(const ti_model *m, const scope_sizes *sizes, uint32_t number, bool written, bool optional,
                  uint64_t bytes) {
  uint64_t there;
  if (optional && number < m->tables[REFERENCES].count && u32_at(record(m->tables[REFERENCES], number)) == NOWHERE) {
    return true;
  }
  return reach(m, sizes, number, 1, written, &there) && there >= bytes;
}

static bool add_mover(const voice *v, ti_model *m, size_t slot, const byte *reference) {
  int64_t even = i64_at(reference + 16), odd = i64_at(reference + 24);
  if (even == 0 && odd == 0) return true;
  if (m->mover_count == m->mover_room) {
    size_t room = m->mover_room == 0 ? 64 : 2 * m->mover_room;
    mover *grown = realloc(m->movers, room * sizeof *grown);
    if (grown == NULL) return fail(v, TI_ERROR_MEMORY, "no memory for the plan");
    m->movers = grown;
    m->mover_room = room;
  }
  m->movers[m->mover_count++] = (mover){slot, even, odd};
  return true;
}

/* The slots of a launch's arguments or a loop's places. */
static bool take_slots(const voice *v, ti_model *m, uint32_t count, size_t *slot) {
  *slot = m->slot_count;
  m->slot_count += count;
  return m->slot_count <= 1U << 24 || fail(v, TI_ERROR_FORMAT, "more than 2^24 arguments");
}

static bool check_launches(const voice *v, ti_model *m, uint32_t first, uint32_t count, const scope_sizes *sizes,
                           loop *around, unsigned depth);

static bool check_copies(const voice *v, const ti_model *m, const scope_sizes *sizes, uint32_t first, uint32_t count,
                         uint64_t iterations) {
  for (uint32_t i = first; i < first + count; i += 2) {
    uint64_t there;
    int64_t bytes = i64_at(record(m->tables[REFERENCES], i) + 24);
    if (bytes < 0 || !holds(m, sizes, i, true, false, (uint64_t)bytes) ||
        !reach(m, sizes, i + 1, iterations, false, &there) || there < (uint64_t)bytes) {
      return fail(v, TI_ERROR_FORMAT, "reference %lu: a loop copies outside of its memory", (unsigned long)i);
    }
  }
  return true;
}

static bool check_loop(const voice *v, ti_model *m, uint32_t number, const scope_sizes *sizes, unsigned depth) {
  const byte *p = record(m->tables[LOOPS], number);
  table references = m->tables[REFERENCES];
  loop *l = &m->loops[number];
  unsigned long n = number;
  *l = (loop){u64_at(p + 8), u32_at(p), u32_at(p + 4), u32_at(p + 16), u32_at(p + 36), u32_at(p + 20), u32_at(p + 24),
              u32_at(p + 28), u32_at(p + 32), u32_at(p + 40), u32_at(p + 44), u32_at(p + 48), u32_at(p + 52),
              u32_at(p + 56), u32_at(p + 60), u32_at(p + 64), u32_at(p + 68), u32_at(p + 72), u32_at(p + 76), 0, 0, 0, true};
  scope_sizes inner = {0, NULL, NULL, l->input_count, l->output_count};
  if (depth >= MAX_LOOP_DEPTH) return fail(v, TI_ERROR_FORMAT, "loops nest deeper than %d", MAX_LOOP_DEPTH);
  if (l->steps >= INT64_MAX) return fail(v, TI_ERROR_FORMAT, "loop %lu: its steps are no int64", n);
  if (!range_in(references, l->inputs, l->input_count) || !range_in(references, l->outputs, l->output_count) ||
      !range_in(references, l->cleared, l->cleared_count) || !range_in(references, l->before, l->before_count) ||
      !range_in(references, l->after, l->after_count) || l->before_count % 2 != 0 || l->after_count % 2 != 0) {
    return fail(v, TI_ERROR_FORMAT, "loop %lu: its references are outside of their table", n);
  }
  if (!reach(m, sizes, l->arena, 1, true, &inner.arena) || !holds(m, sizes, l->iteration, true, false, 8) ||
      !holds(m, sizes, l->trips, false, true, 8) || !holds(m, sizes, l->enter, false, true, 1) ||
      !holds(m, sizes, l->go_on, false, true, 1) || !holds(m, sizes, l->done, true, true, 8)) {
    return fail(v, TI_ERROR_FORMAT, "loop %lu: a place that it uses is outside of its memory", n);
  }
  for (uint32_t i = l->cleared; i < l->cleared + l->cleared_count; i++) {
    int64_t bytes = i64_at(record(references, i) + 16);
    if (bytes < 0 || !holds(m, sizes, i, true, false, (uint64_t)bytes)) {
      return fail(v, TI_ERROR_FORMAT, "loop %lu: it clears what is not there", n);
    }
  }
  if (!check_copies(v, m, sizes, l->before, l->before_count, 1) ||
      !check_copies(v, m, sizes, l->after, l->after_count, l->steps + 1)) {
    return false;
  }
  if (!take_slots(v, m, l->input_count, &l->slot)) return false;
  size_t slot;
  if (!take_slots(v, m, l->output_count, &slot)) return false;
  uint64_t *bytes = make((size_t)l->input_count + l->output_count, sizeof *bytes);
  if (bytes == NULL) return fail(v, TI_ERROR_MEMORY, "no memory for the plan");
  inner.inputs = bytes;
  inner.outputs = bytes + l->input_count;
  l->movers = m->mover_count;
  bool good = true;
  for (uint32_t i = 0; good && i < l->input_count + l->output_count; i++) {
    bool output = i >= l->input_count;
    uint32_t reference = output ? l->outputs + (i - l->input_count) : l->inputs + i;
    good = reach(m, sizes, reference, l->steps, output, &bytes[i]) ||
           fail(v, TI_ERROR_FORMAT, "loop %lu: place %lu is outside of its memory", n, (unsigned long)i);
    good = good && add_mover(v, m, l->slot + i, record(references, reference));
  }
  good = good && check_launches(v, m, l->first, l->launches, &inner, l, depth);
  free(bytes);
  return good;
}

/* Launches in a row, first those of kernels and then loops, whose bodies follow theirs in the tables made here. */
static bool check_launches(const voice *v, ti_model *m, uint32_t first, uint32_t count, const scope_sizes *sizes,
                           loop *around, unsigned depth) {
  table launches = m->tables[LAUNCHES], references = m->tables[REFERENCES];
  uint64_t total = 0, bytes;
  if (!range_in(launches, first, count)) return fail(v, TI_ERROR_FORMAT, "launches are outside of their table");
  for (uint32_t i = first; i < first + count; i++) {
    const byte *p = record(launches, i);
    launch *l = &m->launches[i];
    unsigned long n = i;
    uint32_t number = u32_at(p), which = u32_at(p + 24);
    if (l->taken) return fail(v, TI_ERROR_FORMAT, "launch %lu runs in two places", n);
    *l = (launch){NULL, NULL, u64_at(p + 16), u32_at(p + 4), u32_at(p + 8), 0, (u32_at(p + 12) & 1) != 0, true};
    if (l->chunks > 1U << 30 || (total += l->chunks) > 1U << 30) {
      return fail(v, TI_ERROR_FORMAT, "launch %lu: more than 2^30 chunks", n);
    }
    if (which != 0) {
      if (which > m->tables[LOOPS].count || l->chunks != 1) return fail(v, TI_ERROR_FORMAT, "launch %lu: no such loop", n);
      l->loop = &m->loops[which - 1];
      if (l->loop->taken) return fail(v, TI_ERROR_FORMAT, "loop %lu runs in two places", (unsigned long)which - 1);
      l->loop->taken = true;
      continue;
    }
    if (number >= m->tables[KERNELS].count || u64_at(record(m->tables[KERNELS], number)) >= m->code_size) {
      return fail(v, TI_ERROR_FORMAT, "launch %lu: its kernel is outside of the code", n);
    }
    l->function = (kernel *)((uintptr_t)m->code + (uintptr_t)u64_at(record(m->tables[KERNELS], number)));
    if (!range_in(references, l->references, l->count) || !take_slots(v, m, l->count, &l->slot)) {
      return fail(v, TI_ERROR_FORMAT, "launch %lu: its arguments are outside of their table", n);
    }
    for (uint32_t j = 0; j < l->count; j++) {
      const byte *reference = record(references, l->references + j);
      uint32_t space = u32_at(reference), place = u32_at(reference + 4);
      if (!reach(m, sizes, l->references + j, 1, false, &bytes)) {
        return fail(v, TI_ERROR_FORMAT, "launch %lu: argument %lu is outside of its memory", n, (unsigned long)j);
      }
      if (around == NULL || (space != INPUT && space != OUTPUT)) continue;
      uint32_t from = space == INPUT ? around->inputs + place : around->outputs + place;
      if (!add_mover(v, m, l->slot + j, record(references, from))) return false;
    }
  }
  if (around != NULL) around->mover_count = m->mover_count - around->movers;
  for (uint32_t i = first; i < first + count; i++) {
    loop *inner = m->launches[i].loop;
    if (inner != NULL && !check_loop(v, m, (uint32_t)(inner - m->loops), sizes, depth + 1)) return false;
  }
  return true;
}

/* The plan of the chosen target, with everything that depends on it. */
static bool check_plan(const voice *v, ti_model *m, const section *plan) {
  section index, weights, golden;
  if (!read_tables(v, m, plan) || !section_find(m->file, "WIDX", 0, &index) ||
      !section_find(m->file, "WGHT", 0, &weights) || !check_stored(v, m, &index, &weights)) {
    return false;
  }
  for (uint32_t i = 0; i < m->tables[TENSORS].count; i++) {
    if (!check_tensor(v, m, i)) return false;
  }
  if (!read_values(v, m)) return false;
  m->launches = make(m->tables[LAUNCHES].count, sizeof *m->launches);
  m->loops = make(m->tables[LOOPS].count, sizeof *m->loops);
  uint64_t *bytes = make(m->tables[VALUES].count, sizeof *bytes);
  bool good = m->launches != NULL && m->loops != NULL && bytes != NULL;
  if (!good) (void)fail(v, TI_ERROR_MEMORY, "no memory for the plan");
  if (good) {
    for (uint32_t i = 0; i < m->tables[VALUES].count; i++) bytes[i] = m->values[i].bytes;
    scope_sizes sizes = {m->arena_bytes, bytes, bytes + m->input_count, m->input_count, m->output_count};
    good = check_launches(v, m, m->main_first, m->main_count, &sizes, NULL, 0);
  }
  free(bytes);
  if (good && section_find(m->file, "GOLD", 0, &golden)) {
    m->golden = golden.at;
    m->golden_size = (size_t)golden.size;
  }
  return good;
}

/* ---- Tensors ---- */

/* Elements converted from the stored type to that in memory; the types were checked. */
static void expand_elements(ti_type type, byte *to, ti_type stored_type, const byte *from, size_t count, int64_t added) {
  enum { BATCH = 256 };
  size_t width = types[type].bytes, stored_width = types[stored_type].bytes;
  if (type == stored_type && added == 0) {
    memcpy(to, from, count * width);
    return;
  }
  bool whole = kind_of(stored_type) != REAL;
  for (; count > 0;) {
    int64_t integers[BATCH];
    double reals[BATCH];
    size_t n = count < BATCH ? count : BATCH;
    if (!whole) {
      for (size_t i = 0; i < n; i++) reals[i] = load_real(stored_type, from + i * stored_width) + (double)added;
    } else {
      uint64_t more = (uint64_t)added;
      if (stored_type == TI_INT8) {
        for (size_t i = 0; i < n; i++) integers[i] = (int64_t)((uint64_t)(int64_t)(int8_t)from[i] + more);
      } else {
        for (size_t i = 0; i < n; i++) {
          integers[i] = (int64_t)((uint64_t)load_integer(stored_type, from + i * stored_width) + more);
        }
      }
      if (kind_of(type) == REAL) {
        for (size_t i = 0; i < n; i++) reals[i] = (double)integers[i];
      }
    }
    if (kind_of(type) != REAL) {
      for (size_t i = 0; i < n; i++) store_integer(type, to + i * width, integers[i]);
    } else if (type == TI_FLOAT32) {
      for (size_t i = 0; i < n; i++) {
        float single = (float)reals[i];
        memcpy(to + i * width, &single, sizeof single);
      }
    } else {
      for (size_t i = 0; i < n; i++) store_real(type, to + i * width, reals[i]);
    }
    to += n * width;
    from += n * stored_width;
    count -= n;
  }
}

static void expand(const ti_model *m, const byte *p, byte *to, const byte *stored, uint64_t stored_bytes) {
  ti_type type = (ti_type)u32_at(p + 16), stored_type = (ti_type)u32_at(p + 20);
  uint32_t first = u32_at(p + 32), count = u32_at(p + 36);
  size_t width = types[type].bytes, stored_width = types[stored_type].bytes;
  if (count == 0) expand_elements(type, to, stored_type, stored, (size_t)(stored_bytes / stored_width), i64_at(p + 24));
  for (uint32_t r = first; r < first + count; r++) {
    const byte *run = record(m->tables[RUNS], r);
    size_t copied = (size_t)u64_at(run), left = (size_t)u64_at(run + 8);
    if (copied == 0) to += left * width * (size_t)u64_at(run + 16);
    for (uint64_t times = copied == 0 ? 0 : u64_at(run + 16); times > 0; times--) {
      expand_elements(type, to, stored_type, stored, copied, i64_at(p + 24));
      to += (copied + left) * width;
      stored += copied * stored_width;
    }
  }
}

/* Where every tensor lies: raw ones in the file, the others in one block, some lines apart lest tensors whose size is a
 * multiple of a page all compete for the same sets of the first-level cache. */
static bool place_tensors(const voice *v, ti_model *m) {
  table tensors = m->tables[TENSORS];
  m->tensors = make(tensors.count, sizeof *m->tensors);
  if (m->tensors == NULL) return fail(v, TI_ERROR_MEMORY, "no memory for the plan");
  for (uint32_t i = 0; i < tensors.count; i++) {
    const byte *p = record(tensors, i);
    if (u32_at(p + 4) == 0) continue;
    uint64_t end, bytes = u64_at(p + 8);
    if (!add_u64(m->expanded_bytes, bytes, &end) || end > SIZE_MAX / 2) {
      return fail(v, TI_ERROR_MEMORY, "the weights are larger than this machine's memory");
    }
    m->expanded_bytes = (end + LINE - 1) / LINE * LINE + PAGE_OF_TENSORS;
  }
  if (m->expanded_bytes != 0 && !block_make(&m->expanded, m->expanded_bytes)) {
    return fail(v, TI_ERROR_MEMORY, "no memory for %llu bytes of weights", (unsigned long long)m->expanded_bytes);
  }
  byte *to = m->expanded.at;
  for (uint32_t i = 0; i < tensors.count; i++) {
    const byte *p = record(tensors, i), *stored = record(m->stored, u32_at(p));
    const byte *bytes = m->weights + u64_at(stored + 32);
    m->tensors[i] = bytes;
    if (u32_at(p + 4) == 0) continue;
    expand(m, p, to, bytes, u64_at(stored + 40));
    m->tensors[i] = to;
    to += (u64_at(p + 8) + LINE - 1) / LINE * LINE + PAGE_OF_TENSORS;
  }
  return true;
}

/* ---- Running ---- */

/* What references mean in the launches around a loop or in its body. */
typedef struct {
  byte *arena;
  void **inputs, **outputs;
} scope;

/* The threads' words are apart, lest they share cache lines that others write. All wrap around. */
struct ti_context {
  ti_model *model;
  void **slots;
  scope around;
  block arena;
  byte *resolved_arena; /* the one that the slots of this context point into */
  atomic_bool stopped;  /* a loop made too many iterations */
  unsigned threads, started, total;
  block counters; /* of each launch and thread, one line */
  pthread_t *workers;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  unsigned numbered;
  byte line0[LINE];
  atomic_uint generation; /* the number of the run */
  atomic_bool ending;
  byte line1[LINE];
  atomic_uint done; /* chunks completed in all runs */
  byte line2[LINE];
  atomic_uint front; /* the launch that the caller has reached */
  byte line3[LINE];
  atomic_uint sleepers;
};

static void *resolve(const ti_model *m, const scope *s, const byte *reference) {
  uint32_t number = u32_at(reference + 4);
  uintptr_t base, offset = (uintptr_t)u64_at(reference + 8);
  switch (u32_at(reference)) {
    case ARENA: base = (uintptr_t)s->arena; break;
    case TENSOR: base = (uintptr_t)m->tensors[number]; break;
    case INPUT: base = (uintptr_t)s->inputs[number]; break;
    case OUTPUT: base = (uintptr_t)s->outputs[number]; break;
    default: return NULL;
  }
  return (void *)(base + offset);
}

static const byte *reference_at(const ti_model *m, uint32_t number) { return record(m->tables[REFERENCES], number); }

static void *resolve_number(const ti_model *m, const scope *s, uint32_t number) {
  return resolve(m, s, reference_at(m, number));
}

/* Fills the slots of launches in a row; `all`, or only those that change from run to run. */
static void resolve_launches(ti_context *c, const scope *s, uint32_t first, uint32_t count, bool all) {
  const ti_model *m = c->model;
  for (const launch *l = m->launches + first; l < m->launches + first + count; l++) {
    if (l->loop != NULL) continue;
    for (uint32_t i = 0; i < l->count; i++) {
      const byte *reference = reference_at(m, l->references + i);
      if (all || u32_at(reference) >= INPUT) c->slots[l->slot + i] = resolve(m, s, reference);
    }
  }
}

static void run_loop(ti_context *c, const loop *l, const scope *around, uint64_t *left);

static void run_launch(ti_context *c, const launch *l, const scope *s, int64_t first, int64_t end, uint64_t *left) {
  if (l->loop != NULL) {
    run_loop(c, l->loop, s, left);
    return;
  }
  void **arguments = c->slots + l->slot;
  kernel *function = l->function;
  for (int64_t chunk = first; chunk < end; chunk++) function(arguments, chunk);
}

/* "Loops" of docs/bundle.md. `left` counts the iterations that may be made down to 0. */
static void run_loop(ti_context *c, const loop *l, const scope *around, uint64_t *left) {
  const ti_model *m = c->model;
  const launch *body = m->launches + l->first;
  scope inner = {resolve_number(m, around, l->arena), c->slots + l->slot, c->slots + l->slot + l->input_count};
  for (uint32_t i = 0; i < l->input_count; i++) inner.inputs[i] = resolve_number(m, around, l->inputs + i);
  for (uint32_t i = 0; i < l->output_count; i++) inner.outputs[i] = resolve_number(m, around, l->outputs + i);
  resolve_launches(c, &inner, l->first, l->launches, true);
  void *iteration = resolve_number(m, around, l->iteration), *done = resolve_number(m, around, l->done);
  const byte *trips = resolve_number(m, around, l->trips), *go_on = resolve_number(m, around, l->go_on);
  const byte *enter = resolve_number(m, around, l->enter);
  int64_t most = (int64_t)l->steps, t = 0;
  if (trips != NULL && i64_at(trips) < most) most = i64_at(trips);
  for (uint32_t i = 0; i < l->cleared_count; i++) {
    const byte *reference = reference_at(m, l->cleared + i);
    memset(resolve(m, around, reference), 0, (size_t)i64_at(reference + 16));
  }
  for (uint32_t i = 0; i < l->before_count; i += 2) {
    const byte *to = reference_at(m, l->before + i);
    memmove(resolve(m, around, to), resolve_number(m, around, l->before + i + 1), (size_t)i64_at(to + 24));
  }
  bool going = enter == NULL || *enter != 0;
  for (; t < most && going; t++) {
    if (*left == 0) {
      atomic_store_explicit(&c->stopped, true, memory_order_relaxed);
      break;
    }
    *left -= 1;
    memcpy(iteration, &t, sizeof t);
    for (uint32_t i = 0; i < l->launches; i++) run_launch(c, body + i, &inner, 0, (int64_t)body[i].chunks, left);
    for (const mover *move = m->movers + l->movers, *end = move + l->mover_count; move < end; move++) {
      uintptr_t place = (uintptr_t)c->slots[move->slot];
      c->slots[move->slot] = (void *)(place + (uintptr_t)(t % 2 == 0 ? move->even : move->odd));
    }
    going = go_on == NULL || *go_on != 0;
  }
  for (uint32_t i = 0; i < l->after_count; i += 2) {
    const byte *to = reference_at(m, l->after + i), *from = reference_at(m, l->after + i + 1);
    uintptr_t moved = (uintptr_t)i64_at(from + 16) * (uintptr_t)(t - t / 2) + (uintptr_t)i64_at(from + 24) * (uintptr_t)(t / 2);
    memmove(resolve(m, around, to), (void *)((uintptr_t)resolve(m, around, from) + moved), (size_t)i64_at(to + 24));
  }
  if (done != NULL) memcpy(done, &t, sizeof t);
}

static void run_alone(ti_context *c) {
  const ti_model *m = c->model;
  for (const launch *l = m->launches + m->main_first, *end = l + m->main_count; l < end; l++) {
    uint64_t left = m->max_iterations;
    run_launch(c, l, &c->around, 0, (int64_t)l->chunks, &left);
  }
}

/* Until `target` chunks are done: spins, then gives the core away, for the awaited thread may need it. */
static void await_done(ti_context *c, unsigned target) {
  for (unsigned spins = 0; (int)(atomic_load_explicit(&c->done, memory_order_acquire) - target) < 0; spins++) {
    if (spins < 1000) {
      pause_briefly();
    } else {
      (void)sched_yield();
    }
  }
}

/* The launches of run `generation` from `first` on, on thread `me`. Each thread has a contiguous part of each launch's
 * chunks, so that it finds in its cache what it stored before; having finished it, it takes chunks of the others' parts.
 * Counters are never reset: a run owns the next `size` numbers of a part, so that a thread that comes late, even
 * in a later run, finds nothing to take, and nobody waits for a thread, only for work. The caller is thread 0. */
static void run_shared(ti_context *c, unsigned generation, unsigned first, unsigned me) {
  const ti_model *m = c->model;
  unsigned base = (generation - 1) * c->total, before = 0;
  for (unsigned n = 0; n < m->main_count; n++) {
    const launch *l = m->launches + m->main_first + n;
    unsigned mine = 0, start_of_launch = before;
    before += (unsigned)l->chunks;
    if (n < first) continue;
    if (l->waits) await_done(c, base + start_of_launch);
    if (me == 0) atomic_store_explicit(&c->front, n, memory_order_release);
    if (me != 0 && l->waits && l->chunks == 1) continue; /* the caller ran what came before */
    for (unsigned turn = 0; turn < c->threads; turn++) {
      unsigned part = (me + turn) % c->threads;
      unsigned start = (unsigned)((part * l->chunks + c->threads - 1) / c->threads);
      unsigned end = (unsigned)(((part + 1) * l->chunks + c->threads - 1) / c->threads);
      atomic_uint *counter = (atomic_uint *)(void *)(c->counters.at + ((size_t)n * c->threads + part) * LINE);
      unsigned taken = atomic_load_explicit(counter, memory_order_relaxed);
      for (unsigned at; (at = taken - (generation - 1) * (end - start)) < end - start;) {
        if (!atomic_compare_exchange_weak_explicit(counter, &taken, taken + 1, memory_order_relaxed, memory_order_relaxed)) {
          continue;
        }
        uint64_t left = m->max_iterations;
        run_launch(c, l, &c->around, start + at, (int64_t)start + at + 1, &left);
        taken++;
        mine++;
      }
    }
    if (mine != 0) (void)atomic_fetch_add_explicit(&c->done, mine, memory_order_acq_rel);
  }
}

static void *work(void *given) {
  ti_context *c = given;
  unsigned seen = 0, me, spins = 0;
  (void)flush_subnormals();
  (void)pthread_mutex_lock(&c->mutex);
  me = ++c->numbered;
  (void)pthread_mutex_unlock(&c->mutex);
  for (;;) {
    unsigned generation = atomic_load(&c->generation);
    if (generation != seen) {
      if (atomic_load(&c->ending)) return NULL;
      run_shared(c, generation, atomic_load_explicit(&c->front, memory_order_acquire), me);
      seen = generation;
      spins = 0;
    } else if (spins < 2000) {
      spins++;
      pause_briefly();
    } else {
      (void)pthread_mutex_lock(&c->mutex);
      (void)atomic_fetch_add(&c->sleepers, 1);
      while (atomic_load(&c->generation) == seen) (void)pthread_cond_wait(&c->wake, &c->mutex);
      (void)atomic_fetch_sub(&c->sleepers, 1);
      (void)pthread_mutex_unlock(&c->mutex);
    }
  }
}

/* A new number, and those awake who sleep: a sleeper counts itself before it looks at the number for the last time. */
static unsigned next_generation(ti_context *c) {
  unsigned generation = atomic_fetch_add(&c->generation, 1) + 1;
  if (atomic_load(&c->sleepers) != 0) {
    (void)pthread_mutex_lock(&c->mutex);
    (void)pthread_cond_broadcast(&c->wake);
    (void)pthread_mutex_unlock(&c->mutex);
  }
  return generation;
}

void ti_context_close(ti_context *c) {
  if (c == NULL) return;
  if (c->started > 0) {
    atomic_store(&c->ending, true);
    (void)next_generation(c);
    for (unsigned i = 0; i < c->started; i++) (void)pthread_join(c->workers[i], NULL);
  }
  (void)pthread_mutex_destroy(&c->mutex);
  (void)pthread_cond_destroy(&c->wake);
  free(c->workers);
  free(c->counters.memory);
  free(c->arena.memory);
  free(c->slots);
  free(c);
}

static ti_context *context_make(const voice *v, ti_model *m, unsigned threads) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  bool shared = false;
  uint64_t total = 0;
  if (threads == 0) threads = cores > 0 ? (unsigned)cores : 1;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  for (uint32_t i = 0; i < m->main_count; i++) {
    const launch *l = m->launches + m->main_first + i;
    shared = shared || l->chunks > 1 || (l->loop != NULL && !l->waits);
    total += l->chunks;
  }
  ti_context *c = calloc(1, sizeof *c);
  if (c == NULL) {
    (void)fail(v, TI_ERROR_MEMORY, "no memory for a context");
    return NULL;
  }
  c->model = m;
  c->threads = shared ? threads : 1;
  c->total = (unsigned)total;
  (void)pthread_mutex_init(&c->mutex, NULL);
  (void)pthread_cond_init(&c->wake, NULL);
  c->slots = make(m->slot_count, sizeof *c->slots);
  c->workers = make(c->threads, sizeof *c->workers);
  bool good = c->slots != NULL && c->workers != NULL;
  if (c->threads > 1) good = good && block_make(&c->counters, (uint64_t)m->main_count * c->threads * LINE);
  if (!good) (void)fail(v, TI_ERROR_MEMORY, "no memory for a context");
  while (good && c->started + 1 < c->threads) {
    int failed = pthread_create(&c->workers[c->started], NULL, work, c);
    if (failed != 0) good = fail(v, TI_ERROR_MEMORY, "cannot start a thread: %s", strerror(failed));
    c->started += good ? 1 : 0;
  }
  if (good) return c;
  ti_context_close(c);
  return NULL;
}

ti_context *ti_context_open(ti_model *m, unsigned threads, ti_error *error) {
  voice v = {m->name, error};
  if (error != NULL) *error = (ti_error){TI_OK, ""};
  return context_make(&v, m, threads != 0 ? threads : m->context->threads);
}

ti_code ti_context_run(ti_context *c, const void *const *inputs, void *const *outputs, void *arena, ti_error *error) {
  const ti_model *m = c->model;
  voice v = {m->name, error};
  ti_error unused;
  if (error == NULL) v.error = &unused;
  *v.error = (ti_error){TI_OK, ""};
  for (size_t i = 0; i < m->input_count + m->output_count; i++) {
    const ti_value *value = &m->values[i];
    const void *at = i < m->input_count ? inputs[i] : outputs[i - m->input_count];
    uint32_t fixed = u32_at(record(m->tables[VALUES], (uint32_t)i) + 32);
    if (at == NULL && value->bytes != 0) {
      (void)fail(&v, TI_ERROR_ARGUMENT, "no memory given for '%s'", value->name);
    } else if (fixed != 0 && value->bytes != 0 && memcmp(at, m->tensors[fixed - 1], value->bytes) != 0) {
      (void)fail(&v, TI_ERROR_INPUT, "'%s' is not the value that the bundle was made for", value->name);
    } else {
      continue;
    }
    return v.error->code;
  }
  if (arena == NULL && c->arena.at == NULL && !block_make(&c->arena, m->arena_bytes)) {
    (void)fail(&v, TI_ERROR_MEMORY, "no memory for an arena of %llu bytes", (unsigned long long)m->arena_bytes);
    return v.error->code;
  }
  if ((uintptr_t)arena % LINE != 0) {
    (void)fail(&v, TI_ERROR_ARGUMENT, "the arena is not at a multiple of %d", LINE);
    return v.error->code;
  }
  /* Kernels take their arguments without const; they do not write inputs. */
  memcpy(&c->around.inputs, &inputs, sizeof inputs);
  memcpy(&c->around.outputs, &outputs, sizeof outputs);
  c->around.arena = arena != NULL ? arena : c->arena.at;
  resolve_launches(c, &c->around, m->main_first, m->main_count, c->around.arena != c->resolved_arena);
  c->resolved_arena = c->around.arena;
  uintptr_t mode = flush_subnormals();
  if (c->threads == 1) {
    run_alone(c);
  } else {
    atomic_store_explicit(&c->front, 0, memory_order_relaxed);
    unsigned generation = next_generation(c);
    run_shared(c, generation, 0, 0);
    await_done(c, generation * c->total);
  }
  restore_subnormals(mode);
  if (atomic_load_explicit(&c->stopped, memory_order_relaxed)) {
    atomic_store_explicit(&c->stopped, false, memory_order_relaxed);
    (void)fail(&v, TI_ERROR_LIMIT, "a loop made more than %llu iterations", (unsigned long long)m->max_iterations);
  }
  return v.error->code;
}

ti_code ti_run(ti_model *m, const void *const *inputs, void *const *outputs, void *arena, ti_error *error) {
  return ti_context_run(m->context, inputs, outputs, arena, error);
}

/* ---- Opening and closing ---- */

void ti_close(ti_model *m) {
  if (m == NULL) return;
  ti_context_close(m->context);
  free(m->expanded.memory);
  free(m->tensors);
  free(m->values);
  free(m->dims);
  free(m->names);
  free(m->launches);
  free(m->loops);
  free(m->movers);
  pages_drop(&m->code_pages);
  pages_drop(&m->mapped);
  free(m->name);
  free(m);
}

/* The rest of opening, once the bytes are there; `file` is the descriptor, or -1. */
static bool open_model(const voice *v, ti_model *m, const ti_options *options, int file) {
  section plan, code, manifest;
  if (!check_header(v, m->file, m->size) || !check_sections(v, m->file, m->size) ||
      !check_signature(v, m->file, options) || !choose_target(v, m, options->target, &plan) ||
      !find_code(v, m, plan.group, options, &code)) {
    return false;
  }
  (void)section_find(m->file, "MANI", 0, &manifest);
  m->manifest = manifest.at;
  m->manifest_size = (size_t)manifest.size;
  m->max_iterations = options->max_loop_iterations != 0 ? options->max_loop_iterations : 10000000;
  if (m->code == NULL && code.size != 0) {
    if (!pages_of_code(&m->code_pages, code.at, (size_t)code.size, file, code.offset)) {
      return fail(v, TI_ERROR_MEMORY, "no executable memory for its code: %s", strerror(errno));
    }
    m->code = m->code_pages.at;
  }
  if (!check_plan(v, m, &plan) || !place_tensors(v, m)) return false;
  m->context = context_make(v, m, options->threads);
  return m->context != NULL;
}

static ti_model *open_any(const char *path, const void *bytes, size_t size, const ti_options *options, ti_error *error) {
  static const ti_options defaults;
  const char *name = path != NULL ? path : "bundle";
  voice v = {name, error};
  if (error != NULL) *error = (ti_error){TI_OK, ""};
  ti_model *m = calloc(1, sizeof *m);
  int file = -1;
  bool good = m != NULL && (m->name = malloc(strlen(name) + 1)) != NULL;
  if (!good) (void)fail(&v, TI_ERROR_MEMORY, "no memory for a model");
  if (good) memcpy(m->name, name, strlen(name) + 1);
  if (good && path != NULL) {
    struct stat status;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0) {
      good = fail(&v, TI_ERROR_FILE, "%s", strerror(errno));
    } else if (!S_ISREG(status.st_mode) || status.st_size == 0) {
      good = fail(&v, TI_ERROR_FILE, "an empty file, or none that can be mapped");
    } else if ((uint64_t)status.st_size > SIZE_MAX / 2 ||
               !pages_of(&m->mapped, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0)) {
      good = fail(&v, TI_ERROR_FILE, "cannot be mapped: it is too large for this machine, or %s", strerror(errno));
    }
    bytes = m == NULL ? NULL : m->mapped.at;
    size = m == NULL ? 0 : m->mapped.size;
  }
  if (good && (bytes == NULL || size > SIZE_MAX / 2)) good = fail(&v, TI_ERROR_ARGUMENT, "no bytes were given");
  if (good) {
    m->file = bytes;
    m->size = size;
    good = open_model(&v, m, options != NULL ? options : &defaults, file);
  }
  if (file >= 0) (void)close(file);
  if (good) return m;
  ti_close(m);
  return NULL;
}

ti_model *ti_open(const char *path, const ti_options *options, ti_error *error) {
  return open_any(path != NULL ? path : "", NULL, 0, options, error);
}

ti_model *ti_open_memory(const void *bytes, size_t size, const ti_options *options, ti_error *error) {
  return open_any(NULL, bytes, size, options, error);
}

size_t ti_input_count(const ti_model *m) { return m->input_count; }
size_t ti_output_count(const ti_model *m) { return m->output_count; }
size_t ti_arena_bytes(const ti_model *m) { return (size_t)m->arena_bytes; }
size_t ti_expanded_bytes(const ti_model *m) { return (size_t)m->expanded_bytes; }
const char *ti_target(const ti_model *m) { return m->target; }
const ti_value *ti_input(const ti_model *m, size_t i) { return i < m->input_count ? &m->values[i] : NULL; }

const ti_value *ti_output(const ti_model *m, size_t i) {
  return i < m->output_count ? &m->values[m->input_count + i] : NULL;
}

const char *ti_manifest(const ti_model *m, size_t *size) {
  *size = m->manifest_size;
  return (const char *)m->manifest;
}

static const ti_value *named(const ti_value *values, size_t count, const char *name, size_t *index) {
  for (size_t i = 0; i < count; i++) {
    if (strcmp(values[i].name, name) != 0) continue;
    if (index != NULL) *index = i;
    return &values[i];
  }
  return NULL;
}

const ti_value *ti_input_named(const ti_model *m, const char *name, size_t *index) {
  return named(m->values, m->input_count, name, index);
}

const ti_value *ti_output_named(const ti_model *m, const char *name, size_t *index) {
  return named(m->values + m->input_count, m->output_count, name, index);
}

/* ---- Golden vectors ---- */

enum { GOLDEN_HEADER = 16, GOLDEN_RECORD = 48 };

static uint32_t golden_hash(uint32_t i, uint32_t seed) {
  uint32_t x = i * 0x9E3779B9U + seed;
  x = (x ^ x >> 16) * 0x21F0AAADU;
  x = (x ^ x >> 15) * 0x735A2D97U;
  return x ^ x >> 15;
}

static bool golden_input(const voice *v, const ti_model *m, const ti_value *value, const byte *p, byte *to) {
  uint32_t what = u32_at(p), seed = u32_at(p + 4);
  double low = f64_at(p + 8), high = f64_at(p + 16);
  size_t width = types[value->type].bytes;
  kind_of_type kind = kind_of(value->type);
  if (what == 0) {
    if (!inside(u64_at(p + 24), u64_at(p + 32), m->golden_size) || u64_at(p + 32) != value->bytes) {
      return fail(v, TI_ERROR_FORMAT, "golden vectors: the bytes of '%s' are not there", value->name);
    }
    if (value->bytes != 0) memcpy(to, m->golden + u64_at(p + 24), value->bytes);
  } else if (what == 1 && kind == REAL) {
    for (size_t i = 0; i < value->elements; i++) {
      double step = (high - low) * (double)(golden_hash((uint32_t)i, seed) >> 8);
      double wide = low + step / 16777216.0;
      store_real(value->type, to + i * width, value->type == TI_FLOAT64 ? wide : (double)(float)wide);
    }
  } else if (what == 2 && (kind == SIGNED || kind == UNSIGNED)) {
    if (!(fabs(low) <= 0x1p53 && high > low && high - low <= 0x1p32 && floor(low) == low && floor(high) == high)) {
      return fail(v, TI_ERROR_FORMAT, "golden vectors: the range of '%s' is none of integers", value->name);
    }
    uint64_t count = (uint64_t)(high - low);
    for (size_t i = 0; i < value->elements; i++) {
      store_integer(value->type, to + i * width, (int64_t)low + (int64_t)(golden_hash((uint32_t)i, seed) * count >> 32));
    }
  } else {
    return fail(v, TI_ERROR_FORMAT, "golden vectors: '%s' is made in an unknown way", value->name);
  }
  return true;
}

/* The distance of two elements (or of a part of complex ones), and both as numbers. */
static double distance(ti_type type, const byte *got, const byte *wanted, double *a, double *b) {
  kind_of_type kind = kind_of(type);
  if (kind == REAL) {
    *a = load_real(type, got);
    *b = load_real(type, wanted);
  } else if (kind == OPAQUE) {
    *a = got[0];
    *b = wanted[0];
    return got[0] == wanted[0] ? 0 : (double)INFINITY;
  } else {
    int64_t x = load_integer(type, got), y = load_integer(type, wanted);
    *a = type == TI_UINT64 ? (double)(uint64_t)x : (double)x;
    *b = type == TI_UINT64 ? (double)(uint64_t)y : (double)y;
    if (x == y) return 0;
    return fabs(*a - *b) < 1 ? 1 : fabs(*a - *b);
  }
  if (isnan(*a) || isnan(*b)) return isnan(*a) && isnan(*b) ? 0 : (double)INFINITY;
  return isinf(*a) && isinf(*b) && signbit(*a) == signbit(*b) ? 0 : fabs(*a - *b);
}

static bool golden_output(const voice *v, const ti_model *m, const ti_value *value, const byte *p, const byte *got,
                          ti_report *r) {
  uint64_t first = u64_at(p), step = u64_at(p + 8), count = u64_at(p + 16), bytes, last;
  size_t width = types[value->type].bytes;
  bool complex_type = kind_of(value->type) == COMPLEX;
  ti_type part = value->type == TI_COMPLEX64 ? TI_FLOAT32 : complex_type ? TI_FLOAT64 : value->type;
  if (!mul_u64(count, width, &bytes) || !inside(u64_at(p + 40), bytes, m->golden_size) ||
      (count > 0 && (!mul_u64(count - 1, step, &last) || !add_u64(first, last, &last) || last >= value->elements))) {
    return fail(v, TI_ERROR_FORMAT, "golden vectors: the elements of '%s' are not there", value->name);
  }
  r->compared = count;
  r->absolute = f64_at(p + 24);
  r->relative = f64_at(p + 32);
  for (uint64_t i = 0; i < count; i++) {
    const byte *a = got + (size_t)(first + i * step) * width, *b = m->golden + u64_at(p + 40) + i * width;
    bool good = true;
    for (size_t at = 0; at < width; at += types[part].bytes) {
      double x, y, error = distance(part, a + at, b + at, &x, &y);
      double allowed = isfinite(y) ? r->absolute + r->relative * fabs(y) : r->absolute;
      double share = error == 0 ? 0 : allowed > 0 ? error / allowed : (double)INFINITY;
      good = good && error <= (allowed > 0 ? allowed : 0);
      if (error > r->worst_error) r->worst_error = error;
      if (share > r->share || (i == 0 && at == 0)) {
        r->share = share;
        r->worst_element = first + i * step;
        r->got = x;
        r->wanted = y;
      }
    }
    r->failed += good ? 0 : 1;
  }
  return true;
}

ti_code ti_verify(ti_model *m, void (*report)(void *user, const ti_report *report), void *user, ti_error *error) {
  ti_error own;
  voice v = {m->name, error != NULL ? error : &own};
  size_t count = m->input_count + m->output_count;
  uint64_t records, failed = 0, compared = 0;
  const char *where = NULL;
  *v.error = (ti_error){TI_OK, ""};
  if (m->golden == NULL) {
    (void)fail(&v, TI_ERROR_ARGUMENT, "it holds no golden vectors");
    return v.error->code;
  }
  uint32_t vectors = m->golden_size < GOLDEN_HEADER ? 0 : u32_at(m->golden);
  if (vectors == 0 || u32_at(m->golden + 4) != m->input_count || u32_at(m->golden + 8) != m->output_count ||
      !mul_u64((uint64_t)vectors * GOLDEN_RECORD, count, &records) ||
      !inside(GOLDEN_HEADER, records, m->golden_size)) {
    (void)fail(&v, TI_ERROR_FORMAT, "golden vectors: not of the inputs and outputs of this plan");
    return v.error->code;
  }
  block *blocks = make(count, sizeof *blocks);
  void **places = make(count, sizeof *places);
  bool good = blocks != NULL && places != NULL;
  for (size_t i = 0; good && i < count; i++) {
    good = block_make(&blocks[i], m->values[i].bytes);
    places[i] = blocks[i].at;
  }
  if (!good) (void)fail(&v, TI_ERROR_MEMORY, "no memory for its inputs and outputs");
  const void *const *inputs;
  memcpy(&inputs, &places, sizeof inputs);
  for (uint32_t n = 0; good && n < vectors; n++) {
    const byte *of_inputs = m->golden + GOLDEN_HEADER + (size_t)n * m->input_count * GOLDEN_RECORD;
    const byte *of_outputs = m->golden + GOLDEN_HEADER +
                             ((size_t)vectors * m->input_count + (size_t)n * m->output_count) * GOLDEN_RECORD;
    for (size_t i = 0; good && i < m->input_count; i++) {
      good = golden_input(&v, m, &m->values[i], of_inputs + i * GOLDEN_RECORD, blocks[i].at);
    }
    good = good && ti_run(m, inputs, places + m->input_count, NULL, v.error) == TI_OK;
    for (size_t i = 0; good && i < m->output_count; i++) {
      const ti_value *value = &m->values[m->input_count + i];
      ti_report r = {n, i, value->name, 0, 0, 0, 0, 0, 0, 0, 0, 0};
      good = golden_output(&v, m, value, of_outputs + i * GOLDEN_RECORD, blocks[m->input_count + i].at, &r);
      if (good && r.failed != 0 && where == NULL) where = value->name;
      failed += r.failed;
      compared += r.compared;
      if (good && report != NULL) report(user, &r);
    }
  }
  for (size_t i = 0; blocks != NULL && i < count; i++) free(blocks[i].memory);
  free(blocks);
  free(places);
  if (good && failed != 0) {
    (void)fail(&v, TI_ERROR_VERIFY, "%llu of %llu elements of its golden vectors failed, the first in '%s'",
               (unsigned long long)failed, (unsigned long long)compared, where);
  }
  return v.error->code;
}
