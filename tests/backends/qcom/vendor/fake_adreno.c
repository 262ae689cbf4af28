/* An Adreno driver for tests: another OpenCL driver under the name and with the extensions of Qualcomm's. It is listed
 * as an ICD, takes the place of some functions in the dispatch table of the driver that it loads, and stops the program
 * where the extensions are used in a way that their documentation does not allow. Recordings are executed: their
 * launches go to the other driver with the arguments that they had, or were given.
 *
 *   FAKE_DRIVER=path           the library of the other driver
 *   FAKE_LOG=path              a line for each context, recording, replay and import
 *   FAKE_EXTENSIONS="a b"      what the device has, of those below; unset: all
 *   FAKE_REFUSES="hints ..."   what fails: addresses, hints, queues, recordings, updates,
 *                              dmabuf, ion
 *   FAKE_LEAVES_OUT=1          replays leave out the last launch
 *   FAKE_MOST=n                the launches of the longest recording
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* places in the dispatch table of drivers, by cl_icd.h */
enum {
  DEVICE_INFO = 3, CREATE_CONTEXT = 4, CREATE_QUEUE = 9, RELEASE_QUEUE = 11, CREATE_BUFFER = 14, RELEASE_KERNEL = 37, SET_ARGUMENT = 38, LAUNCH = 59,
  EXTENSION_ADDRESS = 107, CREATE_QUEUE_WITH = 123, TABLE_SIZE = 130
};
enum { MOST_ARGUMENTS = 32, MOST_QUEUES = 64, MOST_KERNELS = 4096, MOST_LAUNCHES = 256, RECORDABLE = 1 << 30 };
typedef struct { size_t size; uint64_t value; } argument;
typedef struct { void *kernel; argument arguments[MOST_ARGUMENTS]; } kernel_state;
typedef struct { kernel_state at; uint32_t axes; size_t total[3], group[3]; } launch;
typedef struct recording { void *queue; bool ended; uint32_t count; launch launches[MOST_LAUNCHES]; } recording;
typedef struct { uint32_t launch, argument; size_t size; const void *value; } argument_update;
typedef struct { uint32_t kind, policy; int descriptor; void *address; } external_memory;

static const char all[] = "cl_qcom_perf_hint cl_qcom_priority_hint cl_qcom_recordable_queues cl_qcom_ext_host_ptr "
                          "cl_qcom_ext_host_ptr_iocoherent cl_qcom_dmabuf_host_ptr cl_qcom_ion_host_ptr";
static void *real[TABLE_SIZE], *queues[MOST_QUEUES];
static kernel_state kernels[MOST_KERNELS];
static unsigned queue_count, kernel_count;
static recording *open_recording;
#define REAL(place, result, ...) ((result(*)(__VA_ARGS__))real[place])

static void need(bool held, const char *what) {
  if (held) return;
  fprintf(stderr, "an extension is used wrongly: %s\n", what);
  abort();
}
static void tell(const char *form, unsigned long a, unsigned long b, unsigned long c) {
  const char *path = getenv("FAKE_LOG");
  FILE *file = path != NULL ? fopen(path, "a") : NULL;
  if (file == NULL) return;
  fprintf(file, form, a, b, c);
  fclose(file);
}
static bool refuses(const char *what) {
  const char *refused = getenv("FAKE_REFUSES");
  return refused != NULL && strstr(refused, what) != NULL;
}
static const char *extensions(void) {
  const char *named = getenv("FAKE_EXTENSIONS");
  return named != NULL ? named : all;
}
static void needs(const char *extension, const char *what) { need(strstr(extensions(), extension) != NULL, what); }

