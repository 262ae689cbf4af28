/* The OpenCL launcher: the container, the plan and the weights are read and checked by tinyinfer.c; here is what a
 * device does with them. docs/bundle.md says what a target for OpenCL devices holds. */
#include "tinyinfer.c"

#include "tinyinfer_opencl.h"

#include <ctype.h>
#include <dlfcn.h>
#include <strings.h>

/* ---- The part of OpenCL 1.2 that is used, under its numbers and shapes ---- */
typedef void *handle; /* a platform, device, context, queue, program, kernel or buffer */
typedef int32_t answer;
typedef struct { u32 order, type; } image_format;
typedef struct {
  u32 kind; size_t width, height, depth, layers, row_pitch, slice_pitch; u32 levels, samples; handle buffer;
} image_shape;
typedef void made_callback(handle program, void *user);
typedef void context_callback(const char *text, const void *data, size_t size, void *user);
#define FUNCTIONS(F)                                                                                                  \
  F(answer, GetPlatformIDs, (u32, handle *, u32 *))                                                                   \
  F(answer, GetPlatformInfo, (handle, u32, size_t, void *, size_t *))                                                 \
  F(answer, GetDeviceIDs, (handle, u64, u32, handle *, u32 *))                                                        \
  F(answer, GetDeviceInfo, (handle, u32, size_t, void *, size_t *))                                                   \
  F(handle, CreateContext, (const intptr_t *, u32, const handle *, context_callback *, void *, answer *))             \
  F(handle, CreateCommandQueue, (handle, handle, u64, answer *))                                                      \
  F(handle, CreateBuffer, (handle, u64, size_t, void *, answer *))                                                    \
  F(handle, CreateImage, (handle, u64, const image_format *, const image_shape *, void *, answer *))                  \
  F(answer, EnqueueWriteImage, (handle, handle, u32, const size_t *, const size_t *, size_t, size_t, const void *,    \
                                u32, const handle *, handle *))                                                       \
  F(handle, CreateProgramWithSource, (handle, u32, const char **, const size_t *, answer *))                          \
  F(handle, CreateProgramWithBinary, (handle, u32, const handle *, const size_t *, const byte **, answer *, answer *)) \
  F(answer, BuildProgram, (handle, u32, const handle *, const char *, made_callback *, void *))                       \
  F(answer, GetProgramInfo, (handle, u32, size_t, void *, size_t *))                                                  \
  F(answer, GetProgramBuildInfo, (handle, handle, u32, size_t, void *, size_t *))                                     \
  F(handle, CreateKernel, (handle, const char *, answer *))                                                           \
  F(answer, SetKernelArg, (handle, u32, size_t, const void *))                                                        \
  F(answer, EnqueueNDRangeKernel,                                                                                     \
    (handle, handle, u32, const size_t *, const size_t *, const size_t *, u32, const handle *, handle *))             \
  F(answer, EnqueueWriteBuffer,                                                                                       \
    (handle, handle, u32, size_t, size_t, const void *, u32, const handle *, handle *))                               \
  F(answer, EnqueueReadBuffer, (handle, handle, u32, size_t, size_t, void *, u32, const handle *, handle *))          \
  F(answer, EnqueueCopyBuffer, (handle, handle, handle, size_t, size_t, size_t, u32, const handle *, handle *))       \
  F(answer, EnqueueFillBuffer,                                                                                        \
    (handle, handle, const void *, size_t, size_t, size_t, u32, const handle *, handle *))                            \
  F(answer, Finish, (handle))                                                                                         \
  F(answer, ReleaseKernel, (handle))                                                                                  \
  F(answer, ReleaseProgram, (handle))                                                                                 \
  F(answer, ReleaseMemObject, (handle))                                                                               \
  F(answer, ReleaseCommandQueue, (handle))                                                                            \
  F(answer, ReleaseContext, (handle))
#define FIELD(result, name, parameters) result(*name) parameters;
#define NAME(result, name, parameters) "cl" #name,
typedef struct { FUNCTIONS(FIELD) } functions;
static const char *const function_names[] = {FUNCTIONS(NAME)};
enum { FUNCTION_COUNT = sizeof function_names / sizeof *function_names };
_Static_assert(sizeof(functions) == FUNCTION_COUNT * sizeof(void (*)(void)), "functions are pointers and nothing else");
enum {
  PLATFORM_VERSION = 0x901, PLATFORM_NAME = 0x902, DEVICE_TYPE = 0x1000, DEVICE_GROUP_LIMIT = 0x1004,
  DEVICE_IMAGES = 0x1016, DEVICE_SINGLE = 0x101B, DEVICE_LOCAL_BYTES = 0x1023, DEVICE_NAME = 0x102B,
  DRIVER_VERSION = 0x102D, DEVICE_VERSION = 0x102F, DEVICE_EXTENSIONS = 0x1030, DEVICE_DOUBLE = 0x1032,
  PROGRAM_BINARY_SIZES = 0x1165, PROGRAM_BINARIES = 0x1166, PROGRAM_BUILD_LOG = 0x1183,
  IMAGE_2D = 0x10F1, CHANNELS_RGBA = 0x10B5, HALVES = 0x10DD, FLOATS = 0x10DE
};
#define EVERY_TYPE 0xFFFFFFFFU
#define TYPE_GPU 4U
#define CORRECTLY_ROUNDED 0x80U
#define READ_WRITE 1U

static const struct { answer code; const char *text; } answers[] = {
    {-2, "the device is not available"}, {-3, "there is no compiler"}, {-4, "no memory on the device"},
    {-5, "resources ran out"}, {-6, "no memory on the host"}, {-8, "overlapping copies"}, {-11, "it does not compile"},
    {-10, "no images of this format"}, {-40, "an image larger than the device allows"},
    {-43, "an unknown option of the compiler"}, {-46, "no such kernel"}, {-49, "no such argument of a kernel"},
    {-51, "an argument of another size"}, {-52, "arguments are missing"}, {-54, "an impossible work-group"},
    {-55, "an impossible size of work-items"}, {-61, "a buffer larger than the device allows"}};
