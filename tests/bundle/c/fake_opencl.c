/* An OpenCL library whose kernels do nothing, for tests of the launcher: it keeps buffers in memory of the host, stops
 * the program where anything reaches outside of one, and fails where the environment says so.
 *
 *   FAKE_FAIL=clCreateBuffer:2   the second call fails
 *   FAKE_TELL=1                  a line on stderr for each program built, launch, recording and replay
 *   FAKE_EXTENSIONS="a b"        what the device has: hints and recordable queues of Qualcomm's are known here
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { size_t size; unsigned char bytes[]; } buffer;
typedef struct { size_t size; bool binary; char text[]; } program;
typedef struct { char name[256]; uint64_t set; } kernel;
typedef struct { bool recordable; } queue;
typedef struct { queue *queue; unsigned launches; bool ended; } recording;

static const char prefix[] = "BUILT ";
enum { PREFIX = sizeof prefix - 1, LARGEST = 1 << 26 };
static int platform = 1, device = 2;
static recording *recorded;

static bool failing(const char *name) {
  static unsigned calls;
  const char *wanted = getenv("FAKE_FAIL");
  size_t length = strlen(name);
  if (wanted == NULL || strncmp(wanted, name, length) != 0 || wanted[length] != ':') return false;
  return ++calls == strtoul(wanted + length + 1, NULL, 10);
}
#define FAILS(code) if (failing(__func__)) return code
#define FAILS_MAKING(code) if (failing(__func__)) return *answer = code, NULL
static void need(bool held, const char *what) {
  if (held) return;
  fprintf(stderr, "the launcher is wrong: %s\n", what);
  abort();
}
static int told(const void *from, size_t bytes, size_t size, void *to, size_t *needed) {
  if (needed != NULL) *needed = bytes;
  if (to == NULL) return 0;
  if (size < bytes) return -30;
  memcpy(to, from, bytes);
  return 0;
}
/* A variable of the environment, or what stands for it. */
static const char *or_else(const char *name, const char *usual) {
  const char *found = getenv(name);
  return found != NULL ? found : usual;
}
static int told_text(const char *text, size_t size, void *to, size_t *needed) {
  return told(text, strlen(text) + 1, size, to, needed);
}
static int told_number(uint64_t number, size_t width, size_t size, void *to, size_t *needed) {
  return told(&number, width, size, to, needed);
}
static unsigned char *inside(buffer *b, size_t offset, size_t bytes) {
  need(b != NULL && bytes > 0 && offset <= b->size && bytes <= b->size - offset, "bytes outside of a buffer");
  return b->bytes + offset;
}

static const char *extensions(void) {
  const char *named = getenv("FAKE_EXTENSIONS");
  return named != NULL ? named : "cl_khr_other";
}

