/* libcuda: the driver's functions that torch asks for by name, most of all virtual memory, which
 * expandable segments are made of; and modules, which is how Triton's kernels arrive.
 */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long address_t;

extern status_t cudaMalloc(void **pointer, size_t bytes), cudaFree(void *pointer);
extern status_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
extern status_t cudaGetDeviceCount(int *count);
extern status_t cudaGetDriverEntryPoint(const char *, void **, unsigned long long, int *);

static void *const CONTEXT = (void *)0x5ca1ab1e; /* one for all; nobody looks inside */

API int cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
API int cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return SUCCESS;
}
API int cuGetProcAddress_v2(const char *name, void **function, int version,
                            unsigned long long flags, int *found) {
  (void)version;
  return cudaGetDriverEntryPoint(name, function, flags, found);
}
API int cuDeviceGet(int *device, int index) {
  *device = index;
  return SUCCESS;
}
API int cuDeviceGetCount(int *count) { return cudaGetDeviceCount(count); }
API int cuDeviceGetName(char *text, int length, int device) {
  (void)device;
  snprintf(text, (size_t)length, "%s", memplan_device()->name);
  return SUCCESS;
}
API int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = memplan_device()->total_bytes;
  return SUCCESS;
}
API int cuDeviceGetUuid(void *uuid, int device) {
  memset(uuid, 0x11 + device, 16);
  return SUCCESS;
}
API int cuDeviceGetUuid_v2(void *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
API int cuDeviceComputeCapability(int *major, int *minor, int device) {
  (void)device;
  *major = memplan_device()->major;
  *minor = memplan_device()->minor;
  return SUCCESS;
}
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = memplan_device_attribute(attribute);
  return SUCCESS;
}

API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  (void)device;
  if (flags) *flags = 0;
  if (active) *active = 1;
  return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = CONTEXT;
  return SUCCESS;
}
API int cuCtxGetCurrent(void **context) {
  *context = CONTEXT;
  return SUCCESS;
}
API int cuCtxPopCurrent(void **context) { return cuCtxGetCurrent(context); }
API int cuCtxGetDevice(int *device) {
  *device = memplan_device_current();
  return SUCCESS;
}
API int cuCtxSetCurrent(void *context) {
  (void)context;
  return SUCCESS;
}
API int cuCtxPushCurrent(void *context) { return cuCtxSetCurrent(context); }

API int cuGetErrorString(int status, const char **text) {
  *text = !status ? "no error" : status == OUT_OF_MEMORY ? "out of memory" : "not done here";
  return SUCCESS;
}
API int cuGetErrorName(int status, const char **text) {
  *text = !status                   ? "CUDA_SUCCESS"
          : status == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
                                    : "CUDA_ERROR_UNKNOWN";
  return SUCCESS;
}
API int cuPointerGetAttribute(void *value, int attribute, address_t pointer) {
  switch (attribute) {
    case 1: *(void **)value = CONTEXT; break;       /* context */
    case 2: *(int *)value = MEMORY_DEVICE; break;   /* kind of memory */
    case 9: *(int *)value = memplan_device_of((void *)(uintptr_t)pointer); break; /* ordinal */
    default: *(unsigned *)value = 0;
  }
  return SUCCESS;
}
API int cuMemGetAddressRange_v2(address_t *start, size_t *bytes, address_t pointer) {
  if (start) *start = pointer;
  if (bytes) *bytes = 0;
  return SUCCESS;
}

/* Virtual memory: addresses are reserved, memory is made and counted, mapping does nothing. */
typedef struct { size_t bytes; int device; } made_t;
typedef struct { int kind, handle_types, location_kind, device; } making_t;

API int cuMemGetAllocationGranularity(size_t *bytes, const void *making, int option) {
  (void)making, (void)option;
  *bytes = GRANULE;
  return SUCCESS;
}
API int cuMemAddressReserve(address_t *address, size_t bytes, size_t alignment, address_t hint,
                            unsigned long long flags) {
  (void)alignment, (void)hint, (void)flags;
  *address = (address_t)(uintptr_t)memplan_reserve(bytes, memplan_device_current());
  return *address ? SUCCESS : OUT_OF_MEMORY;
}
API int cuMemAddressFree(address_t address, size_t bytes) {
  (void)address, (void)bytes;
  return SUCCESS;
}
API int cuMemCreate(made_t **handle, size_t bytes, const making_t *making,
                    unsigned long long flags) {
  int device = making && making->location_kind == 1 ? making->device : memplan_device_current();
  (void)flags;
  if (device < 0 || device >= memplan_device()->visible) return INVALID_DEVICE;
  if (!memplan_charge(bytes, device)) return OUT_OF_MEMORY;
  *handle = memplan_handle();
  **handle = (made_t){bytes, device};
  return SUCCESS;
}
API int cuMemRelease(made_t *made) {
  memplan_release(made->bytes, made->device);
  free(made);
  return SUCCESS;
}
API int cuMemMap(address_t address, size_t bytes, size_t offset, void *handle,
                 unsigned long long flags) {
  (void)address, (void)bytes, (void)offset, (void)handle, (void)flags;
  return SUCCESS;
}
API int cuMemUnmap(address_t address, size_t bytes) {
  (void)address, (void)bytes;
  return SUCCESS;
}
API int cuMemSetAccess(address_t address, size_t bytes, const void *access, size_t count) {
  (void)address, (void)bytes, (void)access, (void)count;
  return SUCCESS;
}
API int cuMemAlloc_v2(address_t *address, size_t bytes) {
  void *pointer;
  int status = cudaMalloc(&pointer, bytes);
  *address = (address_t)(uintptr_t)pointer;
  return status;
}
API int cuMemFree_v2(address_t address) { return cudaFree((void *)(uintptr_t)address); }
API int cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
  return cudaMemGetInfo(free_bytes, total_bytes);
}

/* Modules: code that a program brings as data at run time. */
static int load(void **module) {
  *module = memplan_handle();
  return SUCCESS;
}
API int cuModuleLoad(void **module, const char *path) {
  (void)path;
  return load(module);
}
API int cuModuleLoadData(void **module, const void *image) {
  (void)image;
  return load(module);
}
API int cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options,
                           void *values) {
  (void)image, (void)count, (void)options, (void)values;
  return load(module);
}
API int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module, (void)name;
  *function = memplan_handle();
  return SUCCESS;
}
API int cuLinkCreate_v2(unsigned count, void *options, void *values, void **state) {
  (void)count, (void)options, (void)values;
  *state = memplan_handle();
  return SUCCESS;
}
API int cuLinkComplete(void *state, void **code, size_t *bytes) {
  static char nothing[64];
  (void)state;
  *code = nothing;
  *bytes = sizeof nothing;
  return SUCCESS;
}
API int cuFuncGetAttribute(int *value, int attribute, void *function) {
  (void)function;
  *value = attribute == 0 ? 1024 : attribute == 4 ? 32 : 0; /* threads per block, registers */
  return SUCCESS;
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads,
                                                    size_t shared_bytes) {
  (void)function, (void)threads, (void)shared_bytes;
  *blocks = 1;
  return SUCCESS;
}

static int launch(void) {
  memplan_note("Triton or run-time compiled kernels", "they do nothing; their launches are not modelled");
  return SUCCESS;
}
API int cuLaunchKernel(void) { return launch(); }
API int cuLaunchKernelEx(void) { return launch(); }
API int cuLaunchCooperativeKernel(void) { return launch(); }