static const char *answer_text(answer code) {
  for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
    if (answers[i].code == code) return answers[i].text;
  return "OpenCL's number says why";
}
static bool answered(const voice *v, const char *title, answer code, const char *what) {
  REFUSE(code != 0, TI_ERROR_DEVICE, "%s failed on %.100s: %s (%d)", what, title, answer_text(code), (int)code);
  return true;
}
/* Leaves a function with an error where the driver's answer is one. */
#define ANSWERED(call, what) do { if (!answered(v, d->title, call, what)) return false; } while (0)

/* ---- The device ---- */
enum { ARCHITECTURE_OPENCL = 16, WORK = TABLES, PROGRAMS, IMAGES, NEEDS_IMAGES = 4 };
typedef struct { handle buffer; u64 offset; } place;
typedef struct { place arena; const place *inputs, *outputs; } places;
typedef struct { u32 first, count; handle made; } recording; /* launches in a row */
typedef struct {
  handle (*begin)(handle, answer *);
  answer (*end)(handle), (*release)(handle);
  answer (*enqueue)(handle, handle, size_t, const void *, size_t, const void *, size_t, const void *, size_t,
                    const void *, u32, const handle *, handle *);
  handle queue;
  recording *recordings;
  u32 count, unproved; /* unproved: runs whose replay is compared with the launches themselves */
} recorder;
typedef struct device {
  functions cl;
  void *library;
  handle platform, id, context, queue, program;
  char title[300];
  char *name, *version, *extensions, *options;
  u64 features;
  u32 group; /* of the target's sections */
  table more[3]; /* work sizes, programs, images */
  handle arena, *tensors, *images, *kernels; /* kernels: one a launch, with its own arguments */
  place *values, *slots;            /* slots: where the moving places of loops are */
  recorder recorder;
  pthread_mutex_t mutex;
} device;

static u64 device_number(const device *d, u32 what) {
  u64 value = 0; /* little-endian: a shorter answer is in its lower bytes */
  return d->cl.GetDeviceInfo(d->id, what, sizeof value, &value, NULL) == 0 ? value : 0;
}
/* A text of a device or platform, to be freed; NULL without memory or an answer. */
static char *text_of(answer (*ask)(handle, u32, size_t, void *, size_t *), handle what, u32 which) {
  size_t size = 0;
  char *text = ask(what, which, 0, NULL, &size) == 0 ? make(size + 1, 1) : NULL;
  if (text != NULL && ask(what, which, size, text, NULL) == 0) return text;
  free(text);
  return NULL;
}
static bool runs_once(const device *d, u32 number) { return (u32_at(record(d->more[0], number) + 36) & 1) != 0; }
static answer launch_kernel(const device *d, handle queue, u32 number) {
  const byte *p = record(d->more[0], number);
  const size_t total[3] = {(size_t)u64_at(p), (size_t)u64_at(p + 8), (size_t)u64_at(p + 16)};
  const size_t group[3] = {u32_at(p + 24), u32_at(p + 28), u32_at(p + 32)};
  return d->cl.EnqueueNDRangeKernel(queue, d->kernels[number], 3, NULL, total, group, 0, NULL, NULL);
}
#include "tinyinfer_qcom.c"

static bool contains(const char *text, const char *part) {
  size_t length = strlen(part);
  for (; strlen(text) >= length; text++)
    if (strncasecmp(text, part, length) == 0) return true;
  return false;
}
static bool load_library(const voice *v, device *d, const char *named) {
  static const char *const usual[] = {"libOpenCL.so.1", "libOpenCL.so", "/vendor/lib64/libOpenCL.so",
      "/system/vendor/lib64/libOpenCL.so", "/vendor/lib/libOpenCL.so", "libOpenCL_adreno.so.1", "libOpenCL_adreno.so",
      "/System/Library/Frameworks/OpenCL.framework/OpenCL"};
  void *pointers[FUNCTION_COUNT], *process = named == NULL ? dlopen(NULL, RTLD_NOW) : NULL;
  if (process != NULL && dlsym(process, function_names[0]) != NULL) d->library = process; /* two would not get along */
  for (size_t i = 0; d->library == NULL && i < (named != NULL ? 1 : sizeof usual / sizeof *usual); i++)
    d->library = dlopen(named != NULL ? named : usual[i], RTLD_NOW | RTLD_LOCAL);
  REFUSE(d->library == NULL && named != NULL, TI_ERROR_TARGET, "no OpenCL library %s: %s", named, dlerror());
  REFUSE(d->library == NULL, TI_ERROR_TARGET,
         "no OpenCL library (libOpenCL.so.1): install the driver of the GPU, or PoCL for the processor");
  for (size_t i = 0; i < FUNCTION_COUNT; i++) {
    pointers[i] = dlsym(d->library, function_names[i]);
    REFUSE(pointers[i] == NULL, TI_ERROR_TARGET, "an OpenCL library older than 1.2: it lacks %s", function_names[i]);
  }
  memcpy(&d->cl, pointers, sizeof d->cl);
  return true;
}
/* Takes the device at hand if `wanted` means it; `number` counts the devices so far. */
static bool takes(device *d, handle platform, handle id, const char *wanted, unsigned number) {
  d->platform = platform, d->id = id;
  char *name = text_of(d->cl.GetDeviceInfo, id, DEVICE_NAME);
  char *by = text_of(d->cl.GetPlatformInfo, platform, PLATFORM_NAME);
  char *version = text_of(d->cl.GetDeviceInfo, id, DRIVER_VERSION);
  bool digits = wanted != NULL && *wanted != 0 && strspn(wanted, "0123456789") == strlen(wanted);
  bool taken = name != NULL && by != NULL && version != NULL;
  if (taken) (void)snprintf(d->title, sizeof d->title, "%.120s (%.80s, driver %.80s)", name, by, version);
  if (taken && digits) taken = strtoul(wanted, NULL, 10) == number;
  else if (taken && wanted != NULL) taken = contains(name, wanted) || contains(by, wanted);
  if (taken) d->name = name;
  else free(name);
  free(by), free(version);
  return taken;
}
static bool find_device(const voice *v, device *d, const char *wanted) {
  handle platforms[32], devices[64];
  char found[250] = "none at all";
  size_t used = 0;
  u32 count = 0, have = 0;
  unsigned number = 0;
  if (d->cl.GetPlatformIDs(32, platforms, &count) != 0) count = 0;
  for (unsigned gpus = 1; gpus <= 1; gpus--) { /* GPUs, then all others */
    for (u32 i = 0; i < count && i < 32; i++) {
      if (d->cl.GetDeviceIDs(platforms[i], EVERY_TYPE, 64, devices, &have) != 0) continue;
      for (u32 j = 0; j < have && j < 64; j++) {
        d->id = devices[j];
        if (((device_number(d, DEVICE_TYPE) & TYPE_GPU) != 0) != (gpus == 1)) continue;
        if (takes(d, platforms[i], devices[j], wanted, number++)) return true;
        used = append(found, used, sizeof found, used == 0 ? "" : "; ", d->title, "", "");
      }
    }
  }
  REFUSE(number == 0, TI_ERROR_TARGET, "no OpenCL device: install the driver of the GPU, or PoCL for the processor");
  return fail(v, TI_ERROR_TARGET, "no OpenCL device is '%.60s'; there are %s", wanted != NULL ? wanted : "", found);
}
static bool open_device(const voice *v, device *d, const ti_opencl_options *opencl) {
  static const char *const names[] = {"cl_khr_fp64", "cl_khr_fp16", NULL, "cl_khr_subgroups"};
  d->extensions = text_of(d->cl.GetDeviceInfo, d->id, DEVICE_EXTENSIONS);
  d->version = text_of(d->cl.GetDeviceInfo, d->id, DEVICE_VERSION);
  for (unsigned i = 0; d->extensions != NULL && i < 4; i++)
    if (names[i] != NULL && strstr(d->extensions, names[i]) != NULL) d->features |= 1U << i;
  if (device_number(d, DEVICE_DOUBLE) != 0) d->features |= 1;
  if (device_number(d, DEVICE_IMAGES) != 0) d->features |= 4;
  answer code = 0;
  d->context = hinted_context(d, opencl);
  if (d->context == NULL) d->context = d->cl.CreateContext(NULL, 1, &d->id, NULL, NULL, &code);
  ANSWERED(code, "a context");
  d->queue = d->cl.CreateCommandQueue(d->context, d->id, 0, &code);
  ANSWERED(code, "a queue");
  return true;
}

