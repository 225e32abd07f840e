/* The device: its facts from the environment, which one is current, and the last error. */
#include "device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static device_t DEVICE;
static int VISIBLE[MAX_DEVICES]; /* the machine's index of each visible device */
static pthread_once_t ONCE = PTHREAD_ONCE_INIT;
static __thread int CURRENT;
static __thread status_t LAST;

static long long number(const char *name, long long otherwise) {
  const char *text = getenv(name);
  char *end;
  if (!text || !*text) return otherwise;
  long long value = strtoll(text, &end, 10);
  if (*end || value < 0) {
    fprintf(stderr, "memplan: virtual GPU: %s=%s is no number\n", name, text);
    exit(2);
  }
  return value;
}

/* CUDA_VISIBLE_DEVICES as CUDA reads it: indices up to the first that names no device. */
static int read_visible(const char *text) {
  int count = 0;
  for (char *end; text && count < MAX_DEVICES; text = *end == ',' ? end + 1 : NULL) {
    long index = strtol(text, &end, 10);
    if (end == text || index < 0 || index >= DEVICE.installed) break;
    VISIBLE[count++] = (int)index;
  }
  return count;
}

static void read_environment(void) {
  const char *name = getenv("MEMPLAN_GPU_NAME");
  const char *capability = getenv("MEMPLAN_GPU_CAPABILITY");
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  DEVICE.name = name ? strdup(name) : "memplan virtual GPU";
  DEVICE.major = 8;
  if (capability) sscanf(capability, "%d.%d", &DEVICE.major, &DEVICE.minor);
  DEVICE.sm_count = (int)number("MEMPLAN_GPU_SM_COUNT", 108);
  DEVICE.threads_per_sm = (int)number("MEMPLAN_GPU_THREADS_PER_SM", 2048);
  DEVICE.blocks_per_sm = (int)number("MEMPLAN_GPU_BLOCKS_PER_SM", 16);
  DEVICE.shared_per_block = (int)number("MEMPLAN_GPU_SHARED_BYTES", 163 << 10);
  DEVICE.shared_per_sm = DEVICE.shared_per_block + (DEVICE.major >= 8 ? 1024 : 0);
  DEVICE.l2_bytes = (int)number("MEMPLAN_GPU_L2_BYTES", 40 << 20);
  DEVICE.total_bytes = (size_t)number("MEMPLAN_GPU_TOTAL_BYTES", (long long)(80 * 1024 * MIB));
  DEVICE.context_bytes = (size_t)number("MEMPLAN_GPU_CONTEXT_BYTES", (long long)(450 * MIB));
  DEVICE.installed = (int)number("MEMPLAN_GPU_DEVICES", 1);
  if (DEVICE.installed > MAX_DEVICES) DEVICE.installed = MAX_DEVICES;
  DEVICE.answer = (int)number("MEMPLAN_GPU_BOOL", 2);
  if (DEVICE.answer > 1) DEVICE.answer = -1;
  for (int i = 0; i < DEVICE.installed; i++) VISIBLE[i] = i;
  DEVICE.visible = visible ? read_visible(visible) : DEVICE.installed;
}

const device_t *memplan_device(void) {
  pthread_once(&ONCE, read_environment);
  return &DEVICE;
}

int memplan_device_current(void) { return CURRENT; }

void *memplan_handle(void) { return calloc(1, 256); }

status_t memplan_failed(status_t status) {
  if (status) LAST = status;
  return status;
}

API status_t cudaGetDeviceCount(int *count) {
  *count = memplan_device()->visible;
  return *count ? SUCCESS : memplan_failed(100); /* cudaErrorNoDevice */
}
API status_t cudaGetDevice(int *device) {
  *device = CURRENT;
  return SUCCESS;
}
API status_t cudaSetDevice(int device) {
  if (device < 0 || device >= memplan_device()->visible) return memplan_failed(INVALID_DEVICE);
  CURRENT = device;
  return SUCCESS;
}
API status_t cudaDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return SUCCESS;
}
API status_t cudaRuntimeGetVersion(int *version) {
  *version = CUDA_VERSION;
  return SUCCESS;
}
API status_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  *can = device != peer;
  return SUCCESS;
}
API status_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
  memplan_device();
  snprintf(text, (size_t)length, "0000:%02x:00.0", VISIBLE[device] + 1);
  return SUCCESS;
}
API status_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return SUCCESS;
}

API status_t cudaGetLastError(void) {
  status_t status = LAST;
  LAST = SUCCESS;
  return status;
}
API status_t cudaPeekAtLastError(void) { return LAST; }

API const char *cudaGetErrorString(status_t status) {
  switch (status) {
    case SUCCESS: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case 100: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    default: return "an error of memplan's virtual GPU";
  }
}
API const char *cudaGetErrorName(status_t status) {
  switch (status) {
    case SUCCESS: return "cudaSuccess";
    case INVALID_VALUE: return "cudaErrorInvalidValue";
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case 100: return "cudaErrorNoDevice";
    case INVALID_DEVICE: return "cudaErrorInvalidDevice";
    default: return "cudaErrorUnknown";
  }
}
