/* libnvidia-ml: what NVML says of the devices, to torch and to those who ask it by themselves.
 *
 * Each process has virtual devices of its own, so memory in use is that of this process.
 */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
#define DRIVER_VERSION "580.65.06" /* of the driver that came with CUDA 13.0 */

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; unsigned long long used_bytes; unsigned instance, compute; } process_t;

static char DEVICES[MAX_DEVICES];
static int index_of(const void *handle) { return (int)((const char *)handle - DEVICES); }

API int nvmlInit_v2(void) { return SUCCESS; }
API int nvmlInit(void) { return SUCCESS; }
API int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  return SUCCESS;
}
API int nvmlShutdown(void) { return SUCCESS; }
API const char *nvmlErrorString(int status) {
  return status ? "not supported by memplan's virtual GPU" : "Success";
}
API int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = (unsigned)memplan_device()->installed;
  return SUCCESS;
}
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  if (index >= (unsigned)memplan_device()->installed) return NOT_FOUND;
  *handle = DEVICES + index;
  return SUCCESS;
}
API int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **handle) {
  const char *bus = strchr(id, ':');
  unsigned long number = bus ? strtoul(bus + 1, NULL, 16) : 1;
  return nvmlDeviceGetHandleByIndex_v2(number ? (unsigned)number - 1 : 0, handle);
}
API int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  (void)uuid;
  return nvmlDeviceGetHandleByIndex_v2(0, handle);
}
API int nvmlDeviceGetIndex(const void *handle, unsigned *index) {
  *index = (unsigned)index_of(handle);
  return SUCCESS;
}
API int nvmlDeviceGetName(const void *handle, char *text, unsigned length) {
  (void)handle;
  snprintf(text, length, "%s", memplan_device()->name);
  return SUCCESS;
}
API int nvmlDeviceGetUUID(const void *handle, char *text, unsigned length) {
  int byte = 0x11 + index_of(handle);
  snprintf(text, length, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
           byte, byte, byte, byte, byte, byte, byte, byte, byte, byte, byte, byte, byte, byte, byte,
           byte);
  return SUCCESS;
}
API int nvmlDeviceGetCudaComputeCapability(const void *handle, int *major, int *minor) {
  (void)handle;
  *major = memplan_device()->major;
  *minor = memplan_device()->minor;
  return SUCCESS;
}
API int nvmlDeviceGetMemoryInfo(const void *handle, memory_t *memory) {
  memory->total = memplan_device()->total_bytes;
  memory->used = memplan_used(index_of(handle));
  memory->free = memory->total - memory->used;
  return SUCCESS;
}
API int nvmlDeviceGetMemoryInfo_v2(const void *handle, memory_v2_t *memory) {
  memory_t plain;
  nvmlDeviceGetMemoryInfo(handle, &plain);
  memory->total = plain.total;
  memory->reserved = 0;
  memory->free = plain.free;
  memory->used = plain.used;
  return SUCCESS;
}
/* The older form has the first two fields only: the same in the first entry, and there is one. */
API int nvmlDeviceGetComputeRunningProcesses_v3(const void *handle, unsigned *count,
                                                process_t *processes) {
  unsigned room = *count;
  *count = 1;
  if (!room || !processes) return INSUFFICIENT_SIZE;
  processes->pid = (unsigned)getpid();
  processes->used_bytes = memplan_used(index_of(handle));
  return SUCCESS;
}
API int nvmlDeviceGetComputeRunningProcesses(const void *handle, unsigned *count,
                                             process_t *processes) {
  return nvmlDeviceGetComputeRunningProcesses_v3(handle, count, processes);
}
API int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  snprintf(text, length, "%s", DRIVER_VERSION);
  return SUCCESS;
}
API int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  *version = CUDA_VERSION;
  return SUCCESS;
}

/* No NVLink, no fabric, no direct access between devices. */
API int nvmlDeviceGetGpuFabricInfoV(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetNvLinkRemoteDeviceType(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetNvLinkRemotePciInfo_v2(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetP2PStatus(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetUtilizationRates(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetTemperature(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetPowerUsage(void) { return NOT_SUPPORTED; }
API int nvmlDeviceGetClockInfo(void) { return NOT_SUPPORTED; }