/* ---- The target ---- */
/* The tables that plans for work-items have besides; images only where they are needed. */
static bool read_item_tables(const voice *v, const char *target, const section *plan, table made[3]) {
  static const u32 least[3] = {40, 40, 24};
  u64 start = PLAN_HEADER + (u64)u32_at(plan->at + 24) * 16;
  unsigned count_of = (u64_at(plan->at + 8) & NEEDS_IMAGES) != 0 ? 3 : 2;
  WRONG(u32_at(plan->at + 24) < TABLES + count_of || plan->size < start, "the plan of %s has too few tables", target);
  made[2] = (table){plan->at, 0, 24};
  for (unsigned i = 0; i < count_of; i++) {
    const byte *p = plan->at + PLAN_HEADER + 16 * (TABLES + i);
    u64 offset = u32_at(p), count = u32_at(p + 4), step = u32_at(p + 8);
    bool fits = step >= least[i] && offset % 8 == 0 && offset >= start && inside(offset, count * step, plan->size);
    WRONG(count != 0 && !fits, "%s: table %u does not fit", target, TABLES + i);
    made[i] = (table){count == 0 ? plan->at : plan->at + offset, (u32)count, (u32)step};
  }
  WRONG(made[1].count != 1, "%s: %u programs, not one", target, (unsigned)made[1].count);
  return true;
}
/* A string of a plan, to be freed; NULL where it is outside of the table, has a zero byte, or without memory. */
static char *string_of(table strings, const byte *p) {
  u32 at = u32_at(p), length = u32_at(p + 4);
  if (!inside(at, length, strings.count)) return NULL;
  char *text = make((size_t)length + 1, 1);
  if (text != NULL && length > 0) memcpy(text, record(strings, at), length);
  if (text == NULL || strlen(text) == length) return text;
  free(text);
  return NULL;
}
/* Whether one of the words, between blanks, stands in a text, between other characters than letters and digits. */
static bool has_word_of(const char *text, const char *words) {
  for (const char *word = words; *word != 0; word += strspn(word, " ")) {
    size_t length = strcspn(word, " ");
    for (const char *at = text; length > 0 && strlen(at) >= length; at++) {
      bool whole = (at == text || !isalnum((byte)at[-1])) && !isalnum((byte)at[length]);
      if (whole && strncasecmp(at, word, length) == 0) return true;
    }
    word += length;
  }
  return false;
}
/* Why the device cannot run a program, in `why`, and whether it is the best for it; false and a message where the plan
 * is damaged. A target that was asked for by `name` may be for devices that are called something else. */
