/* tinyinfer: runs bundles (.tinf) of compiled models. docs/bundle.md describes the format.
 *
 *   cc -std=c11 -O2 -pthread program.c tinyinfer.c -lm -o program
 *
 *   ti_model *model = ti_open("model.tinf", NULL, &error);   // NULL: print ti_error_text(&error)
 *   const void *inputs[] = {image};
 *   void *outputs[] = {scores};
 *   ti_code code = ti_run(model, inputs, outputs, NULL, &error);
 *   ti_close(model);
 *
 * Needs libc, libm and pthreads, on little-endian Linux (glibc, musl) or macOS, 32 or 64 bits. A bundle holds native
 * code: it is to be trusted as far as its signature. Everything else in it is checked before it is used.
 *
 * Memory. A file is mapped once and weights are used where they lie. ti_open allocates tables (a pointer for each
 * argument of a kernel, about 100 bytes a launch, input or output, and with several threads 64 bytes a launch and
 * thread), and one block for tensors that are stored smaller than they are used. The arena is the caller's, or
 * allocated by the first run without one. Running allocates nothing else. */
#ifndef TINYINFER_H
#define TINYINFER_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
/* Stands before every declaration: `static` where a program includes tinyinfer.c and wants no symbols of it. */
#ifndef TI_API
#define TI_API
#endif
#define TI_VERSION_MAJOR 1 /* of the bundle format */
typedef enum {
  TI_OK,
  TI_ERROR_FILE,      /* the file cannot be read or mapped */
  TI_ERROR_FORMAT,    /* not a bundle, another version, or inconsistent */
  TI_ERROR_HASH,      /* bytes are not those that were written */
  TI_ERROR_SIGNATURE, /* missing, wrong, or of a key that is not trusted */
  TI_ERROR_TARGET,    /* no code for this machine */
  TI_ERROR_MEMORY,    /* memory, threads or address space ran out */
  TI_ERROR_ARGUMENT,  /* wrong use of a function */
  TI_ERROR_INPUT,     /* an input is not the one that the bundle was made for */
  TI_ERROR_LIMIT,     /* a loop made more iterations than allowed */
  TI_ERROR_VERIFY,    /* a golden vector failed */
  TI_ERROR_DEVICE     /* a driver refused something (tinyinfer_opencl.h) */
} ti_code;
/* What went wrong, in one line that begins with the name of the bundle; empty where nothing did. */
typedef struct { ti_code code; char text[508]; } ti_error;
TI_API const char *ti_error_text(const ti_error *error);
/* Element types have ONNX's numbers. Those narrower than a byte take a byte an element. */
typedef enum {
  TI_FLOAT32 = 1, TI_UINT8, TI_INT8, TI_UINT16, TI_INT16, TI_INT32, TI_INT64, TI_BOOL = 9, TI_FLOAT16, TI_FLOAT64,
  TI_UINT32, TI_UINT64, TI_COMPLEX64, TI_COMPLEX128, TI_BFLOAT16, TI_FLOAT8E4M3FN, TI_FLOAT8E4M3FNUZ, TI_FLOAT8E5M2,
  TI_FLOAT8E5M2FNUZ, TI_UINT4, TI_INT4, TI_FLOAT4E2M1, TI_FLOAT8E8M0, TI_UINT2, TI_INT2, TI_FLOAT6E2M3, TI_FLOAT6E3M2
} ti_type;
TI_API const char *ti_type_name(ti_type type); /* "float32"; "unknown" for other numbers */
TI_API size_t ti_type_bytes(ti_type type);     /* of an element; 0 for other numbers */
/* An input or output: row-major, `bytes` in all. */
typedef struct {
  const char *name;
  ti_type type;
  uint32_t rank;
  const int64_t *dims;
  size_t elements, bytes;
} ti_value;
/* Zero-initialise for the defaults. */
typedef struct {
  unsigned threads;             /* that run the model, the caller's among them; 0: one a core. At most 256 */
  const uint8_t (*keys)[32];    /* trusted Ed25519 public keys: a bundle that none of them signed is refused */
  size_t key_count;
  int require_signature;        /* refuse a bundle without a signature, whoever signed it */
  const void *code;             /* code that is held elsewhere; it is called where it lies, at a multiple of 4096 */
  size_t code_size;
  const char *target;           /* use this target and no other; NULL: the first that this machine can run */
  uint64_t max_loop_iterations; /* of a loop and those inside it, in one run; 0: ten million */
} ti_options;
typedef struct ti_model ti_model;
typedef struct ti_context ti_context;
/* Opens a bundle, or returns NULL and says why. `options` and `error` may be NULL. Nothing of `options` but `code` has
 * to outlive the call; the bytes given to ti_open_memory have to, unchanged, and begin at a multiple of 64 (weights
 * are used where they lie). */
TI_API ti_model *ti_open(const char *path, const ti_options *options, ti_error *error);
TI_API ti_model *ti_open_memory(const void *bytes, size_t size, const ti_options *options, ti_error *error);
TI_API void ti_close(ti_model *model);
TI_API size_t ti_input_count(const ti_model *model);
TI_API size_t ti_output_count(const ti_model *model);
TI_API const ti_value *ti_input(const ti_model *model, size_t index); /* NULL where there is none */
TI_API const ti_value *ti_output(const ti_model *model, size_t index);
TI_API size_t ti_input_index(const ti_model *model, const char *name); /* their number: none has it */
TI_API size_t ti_output_index(const ti_model *model, const char *name);
TI_API size_t ti_arena_bytes(const ti_model *model);
TI_API size_t ti_expanded_bytes(const ti_model *model); /* memory of the tensors that are not used where they lie */
TI_API const char *ti_target(const ti_model *model);
TI_API const char *ti_manifest(const ti_model *model, size_t *size); /* JSON, not terminated */
TI_API void ti_machine(char *text, size_t size);                     /* "x86_64 with x86-64-v3, AVX-VNNI" */
/* Runs the model: inputs and outputs in the bundle's order, aligned as their elements are, no output overlapping
 * anything. `arena` is ti_arena_bytes at a multiple of 64, or NULL for one that the model keeps. One run at a time:
 * threads that run a model at once need a context each. Subnormal numbers count as zero meanwhile. */
TI_API ti_code ti_run(ti_model *model, const void *const *inputs, void *const *outputs, void *arena, ti_error *error);
/* A further context, with an arena and `threads` threads of its own (0: as the model's); closed before its model. */
TI_API ti_context *ti_context_open(ti_model *model, unsigned threads, ti_error *error);
TI_API ti_code ti_context_run(ti_context *context, const void *const *inputs, void *const *outputs, void *arena,
                              ti_error *error);
TI_API void ti_context_close(ti_context *context);
/* One output of one golden vector. `share` is the largest of error / tolerance, at most 1 in a pass, and reached at
 * `worst_element`, where the values are `got` and `wanted`. */
typedef struct {
  size_t vector, output;
  const char *name;
  uint64_t compared, failed, worst_element;
  double worst_error, share, got, wanted, absolute, relative;
} ti_report;
/* Runs the golden vectors. TI_OK where all pass; `report` (may be NULL) is called for each output of each vector. */
TI_API ti_code ti_verify(ti_model *model, void (*report)(void *user, const ti_report *r), void *user, ti_error *error);
#ifdef __cplusplus
}
#endif
#endif
