/* The tinyinfer runtime: reads a bundle, checks all of it, and runs it. The interface is in tinyinfer.h, the format in
 * docs/bundle.md. Numbers of the file are read by the _at functions only, and added and multiplied by the checked
 * functions below or after a comparison that rules out an overflow. */
#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "tinyinfer.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
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
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
enum {
  HEADER = 64, ENTRY = 96, MAX_SECTIONS = 1024, PLAN_HEADER = 64, TABLES = 9, MAX_LOOP_DEPTH = 16,
  MAX_THREADS = 256, MAX_CHUNKS = 1 << 30, MAX_SLOTS = 1 << 24, LINE = 64, SKEW = 5 * LINE
};
#define WORTH_WAKING 30e-6 /* seconds of estimated work from which on a run shares it: waking a thread takes as long */
typedef unsigned char byte; typedef uint32_t u32; typedef uint64_t u64; typedef int64_t i64;

/* ---- Bytes and errors ---- */
#define READER(name, type) static type name(const byte *p) { type x; memcpy(&x, p, sizeof x); return x; }
READER(u16_at, uint16_t) READER(u32_at, u32) READER(u64_at, u64)
READER(i64_at, i64) READER(f32_at, float) READER(f64_at, double)
static bool add_u64(u64 a, u64 b, u64 *sum) { return (*sum = a + b) >= a; }
static bool mul_u64(u64 a, u64 b, u64 *product) { *product = a * b; return a == 0 || b <= UINT64_MAX / a; }
static bool add_i64(i64 a, i64 b, i64 *sum) {
  *sum = (i64)((u64)a + (u64)b);
  return b > 0 ? a <= INT64_MAX - b : a >= INT64_MIN - b;
}
static bool mul_i64(i64 a, i64 b, i64 *product) { /* a >= 0 */
  *product = (i64)((u64)a * (u64)b);
  return a == 0 || (b <= INT64_MAX / a && b >= INT64_MIN / a);
}
/* Whether `bytes` from `offset` on are inside of `size`. */
static bool inside(u64 offset, u64 bytes, u64 size) { return offset <= size && bytes <= size - offset; }
static bool all_zero(const byte *p, size_t size) { return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0); }
/* Where messages go; the name of the bundle begins them. */
typedef struct { const char *name; ti_error *error; } voice;
__attribute__((format(printf, 3, 4)))
static bool fail(const voice *v, ti_code code, const char *format, ...) {
  va_list list;
  if (v->error == NULL) return false;
  int named = snprintf(v->error->text, sizeof v->error->text, "%.200s: ", v->name);
  v->error->code = code;
  va_start(list, format);
  (void)vsnprintf(v->error->text + named, sizeof v->error->text - (size_t)named, format, list);
  va_end(list);
  return false;
}
/* Leaves a function with an error where `wrong` holds. */
#define REFUSE(wrong, code, ...) do { if (wrong) return fail(v, code, __VA_ARGS__); } while (0)
#define WRONG(wrong, ...) REFUSE(wrong, TI_ERROR_FORMAT, __VA_ARGS__)
#define NO_MEMORY(wrong, what) REFUSE(wrong, TI_ERROR_MEMORY, "no memory for %s", what)
const char *ti_error_text(const ti_error *error) { return error == NULL || error->code == TI_OK ? "" : error->text; }

/* ---- SHA-2 (FIPS 180-4) ---- */
/* SHA-512's constants; their upper halves are SHA-256's. */
static const u64 sha_k[80] = {
 0x428A2F98D728AE22, 0x7137449123EF65CD, 0xB5C0FBCFEC4D3B2F, 0xE9B5DBA58189DBBC, 0x3956C25BF348B538, 0x59F111F1B605D019,
 0x923F82A4AF194F9B, 0xAB1C5ED5DA6D8118, 0xD807AA98A3030242, 0x12835B0145706FBE, 0x243185BE4EE4B28C, 0x550C7DC3D5FFB4E2,
 0x72BE5D74F27B896F, 0x80DEB1FE3B1696B1, 0x9BDC06A725C71235, 0xC19BF174CF692694, 0xE49B69C19EF14AD2, 0xEFBE4786384F25E3,
 0x0FC19DC68B8CD5B5, 0x240CA1CC77AC9C65, 0x2DE92C6F592B0275, 0x4A7484AA6EA6E483, 0x5CB0A9DCBD41FBD4, 0x76F988DA831153B5,
 0x983E5152EE66DFAB, 0xA831C66D2DB43210, 0xB00327C898FB213F, 0xBF597FC7BEEF0EE4, 0xC6E00BF33DA88FC2, 0xD5A79147930AA725,
 0x06CA6351E003826F, 0x142929670A0E6E70, 0x27B70A8546D22FFC, 0x2E1B21385C26C926, 0x4D2C6DFC5AC42AED, 0x53380D139D95B3DF,
 0x650A73548BAF63DE, 0x766A0ABB3C77B2A8, 0x81C2C92E47EDAEE6, 0x92722C851482353B, 0xA2BFE8A14CF10364, 0xA81A664BBC423001,
 0xC24B8B70D0F89791, 0xC76C51A30654BE30, 0xD192E819D6EF5218, 0xD69906245565A910, 0xF40E35855771202A, 0x106AA07032BBD1B8,
 0x19A4C116B8D2D0C8, 0x1E376C085141AB53, 0x2748774CDF8EEB99, 0x34B0BCB5E19B48A8, 0x391C0CB3C5C95A63, 0x4ED8AA4AE3418ACB,
 0x5B9CCA4F7763E373, 0x682E6FF3D6B2B8A3, 0x748F82EE5DEFB2FC, 0x78A5636F43172F60, 0x84C87814A1F0AB72, 0x8CC702081A6439EC,
 0x90BEFFFA23631E28, 0xA4506CEBDE82BDE9, 0xBEF9A3F7B2C67915, 0xC67178F2E372532B, 0xCA273ECEEA26619C, 0xD186B8C721C0C207,
 0xEADA7DD6CDE0EB1E, 0xF57D4F7FEE6ED178, 0x06F067AA72176FBA, 0x0A637DC5A2C898A6, 0x113F9804BEF90DAE, 0x1B710B35131C471B,
 0x28DB77F523047D84, 0x32CAAB7B40C72493, 0x3C9EBE0A15C9BEBC, 0x431D67C49C100D4C, 0x4CC5D4BECB3E42B6, 0x597F299CFC657E2A,
 0x5FCB6FAB3AD6FAEC, 0x6C44198C4A475817};
static const u64 sha_start[8] = {0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
                                      0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};
/* Blocks into a state, for words of one width, with the rotations and shifts of the standard's functions. */
#define SHA_BLOCKS(name, word, bits, rounds, constant, s00, s01, s02, s10, s11, s12, b00, b01, b02, b10, b11, b12)     \
  static word name##_rotate(word x, unsigned by) { return x >> by | x << (bits - by); }                               \
  static void name(word state[8], const byte *p, size_t blocks) {                                                     \
    for (; blocks > 0; blocks--) {                                                                                    \
      word w[rounds] = {0}, s[8];                                                                                     \
      for (unsigned i = 0; i < 2 * bits; i++, p++) w[i * 8 / bits] = w[i * 8 / bits] << 8 | *p;                       \
      for (unsigned i = 16; i < rounds; i++) {                                                                        \
        word a = w[i - 15], b = w[i - 2];                                                                             \
        w[i] = w[i - 16] + (name##_rotate(a, s00) ^ name##_rotate(a, s01) ^ a >> s02) + w[i - 7] +                    \
               (name##_rotate(b, s10) ^ name##_rotate(b, s11) ^ b >> s12);                                            \
      }                                                                                                               \
      memcpy(s, state, sizeof s);                                                                                     \
      for (unsigned i = 0; i < rounds; i++) {                                                                         \
        word a = s[0], e = s[4], t = s[7] + ((e & s[5]) ^ (~e & s[6])) + (word)(constant) + w[i];                     \
        t += name##_rotate(e, b10) ^ name##_rotate(e, b11) ^ name##_rotate(e, b12);                                   \
        word u = (name##_rotate(a, b00) ^ name##_rotate(a, b01) ^ name##_rotate(a, b02));                             \
        u += (a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]);                                                                 \
        memmove(s + 1, s, 7 * sizeof *s);                                                                             \
        s[4] += t, s[0] = t + u;                                                                                      \
      }                                                                                                               \
      for (unsigned i = 0; i < 8; i++) state[i] += s[i];                                                              \
    }                                                                                                                 \
  }
SHA_BLOCKS(sha256_portable, u32, 32, 64, sha_k[i] >> 32, 7, 18, 3, 17, 19, 10, 2, 13, 22, 6, 11, 25)
SHA_BLOCKS(sha512_portable, u64, 64, 80, sha_k[i], 1, 8, 7, 19, 61, 6, 28, 34, 39, 14, 18, 41)
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#define TARGET_SHA2 __attribute__((target("sha2")))
#else
#define UNROLLED _Pragma("GCC unroll 16")
#define TARGET_SHA2 __attribute__((target("+crypto")))
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#define SHA256_INSTRUCTIONS
static bool has_sha256_instructions(void) {
  unsigned a, b, c, d, leaf1;
  if (!__get_cpuid(1, &a, &b, &leaf1, &d) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (b >> 29 & 1) != 0 && (leaf1 >> 19 & 1) != 0 && (leaf1 >> 9 & 1) != 0;
}
__attribute__((target("sha,sse4.1,ssse3")))
static void sha256_instructions(u32 state[8], const byte *p, size_t blocks, const u32 k[64]) {
  const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const void *)state), 0xB1);
  __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const void *)(state + 4)), 0x1B);
  __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
  for (; blocks > 0; blocks--, p += 64) {
    __m128i w[4], abef_before = abef, cdgh_before = cdgh;
    for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(p + 16 * i)), swap);
    UNROLLED for (int i = 0; i < 16; i++) {
      __m128i sum = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const void *)(k + 4 * i)));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
      sum = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
      sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), sum);
      w[i & 3] = _mm_sha256msg2_epu32(sum, w[(i + 3) & 3]); /* needed sixteen rounds later */
    }
    abef = _mm_add_epi32(abef, abef_before), cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  low = _mm_shuffle_epi32(abef, 0x1B), high = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128((void *)state, _mm_blend_epi16(low, high, 0xF0));
  _mm_storeu_si128((void *)(state + 4), _mm_alignr_epi8(high, low, 8));
}
#elif defined(__aarch64__) && \
    (defined(__ARM_FEATURE_SHA2) || (defined(__GNUC__) && !defined(__clang__)) || __clang_major__ >= 16)
