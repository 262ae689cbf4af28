/* tinyinfer on OpenCL devices: runs the OpenCL target of a bundle, on any driver.
 *
 *   cc -std=c11 -O2 -pthread program.c tinyinfer_opencl.c -lm -ldl -o program
 *
 *   ti_model *model = ti_opencl_open("model.tinf", NULL, NULL, &error);
 *
 * and then everything as tinyinfer.h says: ti_run, ti_verify, ti_close. tinyinfer_opencl.c takes the place of
 * tinyinfer.c, which it includes, so that ti_open is there too. The OpenCL library is loaded when a model is opened:
 * nothing is linked, and the program starts where there is none.
 *
 * Weights are uploaded once, and each input and output has a buffer of the device, to and from which ti_run copies.
 * The arena is the device's: ti_run ignores the caller's. Contexts of a model take turns. */
#ifndef TINYINFER_OPENCL_H
#define TINYINFER_OPENCL_H
#include "tinyinfer.h"
#ifdef __cplusplus
extern "C" {
#endif

/* How much a Qualcomm GPU is asked for; other drivers are not. */
typedef enum {
  TI_OPENCL_DEFAULT, TI_OPENCL_HIGH, TI_OPENCL_NORMAL, TI_OPENCL_LOW,
  TI_OPENCL_DRIVER /* what its driver does unasked */
} ti_opencl_level;

/* Zero-initialise for the defaults. */
typedef struct {
  const char *device;  /* its number, or a part of its or its platform's name; NULL: the first. GPUs come first */
  const char *library; /* file of the OpenCL library; NULL: what the process has loaded, else libOpenCL */
  const char *cache;   /* a file that keeps the program as the driver built it; NULL: none. Trusted as the driver is */
  void (*log)(void *user, const char *text); /* given what the driver's compiler says where it refuses a program */
  void *user;
  ti_opencl_level performance; /* how fast the GPU is to be clocked; the default is high */
  ti_opencl_level priority;    /* whose work goes first, this or the screen's; the default is the driver's */
  int no_recording;            /* not 0: launches are not recorded, though the driver could replay them */
} ti_opencl_options;

/* As ti_open and ti_open_memory, for the OpenCL target that is best for the device, else the first that it can run. The
 * target that `options` name, and it alone, may run on devices of another kind. `options`, `opencl` and `error` may be
 * NULL. TI_ERROR_TARGET where there is no OpenCL library, no such device or no target for it; TI_ERROR_DEVICE, then and
 * in runs, for what the driver refuses. */
TI_API ti_model *ti_opencl_open(const char *path, const ti_options *options, const ti_opencl_options *opencl,
                                ti_error *error);
TI_API ti_model *ti_opencl_open_memory(const void *bytes, size_t size, const ti_options *options,
                                       const ti_opencl_options *opencl, ti_error *error);
/* The device that a model runs on, in words: its name, its platform's and its driver's version. */
TI_API const char *ti_opencl_device(const ti_model *model);

#ifdef __cplusplus
}
#endif
#endif