static bool suits(const voice *v, const char *target, const device *d, const section *plan, bool named, char *why,
                  size_t size, bool *best) {
  table made[3], strings = {plan->at + u32_at(plan->at + PLAN_HEADER), u32_at(plan->at + PLAN_HEADER + 4), 1};
  char names[160], *device_name, *words;
  if (!read_item_tables(v, target, plan, made)) return false;
  WRONG(!inside(u32_at(plan->at + PLAN_HEADER), strings.count, plan->size), "%s: table 0 does not fit", target);
  const byte *p = record(made[1], 0);
  u64 missing = u64_at(plan->at + 8) & ~d->features, local = device_number(d, DEVICE_LOCAL_BYTES);
  u64 limit = device_number(d, DEVICE_GROUP_LIMIT);
  device_name = string_of(strings, p + 24), words = string_of(strings, p + 32);
  if (device_name == NULL || words == NULL) free(device_name), free(words);
  WRONG(device_name == NULL || words == NULL, "%s: its device's name is not there", target);
  why[0] = 0;
  *best = has_word_of(d->name, words) || (d->version != NULL && has_word_of(d->version, words));
  unsigned long long group = u32_at(p + 16), bytes = u64_at(p + 8);
  (void)feature_names(0, missing, names, sizeof names);
  if (missing != 0) (void)snprintf(why, size, " needs %s", (missing & 1) != 0 ? "float64 (cl_khr_fp64)" : names);
  else if (!named && !contains(d->name, device_name)) (void)snprintf(why, size, " is for %.60s", device_name);
  else if (group > limit) (void)snprintf(why, size, " needs work-groups of %llu", group);
  else if (bytes > local) (void)snprintf(why, size, " needs %llu bytes of local memory", bytes);
  free(device_name), free(words);
  return true;
}
/* The first target that is best for the device, else the first that it can run. */
static bool choose_opencl_target(const voice *v, ti_model *m, device *d, const char *wanted, section *chosen) {
  char reasons[240] = "it holds none", why[200], name[sizeof m->target];
  size_t used = 0;
  bool found = false, best = false;
  for (u32 i = 0; i < section_count(m->file) && !best; i++) {
    section plan = section_at(m->file, i);
    if (strcmp(plan.kind, "PLAN") != 0) continue;
    memcpy(name, plan.name, sizeof name);
    WRONG(plan.size < PLAN_HEADER, "the plan of %s is shorter than its header", name);
    if (wanted != NULL && strcmp(wanted, name) != 0) (void)snprintf(why, sizeof why, " is not %.40s", wanted);
    else if (u32_at(plan.at) != ARCHITECTURE_OPENCL) (void)snprintf(why, sizeof why, " is for processors");
    else if (!suits(v, name, d, &plan, wanted != NULL, why, sizeof why, &best)) return false;
    if (why[0] != 0) {
      used = append(reasons, used, sizeof reasons, used == 0 ? "" : "; ", name, why, "");
      best = false;
    } else if (!found || best) {
      memcpy(m->target, name, sizeof name);
      *chosen = plan, d->group = plan.group, found = true;
    }
  }
  return found || fail(v, TI_ERROR_TARGET, "no target for %.120s: %s", d->title, reasons);
}
static bool find_source(const voice *v, ti_model *m, u32 group, const ti_options *options) {
  section s;
  WRONG(!find_section(m->file, "CODE", group, &s) || s.size == 0, "%s has no code", m->target);
  bool given = s.elsewhere && options->code != NULL;
  bool right = given && options->code_size == s.size && sha256_is(options->code, options->code_size, s.digest);
  REFUSE(s.elsewhere && !given, TI_ERROR_ARGUMENT, "the code of %s is held elsewhere, and none was given", m->target);
  REFUSE(given && !right, TI_ERROR_HASH, "the code that was given is not that of %s", m->target);
  m->code = given ? options->code : s.at, m->code_size = s.size;
  return true;
}
/* Sizes of the launches' work-items, now that the launches are known. */
static bool check_work(const voice *v, const ti_model *m, device *d, const section *plan) {
  if (!read_item_tables(v, m->target, plan, d->more)) return false;
  table work = d->more[0];
  WRONG(work.count != m->tables[LAUNCHES].count, "%s: not as many work sizes as launches", m->target);
  for (u32 i = 0; i < work.count; i++) {
    const byte *p = record(work, i);
    u64 items = 1;
    bool fits = m->launches[i].loop != NULL || m->launches[i].chunks == 1;
    for (unsigned axis = 0; m->launches[i].loop == NULL && axis < 3; axis++) {
      u64 total = u64_at(p + 8 * axis);
      u32 group = u32_at(p + 24 + 4 * axis);
      fits = fits && group != 0 && total != 0 && total % group == 0 && mul_u64(items, total, &items);
      fits = fits && items <= SIZE_MAX / 2;
    }
    WRONG(!fits, "launch %u has impossible work sizes", (unsigned)i);
  }
  return true;
}

/* The image that an argument is, plus 1; 0 for a place in a buffer. */
static u64 image_of(const ti_model *m, const device *d, u32 number) {
  return d->more[2].count == 0 ? 0 : u64_at(item(m, REFERENCES, number) + 16);
}
/* Images, and that arguments refer to them as what they hold. */
static bool check_images(const voice *v, const ti_model *m, const device *d) {
  table images = d->more[2];
  for (u32 i = 0; i < images.count; i++) {
    const byte *p = record(images, i);
    u32 type = u32_at(p + 8), tensor = u32_at(p + 12);
    u64 texels = (u64)u32_at(p) * u32_at(p + 4), bytes = 0;
    bool fits = (type == TI_FLOAT32 || type == TI_FLOAT16) && texels != 0;
    fits = fits && mul_u64(texels, 4 * type_bytes[type], &bytes);
    if (fits && tensor != 0)
      fits = tensor <= m->tables[TENSORS].count && u64_at(item(m, TENSORS, tensor - 1) + 8) == bytes &&
             u32_at(item(m, TENSORS, tensor - 1) + 16) == type;
    WRONG(!fits, "image %u does not fit", (unsigned)i);
  }
  for (u32 i = 0; i < m->tables[LAUNCHES].count; i++) {
    const launch *l = m->launches + i;
    for (u32 j = l->references; l->loop == NULL && j < l->references + l->count; j++) {
      u64 image = image_of(m, d, j);
      const byte *p = item(m, REFERENCES, j);
      if (image == 0) continue;
      WRONG(image > images.count || u64_at(p + 8) != 0, "launch %u: an argument is no image", (unsigned)i);
      u32 tensor = u32_at(record(images, (u32)image - 1) + 12);
      bool right = tensor == 0 || (u32_at(p) == TENSOR && u32_at(p + 4) == tensor - 1);
      WRONG(!right, "launch %u: an argument is another image", (unsigned)i);
    }
  }
  return true;
}

/* ---- The program ---- */
/* "Programs of drivers" of docs/bundle.md: what a driver builds of the same source and options is the same. False where
 * the driver does not say who it is. A cache file holds this digest, that of the binary, and the binary. */