int clGetPlatformIDs(uint32_t most, void **to, uint32_t *count) {
  FAILS(-1001);
  need(most > 0, "room for platforms");
  to[0] = &platform, *count = 1;
  return 0;
}
int clGetPlatformInfo(void *p, uint32_t what, size_t size, void *to, size_t *needed) {
  need(p == &platform, "a platform");
  return told_text(what == 0x901 ? "OpenCL 1.2 fake" : "Tests", size, to, needed);
}
int clGetDeviceIDs(void *p, uint64_t type, uint32_t most, void **to, uint32_t *count) {
  FAILS(-1);
  need(p == &platform && type == 0xFFFFFFFF && most > 0, "all devices of a platform");
  to[0] = &device, *count = 1;
  return 0;
}
int clGetDeviceInfo(void *d, uint32_t what, size_t size, void *to, size_t *needed) {
  need(d == &device, "a device");
  switch (what) {
    case 0x1000: return told_number(4, 8, size, to, needed);
    case 0x1004: return told_number(256, sizeof(size_t), size, to, needed);
    case 0x1016: return told_number(1, 4, size, to, needed);
    case 0x101B: return told_number(0x80, 8, size, to, needed);
    case 0x1023: return told_number(65536, 8, size, to, needed);
    case 0x102B: return told_text(or_else("FAKE_NAME", "Fake GPU"), size, to, needed);
    case 0x102D: return told_text("7", size, to, needed);
    case 0x102F: return told_text(or_else("FAKE_VERSION", "OpenCL 1.2"), size, to, needed);
    case 0x1030: return told_text(extensions(), size, to, needed);
    case 0x41DE: return told_number(100, 4, size, to, needed);
    case 0x1032: return told_number(0, 8, size, to, needed);
    default: return -30;
  }
}
void *clCreateContext(const intptr_t *properties, uint32_t count, void *const *d, void *callback, void *user, int *answer) {
  FAILS_MAKING(-6);
  need(count == 1 && *d == &device && callback == NULL && user == NULL, "a context");
  if (properties != NULL) need(properties[0] == 0x1084 && properties[1] == (intptr_t)&platform, "its platform first");
  for (unsigned i = 2; properties != NULL && properties[i] != 0; i += 2) {
    bool speed = properties[i] == 0x40C2, first = properties[i] == 0x40C9;
    need(speed || first, "a hint");
    need(strstr(extensions(), speed ? "cl_qcom_perf_hint" : "cl_qcom_priority_hint") != NULL, "a hint that is known");
    need(speed ? properties[i + 1] - 0x40C3U < 3 : properties[i + 1] - 0x40CAU < 3, "a level");
  }
  *answer = 0;
  return malloc(1);
}
void *clCreateCommandQueue(void *context, void *d, uint64_t properties, int *answer) {
  FAILS_MAKING(-6);
  bool recordable = properties == 1U << 30 && strstr(extensions(), "cl_qcom_recordable_queues") != NULL;
  need(context != NULL && d == &device && (properties == 0 || recordable), "an in-order queue");
  queue *made = malloc(sizeof *made);
  made->recordable = recordable;
  *answer = 0;
  return made;
}
void *clCreateBuffer(void *context, uint64_t flags, size_t size, void *host, int *answer) {
  FAILS_MAKING(-4);
  need(context != NULL && flags == 1 && size > 0 && host == NULL, "a buffer");
  buffer *made = size <= LARGEST ? calloc(1, sizeof *made + size) : NULL;
  *answer = made == NULL ? -61 : 0;
  if (made != NULL) made->size = size;
  return made;
}
typedef struct { uint32_t order, type; } image_format;
typedef struct { uint32_t kind; size_t width, height, rest[4]; uint32_t levels, samples; void *buffer; } image_shape;
void *clCreateImage(void *context, uint64_t flags, const image_format *f, const image_shape *s, void *host, int *answer) {
  FAILS_MAKING(-10);
  bool plain = s->kind == 0x10F1 && s->levels == 0 && s->samples == 0 && s->buffer == NULL && s->rest[2] == 0;
  need(context != NULL && flags == 1 && host == NULL && plain && f->order == 0x10B5, "an image of RGBA texels");
  need(f->type == 0x10DD || f->type == 0x10DE, "an image of floats");
  if (s->width > 16384 || s->height > 16384) return *answer = -40, NULL;
  size_t size = s->width * s->height * (f->type == 0x10DD ? 8 : 16);
  buffer *made = size <= LARGEST ? calloc(1, sizeof *made + size) : NULL;
  *answer = made == NULL ? -4 : 0;
  if (made != NULL) made->size = size;
  return made;
}
int clEnqueueWriteImage(void *queue, buffer *b, uint32_t blocking, const size_t *origin, const size_t *region, size_t row,
                        size_t slice, const void *from, uint32_t count, void *const *events, void **event) {
  FAILS(-5);
  bool whole = origin[0] == 0 && origin[1] == 0 && origin[2] == 0 && region[2] == 1 && row == 0 && slice == 0;
  need(queue != NULL && blocking == 1 && whole && count == 0 && events == NULL && event == NULL, "a write to an image");
  size_t texels = region[0] * region[1];
  need(b->size == 8 * texels || b->size == 16 * texels, "an image of another size");
  memcpy(b->bytes, from, b->size);
  return 0;
}
static program *make_program(const char *text, size_t size, bool binary) {
  program *made = calloc(1, sizeof *made + size + 1);
  if (made == NULL) abort();
  made->size = size, made->binary = binary;
  memcpy(made->text, text, size);
  return made;
}
void *clCreateProgramWithSource(void *context, uint32_t count, const char **text, const size_t *size, int *answer) {
  FAILS_MAKING(-6);
  need(context != NULL && count == 1 && *size > 0, "a source");
  *answer = 0;
  return make_program(*text, *size, false);
}
void *clCreateProgramWithBinary(void *context, uint32_t count, void *const *d, const size_t *size,
                                const unsigned char **bytes, int *status, int *answer) {
  FAILS_MAKING(-42);
  need(context != NULL && count == 1 && *d == &device && *size > PREFIX && memcmp(*bytes, prefix, PREFIX) == 0, "a binary");
  *status = *answer = 0;
  return make_program((const char *)*bytes + PREFIX, *size - PREFIX, true);
}
int clBuildProgram(program *p, uint32_t count, void *const *d, const char *options, void *callback, void *user) {
  FAILS(-11);
  need(count == 1 && *d == &device && options != NULL && callback == NULL && user == NULL, "a build");
  if (getenv("FAKE_TELL") != NULL) fprintf(stderr, "built %s: %s\n", p->binary ? "a binary" : "source", options);
  return strstr(p->text, "#error") != NULL ? -11 : 0;
}
int clGetProgramInfo(program *p, uint32_t what, size_t size, void *to, size_t *needed) {
  FAILS(-44);
  if (what == 0x1165) return told_number(p->size + PREFIX, sizeof(size_t), size, to, needed);
  need(what == 0x1166 && size == sizeof(void *), "the binary of a program");
  unsigned char *at = *(unsigned char **)to;
  memcpy(at, prefix, PREFIX), memcpy(at + PREFIX, p->text, p->size);
  return 0;
}
int clGetProgramBuildInfo(program *p, void *d, uint32_t what, size_t size, void *to, size_t *needed) {
  FAILS(-30);
  need(p != NULL && d == &device && what == 0x1183, "a log");
  return told_text("line 1: error\nit says #error", size, to, needed);
}
void *clCreateKernel(program *p, const char *name, int *answer) {
  FAILS_MAKING(-6);
  char wanted[300];
  (void)snprintf(wanted, sizeof wanted, "void %.250s(", name);
  *answer = strstr(p->text, wanted) != NULL ? 0 : -46;
  if (*answer != 0) return NULL;
  kernel *made = calloc(1, sizeof *made);
  if (made == NULL) abort();
  (void)snprintf(made->name, sizeof made->name, "%.255s", name);
  return made;
}
int clSetKernelArg(kernel *k, uint32_t number, size_t size, const void *value) {
  FAILS(-49);
  need(size == 8 || size == sizeof(void *), "arguments of 8 bytes");
  if (number >= 64) return -49;
  if (number == 0) need(*(void *const *)value != NULL, "a buffer or an image as the first argument");
  k->set |= UINT64_C(1) << number;
  return 0;
}
int clEnqueueNDRangeKernel(queue *q, kernel *k, uint32_t axes, const size_t *first, const size_t *total,
                           const size_t *group, uint32_t count, void *const *events, void **event) {
  FAILS(-5);
  need(q != NULL && axes == 3 && first == NULL && count == 0 && events == NULL && event == NULL, "a launch");
  for (int i = 0; i < 3; i++) need(group[i] != 0 && total[i] % group[i] == 0, "groups that divide the items");
  if (group[0] * group[1] * group[2] > 256) return -54;
  if (((k->set + 1) & k->set) != 0) return -52;
  if (q->recordable) {
    need(recorded != NULL && !recorded->ended && recorded->queue == q, "a launch while nothing is recorded");
    recorded->launches++;
    return 0;
  }
  if (getenv("FAKE_TELL") != NULL) fprintf(stderr, "launched %s\n", k->name);
  return 0;
}
static void *clNewRecordingQCOM(queue *q, int *answer) {
  FAILS_MAKING(-59);
  need(q->recordable && (recorded == NULL || recorded->ended), "a recording");
  recorded = calloc(1, sizeof *recorded);
  recorded->queue = q;
  *answer = 0;
  return recorded;
}
static int clEndRecordingQCOM(recording *r) {
  r->ended = true;
  FAILS(-59);
  need(r == recorded && r->launches >= 4 && r->launches <= 100, "a recording that is worth it");
  if (getenv("FAKE_TELL") != NULL) fprintf(stderr, "recorded %u\n", r->launches);
  return 0;
}
static int clReleaseRecordingQCOM(recording *r) {
  need(r->ended, "a recording that ended");
  if (r == recorded) recorded = NULL;
  free(r);
  return 0;
}
static int clEnqueueRecordingQCOM(queue *q, recording *r, size_t args, const void *arg, size_t offsets, const void *offset,
                                  size_t totals, const void *total, size_t groups, const void *group, uint32_t count,
                                  void *const *events, void **event) {
  FAILS(-59);
  need(!q->recordable && r->ended && args + offsets + totals + groups + count == 0, "a replay without updates");
  need(!arg && !offset && !total && !group && !events && !event, "nothing where there is nothing");
  if (getenv("FAKE_TELL") != NULL) fprintf(stderr, "replayed %u\n", r->launches);
  return 0;
}
void *clGetExtensionFunctionAddressForPlatform(void *p, const char *name) {
  static const struct { const char *name; void *at; } found[] = {
      {"clNewRecordingQCOM", clNewRecordingQCOM}, {"clEndRecordingQCOM", clEndRecordingQCOM},
      {"clReleaseRecordingQCOM", clReleaseRecordingQCOM}, {"clEnqueueRecordingQCOM", clEnqueueRecordingQCOM}};
  need(p == &platform, "a platform");
  for (size_t i = 0; i < sizeof found / sizeof *found; i++)
    if (strcmp(found[i].name, name) == 0 && !failing(__func__)) return found[i].at;
  return NULL;
}
int clEnqueueWriteBuffer(void *queue, buffer *b, uint32_t blocking, size_t offset, size_t bytes, const void *from,
                         uint32_t count, void *const *events, void **event) {
  FAILS(-5);
  need(queue != NULL && blocking <= 1 && count == 0 && events == NULL && event == NULL, "a write");
  memcpy(inside(b, offset, bytes), from, bytes);
  return 0;
}
int clEnqueueReadBuffer(void *queue, buffer *b, uint32_t blocking, size_t offset, size_t bytes, void *to, uint32_t count,
                        void *const *events, void **event) {
  FAILS(-5);
  need(queue != NULL && blocking <= 1 && count == 0 && events == NULL && event == NULL, "a read");
  memcpy(to, inside(b, offset, bytes), bytes);
  return 0;
}
int clEnqueueCopyBuffer(void *queue, buffer *from, buffer *to, size_t start, size_t end, size_t bytes, uint32_t count,
                        void *const *events, void **event) {
  FAILS(-5);
  need(queue != NULL && count == 0 && events == NULL && event == NULL, "a copy");
  if (from == to && start < end + bytes && end < start + bytes) return -8;
  memcpy(inside(to, end, bytes), inside(from, start, bytes), bytes);
  return 0;
}
int clEnqueueFillBuffer(void *queue, buffer *b, const void *pattern, size_t width, size_t offset, size_t bytes,
                        uint32_t count, void *const *events, void **event) {
  FAILS(-5);
  need(queue != NULL && count == 0 && events == NULL && event == NULL, "a fill");
  if (offset % width != 0 || bytes % width != 0) return -30;
  unsigned char *at = inside(b, offset, bytes);
  for (size_t i = 0; i < bytes; i += width) memcpy(at + i, pattern, width);
  return 0;
}
int clFinish(void *queue) {
  FAILS(-5);
  need(queue != NULL, "a queue");
  return 0;
}
#define RELEASES(name) int name(void *what) { need(what != NULL, "something to release"); free(what); return 0; }
RELEASES(clReleaseKernel)
RELEASES(clReleaseProgram)
RELEASES(clReleaseMemObject)
RELEASES(clReleaseCommandQueue)
RELEASES(clReleaseContext)