#define SHA256_INSTRUCTIONS
#if defined(__APPLE__)
static bool has_sha256_instructions(void) { return true; }
#else
static bool has_sha256_instructions(void) { return (getauxval(AT_HWCAP) >> 6 & 1) != 0; }
#endif
TARGET_SHA2
static void sha256_instructions(u32 state[8], const byte *p, size_t blocks, const u32 k[64]) {
  uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
  for (; blocks > 0; blocks--, p += 64) {
    uint32x4_t w[4], abcd_before = abcd, efgh_before = efgh;
    for (int i = 0; i < 4; i++) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
    UNROLLED for (int i = 0; i < 16; i++) {
      uint32x4_t sum = vaddq_u32(w[i & 3], vld1q_u32(k + 4 * i)), old = abcd;
      abcd = vsha256hq_u32(abcd, efgh, sum), efgh = vsha256h2q_u32(efgh, old, sum);
      uint32x4_t next = vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]);
      w[i & 3] = vsha256su1q_u32(next, w[(i + 2) & 3], w[(i + 3) & 3]);
    }
    abcd = vaddq_u32(abcd, abcd_before), efgh = vaddq_u32(efgh, efgh_before);
  }
  vst1q_u32(state, abcd), vst1q_u32(state + 4, efgh);
}
#endif
static void sha256_blocks(u32 state[8], const byte *p, size_t blocks) {
#if defined(SHA256_INSTRUCTIONS)
  u32 k[64];
  for (unsigned i = 0; i < 64; i++) k[i] = (u32)(sha_k[i] >> 32);
  if (has_sha256_instructions()) sha256_instructions(state, p, blocks, k), blocks = 0;
#endif
  sha256_portable(state, p, blocks);
}
/* SHA-256 of `held` bytes, fewer than 64, and then `size` bytes. */
static void sha256(const byte *prefix, size_t held, const byte *p, size_t size, byte digest[32]) {
  u32 state[8];
  u64 bits = ((u64)held + size) * 8;
  byte block[128];
  for (unsigned i = 0; i < 8; i++) state[i] = (u32)(sha_start[i] >> 32);
  if (held > 0) {
    size_t part = size < 64 - held ? size : 64 - held;
    memcpy(block, prefix, held), memcpy(block + held, p, part);
    p += part, size -= part, held += part;
    if (held == 64) sha256_blocks(state, block, 1), held = 0;
  }
  sha256_blocks(state, p, size / 64);
  if (held == 0 && size % 64 != 0) memcpy(block, p + size / 64 * 64, held = size % 64);
  size_t end = held < 56 ? 64 : 128;
  memset(block + held, 0, end - held), block[held] = 0x80;
  for (unsigned i = 1; i <= 8; i++, bits >>= 8) block[end - i] = (byte)bits;
  sha256_blocks(state, block, end / 64);
  for (unsigned i = 0; i < 32; i++) digest[i] = (byte)(state[i / 4] >> (24 - 8 * (i % 4)));
}
static bool sha256_is(const byte *p, size_t size, const byte digest[32]) {
  byte found[32];
  sha256(NULL, 0, p, size, found);
  return memcmp(found, digest, 32) == 0;
}

/* ---- Ed25519 (RFC 8032), verification only: nothing here is secret, so nothing need take constant time ---- */
typedef struct { u32 v[8]; } field;       /* modulo p = 2^255 - 19, any number below 2^256, lowest word first */
typedef struct { field x, y, z, t; } point; /* (X/Z, Y/Z) with T = XY/Z */
static const field zero = {{0}}, one = {{1}};
static const field prime = {{0xFFFFFFED, ~0U, ~0U, ~0U, ~0U, ~0U, ~0U, 0x7FFFFFFF}};
static const field group_order = {{0x5CF5D3ED, 0x5812631A, 0xA2F79CD6, 0x14DEF9DE, 0, 0, 0, 0x10000000}};
static const field curve_d = {
    {0x135978A3, 0x75EB4DCA, 0x4141D8AB, 0x00700A4D, 0x7779E898, 0x8CC74079, 0x2B6FFE73, 0x52036CEE}};
static const field root_of_minus_one = {
    {0x4A0EA0B0, 0xC4EE1B27, 0xAD2FE478, 0x2F431806, 0x3DFBD7A7, 0x2B4D0099, 0x4FC1DF0B, 0x2B832480}};
static bool below(const field *a, const field *b) {
  int i = 7;
  while (i > 0 && a->v[i] == b->v[i]) i--;
  return a->v[i] < b->v[i];
}
/* a - b in 256 bits; returns the borrow. */
static bool take_away(field *a, const field *b) {
  u64 borrow = 0;
  for (int i = 0; i < 8; i++) {
    u64 x = (u64)a->v[i] - b->v[i] - borrow;
    a->v[i] = (u32)x, borrow = x >> 63;
  }
  return borrow != 0;
}
/* a + factor * b + 2^256 * carry, where 2^256 = 38. */
static field fold(const u32 a[8], const u32 b[8], u32 factor) {
  field r;
  u64 carry = 0;
  for (int i = 0; i < 8; i++, carry >>= 32) r.v[i] = (u32)(carry += a[i] + (u64)factor * b[i]);
  while (carry != 0) {
    carry *= 38;
    for (int i = 0; i < 8; i++, carry >>= 32) r.v[i] = (u32)(carry += r.v[i]);
  }
  return r;
}
static field add(field a, field b) { return fold(a.v, b.v, 1); }
static field subtract(field a, field b) {
  static const field wrap = {{38}};
  bool borrow = take_away(&a, &b);
  while (borrow) borrow = take_away(&a, &wrap);
  return a;
}
static field multiply(field a, field b) {
  u32 t[16] = {0};
  for (int i = 0; i < 8; i++) {
    u64 carry = 0;
    for (int j = 0; j < 8; j++, carry >>= 32) t[i + j] = (u32)(carry += (u64)a.v[i] * b.v[j] + t[i + j]);
    t[i + 8] = (u32)carry;
  }
  return fold(t, t + 8, 38);
}
/* The representative below p. */
static field canonical(field a) {
  while (!below(&a, &prime)) (void)take_away(&a, &prime);
  return a;
}
static bool equal(field a, field b) {
  a = canonical(subtract(a, b));
  return memcmp(&a, &zero, sizeof a) == 0;
}
/* a to the power of 2^n - k, k below 256. */
static field power(field a, int n, unsigned k) {
  field r = one;
  for (int i = n - 1; i >= 0; i--) {
    r = multiply(r, r);
    if (i >= 8 || ((256 - k) >> i & 1) != 0) r = multiply(r, a);
  }
  return r;
}
/* Section 5.1.4; also where p = q. */
static point point_add(const point *p, const point *q) {
  field a = multiply(subtract(p->y, p->x), subtract(q->y, q->x)), b = multiply(add(p->y, p->x), add(q->y, q->x));
  field c = multiply(multiply(p->t, curve_d), add(q->t, q->t)), d = multiply(p->z, add(q->z, q->z));
  field e = subtract(b, a), f = subtract(d, c), g = add(d, c), h = add(b, a);
  return (point){multiply(e, f), multiply(g, h), multiply(f, g), multiply(e, h)};
}
/* Section 5.1.3. False where the bytes are not the encoding of a point. */
static bool point_read(point *r, const byte encoded[32]) {
  field y;
  memcpy(&y, encoded, sizeof y);
  u32 sign = y.v[7] >> 31;
  y.v[7] &= 0x7FFFFFFF;
  if (!below(&y, &prime)) return false;
  field y2 = multiply(y, y), u = subtract(y2, one), v = add(multiply(y2, curve_d), one);
  field v3 = multiply(multiply(v, v), v), uv3 = multiply(u, v3);
  field x = multiply(uv3, power(multiply(uv3, multiply(v3, v)), 252, 3)), check = multiply(v, multiply(x, x));
  if (!equal(check, u)) {
    if (!equal(add(check, u), zero)) return false;
    x = multiply(x, root_of_minus_one);
  }
  x = canonical(x);
  if (equal(x, zero) && sign != 0) return false;
  if ((x.v[0] & 1) != sign) x = subtract(zero, x);
  *r = (point){x, y, one, multiply(x, y)};
  return true;
}
/* Section 5.1.7: whether SB - kA encodes as R, with k the SHA-512 of R, A and the message (32 bytes at most). */
static bool ed25519_valid(const byte key[32], const byte signature[64], const byte *message, size_t size) {
  byte base[32] = {0x58}, text[128] = {0};
  u64 digest[8];
  field s, k = zero;
  memset(base + 1, 0x66, 31), memcpy(&s, signature + 32, sizeof s);
  point sums[4] = {{zero, one, one, zero}}, r = sums[0]; /* 0, B, -A, B - A */
  if (!below(&s, &group_order) || !point_read(&sums[1], base) || !point_read(&sums[2], key)) return false;
  memcpy(text, signature, 32), memcpy(text + 32, key, 32), memcpy(text + 64, message, size);
  text[64 + size] = 0x80; /* SHA-512 of one block */
  text[126] = (byte)((64 + size) >> 5), text[127] = (byte)((64 + size) << 3);
  memcpy(digest, sha_start, sizeof digest), sha512_portable(digest, text, 1);
  for (int i = 511; i >= 0; i--) { /* the digest's words have their bytes in the other order */
    for (int j = 7; j > 0; j--) k.v[j] = k.v[j] << 1 | k.v[j - 1] >> 31;
    k.v[0] = k.v[0] << 1 | (u32)(digest[i / 64] >> (56 - i % 64 / 8 * 8 + i % 8) & 1);
    if (!below(&k, &group_order)) (void)take_away(&k, &group_order);
  }
  sums[2].x = subtract(zero, sums[2].x), sums[2].t = subtract(zero, sums[2].t);
  sums[3] = point_add(&sums[1], &sums[2]);
  for (int i = 255; i >= 0; i--) {
    unsigned which = (s.v[i / 32] >> (i % 32) & 1) | (k.v[i / 32] >> (i % 32) & 1) << 1;
    r = point_add(&r, &r);
    if (which != 0) r = point_add(&r, &sums[which]);
  }
  field inverse = power(r.z, 255, 21), x = canonical(multiply(r.x, inverse)), y = canonical(multiply(r.y, inverse));
  y.v[7] |= x.v[0] << 31;
  return memcmp(&y, signature, 32) == 0; /* both are little-endian */
}

/* ---- Element types ---- */
enum { TYPES = TI_FLOAT6E3M2 + 1 };
static const char *const type_names[TYPES] = {
    "", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "", "bool", "float16", "float64", "uint32",
    "uint64", "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "uint4", "int4", "float4_e2m1fn", "float8_e8m0fnu", "uint2", "int2", "float6_e2m3fn",
    "float6_e3m2fn"};