static bool program_digest(const ti_model *m, const device *d, byte digest[32]) {
  char *platform = text_of(d->cl.GetPlatformInfo, d->platform, PLATFORM_VERSION);
  char *driver = text_of(d->cl.GetDeviceInfo, d->id, DRIVER_VERSION);
  const char *texts[] = {platform, d->name, d->version, driver, d->options};
  size_t size = (size_t)m->code_size + 1, used = 0;
  bool known = true;
  for (unsigned i = 0; i < 5; i++) known = known && texts[i] != NULL;
  for (unsigned i = 0; known && i < 5; i++) size += strlen(texts[i]) + 1;
  byte *all = known ? make(size, 1) : NULL;
  for (unsigned i = 0; all != NULL && i < 5; used += strlen(texts[i++]) + 1)
    memcpy(all + used, texts[i], strlen(texts[i]) + 1);
  if (all != NULL) memcpy(all + used, m->code, (size_t)m->code_size), sha256(NULL, 0, all, size, digest);
  known = all != NULL;
  free(platform), free(driver), free(all);
  return known;
}
/* A program of what a driver built before, or NULL where it does not take it. */
static handle program_of(const device *d, const byte *binary, size_t length) {
  answer status, code;
  handle program = d->cl.CreateProgramWithBinary(d->context, 1, &d->id, &length, &binary, &status, &code);
  bool built = code == 0 && d->cl.BuildProgram(program, 1, &d->id, d->options, NULL, NULL) == 0;
  if (code == 0 && !built) (void)d->cl.ReleaseProgram(program);
  return built ? program : NULL;
}
/* The program that the bundle holds for this device and driver, or NULL: there always is the source. */
static handle held_program(const ti_model *m, const device *d, const byte digest[32]) {
  section s;
  if (!find_section(m->file, "CLBN", d->group, &s) || s.at == NULL || s.size < 16) return NULL;
  for (u64 i = 0; i < u32_at(s.at) && inside(16 + 48 * i, 48, s.size); i++) {
    const byte *p = s.at + 16 + 48 * i;
    u64 offset = u64_at(p + 32), size = u64_at(p + 40);
    bool right = memcmp(p, digest, 32) == 0 && size != 0 && inside(offset, size, s.size);
    if (right) return program_of(d, s.at + offset, (size_t)size);
  }
  return NULL;
}
/* The program of a cache file, or NULL: any damage only costs a new build. */
static handle cached_program(const device *d, const char *path, const byte digest[32]) {
  handle program = NULL;
  byte *bytes = NULL;
  FILE *file = fopen(path, "rb");
  long size = file != NULL && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
  bool good = size > 64 && fseek(file, 0, SEEK_SET) == 0 && (bytes = make((size_t)size, 1)) != NULL &&
              fread(bytes, 1, (size_t)size, file) == (size_t)size && memcmp(bytes, digest, 32) == 0 &&
              sha256_is(bytes + 64, (size_t)size - 64, bytes + 32);
  if (good) program = program_of(d, bytes + 64, (size_t)size - 64);
  if (file != NULL) (void)fclose(file);
  free(bytes);
  return program;
}
/* Writes the cache file, whole or not at all; a folder that cannot be written is no error. */
static void keep_program(const device *d, const char *path, const byte digest[32]) {
  size_t size = 0, length = strlen(path) + 32;
  byte *binary = NULL, own[32];
  char *temporary = make(length, 1);
  if (d->cl.GetProgramInfo(d->program, PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) == 0 && size > 0)
    binary = make(size, 1);
  if (temporary != NULL && binary != NULL &&
      d->cl.GetProgramInfo(d->program, PROGRAM_BINARIES, sizeof binary, &binary, NULL) == 0) {
    (void)snprintf(temporary, length, "%s.%ld.part", path, (long)getpid());
    sha256(NULL, 0, binary, size, own);
    FILE *file = fopen(temporary, "wb");
    bool good = file != NULL && fwrite(digest, 1, 32, file) == 32 && fwrite(own, 1, 32, file) == 32 &&
                fwrite(binary, 1, size, file) == size;
    if (file != NULL) good = fclose(file) == 0 && good;
    if (file != NULL && (!good || rename(temporary, path) != 0)) (void)remove(temporary);
  }
  free(temporary), free(binary);
}
static bool refused_program(const voice *v, const device *d, answer code, const ti_opencl_options *opencl) {
  size_t size = 0;
  char *log = NULL;
  if (d->cl.GetProgramBuildInfo(d->program, d->id, PROGRAM_BUILD_LOG, 0, NULL, &size) == 0) log = make(size + 1, 1);
  if (log != NULL) (void)d->cl.GetProgramBuildInfo(d->program, d->id, PROGRAM_BUILD_LOG, size, log, NULL);
  if (log != NULL && opencl->log != NULL) opencl->log(opencl->user, log);
  for (char *c = log; c != NULL && *c != 0; c++) *c = *c == '\n' ? ' ' : *c;
  (void)fail(v, TI_ERROR_DEVICE, "the compiler of %.100s refused the program: %s (%d): %.240s", d->title,
             answer_text(code), (int)code, log != NULL ? log : "");
  free(log);
  return false;
}
static bool build_program(const voice *v, const ti_model *m, device *d, const ti_opencl_options *opencl) {
  bool rounds = (device_number(d, DEVICE_SINGLE) & CORRECTLY_ROUNDED) != 0;
  const char *exact = rounds ? " -cl-fp32-correctly-rounded-divide-sqrt" : "";
  char *stated = string_of(m->tables[STRINGS], record(d->more[1], 0));
  WRONG(stated == NULL, "%s: the options of its program are not there", m->target);
  size_t length = strlen(stated) + strlen(exact) + 1;
  d->options = make(length, 1);
  if (d->options != NULL) (void)snprintf(d->options, length, "%s%s", stated, exact);
  free(stated);
  NO_MEMORY(d->options == NULL, "the program");
  byte digest[32];
  bool known = program_digest(m, d, digest);
  if (known && (d->program = held_program(m, d, digest)) != NULL) return true;
  if (known && opencl->cache != NULL && (d->program = cached_program(d, opencl->cache, digest)) != NULL) return true;
  const char *source = (const char *)m->code;
  size_t size = (size_t)m->code_size;
  answer code;
  d->program = d->cl.CreateProgramWithSource(d->context, 1, &source, &size, &code);
  ANSWERED(code, "a program");
  code = d->cl.BuildProgram(d->program, 1, &d->id, d->options, NULL, NULL);
  if (code != 0) return refused_program(v, d, code, opencl);
  if (known && opencl->cache != NULL) keep_program(d, opencl->cache, digest);
  return true;
}
static bool make_kernels(const voice *v, const ti_model *m, device *d) {
  d->kernels = make(m->tables[LAUNCHES].count, sizeof *d->kernels);
  NO_MEMORY(d->kernels == NULL, "the kernels");
  for (u32 i = 0; i < m->tables[LAUNCHES].count; i++) {
    if (m->launches[i].loop != NULL) continue;
    answer code = 0;
    char *name = string_of(m->tables[STRINGS], item(m, KERNELS, u32_at(item(m, LAUNCHES, i))) + 8);
    if (name != NULL) d->kernels[i] = d->cl.CreateKernel(d->program, name, &code);
    bool named = name != NULL;
    free(name);
    WRONG(!named, "launch %u: its kernel has no name", (unsigned)i);
    ANSWERED(code, "a kernel");
  }
  return true;
}