static int device_info(void *device, uint32_t what, size_t size, void *to, size_t *needed) {
  char text[4096];
  uint64_t number = 0;
  size_t bytes = 0;
  const char *most = getenv("FAKE_MOST");
  if (what == 0x1000) number = 4, bytes = 8;
  else if (what == 0x102B) bytes = 1 + (size_t)snprintf(text, sizeof text, "QUALCOMM Adreno(TM)");
  else if (what == 0x102F) bytes = 1 + (size_t)snprintf(text, sizeof text, "OpenCL 3.0 Adreno(TM) 630");
  else if (what == 0x1030) {
    int code = REAL(DEVICE_INFO, int, void *, uint32_t, size_t, void *, size_t *)(device, what, 3000, text, NULL);
    if (code != 0) return code;
    bytes = strlen(text);
    bytes += 1 + (size_t)snprintf(text + bytes, sizeof text - bytes, " %s", extensions());
  } else if (what == 0x41DE) number = most != NULL ? strtoul(most, NULL, 10) : MOST_LAUNCHES, bytes = 4;
  else if (what == 0x40A0) number = 128, bytes = sizeof(size_t);
  else return REAL(DEVICE_INFO, int, void *, uint32_t, size_t, void *, size_t *)(device, what, size, to, needed);
  if (needed != NULL) *needed = bytes;
  if (to == NULL) return 0;
  if (size < bytes) return -30;
  memcpy(to, what == 0x102B || what == 0x102F || what == 0x1030 ? (void *)text : (void *)&number, bytes);
  return 0;
}
static void *create_context(const intptr_t *properties, uint32_t count, void *const *devices, void *callback, void *user,
                            int *answer) {
  intptr_t passed[9] = {0}, performance = 0, priority = 0;
  unsigned n = 0;
  for (; properties != NULL && *properties != 0; properties += 2) {
    if (properties[0] == 0x40C2) performance = properties[1], needs("cl_qcom_perf_hint", "a performance hint");
    else if (properties[0] == 0x40C9) priority = properties[1], needs("cl_qcom_priority_hint", "a priority hint");
    else passed[n++] = properties[0], passed[n++] = properties[1];
  }
  need(performance == 0 || (performance >= 0x40C3 && performance <= 0x40C5), "a performance");
  need(priority == 0 || (priority >= 0x40CA && priority <= 0x40CC), "a priority");
  if ((performance != 0 || priority != 0) && refuses("hints")) return *answer = -64, NULL;
  tell("context performance=%lx priority=%lx\n", (unsigned long)performance, (unsigned long)priority, 0);
  return REAL(CREATE_CONTEXT, void *, const intptr_t *, uint32_t, void *const *, void *, void *, int *)(
      passed, count, devices, callback, user, answer);
}
static void *create_queue(void *context, void *device, uint64_t properties, int *answer) {
  bool recordable = (properties & RECORDABLE) != 0;
  if (recordable) {
    needs("cl_qcom_recordable_queues", "a recordable queue");
    if (properties != RECORDABLE || refuses("queues")) return *answer = -35, NULL;
    properties = 0;
  }
  void *made = REAL(CREATE_QUEUE, void *, void *, void *, uint64_t, int *)(context, device, properties, answer);
  need(queue_count < MOST_QUEUES, "so many queues");
  if (recordable && made != NULL) queues[queue_count++] = made;
  return made;
}
static void *create_queue_with(void *context, void *device, const uint64_t *properties, int *answer) {
  uint64_t flags = 0;
  for (const uint64_t *p = properties; p != NULL && *p != 0; p += 2)
    if (*p == 0x1093) flags = p[1];
  return create_queue(context, device, flags, answer);
}
static void *create_buffer(void *context, uint64_t flags, size_t size, void *host, int *answer) {
  external_memory *m = host;
  if ((flags & 1 << 29) != 0) {
    struct stat about;
    unsigned char first;
    needs("cl_qcom_ext_host_ptr", "memory of others");
    if ((flags & 1 << 3) == 0) return *answer = -30, NULL;
    if (m->kind == (refuses("dmabuf") ? 0 : 0x411D) || m->kind == (refuses("ion") ? 0 : 0x40A8)) flags &= ~(1ULL << 29);
    else return *answer = -59, NULL;
    need(m->policy == 0x40A4 || m->policy == 0x40A9, "a cache policy");
    if (m->policy == 0x40A9) needs("iocoherent", "coherent memory");
    need((uintptr_t)m->address % 4096 == 0, "an address at a page");
    need(fstat(m->descriptor, &about) == 0 && size + 128 <= (size_t)about.st_size, "memory with padding after it");
    need(pread(m->descriptor, &first, 1, 0) == 1 && first == *(unsigned char *)m->address, "memory of the descriptor");
    tell("import kind=%lx policy=%lx\n", m->kind, m->policy, 0);
    host = m->address;
  }
  return REAL(CREATE_BUFFER, void *, void *, uint64_t, size_t, void *, int *)(context, flags, size, host, answer);
}
static kernel_state *state_of(void *kernel) {
  for (unsigned i = kernel_count; i-- > 0;)
    if (kernels[i].kernel == kernel) return &kernels[i];
  need(kernel_count < MOST_KERNELS, "so many kernels");
  kernels[kernel_count] = (kernel_state){.kernel = kernel};
  return &kernels[kernel_count++];
}
static int set_real(void *kernel, uint32_t number, size_t size, const void *value) {
  return REAL(SET_ARGUMENT, int, void *, uint32_t, size_t, const void *)(kernel, number, size, value);
}
static int set_argument(void *kernel, uint32_t number, size_t size, const void *value) {
  int code = set_real(kernel, number, size, value);
  need(number < MOST_ARGUMENTS && size <= 8, "an argument");
  argument *a = &state_of(kernel)->arguments[number];
  a->size = size;
  memcpy(&a->value, value, size);
  return code;
}
static bool is_recordable(const void *queue) {
  for (unsigned i = 0; i < queue_count; i++)
    if (queues[i] == queue) return true;
  return false;
}
typedef int launcher(void *, void *, uint32_t, const size_t *, const size_t *, const size_t *, uint32_t, void *const *, void **);
static int enqueue(void *queue, void *kernel, uint32_t axes, const size_t *first, const size_t *total, const size_t *group,
                   uint32_t count, void *const *events, void **event) {
  if (!is_recordable(queue))
    return ((launcher *)real[LAUNCH])(queue, kernel, axes, first, total, group, count, events, event);
  need(open_recording != NULL && open_recording->queue == queue, "a launch while nothing is recorded");
  need(first == NULL && count == 0 && event == NULL && group != NULL, "a launch that can be recorded");
  recording *r = open_recording;
  const char *most = getenv("FAKE_MOST");
  need(r->count < (most != NULL ? strtoul(most, NULL, 10) : MOST_LAUNCHES), "so long a recording");
  launch *l = &r->launches[r->count++];
  l->at = *state_of(kernel), l->axes = axes;
  memcpy(l->total, total, axes * sizeof *total), memcpy(l->group, group, axes * sizeof *group);
  return 0;
}