static const byte type_bytes[TYPES + 1] = "\0\4\1\1\2\2\4\10\0\1\2\10\4\10\10\20\2\1\1\1\1\1\1\1\1\1\1\1\1";
static const char type_kinds[] = "_fuiuiii_uffuuccfoooouioouioo"; /* float, unsigned, signed, complex, opaque */
size_t ti_type_bytes(ti_type type) { return (unsigned)type < TYPES ? type_bytes[type] : 0; }
const char *ti_type_name(ti_type type) { return ti_type_bytes(type) != 0 ? type_names[type] : "unknown"; }
static bool is_integer(ti_type type) { return type_kinds[type] == 'i' || type_kinds[type] == 'u'; }
static bool is_real(ti_type type) { return type_kinds[type] == 'f'; }
/* A binary float of `mantissa` and `exponent` bits, as a double. */
static double unpack_float(u32 bits, int mantissa, int exponent) {
  int scale = (int)(bits >> mantissa & ((1U << exponent) - 1)), bias = (1 << (exponent - 1)) - 1;
  u32 fraction = bits & ((1U << mantissa) - 1), first = scale != 0 ? 1U << mantissa : 0;
  double value = ldexp((double)(fraction | first), (scale != 0 ? scale : 1) - bias - mantissa);
  if (scale == (1 << exponent) - 1) value = fraction != 0 ? (double)NAN : (double)INFINITY;
  return (bits >> (mantissa + exponent) & 1) != 0 ? -value : value;
}
/* The nearest such float, ties to even. */
static u32 pack_float(double value, int mantissa, int exponent) {
  u32 sign = (signbit(value) ? 1U : 0U) << (mantissa + exponent), infinity = ((1U << exponent) - 1) << mantissa;
  int bias = (1 << (exponent - 1)) - 1, scale;
  if (isnan(value)) return sign | infinity | 1U << (mantissa - 1);
  if (isinf(value)) return sign | infinity;
  (void)frexp(value, &scale); /* the magnitude is below 2^scale */
  if (value == 0 || scale < 2 - bias) scale = 2 - bias;
  if (scale > bias + 1) return sign | infinity;
  /* In units of the last place, 2^(mantissa + 1) at most; adding the exponent carries where rounding does. */
  u32 units = (u32)nearbyint(ldexp(fabs(value), mantissa + 1 - scale));
  return sign | (units + ((u32)(scale - 2 + bias) << mantissa));
}
static double load_real(ti_type type, const byte *p) {
  if (type == TI_FLOAT32) return (double)f32_at(p);
  if (type == TI_FLOAT64) return f64_at(p);
  return type == TI_BFLOAT16 ? unpack_float(u16_at(p), 7, 8) : unpack_float(u16_at(p), 10, 5);
}
/* To half precision by way of float32. */
static void store_real(ti_type type, byte *p, double value) {
  float single = (float)value;
  u32 half = type == TI_BFLOAT16 ? pack_float((double)single, 7, 8) : pack_float((double)single, 10, 5);
  const void *from = type == TI_FLOAT64 ? (void *)&value : type == TI_FLOAT32 ? (void *)&single : (void *)&half;
  memcpy(p, from, type_bytes[type]);
}
/* Integers as 64 bits; those of uint64 keep theirs. */
static i64 load_integer(ti_type type, const byte *p) {
  unsigned width = type_bytes[type];
  u64 sign = UINT64_C(1) << (8 * width - 1);
  u64 x = width == 1 ? p[0] : width == 2 ? u16_at(p) : width == 4 ? u32_at(p) : u64_at(p);
  return (i64)(type_kinds[type] == 'i' ? (x ^ sign) - sign : x);
}
static void store_integer(ti_type type, byte *p, i64 value) { memcpy(p, &value, type_bytes[type]); }

/* ---- The machine ---- */
enum { X86_64 = 1, AARCH64, ARMV7, RISCV64, WASM32, ARCHITECTURES };
static const struct { const char *name, *features[8]; } architectures[ARCHITECTURES] = {
    [X86_64] = {"x86_64", {"x86-64-v3", "AVX-512 F BW CD DQ VL", "VNNI", "AVX512-BF16", "AVX-VNNI", "AVX512-FP16"}},
    [AARCH64] = {"aarch64", {"Advanced SIMD", "FP16", "dot product", "I8MM", "BF16", "SVE", "SVE2"}},
    [ARMV7] = {"armv7", {"NEON", "VFPv4", "integer division"}},
    [RISCV64] = {"riscv64", {"V", "Zvfh", "Zba", "Zbb"}},
    [WASM32] = {"wasm32", {"simd128", "relaxed-simd"}}};