/* ---- Memory of the device ---- */
static bool make_buffer(const voice *v, const device *d, u64 size, const char *what, handle *made) {
  answer code;
  NO_MEMORY(size > SIZE_MAX / 2, what);
  *made = d->cl.CreateBuffer(d->context, READ_WRITE, size < LINE ? LINE : (size_t)size, NULL, &code);
  ANSWERED(code, what);
  return true;
}
static bool make_images(const voice *v, const ti_model *m, device *d) {
  static const size_t origin[3];
  d->images = make(d->more[2].count, sizeof *d->images);
  NO_MEMORY(d->images == NULL, "the plan");
  for (u32 i = 0; i < d->more[2].count; i++) {
    const byte *p = record(d->more[2], i);
    const image_format format = {CHANNELS_RGBA, u32_at(p + 8) == TI_FLOAT16 ? HALVES : FLOATS};
    const image_shape shape = {.kind = IMAGE_2D, .width = u32_at(p), .height = u32_at(p + 4)};
    const size_t region[3] = {shape.width, shape.height, 1};
    u32 tensor = u32_at(p + 12);
    answer code;
    d->images[i] = d->cl.CreateImage(d->context, READ_WRITE, &format, &shape, NULL, &code);
    ANSWERED(code, "an image");
    if (tensor == 0) continue;
    const byte *from = m->tensors[tensor - 1];
    code = d->cl.EnqueueWriteImage(d->queue, d->images[i], 1, origin, region, 0, 0, from, 0, NULL, NULL);
    ANSWERED(code, "a tensor's image");
  }
  return true;
}
/* Whether a tensor lies in an image, and needs no buffer. */
static bool in_image(const device *d, u32 tensor) {
  for (u32 i = 0; i < d->more[2].count; i++)
    if (u32_at(record(d->more[2], i) + 12) == tensor + 1) return true;
  return false;
}
static bool make_buffers(const voice *v, const ti_model *m, device *d) {
  size_t values = m->input_count + m->output_count;
  d->tensors = make(m->tables[TENSORS].count, sizeof *d->tensors);
  d->values = make(values, sizeof *d->values);
  d->slots = make(m->slot_count, sizeof *d->slots);
  NO_MEMORY(d->tensors == NULL || d->values == NULL || d->slots == NULL, "the plan");
  if (!make_buffer(v, d, m->arena_bytes, "the arena", &d->arena)) return false;
  for (size_t i = 0; i < values; i++)
    if (!make_buffer(v, d, m->values[i].bytes, "an input or output", &d->values[i].buffer)) return false;
  for (u32 i = 0; i < m->tables[TENSORS].count; i++) {
    u64 bytes = u64_at(item(m, TENSORS, i) + 8);
    if (in_image(d, i)) bytes = 0;
    if (!make_buffer(v, d, bytes, "a tensor", &d->tensors[i])) return false;
    if (bytes == 0) continue;
    ANSWERED(d->cl.EnqueueWriteBuffer(d->queue, d->tensors[i], 1, 0, (size_t)bytes, m->tensors[i], 0, NULL, NULL),
             "a tensor");
  }
  return true;
}

