/* What the libraries know of the device, and what they share: all of it lives in libcudart. */
#ifndef MEMPLAN_DEVICE_H
#define MEMPLAN_DEVICE_H

#include "abi.h"

#define MAX_DEVICES 16
#define MIB ((size_t)1 << 20)
#define GRANULE (2 * MIB) /* what a driver hands out memory in */

/* Facts of the device, from MEMPLAN_GPU_* in the environment; the same for each of several. */
typedef struct {
  const char *name;      /* MEMPLAN_GPU_NAME */
  int major, minor;      /* MEMPLAN_GPU_CAPABILITY, as 8.6 */
  int sm_count;          /* MEMPLAN_GPU_SM_COUNT */
  int threads_per_sm;    /* MEMPLAN_GPU_THREADS_PER_SM */
  int blocks_per_sm;     /* MEMPLAN_GPU_BLOCKS_PER_SM */
  int shared_per_block;  /* MEMPLAN_GPU_SHARED_BYTES: most that a block may opt in to */
  int shared_per_sm;     /* that and 1 KiB that the system keeps, from 8.0 on */
  int l2_bytes;          /* MEMPLAN_GPU_L2_BYTES */
  size_t total_bytes;    /* MEMPLAN_GPU_TOTAL_BYTES */
  size_t context_bytes;  /* MEMPLAN_GPU_CONTEXT_BYTES: taken before any allocation */
  int installed;         /* MEMPLAN_GPU_DEVICES: devices of the machine, as NVML counts them */
  int visible;           /* those of them that CUDA_VISIBLE_DEVICES leaves */
  int answer;            /* MEMPLAN_GPU_BOOL: what each bool read back is; -1: as copies.c says */
} device_t;

/* device.c */
API const device_t *memplan_device(void);
API int memplan_device_current(void);
API int memplan_device_attribute(int attribute);
status_t memplan_failed(status_t status); /* remembered for cudaGetLastError */

/* memory.c */
API int memplan_is_device(const void *pointer);
API int memplan_device_of(const void *pointer);
API void *memplan_reserve(size_t bytes, int device);
API int memplan_charge(size_t bytes, int device); /* 0: no room */
API void memplan_release(size_t bytes, int device);
API size_t memplan_used(int device); /* with the context */

/* copies.c */
API void memplan_copy_shade(void *to, const void *from, size_t bytes);

/* kernels.c: what the last kernel that this thread launched was */
enum { KERNEL_OTHER, KERNEL_ALL, KERNEL_SUM, KERNEL_EQUAL, KERNEL_CONVERT, KERNEL_SIZED };
extern __thread int memplan_last_is_all; /* it asked "are all true?" */
extern __thread int memplan_last_converts; /* it made one dtype of another */
extern unsigned long memplan_kernels;    /* launched so far, by all threads */
const char *memplan_take_sized(void);    /* what it makes, if its size depends on values; once */

/* notes.c */
API void memplan_note(const char *what, const char *why); /* once for each `what` */
API void memplan_trace(const char *format, ...);

/* A thing that callers hold by pointer and never look into. */
API void *memplan_handle(void);

#endif