#define BIT(word, from, to) (((u64)(word) >> (from) & 1) << (to))
#if defined(__x86_64__)
static const unsigned this_architecture = X86_64;
static u64 machine_features(void) {
  const unsigned basic3 = 1U << 12 | 1U << 22 | 1U << 29, seven3 = 1U << 3 | 1U << 5 | 1U << 8; /* FMA … AVX2, BMI */
  const unsigned seven4 = 1U << 16 | 1U << 17 | 1U << 28 | 1U << 30 | 1U << 31;
  unsigned a, b, c, d, basic, extended, seven_b, seven_c, seven_d, states = 0;
  if (!__get_cpuid(1, &a, &b, &basic, &d) || !__get_cpuid(0x80000001U, &a, &b, &extended, &d)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &seven_b, &seven_c, &seven_d) || (basic >> 27 & 1) == 0) return 0;
  __asm__ volatile("xgetbv" : "=a"(states), "=d"(d) : "c"(0)); /* the registers that the system keeps */
  if ((states & 6) != 6 || (basic & basic3) != basic3 || (seven_b & seven3) != seven3 || (extended & 32) == 0) return 0;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) a = 0;
  u64 features = 1 | BIT(a, 4, 4);
  if ((states & 0xE0) != 0xE0 || (seven_b & seven4) != seven4) return features;
  return features | 2 | BIT(seven_c, 11, 2) | BIT(a, 5, 3) | BIT(seven_d, 23, 5);
}
#elif defined(__aarch64__) && defined(__APPLE__)
static const unsigned this_architecture = AARCH64;
static u64 machine_features(void) { return 7; } /* what all of Apple's processors have */
#elif defined(__aarch64__)
static const unsigned this_architecture = AARCH64;
static u64 machine_features(void) {
  unsigned long a = getauxval(AT_HWCAP), b = getauxval(AT_HWCAP2);
  return BIT(a, 1, 0) | BIT(a, 10, 1) | BIT(a, 20, 2) | BIT(b, 13, 3) | BIT(b, 14, 4) | BIT(a, 22, 5) | BIT(b, 1, 6);
}
#elif defined(__arm__)
static const unsigned this_architecture = ARMV7;
static u64 machine_features(void) { return (getauxval(AT_HWCAP) >> 12 & 1) | (getauxval(AT_HWCAP) >> 16 & 3) << 1; }
#elif defined(__riscv) && __riscv_xlen == 64
static const unsigned this_architecture = RISCV64;
static u64 machine_features(void) {
  i64 probe[2] = {4, 0}; /* riscv_hwprobe: the extensions; older kernels tell of V only */
  unsigned long length = 0;
  u64 features = BIT(getauxval(AT_HWCAP), 'V' - 'A', 0);
  if (syscall(258, probe, 1, 0, NULL, 0) == 0)
    features = BIT(probe[1], 2, 0) | BIT(probe[1], 30, 1) | BIT(probe[1], 3, 2) | BIT(probe[1], 4, 3);
  if ((features & 1) != 0) __asm__ volatile("csrr %0, 0xC22" : "=r"(length)); /* vlenb */
  return length >= 16 ? features : features & ~UINT64_C(3);
}
#else
static const unsigned this_architecture = 0;
static u64 machine_features(void) { return 0; }
#endif
/* Four texts after the `used` characters of a text of `size`, as far as they fit; returns its length. */
static size_t append(char *text, size_t used, size_t size, const char *a, const char *b, const char *c, const char *d) {
  int more = snprintf(text + used, size - used, "%s%s%s%s", a, b, c, d);
  return more < 0 || (size_t)more >= size - used ? size - 1 : used + (size_t)more;
}
/* The names of `features`; returns how long they are, less than `size`. */
static size_t feature_names(unsigned architecture, u64 features, char *text, size_t size) {
  size_t used = 0;
  text[0] = 0;
  for (unsigned i = 0; i < 64; i++) {
    char number[16];
    (void)snprintf(number, sizeof number, "feature %u", i);
    const char *name = i < 8 ? architectures[architecture].features[i] : NULL, *before = used == 0 ? "" : ", ";
    if ((features >> i & 1) != 0) used = append(text, used, size, before, name != NULL ? name : number, "", "");
  }
  return used;
}
void ti_machine(char *text, size_t size) {
  char names[160];
  size_t used = feature_names(this_architecture, machine_features(), names, sizeof names);
  const char *name = this_architecture == 0 ? "an unknown processor" : architectures[this_architecture].name;
  if (size != 0) (void)snprintf(text, size, "%s%s%s", name, used == 0 ? "" : " with ", names);
}
/* Lets subnormal numbers count as zero (`flush`), or sets the mode that an earlier call returned. */
static uintptr_t float_mode(bool flush, uintptr_t mode) {
  uintptr_t old = 0;
#if defined(__x86_64__)
  old = _mm_getcsr();
  _mm_setcsr((unsigned)(flush ? old | 0x8040U : mode));
#elif defined(__aarch64__)
  __asm__ volatile("mrs %0, fpcr" : "=r"(old));
  __asm__ volatile("msr fpcr, %0" : : "r"(flush ? old | (uintptr_t)1 << 24 : mode));
#elif defined(__arm__) && defined(__ARM_FP)
  __asm__ volatile("vmrs %0, fpscr" : "=r"(old));
  __asm__ volatile("vmsr fpscr, %0" : : "r"(flush ? old | (uintptr_t)1 << 24 : mode));
#else
  (void)flush, (void)mode;
#endif
  return old;
}
static void pause_briefly(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

/* ---- Memory ---- */
static void *make(size_t count, size_t bytes) { return calloc(count == 0 ? 1 : count, bytes); }
/* Zeros at a multiple of 64, or of the size of a huge page where that pays. `memory` is what to free. */
typedef struct { byte *at; void *memory; } block;
static bool block_make(block *b, u64 size) {
  size_t unit = size >= 2U << 20 ? 2U << 20 : LINE;
  b->memory = size > SIZE_MAX / 2 - unit ? NULL : calloc(1, (size_t)size + unit);
  if (b->memory == NULL) return false;
  b->at = (byte *)b->memory + (unit - (uintptr_t)b->memory % unit) % unit;
#if defined(MADV_HUGEPAGE)
  if (unit > LINE) (void)madvise(b->at, (size_t)size / unit * unit, MADV_HUGEPAGE);
#endif
  return true;
}
/* Pages of the system: a file, or code. */
typedef struct { void *at; size_t size; } pages;
static bool pages_of(pages *p, size_t size, int protection, int flags, int file, off_t offset) {
  void *at = mmap(NULL, size, protection, flags, file, offset);
  if (at != MAP_FAILED) *p = (pages){at, size};
  return at != MAP_FAILED;
}
/* Maps code from the file where it can be, else as a copy. It is never writable and executable at once. */
static bool pages_of_code(pages *p, const byte *code, size_t size, int file, u64 offset) {
  long page = sysconf(_SC_PAGESIZE);
  bool mappable = file >= 0 && page > 0 && offset % (u64)page == 0;
  if (mappable && pages_of(p, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, (off_t)offset)) return true;
  if (!pages_of(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) return false;
  memcpy(p->at, code, size);
  __builtin___clear_cache((char *)p->at, (char *)p->at + size);
  return mprotect(p->at, size, PROT_READ | PROT_EXEC) == 0;
}

/* ---- The container ---- */
/* Record i is `step` bytes at `at + i * step`. */
typedef struct { const byte *at; u32 count, step; } table;
enum { STRINGS, DIMS, VALUES, TENSORS, RUNS, KERNELS, LAUNCHES, REFERENCES, LOOPS };
enum { NOWHERE, ARENA, TENSOR, INPUT, OUTPUT };
static const byte *record(table t, u32 i) { return t.at + (size_t)i * t.step; }
typedef void kernel(void **arguments, i64 chunk);
/* A launch, made of its record. Its arguments are slots of the context, filled from `references` on. */
typedef struct {
  kernel *function; struct loop *loop; u64 chunks; size_t slot; u32 references, count; bool waits, taken;
} launch;
/* A loop, made of its record. Its inputs and then its outputs are slots from `slot` on. */
typedef struct loop {
  u64 steps;
  size_t slot;
  u32 first, launches;
  struct { /* as in the file */
    u32 arena, inputs, input_count, outputs, output_count, iteration, cleared, cleared_count;
    u32 before, before_count, after, after_count, trips, enter, go_on, done;
  } at;
  bool taken;
} loop;
struct ti_model {
  char *name, *names, target[33];
  const byte *file, *code, *weights;
  size_t size, input_count, output_count, slot_count;
  u64 code_size, arena_bytes, expanded_bytes, max_iterations;
  u32 main_first, main_count;
  pages mapped, code_pages;
  table stored, tables[TABLES];
  ti_value *values;
  i64 *dims;
  const byte **tensors;
  launch *launches; loop *loops; block expanded;
  ti_context *context;
  void *device, (*device_close)(ti_model *); /* where another runtime runs the launches, as tinyinfer_opencl.c */
  bool (*device_run)(const voice *, ti_model *, const void *const *inputs, void *const *outputs);
};
static const byte *item(const ti_model *m, unsigned which, u32 i) { return record(m->tables[which], i); }
static bool has(const ti_model *m, unsigned t, u32 first, u64 n) { return inside(first, n, m->tables[t].count); }
/* A section as the table of contents states it. `at` is NULL where it is held elsewhere or outside of the file. */
typedef struct {
  char kind[5]; bool critical, elsewhere; const byte *at, *digest, *name; u64 offset, size; u32 group;
} section;
static const struct { char kind[5]; bool per_target; byte least, most; u32 alignment; } kinds[] = { /* most 0: any */
    {"MANI", 0, 1, 1, 64}, {"PLAN", 1, 0, 0, 64}, {"CODE", 1, 0, 0, 16384}, {"WIDX", 0, 1, 1, 64},
    {"WGHT", 0, 1, 1, 16384}, {"GOLD", 0, 0, 1, 64}, {"PROV", 0, 0, 0, 64}, {"TUNE", 0, 0, 0, 64},
    {"TRNG", 0, 0, 0, 64}, {"CLBN", 1, 0, 0, 64}, {"SIGN", 0, 0, 1, 64}};
enum { KINDS = sizeof kinds / sizeof *kinds };
static u32 section_count(const byte *file) { return u32_at(file + 12); }
static section section_at(const byte *file, u32 i) {
  const byte *p = file + HEADER + (size_t)i * ENTRY;
  section s = {{0}, p[4] & 1, p[4] >> 1 & 1, NULL, p + 32, p + 64, u64_at(p + 8), u64_at(p + 16), u32_at(p + 24)};
  for (unsigned j = 0; j < 4; j++) s.kind[j] = p[j] > 32 && p[j] < 127 ? (char)p[j] : '?';
  if (!s.elsewhere && inside(s.offset, s.size, u64_at(file + 16))) s.at = file + s.offset;
  return s;
}
/* The first section of a kind, and of a group where that is not 0. */
static bool find_section(const byte *file, const char *kind, u32 group, section *found) {
  for (u32 i = 0; i < section_count(file); i++) {
    *found = section_at(file, i);
    if (strcmp(found->kind, kind) == 0 && found->group == group) return true;
  }
  return false;
}
static bool check_header(const voice *v, const byte *file, size_t size) {
  byte digest[32];
  WRONG(size < HEADER, "no bundle: it has %zu bytes, and a header alone has 64", size);
  WRONG(memcmp(file, "\x89TINF\r\n\x1a", 8) != 0, "no bundle: it does not begin as one");
  unsigned major = u16_at(file + 8), minor = u16_at(file + 10), count = section_count(file);
  unsigned long long stated = u64_at(file + 16);
  WRONG(major != TI_VERSION_MAJOR, "version %u.%u of the format, and this runtime reads version 1", major, minor);
  WRONG(count < 1 || count > MAX_SECTIONS, "%u sections, and a bundle has 1 to 1024", count);
  WRONG(stated != size, "cut or grown: it has %zu bytes, not %llu", size, stated);
  WRONG(HEADER + (size_t)count * ENTRY > size, "cut inside of its table of contents");
  sha256(file, 32, file + HEADER, (size_t)count * ENTRY, digest);
  REFUSE(memcmp(digest, file + 32, 32) != 0, TI_ERROR_HASH, "damaged: its header or table of contents was changed");
  WRONG(u64_at(file + 24) != 0, "the header's reserved bytes are not zero");
  return true;
}
/* What a section's entry says by itself. */
static bool check_section(const voice *v, const byte *file, u32 i, unsigned counts[KINDS]) {
  const byte *p = file + HEADER + (size_t)i * ENTRY;
  section s = section_at(file, i), other;
  unsigned n = i, which = 0;
  while (which < KINDS && strcmp(kinds[which].kind, s.kind) != 0) which++;
  bool plain = memcmp(p, s.kind, 4) == 0 && (u32_at(p + 4) & ~3U) == 0 && u32_at(p + 28) == 0;
  WRONG(!plain, "section %u (%s): its kind is no text, or reserved bits are not zero", n, s.kind);
  WRONG(which == KINDS && s.critical, "section %u is a %s, which this runtime cannot skip", n, s.kind);
  size_t length = 0;
  while (length < 32 && s.name[length] > 32 && s.name[length] < 127) length++;
  WRONG(!all_zero(s.name + length, 32 - length), "section %u (%s): its name is no ASCII text", n, s.kind);
  WRONG(s.elsewhere && (strcmp(s.kind, "CODE") != 0 || s.offset != 0), "section %u (%s): held elsewhere", n, s.kind);
  WRONG(!s.elsewhere && s.at == NULL, "section %u (%s): ends outside of the file", n, s.kind);
  WRONG(s.offset % (which < KINDS ? kinds[which].alignment : 64) != 0, "section %u (%s): not aligned", n, s.kind);
  if (which == KINDS) return true;
  WRONG(kinds[which].per_target != (s.group != 0), "section %u (%s): group %u", n, s.kind, (unsigned)s.group);
  (void)find_section(file, s.kind, s.group, &other);
  bool second = (++counts[which] > 1 && kinds[which].most == 1) || (s.group != 0 && other.digest != s.digest);
  WRONG(second, "section %u: a second %s", n, s.kind);
  return true;
}
/* Step 3 of docs/bundle.md: order and bounds of all sections before the hash of any. */
static bool check_sections(const voice *v, const byte *file, size_t size) {
  u32 count = section_count(file);
  u64 end = HEADER + (u64)count * ENTRY;
  unsigned counts[KINDS] = {0};
  for (u32 i = 0; i < count; i++) {
    if (!check_section(v, file, i, counts)) return false;
    section s = section_at(file, i);
    WRONG((i == 0) != (strcmp(s.kind, "MANI") == 0), "the manifest is not the first section");
    WRONG(strcmp(s.kind, "SIGN") == 0 && (i + 1 != count || s.size != 96), "the signature is not last or too long");
    if (s.elsewhere) continue;
    WRONG(s.offset < end, "section %u (%s): begins inside of what is before it", (unsigned)i, s.kind);
    REFUSE(!all_zero(file + end, (size_t)(s.offset - end)), TI_ERROR_HASH, "damaged: bytes between sections");
    end = s.offset + s.size;
  }
  REFUSE(!all_zero(file + end, (size_t)(size - end)), TI_ERROR_HASH, "damaged: bytes after the last section");
  for (unsigned k = 0; k < KINDS; k++) WRONG(counts[k] < kinds[k].least, "no section %s", kinds[k].kind);
  for (u32 i = 0; i < count; i++) {
    section s = section_at(file, i);
    bool right = s.elsewhere || sha256_is(s.at, (size_t)s.size, s.digest);
    REFUSE(!right, TI_ERROR_HASH, "damaged: section %u (%s) was changed", (unsigned)i, s.kind);
  }
  return true;
}
static bool check_signature(const voice *v, const byte *file, const ti_options *options) {
  section s;
  byte digest[32], prefix[41] = "tinyinfer bundle signature 1"; /* a zero byte, 12 of the header */
  bool required = options->require_signature != 0 || options->key_count != 0, trusted = options->key_count == 0;
  REFUSE(!find_section(file, "SIGN", 0, &s) && required, TI_ERROR_SIGNATURE, "not signed, and a signature is required");
  if (strcmp(s.kind, "SIGN") != 0) return true;
  for (size_t i = 0; i < options->key_count; i++) trusted = trusted || memcmp(options->keys[i], s.at, 32) == 0;
  REFUSE(!trusted, TI_ERROR_SIGNATURE, "signed with a key that is not trusted");
  memcpy(prefix + 29, file, 12);
  sha256(prefix, 41, file + HEADER, ((size_t)section_count(file) - 1) * ENTRY, digest); /* SIGN is the last entry */
  REFUSE(!ed25519_valid(s.at, s.at + 32, digest, 32), TI_ERROR_SIGNATURE, "the signature is not one of this bundle");
  return true;
}
/* The first PLAN, in order of file, that this machine can run; or why it can run none. */
static bool choose_target(const voice *v, ti_model *m, const char *wanted, section *plan) {
  char machine[200], reasons[360] = "no target at all", names[160];
  size_t used = 0;
  for (u32 i = 0; i < section_count(m->file); i++) {
    *plan = section_at(m->file, i);
    if (strcmp(plan->kind, "PLAN") != 0) continue;
    memcpy(m->target, plan->name, 32);
    WRONG(plan->size < PLAN_HEADER, "the plan of %s is shorter than its header", m->target);
    u32 architecture = u32_at(plan->at);
    u64 missing = u64_at(plan->at + 8) & ~machine_features();
    const char *why = " is for ", *what = "a newer runtime";
    if (wanted != NULL && strcmp(wanted, m->target) != 0) {
      why = " is not ", what = wanted;
    } else if (architecture != this_architecture || u32_at(plan->at + 4) != sizeof(void *)) {
      if (architecture > 0 && architecture < ARCHITECTURES) what = architectures[architecture].name;
      if (architecture == WASM32) what = "the JavaScript loader";
    } else if (missing == 0) {
      return true;
    } else {
      (void)feature_names(architecture, missing, names, sizeof names), why = " needs ", what = names;
    }
    used = append(reasons, used, sizeof reasons, used == 0 ? "" : "; ", m->target, why, what);
  }
  ti_machine(machine, sizeof machine);
  return fail(v, TI_ERROR_TARGET, "no target for this machine (%s): %s", machine, reasons);
}
/* The code of the chosen target, executable. */
static bool find_code(const voice *v, ti_model *m, u32 group, const ti_options *options, int file) {
  section s;
  WRONG(!find_section(m->file, "CODE", group, &s) || s.size == 0, "%s has no code", m->target);
  bool given = s.elsewhere && options->code != NULL;
  bool right = given && options->code_size == s.size && sha256_is(options->code, options->code_size, s.digest);
  REFUSE(s.elsewhere && !given, TI_ERROR_ARGUMENT, "the code of %s is held elsewhere, and none was given", m->target);
  REFUSE(given && !right, TI_ERROR_HASH, "the code that was given is not that of %s", m->target);
  bool mapped = given || pages_of_code(&m->code_pages, s.at, (size_t)s.size, file, s.offset);
  REFUSE(!mapped, TI_ERROR_MEMORY, "no executable memory for the code: %s", strerror(errno));
  m->code = given ? options->code : m->code_pages.at, m->code_size = s.size;
  return true;
}

/* ---- The plan: every number in it is checked here, once ---- */
static bool read_tables(const voice *v, ti_model *m, const section *plan) {
  static const byte least[TABLES] = {1, 8, 48, 56, 24, 16, 64, 32, 96};
  u32 count = u32_at(plan->at + 24);
  u64 start = PLAN_HEADER + (u64)count * 16;
  WRONG(count < TABLES || plan->size < start, "the plan of %s has too few tables", m->target);
  m->arena_bytes = u64_at(plan->at + 16), m->main_first = u32_at(plan->at + 28), m->main_count = u32_at(plan->at + 32);
  for (unsigned i = 0; i < TABLES; i++) {
    const byte *p = plan->at + PLAN_HEADER + 16 * i;
    table t = {plan->at, u32_at(p + 4), u32_at(p + 8)};
    u64 offset = u32_at(p), bytes = (u64)t.count * t.step;
    bool fits = t.step >= least[i] && (i != STRINGS || t.step == 1) && offset % 8 == 0 && offset >= start;
    WRONG(t.count != 0 && !(fits && inside(offset, bytes, plan->size)), "%s: table %u does not fit", m->target, i);
    if (t.count != 0) t.at += offset;
    for (unsigned j = 0; j < i; j++) {
      const byte *other = m->tables[j].at, *end = other + (size_t)m->tables[j].count * m->tables[j].step;
      WRONG(t.at < end && other < t.at + bytes, "%s: tables %u and %u overlap", m->target, j, i);
    }
    m->tables[i] = t;
  }
  return true;
}
static bool check_stored(const voice *v, ti_model *m, const section *index, const section *weights) {
  u64 end = 0;
  WRONG(index->size % 48 != 0 || index->size / 48 > UINT32_MAX, "the index of weights is no number of records");
  m->stored = (table){index->at, (u32)(index->size / 48), 48};
  m->weights = weights->at;
  for (u32 i = 0; i < m->stored.count; i++) {
    const byte *p = record(m->stored, i);
    u64 offset = u64_at(p + 32), bytes = u64_at(p + 40);
    bool fits = offset % LINE == 0 && offset >= end && inside(offset, bytes, weights->size);
    WRONG(!fits, "stored tensor %u is not there", (unsigned)i);
    end = offset + bytes;
  }
  return true;
}
static bool check_tensor(const voice *v, const ti_model *m, u32 i) {
  const byte *p = item(m, TENSORS, i);
  unsigned n = i;
  u32 first = u32_at(p + 32), count = u32_at(p + 36);
  ti_type type = (ti_type)u32_at(p + 16), stored_type = (ti_type)u32_at(p + 20);
  u64 bytes = u64_at(p + 8), copied = 0, covered = 0, width = ti_type_bytes(type), kept = ti_type_bytes(stored_type);
  WRONG(u32_at(p) >= m->stored.count || width == 0 || kept == 0 || u32_at(p + 4) > 1, "tensor %u is unknown", n);
  u64 stored = u64_at(record(m->stored, u32_at(p)) + 40);
  WRONG(u32_at(p + 4) == 0 && (bytes != stored || type != stored_type || i64_at(p + 24) != 0 || count != 0),
            "tensor %u is raw, but not as it is stored", n);
  if (u32_at(p + 4) == 0) return true;
  bool same = type == stored_type && i64_at(p + 24) == 0;
  bool possible = is_integer(stored_type) ? is_integer(type) || is_real(type) : is_real(stored_type) && is_real(type);
  WRONG(!same && !possible, "tensor %u: its type cannot be made of the stored one", n);
  WRONG(stored % kept != 0 || bytes % width != 0 || !has(m, RUNS, first, count), "tensor %u is uneven", n);
  for (u32 r = first; r < first + count; r++) {
    const byte *run = item(m, RUNS, r);
    u64 part, step, times = u64_at(run + 16);
    WRONG(!mul_u64(u64_at(run), times, &part) || !add_u64(copied, part, &copied) ||
                  !add_u64(u64_at(run), u64_at(run + 8), &step) || step == 0 || !mul_u64(step, times, &part) ||
                  !add_u64(covered, part, &covered), "tensor %u: its runs have no end", n);
  }
  if (count == 0) copied = covered = stored / kept;
  WRONG(copied != stored / kept || covered > bytes / width, "tensor %u: its runs do not fit", n);
  return true;
}
static bool read_value(const voice *v, ti_model *m, u32 i, char *name) {
  const byte *p = item(m, VALUES, i);
  ti_value *value = &m->values[i];
  u32 length = u32_at(p + 4), first = u32_at(p + 16), direction = u32_at(p + 20), fixed = u32_at(p + 32);
  u64 elements = 1, bytes = 0;
  if (length > 0) memcpy(name, item(m, STRINGS, u32_at(p)), length);
  *value = (ti_value){name, (ti_type)u32_at(p + 8), u32_at(p + 12), m->dims + first, 0, 0};
  bool good = ti_type_bytes(value->type) != 0 && has(m, DIMS, first, value->rank);
  for (u32 d = 0; good && d < value->rank; d++)
    good = value->dims[d] >= 0 && mul_u64(elements, (u64)value->dims[d], &elements);
  good = good && mul_u64(elements, type_bytes[value->type], &bytes) && bytes == u64_at(p + 24) && bytes <= SIZE_MAX / 4;
  WRONG(!good, "'%s': its type and shape do not make its bytes", name);
  WRONG(direction > 1 || (direction == 0 && m->output_count != 0), "'%s' is no input, nor an output after them", name);
  WRONG(fixed != 0 && (direction != 0 || !has(m, TENSORS, fixed - 1, 1) ||
                           u64_at(item(m, TENSORS, fixed - 1) + 8) != bytes), "'%s': its only value is none", name);
  WRONG(!(f64_at(p + 40) >= 0 && f64_at(p + 40) <= (direction == 1 ? 0x1p1023 : 0)), "'%s': its tolerance", name);
  value->elements = (size_t)elements, value->bytes = (size_t)bytes;
  *(direction == 0 ? &m->input_count : &m->output_count) += 1;
  return true;
}
static bool read_values(const voice *v, ti_model *m) {
  u32 count = m->tables[VALUES].count;
  u64 characters = 0;
  for (u32 i = 0; i < count; i++) {
    const byte *p = item(m, VALUES, i);
    WRONG(!has(m, STRINGS, u32_at(p), u32_at(p + 4)), "value %u: its name is not there", (unsigned)i);
    characters += (u64)u32_at(p + 4) + 1;
  }
  m->values = make(count, sizeof *m->values);
  m->dims = make(m->tables[DIMS].count, sizeof *m->dims);
  m->names = characters > SIZE_MAX / 2 ? NULL : make((size_t)characters, 1);
  NO_MEMORY(m->values == NULL || m->dims == NULL || m->names == NULL, "the plan");
  for (u32 i = 0; i < m->tables[DIMS].count; i++) m->dims[i] = i64_at(item(m, DIMS, i));
  char *name = m->names;
  for (u32 i = 0; i < count; name += u32_at(item(m, VALUES, i++) + 4) + 1)
    if (!read_value(v, m, i, name)) return false;
  return true;
}
/* The bytes that references may point to, in the launches around a loop or in its body. */
typedef struct { u64 arena, input_count, output_count; const u64 *inputs, *outputs; } sizes_of;
/* The bytes from where a reference points to the end of what it points into, wherever it is in iterations 0 to last. */
static bool reach(const ti_model *m, const sizes_of *z, u32 number, u64 last, bool written, u64 *bytes) {
  if (!has(m, REFERENCES, number, 1)) return false;
  const byte *p = item(m, REFERENCES, number);
  u32 space = u32_at(p), which = u32_at(p + 4);
  u64 size = 0, offset = u64_at(p + 8);
  i64 even = i64_at(p + 16), odd = i64_at(p + 24), highest = 0;
  const u64 read_only = written ? 0 : UINT64_MAX;
  const u64 counts[] = {0, 1, m->tables[TENSORS].count & read_only, z->input_count & read_only, z->output_count};
  if (space > OUTPUT || which >= counts[space]) return false;
  if (space == ARENA || space == TENSOR) size = space == ARENA ? z->arena : u64_at(item(m, TENSORS, which) + 8);
  if (space == INPUT || space == OUTPUT) size = space == INPUT ? z->inputs[which] : z->outputs[which];
  if (offset > size || size > INT64_MAX || last > INT64_MAX) return false;
  /* A place moves by even + odd every two iterations, so it is farthest out in one of the first or last two. */
  const u64 farthest[4] = {0, last < 1 ? last : 1, last < 1 ? 0 : last - 1, last};
  for (unsigned i = 0; i < 4; i++) {
    i64 evens, odds, at, t = (i64)farthest[i];
    if (!mul_i64(t - t / 2, even, &evens) || !mul_i64(t / 2, odd, &odds) || !add_i64(evens, odds, &at)) return false;
    if (!add_i64((i64)offset, at, &at) || at < 0 || (u64)at > size) return false;
    highest = at > highest ? at : highest;
  }
  *bytes = size - (u64)highest;
  return true;
}
/* Whether `bytes` are at a reference that does not move, or at an `optional` one that is in no space. */
static bool there(const ti_model *m, const sizes_of *z, u32 number, bool written, bool optional, i64 bytes) {
  u64 have;
  bool none = optional && has(m, REFERENCES, number, 1) && u32_at(item(m, REFERENCES, number)) == 0;
  return none || (reach(m, z, number, 0, written, &have) && bytes >= 0 && have >= (u64)bytes);
}
static bool take_slots(const voice *v, ti_model *m, u32 first, u32 count, size_t *slot) {
  *slot = m->slot_count, m->slot_count += count;
  WRONG(!has(m, REFERENCES, first, count), "arguments are outside of their table");
  WRONG(m->slot_count > MAX_SLOTS, "more than 2^24 arguments");
  return true;
}
static bool check_launches(const voice *v, ti_model *m, u32 first, u32 count, const sizes_of *, unsigned depth);
/* Pairs (to, from) that a loop copies, whose sources move in `last` iterations. */
static bool check_copies(const ti_model *m, const sizes_of *z, u32 first, u32 count, u64 last) {
  u64 have;
  if (!has(m, REFERENCES, first, 2 * (u64)count)) return false;
  for (u32 i = first; i < first + 2 * count; i += 2) {
    i64 n = i64_at(item(m, REFERENCES, i) + 24);
    if (!there(m, z, i, true, false, n) || !reach(m, z, i + 1, last, false, &have) || have < (u64)n) return false;
  }
  return true;
}
static bool check_loop(const voice *v, ti_model *m, loop *l, const sizes_of *z, unsigned depth) {
  unsigned n = (unsigned)(l - m->loops);
  const byte *p = item(m, LOOPS, n);
  *l = (loop){.steps = u64_at(p + 8), .first = u32_at(p), .launches = u32_at(p + 4), .taken = true};
  memcpy(&l->at, p + 16, sizeof l->at);
  sizes_of inner = {0, l->at.input_count, l->at.output_count, NULL, NULL};
  size_t outputs;
  WRONG(depth > MAX_LOOP_DEPTH, "loops are nested more than %d deep", MAX_LOOP_DEPTH);
  if (!take_slots(v, m, l->at.inputs, l->at.input_count, &l->slot) ||
      !take_slots(v, m, l->at.outputs, l->at.output_count, &outputs)) return false;
  WRONG(l->steps > INT64_MAX || !reach(m, z, l->at.arena, 0, true, &inner.arena) ||
                !there(m, z, l->at.iteration, true, false, 8) || !there(m, z, l->at.trips, false, true, 8) ||
                !there(m, z, l->at.enter, false, true, 1) || !there(m, z, l->at.go_on, false, true, 1) ||
                !there(m, z, l->at.done, true, true, 8), "loop %u: a place of it is outside of its memory", n);
  bool good = has(m, REFERENCES, l->at.cleared, l->at.cleared_count);
  for (u32 i = l->at.cleared; good && i < l->at.cleared + l->at.cleared_count; i++)
    good = there(m, z, i, true, false, i64_at(item(m, REFERENCES, i) + 16));
  WRONG(!good || !check_copies(m, z, l->at.before, l->at.before_count, 0) ||
                !check_copies(m, z, l->at.after, l->at.after_count, l->steps), "loop %u copies what is not there", n);
  u64 *bytes = make((size_t)l->at.input_count + l->at.output_count, sizeof *bytes);
  NO_MEMORY(bytes == NULL, "the plan");
  inner.inputs = bytes, inner.outputs = bytes + l->at.input_count;
  for (u32 i = 0; good && i < l->at.input_count + l->at.output_count; i++) {
    bool output = i >= l->at.input_count;
    u32 number = output ? l->at.outputs + (i - l->at.input_count) : l->at.inputs + i;
    good = reach(m, z, number, l->steps > 0 ? l->steps - 1 : 0, output, &bytes[i]) ||
           fail(v, TI_ERROR_FORMAT, "loop %u: place %u moves outside of its memory", n, (unsigned)i);
  }
  good = good && check_launches(v, m, l->first, l->launches, &inner, depth);
  free(bytes);
  return good;
}
static bool check_launches(const voice *v, ti_model *m, u32 first, u32 count, const sizes_of *z,
                           unsigned depth) {
  u64 total = 0, bytes;
  WRONG(!has(m, LAUNCHES, first, count), "launches are outside of their table");
  for (u32 i = first; i < first + count; i++) {
    const byte *p = item(m, LAUNCHES, i);
    launch *l = &m->launches[i];
    unsigned n = i, number = u32_at(p), which = u32_at(p + 24);
    WRONG(l->taken, "launch %u runs in two places", n);
    *l = (launch){NULL, NULL, u64_at(p + 16), 0, u32_at(p + 4), u32_at(p + 8), (p[12] & 1) != 0, true};
    WRONG(l->chunks > MAX_CHUNKS || (total += l->chunks) > MAX_CHUNKS, "launch %u: more than 2^30 chunks", n);
    if (which != 0) {
      WRONG(!has(m, LOOPS, which - 1, 1) || l->chunks != 1, "launch %u: its loop is none", n);
      l->loop = &m->loops[which - 1];
      WRONG(l->loop->taken, "loop %u runs in two places", which - 1);
      if (!check_loop(v, m, l->loop, z, depth + 1)) return false;
      continue;
    }
    WRONG(!has(m, KERNELS, number, 1) || u64_at(item(m, KERNELS, number)) >= m->code_size,
              "launch %u: its kernel is outside of the code", n);
    l->function = (kernel *)((uintptr_t)m->code + (uintptr_t)u64_at(item(m, KERNELS, number)));
    if (!take_slots(v, m, l->references, l->count, &l->slot)) return false;
    for (u32 j = 0; j < l->count; j++)
      WRONG(!reach(m, z, l->references + j, 0, false, &bytes), "launch %u: argument %u is none", n, (unsigned)j);
  }
  return true;
}
/* The plan of the chosen target, and the weights as far as it needs them. */
static bool check_plan(const voice *v, ti_model *m, const section *plan) {
  section index, weights;
  (void)find_section(m->file, "WIDX", 0, &index);
  (void)find_section(m->file, "WGHT", 0, &weights);
  if (!read_tables(v, m, plan) || !check_stored(v, m, &index, &weights)) return false;
  for (u32 i = 0; i < m->tables[TENSORS].count; i++)
    if (!check_tensor(v, m, i)) return false;
  if (!read_values(v, m)) return false;
  m->launches = make(m->tables[LAUNCHES].count, sizeof *m->launches);
  m->loops = make(m->tables[LOOPS].count, sizeof *m->loops);
  u64 *bytes = make(m->tables[VALUES].count, sizeof *bytes);
  bool good = m->launches != NULL && m->loops != NULL && bytes != NULL;
  good = good || fail(v, TI_ERROR_MEMORY, "no memory for the plan");
  for (u32 i = 0; good && i < m->tables[VALUES].count; i++) bytes[i] = m->values[i].bytes;
  const sizes_of sizes = {m->arena_bytes, m->input_count, m->output_count, bytes, bytes + m->input_count};
  good = good && check_launches(v, m, m->main_first, m->main_count, &sizes, 0);
  free(bytes);
  return good;
}

/* ---- Tensors ---- */
/* Elements converted from the stored type to that in memory; the types were checked. */
static void convert(ti_type type, byte *to, ti_type stored_type, const byte *from, size_t count, i64 added) {
  size_t width = type_bytes[type], kept = type_bytes[stored_type];
  bool same = type == stored_type && added == 0, whole = is_integer(stored_type), to_whole = is_integer(type);
  if (same && count > 0) memcpy(to, from, count * width);
  for (; !same && count > 0; count--, to += width, from += kept) {
    i64 x = whole ? (i64)((u64)load_integer(stored_type, from) + (u64)added) : 0;
    if (to_whole) store_integer(type, to, x);
    if (!to_whole) store_real(type, to, whole ? (double)x : load_real(stored_type, from) + (double)added);
  }
}
static void expand(const ti_model *m, const byte *p, byte *to, const byte *stored, u64 stored_bytes) {
  ti_type type = (ti_type)u32_at(p + 16), stored_type = (ti_type)u32_at(p + 20);
  u32 first = u32_at(p + 32), count = u32_at(p + 36);
  size_t width = type_bytes[type], kept = type_bytes[stored_type];
  if (count == 0) convert(type, to, stored_type, stored, (size_t)(stored_bytes / kept), i64_at(p + 24));
  for (u32 r = first; r < first + count; r++) {
    const byte *run = item(m, RUNS, r);
    size_t copied = (size_t)u64_at(run), left = (size_t)u64_at(run + 8), times = (size_t)u64_at(run + 16);
    if (copied == 0) to += left * width * times;
    for (; copied != 0 && times > 0; times--, to += (copied + left) * width, stored += copied * kept)
      convert(type, to, stored_type, stored, copied, i64_at(p + 24));
  }
}
/* Where every tensor lies: raw ones in the file, the others in one block, some lines apart lest tensors whose size is a
 * multiple of a page all compete for the same sets of the first-level cache. */
static bool place_tensors(const voice *v, ti_model *m) {
  table tensors = m->tables[TENSORS];
  m->tensors = make(tensors.count, sizeof *m->tensors);
  NO_MEMORY(m->tensors == NULL, "the plan");
  for (u32 i = 0; i < tensors.count; i++) {
    const byte *p = record(tensors, i);
    u64 bytes = u32_at(p + 4) == 0 ? 0 : u64_at(p + 8) / LINE * LINE + LINE + SKEW;
    NO_MEMORY(bytes > SIZE_MAX / 4 || (m->expanded_bytes += bytes) > SIZE_MAX / 4, "the weights");
  }
  NO_MEMORY(m->expanded_bytes != 0 && !block_make(&m->expanded, m->expanded_bytes), "the weights");
  byte *to = m->expanded.at;
  for (u32 i = 0; i < tensors.count; i++) {
    const byte *p = record(tensors, i), *stored = record(m->stored, u32_at(p));
    m->tensors[i] = m->weights + u64_at(stored + 32);
    if (u32_at(p + 4) == 0) continue;
    expand(m, p, to, m->tensors[i], u64_at(stored + 40));
    m->tensors[i] = to;
    to += u64_at(p + 8) / LINE * LINE + LINE + SKEW;
  }
  return true;
}

/* ---- Running ---- */
/* What references mean in the launches around a loop or in its body. */
typedef struct { byte *arena; void **inputs, **outputs; } scope;
/* The words that threads share are apart, lest they share cache lines; all count on for ever and wrap around. */
struct ti_context {
  ti_model *model;
  void **slots;
  scope around;
  block arena, counters; /* counters: of each launch and thread, one line */
  byte *resolved_arena;  /* the one that the slots point into */
  unsigned threads, started, total;
  pthread_t workers[MAX_THREADS];
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  atomic_int stopped, ending; /* stopped: a loop made too many iterations. No bytes: RISC-V exchanges words only */
  byte line0[LINE]; atomic_uint generation, sleepers, numbered; /* generation: the number of the run */
  byte line1[LINE]; atomic_uint done; /* chunks completed in all runs */
  byte line2[LINE]; atomic_uint front; /* the launch that the caller has reached */
};
static void *resolve(const ti_model *m, const scope *s, u32 number) {
  const byte *p = item(m, REFERENCES, number);
  u32 space = u32_at(p), which = u32_at(p + 4);
  const void *base = space == ARENA ? s->arena : space == TENSOR ? m->tensors[which] : NULL;
  if (space >= INPUT) base = space == INPUT ? s->inputs[which] : s->outputs[which];
  return space == NOWHERE ? NULL : (void *)((uintptr_t)base + (uintptr_t)u64_at(p + 8));
}
/* Fills the slots of launches in a row; `all`, or only those whose places change. */
static void resolve_launches(ti_context *c, const scope *s, u32 first, u32 count, bool all) {
  const ti_model *m = c->model;
  for (const launch *l = m->launches + first; l < m->launches + first + count; l++) {
    for (u32 i = 0, n = l->references; l->loop == NULL && i < l->count; i++, n++)
      if (all || u32_at(item(m, REFERENCES, n)) >= INPUT) c->slots[l->slot + i] = resolve(m, s, n);
  }
}
static void run_loop(ti_context *c, const loop *l, const scope *around, u64 *left);
static void run_launch(ti_context *c, const launch *l, const scope *s, i64 first, i64 end, u64 *left) {
  if (l->loop != NULL) run_loop(c, l->loop, s, left);
  for (i64 chunk = first; l->loop == NULL && chunk < end; chunk++) l->function(c->slots + l->slot, chunk);
}
/* "Loops" of docs/bundle.md. `left` counts the iterations that may be made down to 0. */
static void run_loop(ti_context *c, const loop *l, const scope *around, u64 *left) {
  const ti_model *m = c->model;
  void **places = c->slots + l->slot;
  u32 inputs = l->at.input_count, count = inputs + l->at.output_count;
  scope inner = {resolve(m, around, l->at.arena), places, places + inputs};
  const byte *trips = resolve(m, around, l->at.trips), *enter = resolve(m, around, l->at.enter);
  const byte *go_on = resolve(m, around, l->at.go_on);
  void *iteration = resolve(m, around, l->at.iteration), *done = resolve(m, around, l->at.done);
  i64 most = (i64)l->steps, t = 0;
  for (u32 i = 0; i < count; i++)
    places[i] = resolve(m, around, i < inputs ? l->at.inputs + i : l->at.outputs + i - inputs);
  resolve_launches(c, &inner, l->first, l->launches, true);
  for (u32 i = l->at.cleared; i < l->at.cleared + l->at.cleared_count; i++)
    memset(resolve(m, around, i), 0, (size_t)i64_at(item(m, REFERENCES, i) + 16));
  for (u32 i = l->at.before; i < l->at.before + 2 * l->at.before_count; i += 2)
    memmove(resolve(m, around, i), resolve(m, around, i + 1), (size_t)i64_at(item(m, REFERENCES, i) + 24));
  if (trips != NULL && i64_at(trips) < most) most = i64_at(trips);
  for (bool going = enter == NULL || *enter != 0; t < most && going; going = go_on == NULL || *go_on != 0) {
    if (*left == 0) atomic_store_explicit(&c->stopped, true, memory_order_relaxed);
    if (*left == 0) break;
    *left -= 1;
    memcpy(iteration, &t, sizeof t);
    for (const launch *each = m->launches + l->first; each < m->launches + l->first + l->launches; each++)
      run_launch(c, each, &inner, 0, (i64)each->chunks, left);
    for (u32 i = 0; i < count; i++) {
      const byte *p = item(m, REFERENCES, i < inputs ? l->at.inputs + i : l->at.outputs + i - inputs);
      places[i] = (void *)((uintptr_t)places[i] + (uintptr_t)u64_at(p + (t % 2 == 0 ? 16 : 24)));
    }
    t++;
    if (t < most) resolve_launches(c, &inner, l->first, l->launches, false);
  }
  for (u32 i = l->at.after; i < l->at.after + 2 * l->at.after_count; i += 2) {
    const byte *p = item(m, REFERENCES, i + 1);
    u64 moved = u64_at(p + 16) * (u64)(t - t / 2) + u64_at(p + 24) * (u64)(t / 2);
    const void *from = (const void *)((uintptr_t)resolve(m, around, i + 1) + (uintptr_t)moved);
    memmove(resolve(m, around, i), from, (size_t)i64_at(item(m, REFERENCES, i) + 24));
  }
  if (done != NULL) memcpy(done, &t, sizeof t);
}
/* Until `target` chunks are done: spins, then gives the core away, for the awaited thread may need it. */
static void await_done(ti_context *c, unsigned target) {
  for (unsigned n = 0; (int)(atomic_load_explicit(&c->done, memory_order_acquire) - target) < 0; n++) {
    if (n < 1000) pause_briefly();
    if (n >= 1000) (void)sched_yield();
  }
}
/* The launches of run `generation` from `first` on, on thread `me` (the caller's is 0). Each has a contiguous part of
 * a launch's chunks, whose data its cache holds, and then takes of the others' parts. Counters are not reset: a run has
 * the next `size` numbers of a part, so that a late thread finds nothing to take, and nobody waits but for work. */
static void run_shared(ti_context *c, unsigned generation, unsigned first, unsigned me) {
  const ti_model *m = c->model;
  unsigned before = (generation - 1) * c->total, threads = c->threads;
  for (unsigned n = 0; n < m->main_count; n++) {
    const launch *l = m->launches + m->main_first + n;
    unsigned mine = 0, awaited = before;
    before += (unsigned)l->chunks;
    if (n < first) continue;
    if (l->waits) await_done(c, awaited);
    if (me == 0) atomic_store_explicit(&c->front, n, memory_order_release);
    if (me != 0 && l->waits && l->chunks == 1) continue; /* the caller ran what came before */
    for (unsigned turn = 0; turn < threads; turn++) {
      unsigned part = (me + turn) % threads, start = (unsigned)((part * l->chunks + threads - 1) / threads);
      unsigned size = (unsigned)(((part + 1) * l->chunks + threads - 1) / threads) - start, at;
      atomic_uint *counter = (atomic_uint *)(void *)(c->counters.at + ((size_t)n * threads + part) * LINE);
      unsigned taken = atomic_load_explicit(counter, memory_order_relaxed);
      while ((at = taken - (generation - 1) * size) < size) {
        u64 left = m->max_iterations;
        if (!atomic_compare_exchange_weak(counter, &taken, taken + 1)) continue;
        run_launch(c, l, &c->around, start + at, (i64)start + at + 1, &left);
        taken++, mine++;
      }
    }
    if (mine != 0) (void)atomic_fetch_add_explicit(&c->done, mine, memory_order_acq_rel);
  }
}
static void *work(void *given) {
  ti_context *c = given;
  unsigned seen = 0, spins = 0;
  unsigned me = atomic_fetch_add(&c->numbered, 1) + 1;
  (void)float_mode(true, 0);
  while (!atomic_load(&c->ending)) {
    unsigned generation = atomic_load(&c->generation);
    if (generation != seen) {
      run_shared(c, generation, atomic_load_explicit(&c->front, memory_order_acquire), me);
      seen = generation, spins = 0;
    } else if (spins++ < 2000) {
      pause_briefly();
    } else {
      (void)pthread_mutex_lock(&c->mutex), (void)atomic_fetch_add(&c->sleepers, 1);
      while (atomic_load(&c->generation) == seen && !c->ending) (void)pthread_cond_wait(&c->wake, &c->mutex);
      (void)atomic_fetch_sub(&c->sleepers, 1), (void)pthread_mutex_unlock(&c->mutex);
    }
  }
  return NULL;
}
/* A sleeper counts itself before it looks for the last time, so that it is woken or sees what changed. */
static void wake_sleepers(ti_context *c) {
  if (atomic_load(&c->sleepers) == 0) return;
  (void)pthread_mutex_lock(&c->mutex), (void)pthread_cond_broadcast(&c->wake), (void)pthread_mutex_unlock(&c->mutex);
}
void ti_context_close(ti_context *c) {
  if (c == NULL) return;
  atomic_store(&c->ending, true);
  wake_sleepers(c);
  for (unsigned i = 0; i < c->started; i++) (void)pthread_join(c->workers[i], NULL);
  (void)pthread_mutex_destroy(&c->mutex), (void)pthread_cond_destroy(&c->wake);
  free(c->counters.memory), free(c->arena.memory), free(c->slots), free(c);
}
static bool context_make(const voice *v, ti_model *m, unsigned threads, ti_context **made) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  ti_context *c = *made = calloc(1, sizeof *c);
  bool shared = false;
  double seconds = 0;
  NO_MEMORY(c == NULL, "a context");
  if (threads == 0) threads = cores > 0 ? (unsigned)cores : 1;
  for (u32 i = m->main_first; i < m->main_first + m->main_count; i++) {
    const launch *l = m->launches + i;
    const byte *p = item(m, LAUNCHES, i);
    double estimate = fmax((double)u64_at(p + 48) / 50e9, (double)u64_at(p + 56) / 20e9); /* 50 GFLOP/s, 20 GB/s */
    seconds += estimate > 0 ? estimate : WORTH_WAKING;
    shared = shared || l->chunks > 1 || (l->loop != NULL && !l->waits);
    c->total += (unsigned)l->chunks;
  }
  c->model = m;
  c->threads = !shared || seconds < WORTH_WAKING ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
  c->slots = make(m->slot_count, sizeof *c->slots);
  (void)pthread_mutex_init(&c->mutex, NULL), (void)pthread_cond_init(&c->wake, NULL);
  NO_MEMORY(c->slots == NULL, "a context");
  NO_MEMORY(c->threads > 1 && !block_make(&c->counters, (u64)m->main_count * c->threads * LINE), "a context");
  for (; c->started + 1 < c->threads; c->started++) {
    int failed = pthread_create(&c->workers[c->started], NULL, work, c);
    REFUSE(failed != 0, TI_ERROR_MEMORY, "cannot start a thread: %s", strerror(failed));
  }
  return true;
}
ti_context *ti_context_open(ti_model *m, unsigned threads, ti_error *error) {
  voice v = {m->name, error};
  ti_context *c;
  if (error != NULL) *error = (ti_error){TI_OK, ""};
  if (context_make(&v, m, threads != 0 ? threads : m->context->threads, &c)) return c;
  ti_context_close(c);
  return NULL;
}
static bool run(const voice *v, ti_context *c, const void *const *inputs, void *const *outputs, void *arena) {
  const ti_model *m = c->model;
  for (size_t i = 0; i < m->input_count + m->output_count; i++) {
    const ti_value *value = &m->values[i];
    const void *at = i < m->input_count ? inputs[i] : outputs[i - m->input_count];
    u32 fixed = u32_at(item(m, VALUES, (u32)i) + 32);
    REFUSE(at == NULL && value->bytes != 0, TI_ERROR_ARGUMENT, "no memory given for '%s'", value->name);
    REFUSE(fixed != 0 && value->bytes != 0 && memcmp(at, m->tensors[fixed - 1], value->bytes) != 0, TI_ERROR_INPUT,
           "'%s' is not the value that the bundle was made for", value->name);
  }
  if (m->device_run != NULL) return m->device_run(v, c->model, inputs, outputs);
  NO_MEMORY(arena == NULL && c->arena.at == NULL && !block_make(&c->arena, m->arena_bytes), "the arena");
  REFUSE((uintptr_t)arena % LINE != 0, TI_ERROR_ARGUMENT, "the arena is not at a multiple of 64");
  c->around = (scope){arena != NULL ? arena : c->arena.at, (void **)(uintptr_t)inputs, (void **)(uintptr_t)outputs};
  resolve_launches(c, &c->around, m->main_first, m->main_count, c->around.arena != c->resolved_arena);
  c->resolved_arena = c->around.arena;
  uintptr_t mode = float_mode(true, 0);
  if (c->threads == 1) {
    for (const launch *l = m->launches + m->main_first, *end = l + m->main_count; l < end; l++) {
      u64 left = m->max_iterations;
      run_launch(c, l, &c->around, 0, (i64)l->chunks, &left);
    }
  } else {
    atomic_store_explicit(&c->front, 0, memory_order_relaxed);
    unsigned generation = atomic_fetch_add(&c->generation, 1) + 1;
    wake_sleepers(c);
    run_shared(c, generation, 0, 0);
    await_done(c, generation * c->total);
  }
  (void)float_mode(false, mode);
  REFUSE(atomic_exchange_explicit(&c->stopped, false, memory_order_relaxed), TI_ERROR_LIMIT,
         "a loop made more than %llu iterations", (unsigned long long)m->max_iterations);
  return true;
}
ti_code ti_context_run(ti_context *c, const void *const *inputs, void *const *outputs, void *arena, ti_error *error) {
  ti_error own;
  voice v = {c->model->name, error != NULL ? error : &own};
  v.error->code = TI_OK;
  (void)run(&v, c, inputs, outputs, arena);
  return v.error->code;
}
ti_code ti_run(ti_model *m, const void *const *inputs, void *const *outputs, void *arena, ti_error *error) {
  return ti_context_run(m->context, inputs, outputs, arena, error);
}

/* ---- Opening and closing ---- */
void ti_close(ti_model *m) {
  if (m == NULL) return;
  if (m->device_close != NULL) m->device_close(m);
  ti_context_close(m->context);
  void *const blocks[] = {m->expanded.memory, m->tensors, m->values, m->dims, m->names, m->launches, m->loops, m->name};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
  if (m->code_pages.at != NULL) (void)munmap(m->code_pages.at, m->code_pages.size);
  if (m->mapped.at != NULL) (void)munmap(m->mapped.at, m->mapped.size);
  free(m);
}
static bool map_file(const voice *v, ti_model *m, const char *path, int *file) {
  struct stat status;
  *file = open(path, O_RDONLY | O_CLOEXEC);
  REFUSE(*file < 0 || fstat(*file, &status) != 0, TI_ERROR_FILE, "%s", strerror(errno));
  REFUSE(!S_ISREG(status.st_mode) || status.st_size == 0, TI_ERROR_FILE, "an empty file, or none that can be mapped");
  REFUSE((u64)status.st_size > SIZE_MAX / 2, TI_ERROR_FILE, "larger than this machine's memory");
  bool mapped = pages_of(&m->mapped, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, *file, 0);
  REFUSE(!mapped, TI_ERROR_FILE, "cannot be mapped: %s", strerror(errno));
  m->file = m->mapped.at, m->size = m->mapped.size;
  return true;
}
static bool open_model(const voice *v, ti_model *m, const ti_options *options, int file) {
  section plan;
  m->max_iterations = options->max_loop_iterations != 0 ? options->max_loop_iterations : 10000000;
  REFUSE((uintptr_t)m->file % LINE != 0, TI_ERROR_ARGUMENT, "its bytes do not begin at a multiple of 64");
  return check_header(v, m->file, m->size) && check_sections(v, m->file, m->size) &&
         check_signature(v, m->file, options) && choose_target(v, m, options->target, &plan) &&
         find_code(v, m, plan.group, options, file) && check_plan(v, m, &plan) && place_tensors(v, m) &&
         context_make(v, m, options->threads, &m->context);
}
static ti_model *open_any(const char *path, const void *bytes, size_t size, const ti_options *given, ti_error *error) {
  static const ti_options defaults;
  const char *name = path != NULL ? path : "bundle";
  voice v = {name, error};
  int file = -1;
  if (error != NULL) *error = (ti_error){TI_OK, ""};
  ti_model *m = calloc(1, sizeof *m);
  bool good = (m != NULL && (m->name = strdup(name)) != NULL) || fail(&v, TI_ERROR_MEMORY, "no memory for a model");
  if (good) m->file = bytes, m->size = size;
  good = good && (path == NULL || map_file(&v, m, path, &file));
  good = good && open_model(&v, m, given != NULL ? given : &defaults, file);
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
static const ti_value *outputs_of(const ti_model *m) { return m->values + m->input_count; }
const ti_value *ti_input(const ti_model *m, size_t i) { return i < m->input_count ? m->values + i : NULL; }
const ti_value *ti_output(const ti_model *m, size_t i) { return i < m->output_count ? outputs_of(m) + i : NULL; }
const char *ti_manifest(const ti_model *m, size_t *size) {
  section s = section_at(m->file, 0);
  return *size = (size_t)s.size, (const char *)s.at;
}
static size_t find(const ti_value *values, size_t count, const char *name) {
  size_t i = 0;
  while (i < count && strcmp(values[i].name, name) != 0) i++;
  return i;
}
size_t ti_input_index(const ti_model *m, const char *name) { return find(m->values, m->input_count, name); }
size_t ti_output_index(const ti_model *m, const char *n) { return find(outputs_of(m), m->output_count, n); }

/* ---- Golden vectors ---- */
enum { GOLDEN_HEADER = 16, GOLDEN_RECORD = 48 };
static u32 golden_hash(u32 i, u32 seed) {
  u32 x = i * 0x9E3779B9U + seed;
  x = (x ^ x >> 16) * 0x21F0AAADU, x = (x ^ x >> 15) * 0x735A2D97U;
  return x ^ x >> 15;
}
static bool golden_input(const voice *v, const section *golden, const ti_value *value, const byte *p, byte *to) {
  u32 way = u32_at(p), seed = u32_at(p + 4);
  double low = f64_at(p + 8), high = f64_at(p + 16);
  bool whole = fabs(low) <= 0x1p53 && high > low && high - low <= 0x1p32 && floor(low) == low && floor(high) == high;
  bool known = way == 0 || (way == 1 && is_real(value->type)) || (way == 2 && is_integer(value->type) && whole);
  WRONG(!known, "golden vectors: '%s' is made in an unknown way", value->name);
  WRONG(way == 0 && (!inside(u64_at(p + 24), value->bytes, golden->size) || u64_at(p + 32) != value->bytes),
            "golden vectors: the bytes of '%s' are not there", value->name);
  if (way == 0 && value->bytes != 0) memcpy(to, golden->at + u64_at(p + 24), value->bytes);
  for (size_t i = 0; way != 0 && i < value->elements; i++, to += type_bytes[value->type]) {
    u32 hash = golden_hash((u32)i, seed);
    if (way == 1) store_real(value->type, to, low + (high - low) * (hash >> 8) / 0x1p24);
    if (way == 2) store_integer(value->type, to, (i64)low + (i64)(hash * (u64)(high - low) >> 32));
  }
  return true;
}
/* The distance of two elements, or of a part of complex ones, and both as numbers. */
static double distance(ti_type type, const byte *got, const byte *wanted, double *a, double *b) {
  if (is_real(type)) {
    *a = load_real(type, got), *b = load_real(type, wanted);
    if (isnan(*a) || isnan(*b)) return isnan(*a) && isnan(*b) ? 0 : (double)INFINITY;
    return *a == *b ? 0 : fabs(*a - *b);
  }
  i64 x = load_integer(type, got), y = load_integer(type, wanted);
  *a = type == TI_UINT64 ? (double)(u64)x : (double)x, *b = type == TI_UINT64 ? (double)(u64)y : (double)y;
  return x == y ? 0 : !is_integer(type) ? (double)INFINITY : fmax(1, fabs(*a - *b));
}
static bool golden_output(const voice *v, const section *golden, const ti_value *value, const byte *p, const byte *got,
                          double tolerance, ti_report *r) {
  u64 first = u64_at(p), step = u64_at(p + 8), count = u64_at(p + 16), bytes, last = 0;
  size_t width = type_bytes[value->type];
  ti_type part = value->type == TI_COMPLEX64 ? TI_FLOAT32 : value->type == TI_COMPLEX128 ? TI_FLOAT64 : value->type;
  bool there_are = mul_u64(count, width, &bytes) && inside(u64_at(p + 40), bytes, golden->size);
  if (count > 0) there_are = there_are && mul_u64(count - 1, step, &last) && add_u64(first, last, &last);
  there_are = there_are && (count == 0 || last < value->elements);
  WRONG(!there_are, "golden vectors: the elements of '%s' are not there", value->name);
  r->compared = count, r->absolute = fmax(f64_at(p + 24), tolerance), r->relative = f64_at(p + 32);
  for (u64 i = 0; i < count; i++) {
    const byte *a = got + (size_t)(first + i * step) * width, *b = golden->at + u64_at(p + 40) + i * width;
    bool good = true;
    for (size_t at = 0; at < width; at += type_bytes[part]) {
      double x, y, error = distance(part, a + at, b + at, &x, &y);
      double allowed = r->absolute + (isfinite(y) ? r->relative * fabs(y) : 0);
      double share = error == 0 ? 0 : allowed > 0 ? error / allowed : (double)INFINITY;
      good = good && share <= 1, r->worst_error = fmax(r->worst_error, error);
      if (share <= r->share && (i != 0 || at != 0)) continue;
      r->share = share, r->worst_element = first + i * step, r->got = x, r->wanted = y;
    }
    r->failed += good ? 0 : 1;
  }
  return true;
}
static bool verify(const voice *v, ti_model *m, void (*report)(void *, const ti_report *), void *user, block *memory,
                   byte **places) {
  size_t inputs = m->input_count, outputs = m->output_count;
  u64 records, failed = 0, compared = 0, sum = 0;
  const char *where = "";
  section golden;
  REFUSE(!find_section(m->file, "GOLD", 0, &golden), TI_ERROR_ARGUMENT, "it holds no golden vectors");
  u32 vectors = golden.size < GOLDEN_HEADER ? 0 : u32_at(golden.at);
  WRONG(vectors == 0 || u32_at(golden.at + 4) != inputs || u32_at(golden.at + 8) != outputs ||
                !mul_u64((u64)vectors * GOLDEN_RECORD, inputs + outputs, &records) ||
                !inside(GOLDEN_HEADER, records, golden.size), "golden vectors: not those of this plan");
  for (size_t i = 0; i < inputs + outputs; i++) sum = sum > SIZE_MAX / 2 ? sum : sum + m->values[i].bytes + LINE;
  NO_MEMORY(places == NULL || !block_make(memory, sum), "its inputs and outputs");
  places[0] = memory->at;
  for (size_t i = 1; i < inputs + outputs; i++) places[i] = places[i - 1] + m->values[i - 1].bytes / LINE * LINE + LINE;
  const byte *input = golden.at + GOLDEN_HEADER, *output = input + (size_t)vectors * inputs * GOLDEN_RECORD;
  for (u32 n = 0; n < vectors; n++) {
    for (size_t i = 0; i < inputs; i++, input += GOLDEN_RECORD)
      if (!golden_input(v, &golden, &m->values[i], input, places[i])) return false;
    if (!run(v, m->context, (const void *const *)places, (void *const *)places + inputs, NULL)) return false;
    for (size_t i = 0; i < outputs; i++, output += GOLDEN_RECORD) {
      ti_report r = {.vector = n, .output = i, .name = m->values[inputs + i].name};
      double tolerance = f64_at(item(m, VALUES, (u32)(inputs + i)) + 40);
      if (!golden_output(v, &golden, &m->values[inputs + i], output, places[inputs + i], tolerance, &r)) return false;
      if (r.failed != 0 && failed == 0) where = r.name;
      failed += r.failed, compared += r.compared;
      if (report != NULL) report(user, &r);
    }
  }
  REFUSE(failed != 0, TI_ERROR_VERIFY, "%llu of %llu elements of its golden vectors failed, the first in '%s'",
         (unsigned long long)failed, (unsigned long long)compared, where);
  return true;
}
ti_code ti_verify(ti_model *m, void (*report)(void *user, const ti_report *report), void *user, ti_error *error) {
  ti_error own;
  voice v = {m->name, error != NULL ? error : &own};
  block memory = {NULL, NULL};
  byte **places = make(m->input_count + m->output_count, sizeof *places);
  v.error->code = TI_OK;
  (void)verify(&v, m, report, user, &memory, places);
  free(memory.memory), free(places);
  return v.error->code;
}