/* ---- Running ---- */
static place place_of(const ti_model *m, const device *d, const places *s, u32 number) {
  const byte *p = item(m, REFERENCES, number);
  u32 space = u32_at(p), which = u32_at(p + 4);
  place base = {NULL, 0};
  if (space == ARENA) base = s->arena;
  if (space == TENSOR) base.buffer = d->tensors[which];
  if (space >= INPUT) base = space == INPUT ? s->inputs[which] : s->outputs[which];
  base.offset += u64_at(p + 8);
  return base;
}
static bool nowhere(const ti_model *m, u32 number) { return u32_at(item(m, REFERENCES, number)) == NOWHERE; }
/* Sets the arguments of launches in a row; `all`, or only those whose places change. */
static bool bind(const voice *v, const ti_model *m, const device *d, const places *s, u32 first, u32 count, bool all) {
  for (u32 i = first; i < first + count; i++) {
    const launch *l = m->launches + i;
    for (u32 j = l->references, n = 0; l->loop == NULL && j < l->references + l->count; j++) {
      u64 image = image_of(m, d, j);
      place at = place_of(m, d, s, j);
      u32 first_of = n;
      n += image != 0 ? 1 : 2;
      if (!all && u32_at(item(m, REFERENCES, j)) < INPUT) continue;
      if (image != 0) at.buffer = d->images[image - 1];
      ANSWERED(d->cl.SetKernelArg(d->kernels[i], first_of, sizeof at.buffer, &at.buffer), "an argument");
      if (image != 0) continue;
      ANSWERED(d->cl.SetKernelArg(d->kernels[i], first_of + 1, sizeof at.offset, &at.offset), "an argument");
    }
  }
  return true;
}
static bool fill(const voice *v, const device *d, place to, const void *pattern, size_t width, u64 bytes) {
  if (bytes == 0) return true;
  ANSWERED(d->cl.EnqueueFillBuffer(d->queue, to.buffer, pattern, width, (size_t)to.offset, (size_t)bytes, 0, NULL,
                                   NULL), "filling a buffer");
  return true;
}
static bool copy(const voice *v, const device *d, place to, place from, u64 bytes) {
  if (bytes == 0) return true;
  ANSWERED(d->cl.EnqueueCopyBuffer(d->queue, from.buffer, to.buffer, (size_t)from.offset, (size_t)to.offset,
                                   (size_t)bytes, 0, NULL, NULL), "copying");
  return true;
}
/* Waits for the device, and brings a number that it computed. */
static bool fetch(const voice *v, const device *d, place from, void *to, size_t bytes) {
  ANSWERED(d->cl.EnqueueReadBuffer(d->queue, from.buffer, 1, (size_t)from.offset, bytes, to, 0, NULL, NULL), "reading");
  return true;
}
static bool enqueue_loop(const voice *v, const ti_model *m, device *d, const loop *l, const places *around, u64 *left);
static bool enqueue(const voice *v, const ti_model *m, device *d, u32 number, const places *s, u64 *left) {
  if (m->launches[number].loop != NULL) return enqueue_loop(v, m, d, m->launches[number].loop, s, left);
  ANSWERED(launch_kernel(d, d->queue, number), "a launch");
  return true;
}
/* "Loops" of docs/bundle.md. `left` counts the iterations that may be made down to 0. */
static bool enqueue_loop(const voice *v, const ti_model *m, device *d, const loop *l, const places *around, u64 *left) {
  place *moving = d->slots + l->slot;
  u32 inputs = l->at.input_count, count = inputs + l->at.output_count;
  places inner = {place_of(m, d, around, l->at.arena), moving, moving + inputs};
  i64 most = (i64)l->steps, trips = most, t = 0;
  byte going = 1, nothing = 0;
  for (u32 i = 0; i < count; i++)
    moving[i] = place_of(m, d, around, i < inputs ? l->at.inputs + i : l->at.outputs + i - inputs);
  if (!bind(v, m, d, &inner, l->first, l->launches, true)) return false;
  if (!nowhere(m, l->at.trips) && !fetch(v, d, place_of(m, d, around, l->at.trips), &trips, 8)) return false;
  if (!nowhere(m, l->at.enter) && !fetch(v, d, place_of(m, d, around, l->at.enter), &going, 1)) return false;
  for (u32 i = l->at.cleared; i < l->at.cleared + l->at.cleared_count; i++)
    if (!fill(v, d, place_of(m, d, around, i), &nothing, 1, u64_at(item(m, REFERENCES, i) + 16))) return false;
  for (u32 i = l->at.before; i < l->at.before + 2 * l->at.before_count; i += 2) {
    place to = place_of(m, d, around, i), from = place_of(m, d, around, i + 1);
    if (!copy(v, d, to, from, u64_at(item(m, REFERENCES, i) + 24))) return false;
  }
  if (trips < most) most = trips;
  while (t < most && going != 0) {
    REFUSE(*left == 0, TI_ERROR_LIMIT, "a loop made more than %llu iterations", (unsigned long long)m->max_iterations);
    *left -= 1;
    if (!fill(v, d, place_of(m, d, around, l->at.iteration), &t, 8, 8)) return false;
    for (u32 i = l->first; i < l->first + l->launches; i++)
      if (!enqueue(v, m, d, i, &inner, left)) return false;
    for (u32 i = 0; i < count; i++) {
      const byte *p = item(m, REFERENCES, i < inputs ? l->at.inputs + i : l->at.outputs + i - inputs);
      moving[i].offset += u64_at(p + (t % 2 == 0 ? 16 : 24));
    }
    t++;
    if (t < most && !bind(v, m, d, &inner, l->first, l->launches, false)) return false;
    if (!nowhere(m, l->at.go_on) && !fetch(v, d, place_of(m, d, around, l->at.go_on), &going, 1)) return false;
  }
  for (u32 i = l->at.after; i < l->at.after + 2 * l->at.after_count; i += 2) {
    const byte *p = item(m, REFERENCES, i + 1);
    place to = place_of(m, d, around, i), from = place_of(m, d, around, i + 1);
    from.offset += u64_at(p + 16) * (u64)(t - t / 2) + u64_at(p + 24) * (u64)(t / 2);
    if (!copy(v, d, to, from, u64_at(item(m, REFERENCES, i) + 24))) return false;
  }
  return nowhere(m, l->at.done) || fill(v, d, place_of(m, d, around, l->at.done), &t, 8, 8);
}
/* The launches outside of loops that run once, or all others. */
static bool enqueue_all(const voice *v, const ti_model *m, device *d, bool once) {
  places around = {{d->arena, 0}, d->values, d->values + m->input_count};
  for (u32 i = m->main_first, replayed; i < m->main_first + m->main_count; i += replayed == 0 ? 1 : replayed) {
    u64 left = m->max_iterations;
    replayed = once ? 0 : replay(d, i);
    if (replayed == 0 && runs_once(d, i) == once && !enqueue(v, m, d, i, &around, &left)) return false;
  }
  return true;
}
static bool run_enqueued(const voice *v, const ti_model *m, device *d, const void *const *inputs,
                         void *const *outputs) {
  for (size_t i = 0; i < m->input_count; i++) {
    size_t bytes = m->values[i].bytes;
    if (bytes == 0) continue;
    ANSWERED(d->cl.EnqueueWriteBuffer(d->queue, d->values[i].buffer, 0, 0, bytes, inputs[i], 0, NULL, NULL),
             "an input");
  }
  if (!enqueue_all(v, m, d, false)) return false;
  for (size_t i = 0; i < m->output_count; i++) {
    const ti_value *value = &m->values[m->input_count + i];
    handle buffer = d->values[m->input_count + i].buffer;
    if (value->bytes == 0) continue;
    ANSWERED(d->cl.EnqueueReadBuffer(d->queue, buffer, 0, 0, value->bytes, outputs[i], 0, NULL, NULL), "an output");
  }
  return true;
}
static bool run_and_wait(const voice *v, const ti_model *m, device *d, const void *const *inputs,
                         void *const *outputs) {
  bool good = run_enqueued(v, m, d, inputs, outputs);
  answer code = d->cl.Finish(d->queue); /* whatever failed, the device no longer touches the caller's memory */
  if (good) ANSWERED(code, "a run");
  return good;
}
static void digest_outputs(const ti_model *m, void *const *outputs, byte digest[32]) {
  byte next[32];
  memset(digest, 0, 32);
  for (size_t i = 0; i < m->output_count; i++) {
    sha256(digest, 32, outputs[i], m->values[m->input_count + i].bytes, next);
    memcpy(digest, next, 32);
  }
}
/* A run of the launches themselves, after a replay of what was recorded of them: one that differs is not used again. */
static bool run_compared(const voice *v, const ti_model *m, device *d, const void *const *inputs,
                         void *const *outputs) {
  static const byte other = 0xA5; /* a launch that is left out must not be made up for by what lies there */
  byte replayed[32], launched[32];
  for (size_t i = 0; i < m->output_count; i++)
    if (!fill(v, d, d->values[m->input_count + i], &other, 1, m->values[m->input_count + i].bytes)) return false;
  if (!run_and_wait(v, m, d, inputs, outputs)) return false;
  u32 count = d->recorder.count;
  digest_outputs(m, outputs, replayed);
  d->recorder.count = 0;
  bool good = run_and_wait(v, m, d, inputs, outputs);
  d->recorder.count = count;
  d->recorder.unproved--;
  if (!good) return false;
  digest_outputs(m, outputs, launched);
  if (memcmp(replayed, launched, 32) != 0) drop_recordings(d);
  return true;
}
static bool opencl_run(const voice *v, ti_model *m, const void *const *inputs, void *const *outputs) {
  device *d = m->device;
  (void)pthread_mutex_lock(&d->mutex);
  bool compared = d->recorder.count != 0 && d->recorder.unproved != 0;
  bool good = (compared ? run_compared : run_and_wait)(v, m, d, inputs, outputs);
  (void)pthread_mutex_unlock(&d->mutex);
  return good;
}

