/* The extensions of Qualcomm's driver that the OpenCL launcher uses where they are: hints, and launches that are
 * recorded once and replayed. A part of tinyinfer_opencl.c, which includes it. What is missing or refused is done
 * without. */
enum {
  CONTEXT_PLATFORM = 0x1084, CONTEXT_PERFORMANCE = 0x40C2, PERFORMANCE_HIGH = 0x40C3, CONTEXT_PRIORITY = 0x40C9,
  PRIORITY_HIGH = 0x40CA, MOST_RECORDED = 0x41DE, LEAST_RECORDED = 4, RUNS_COMPARED = 2
};
#define RECORDABLE (1U << 30)

static bool has_extension(const device *d, const char *name) {
  return d->extensions != NULL && strstr(d->extensions, name) != NULL;
}
/* The value of a hint: the first of three in a row is "high". 0 where it is the driver's to decide. */
static intptr_t hint(ti_opencl_level level, ti_opencl_level usual, intptr_t high) {
  if (level == TI_OPENCL_DEFAULT) level = usual;
  return level == TI_OPENCL_DRIVER ? 0 : high + (intptr_t)(level - TI_OPENCL_HIGH);
}
/* A context with hints; NULL where there are none or the driver refuses them. */
static handle hinted_context(const device *d, const ti_opencl_options *opencl) {
  intptr_t properties[7] = {CONTEXT_PLATFORM, (intptr_t)d->platform};
  intptr_t performance = hint(opencl->performance, TI_OPENCL_HIGH, PERFORMANCE_HIGH);
  intptr_t priority = hint(opencl->priority, TI_OPENCL_DRIVER, PRIORITY_HIGH);
  size_t used = 2;
  answer code;
  if (performance != 0 && has_extension(d, "cl_qcom_perf_hint"))
    properties[used++] = CONTEXT_PERFORMANCE, properties[used++] = performance;
  if (priority != 0 && has_extension(d, "cl_qcom_priority_hint"))
    properties[used++] = CONTEXT_PRIORITY, properties[used++] = priority;
  handle context = used == 2 ? NULL : d->cl.CreateContext(properties, 1, &d->id, NULL, NULL, &code);
  return context != NULL && code == 0 ? context : NULL;
}
/* A function of an extension, by either of the ways that drivers have. */
static void *extension_function(const device *d, const char *name) {
  void *(*ask)(handle, const char *), *found = NULL;
  void *at = dlsym(d->library, "clGetExtensionFunctionAddressForPlatform");
  memcpy(&ask, &at, sizeof ask);
  if (at != NULL) found = ask(d->platform, name);
  return found != NULL ? found : dlsym(d->library, name);
}
static void drop_recordings(device *d) {
  recorder *r = &d->recorder;
  for (u32 i = 0; i < r->count; i++) (void)r->release(r->recordings[i].made);
  r->count = 0;
}
static void close_recorder(device *d) {
  drop_recordings(d);
  if (d->recorder.queue != NULL) (void)d->cl.ReleaseCommandQueue(d->recorder.queue);
  free(d->recorder.recordings);
}
static bool open_recorder(device *d) {
  static const char *const names[4] = {"clNewRecordingQCOM", "clEndRecordingQCOM", "clReleaseRecordingQCOM",
                                       "clEnqueueRecordingQCOM"};
  recorder *r = &d->recorder;
  void *found[4];
  answer code;
  if (!has_extension(d, "cl_qcom_recordable_queues")) return false;
  for (unsigned i = 0; i < 4; i++)
    if ((found[i] = extension_function(d, names[i])) == NULL) return false;
  memcpy(&r->begin, found, sizeof *found), memcpy(&r->end, found + 1, sizeof *found);
  memcpy(&r->release, found + 2, sizeof *found), memcpy(&r->enqueue, found + 3, sizeof *found);
  r->queue = d->cl.CreateCommandQueue(d->context, d->id, RECORDABLE, &code); /* drivers take no other flag with it */
  if (code != 0) r->queue = NULL;
  return r->queue != NULL;
}
/* Records launches in a row but for those that run once, with the arguments that they have; false where the driver does
 * not. */
static bool record_row(device *d, u32 first, u32 count) {
  recorder *r = &d->recorder;
  answer code = 0;
  handle made = r->begin(r->queue, &code);
  if (code != 0 || made == NULL) return false;
  for (u32 i = first; code == 0 && i < first + count; i++)
    if (!runs_once(d, i)) code = launch_kernel(d, r->queue, i);
  if (r->end(made) != 0 || code != 0) {
    (void)r->release(made);
    return false;
  }
  r->recordings[r->count++] = (recording){first, count, made};
  return true;
}
/* Records the launches outside of loops that run each time. Their places stay the same, so that a replay needs no
 * update. */
static void record_launches(const ti_model *m, device *d) {
  recorder *r = &d->recorder;
  u64 most = device_number(d, MOST_RECORDED);
  r->unproved = RUNS_COMPARED;
  r->recordings = make(m->main_count / LEAST_RECORDED + 1, sizeof *r->recordings);
  if (r->recordings == NULL) return;
  u32 end = m->main_first + m->main_count, first = m->main_first, recorded = 0;
  bool good = true;
  for (u32 i = first; good && i <= end; i++) {
    bool fits = i < end && m->launches[i].loop == NULL;
    if (!fits || (recorded != 0 && recorded == most)) {
      if (recorded >= LEAST_RECORDED) good = record_row(d, first, i - first);
      first = fits ? i : i + 1, recorded = 0;
    }
    if (fits && !runs_once(d, i)) recorded++;
  }
  if (!good) drop_recordings(d);
}
/* Enqueues the recording that begins with a launch, and says how many launches that were: 0 where there is none. */
static u32 replay(device *d, u32 number) {
  recorder *r = &d->recorder;
  for (u32 i = 0; i < r->count; i++) {
    if (r->recordings[i].first != number) continue;
    answer code = r->enqueue(d->queue, r->recordings[i].made, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, NULL);
    if (code == 0) return r->recordings[i].count;
    drop_recordings(d);
  }
  return 0;
}