/* another object may come to lie where one was */
static int release_queue(void *queue) {
  for (unsigned i = 0; i < queue_count; i++)
    if (queues[i] == queue) queues[i] = queues[--queue_count];
  return REAL(RELEASE_QUEUE, int, void *)(queue);
}
static int release_kernel(void *kernel) {
  kernel_state *state = state_of(kernel);
  *state = kernels[--kernel_count];
  return REAL(RELEASE_KERNEL, int, void *)(kernel);
}

/* ---- cl_qcom_recordable_queues ---- */
void *clNewRecordingQCOM(void *queue, int *answer) {
  need(is_recordable(queue) && open_recording == NULL, "a recording");
  if (refuses("recordings")) return *answer = -59, NULL;
  *answer = 0;
  open_recording = calloc(1, sizeof *open_recording);
  open_recording->queue = queue;
  return open_recording;
}
int clEndRecordingQCOM(recording *r) {
  need(r != NULL && r == open_recording && r->count > 0, "an open recording");
  open_recording = NULL, r->ended = true;
  tell("recorded %lu\n", r->count, 0, 0);
  return 0;
}
int clReleaseRecordingQCOM(recording *r) {
  need(r != NULL && r->ended, "a recording to release");
  tell("released %lu\n", r->count, 0, 0);
  free(r);
  return 0;
}
int clEnqueueRecordingQCOM(void *queue, recording *r, size_t updates, const argument_update *update, size_t offsets,
                           const void *offset, size_t totals, const void *total, size_t groups, const void *group,
                           uint32_t count, void *const *events, void **event) {
  need(r != NULL && r->ended && !is_recordable(queue), "a recording in an ordinary queue");
  need(offsets == 0 && offset == NULL && totals == 0 && total == NULL && groups == 0 && group == NULL, "nothing else");
  need(count == 0 && events == NULL && event == NULL && (updates == 0) == (update == NULL), "no events");
  if (updates != 0 && refuses("updates")) return -59;
  tell("replayed %lu updates=%lu\n", r->count, updates, 0);
  uint32_t end = r->count - (getenv("FAKE_LEAVES_OUT") != NULL ? 1 : 0);
  for (uint32_t i = 0; i < end; i++) {
    launch *l = &r->launches[i];
    kernel_state now = l->at, before = *state_of(l->at.kernel);
    for (size_t j = 0; j < updates; j++) {
      need(update[j].launch < r->count && update[j].argument < MOST_ARGUMENTS, "an update of what is there");
      argument *a = &now.arguments[update[j].argument];
      if (update[j].launch != i) continue;
      need(update[j].size == a->size, "an update of the same size");
      memcpy(&a->value, update[j].value, a->size);
    }
    for (uint32_t j = 0; j < MOST_ARGUMENTS && now.arguments[j].size != 0; j++)
      if (set_real(now.kernel, j, now.arguments[j].size, &now.arguments[j].value) != 0) return -49;
    int code = ((launcher *)real[LAUNCH])(queue, now.kernel, l->axes, NULL, l->total, l->group, 0, NULL, NULL);
    if (code != 0) return code;
    for (uint32_t j = 0; j < MOST_ARGUMENTS && before.arguments[j].size != 0; j++)
      (void)set_real(now.kernel, j, before.arguments[j].size, &before.arguments[j].value);
  }
  return 0;
}
static void *extension_address(void *platform, const char *name) {
  static const struct { const char *name; void *at; } found[] = {
      {"clNewRecordingQCOM", clNewRecordingQCOM}, {"clEndRecordingQCOM", clEndRecordingQCOM},
      {"clReleaseRecordingQCOM", clReleaseRecordingQCOM}, {"clEnqueueRecordingQCOM", clEnqueueRecordingQCOM}};
  (void)platform;
  for (size_t i = 0; i < sizeof found / sizeof *found; i++)
    if (strcmp(found[i].name, name) == 0 && !refuses("addresses")) return found[i].at;
  return NULL;
}