/* ---- Opening and closing ---- */
static void opencl_close(ti_model *m) {
  device *d = m->device;
  for (u32 i = 0; d->images != NULL && i < d->more[2].count; i++)
    if (d->images[i] != NULL) (void)d->cl.ReleaseMemObject(d->images[i]);
  size_t values = d->values == NULL ? 0 : m->input_count + m->output_count;
  if (d->queue != NULL) (void)d->cl.Finish(d->queue);
  close_recorder(d);
  for (u32 i = 0; d->kernels != NULL && i < m->tables[LAUNCHES].count; i++)
    if (d->kernels[i] != NULL) (void)d->cl.ReleaseKernel(d->kernels[i]);
  for (u32 i = 0; d->tensors != NULL && i < m->tables[TENSORS].count; i++)
    if (d->tensors[i] != NULL) (void)d->cl.ReleaseMemObject(d->tensors[i]);
  for (size_t i = 0; i < values; i++)
    if (d->values[i].buffer != NULL) (void)d->cl.ReleaseMemObject(d->values[i].buffer);
  if (d->arena != NULL) (void)d->cl.ReleaseMemObject(d->arena);
  if (d->program != NULL) (void)d->cl.ReleaseProgram(d->program);
  if (d->queue != NULL) (void)d->cl.ReleaseCommandQueue(d->queue);
  if (d->context != NULL) (void)d->cl.ReleaseContext(d->context);
  (void)pthread_mutex_destroy(&d->mutex);
  free(d->images), free(d->kernels), free(d->tensors), free(d->values), free(d->slots);
  free(d->name), free(d->version), free(d->extensions), free(d->options), free(d);
  /* the library stays: drivers have threads of their own, whose code must not go */
}
static bool open_opencl_model(const voice *v, ti_model *m, const ti_options *options, const ti_opencl_options *opencl) {
  section plan;
  device *d = make(1, sizeof *d);
  NO_MEMORY(d == NULL, "a device");
  m->device = d, m->device_run = opencl_run, m->device_close = opencl_close;
  (void)pthread_mutex_init(&d->mutex, NULL);
  m->max_iterations = options->max_loop_iterations != 0 ? options->max_loop_iterations : 10000000;
  REFUSE((uintptr_t)m->file % LINE != 0, TI_ERROR_ARGUMENT, "its bytes do not begin at a multiple of 64");
  bool good = check_header(v, m->file, m->size) && check_sections(v, m->file, m->size) &&
              check_signature(v, m->file, options) && load_library(v, d, opencl->library) &&
              find_device(v, d, opencl->device) && open_device(v, d, opencl) &&
              choose_opencl_target(v, m, d, options->target, &plan) && find_source(v, m, plan.group, options) &&
              check_plan(v, m, &plan) && check_work(v, m, d, &plan) && check_images(v, m, d) && place_tensors(v, m) &&
              context_make(v, m, 1, &m->context) && build_program(v, m, d, opencl) && make_kernels(v, m, d) &&
              make_images(v, m, d) && make_buffers(v, m, d);
  if (!good) return false;
  places around = {{d->arena, 0}, d->values, d->values + m->input_count};
  if (!bind(v, m, d, &around, m->main_first, m->main_count, true) || !enqueue_all(v, m, d, true)) return false;
  ANSWERED(d->cl.Finish(d->queue), "what runs once");
  if (!opencl->no_recording && open_recorder(d)) record_launches(m, d);
  return true;
}
static ti_model *opencl_open_any(const char *path, const void *bytes, size_t size, const ti_options *options,
                                 const ti_opencl_options *opencl, ti_error *error) {
  static const ti_options defaults;
  static const ti_opencl_options plain;
  const char *name = path != NULL ? path : "bundle";
  voice v = {name, error};
  int file = -1;
  if (error != NULL) *error = (ti_error){TI_OK, ""};
  ti_model *m = make(1, sizeof *m);
  bool good = (m != NULL && (m->name = strdup(name)) != NULL) || fail(&v, TI_ERROR_MEMORY, "no memory for a model");
  if (good) m->file = bytes, m->size = size;
  good = good && (path == NULL || map_file(&v, m, path, &file));
  good = good && open_opencl_model(&v, m, options != NULL ? options : &defaults, opencl != NULL ? opencl : &plain);
  if (file >= 0) (void)close(file);
  if (good) return m;
  ti_close(m);
  return NULL;
}
ti_model *ti_opencl_open(const char *path, const ti_options *options, const ti_opencl_options *opencl,
                         ti_error *error) {
  return opencl_open_any(path != NULL ? path : "", NULL, 0, options, opencl, error);
}
ti_model *ti_opencl_open_memory(const void *bytes, size_t size, const ti_options *options,
                                const ti_opencl_options *opencl, ti_error *error) {
  return opencl_open_any(NULL, bytes, size, options, opencl, error);
}
const char *ti_opencl_device(const ti_model *m) {
  const device *d = m->device;
  return d == NULL ? "" : d->title;
}
