/* Streams, events, captures, and the way from the runtime to the driver: all work is done at once. */
#define _GNU_SOURCE
#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define NEW_HANDLE(name, ...)             \
  API status_t name(__VA_ARGS__) {        \
    *handle = memplan_handle();           \
    return SUCCESS;                       \
  }
NEW_HANDLE(cudaStreamCreate, void **handle)
NEW_HANDLE(cudaStreamCreateWithFlags, void **handle, unsigned flags)
NEW_HANDLE(cudaStreamCreateWithPriority, void **handle, unsigned flags, int priority)
NEW_HANDLE(cudaEventCreate, void **handle)
NEW_HANDLE(cudaEventCreateWithFlags, void **handle, unsigned flags)

API status_t cudaEventElapsedTime(float *milliseconds, event_t start, event_t end) {
  (void)start, (void)end;
  *milliseconds = 1.0f;
  return SUCCESS;
}
API status_t cudaStreamGetPriority(stream_t stream, int *priority) {
  (void)stream;
  *priority = 0;
  return SUCCESS;
}
/* 0: the stream is not being captured into a graph */
API status_t cudaStreamIsCapturing(stream_t stream, int *capture) {
  (void)stream;
  *capture = 0;
  return SUCCESS;
}
API status_t cudaStreamGetCaptureInfo(stream_t stream, int *capture, unsigned long long *id) {
  if (id) *id = 0;
  return cudaStreamIsCapturing(stream, capture);
}
API status_t cudaStreamGetCaptureInfo_v2(stream_t stream, int *capture, unsigned long long *id) {
  return cudaStreamGetCaptureInfo(stream, capture, id);
}
API status_t cudaLaunchHostFunc(stream_t stream, void (*function)(void *), void *data) {
  (void)stream;
  function(data);
  return SUCCESS;
}
API status_t cudaStreamAddCallback(stream_t stream, void (*function)(stream_t, status_t, void *),
                                   void *data, unsigned flags) {
  (void)flags;
  function(stream, SUCCESS, data);
  return SUCCESS;
}

static status_t do_nothing(void) { return SUCCESS; }

/* libcuda.so.1 beside this library, whatever else the machine has. */
static void *driver(void) {
  static void *library;
  char path[4096];
  Dl_info own;
  if (library) return library;
  if (dladdr((void *)do_nothing, &own)) {
    snprintf(path, sizeof path - sizeof "libcuda.so.1", "%s", own.dli_fname);
    char *slash = strrchr(path, '/');
    if (slash) {
      strcpy(slash + 1, "libcuda.so.1");
      library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    }
  }
  if (!library) library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  return library;
}
API status_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                              unsigned long long flags, int *found) {
  (void)version, (void)flags;
  *function = driver() ? dlsym(driver(), name) : NULL;
  memplan_trace("entry point %s%s\n", name, *function ? "" : ": does nothing");
  if (!*function) *function = (void *)do_nothing;
  if (found) *found = 0;
  return SUCCESS;
}
API status_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags,
                                     int *found) {
  return cudaGetDriverEntryPointByVersion(name, function, 0, flags, found);
}