/* ---- the ICD ---- */
int clIcdGetPlatformIDsKHR(uint32_t most, void **platforms, uint32_t *count) {
  static void **table;
  void *library = dlopen(getenv("FAKE_DRIVER"), RTLD_NOW | RTLD_LOCAL);
  void *(*ask)(const char *) = library != NULL ? (void *(*)(const char *))dlsym(library, "clGetExtensionFunctionAddress") : NULL;
  int (*list)(uint32_t, void **, uint32_t *) = ask != NULL ? (int (*)(uint32_t, void **, uint32_t *))ask("clIcdGetPlatformIDsKHR") : NULL;
  if (list == NULL) return -1001;
  void *first;
  int code = list(1, &first, NULL);
  if (code != 0) return code;
  if (table == NULL) {
    table = *(void ***)first;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)table / page * page, end = (uintptr_t)(table + TABLE_SIZE);
    if (mprotect((void *)start, end - start, PROT_READ | PROT_WRITE) != 0) return -1001;
    memcpy(real, table, sizeof real);
    table[DEVICE_INFO] = device_info, table[CREATE_CONTEXT] = create_context, table[CREATE_QUEUE] = create_queue;
    table[CREATE_BUFFER] = create_buffer, table[SET_ARGUMENT] = set_argument, table[LAUNCH] = enqueue;
    table[RELEASE_QUEUE] = release_queue, table[RELEASE_KERNEL] = release_kernel;
    table[EXTENSION_ADDRESS] = extension_address, table[CREATE_QUEUE_WITH] = create_queue_with;
  }
  return list(most, platforms, count);
}
void *clGetExtensionFunctionAddress(const char *name) {
  return strcmp(name, "clIcdGetPlatformIDsKHR") == 0 ? clIcdGetPlatformIDsKHR : NULL;
}
int clGetPlatformInfo(void *platform, uint32_t what, size_t size, void *to, size_t *needed) {
  void **table = *(void ***)platform;
  return ((int (*)(void *, uint32_t, size_t, void *, size_t *))table[1])(platform, what, size, to, needed);
}
