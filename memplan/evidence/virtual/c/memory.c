/* Memory: that of the devices is address space which nobody may touch, counted against the total.
 *
 * Addresses only grow and are never used again, so that they come in the order of allocation: the
 * caching allocator breaks ties between free blocks of one size by address. A stray access by the
 * host faults at once. Pinned and managed memory is the host's, backed when it is touched.
 */
#define _GNU_SOURCE
#include "device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST_SPACE ((size_t)32 << 40)
#define LEAST_SPACE ((size_t)1 << 40)
#define NUM_BUCKETS 4096

typedef struct range {
  char *start;
  size_t bytes;
  int device;
  int kind; /* MEMORY_* */
  struct range *next;
} range_t;

static char *BASE;
static size_t PER_DEVICE;
static char *NEXT[MAX_DEVICES];
static size_t USED[MAX_DEVICES];
static range_t *BUCKETS[NUM_BUCKETS];
static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t ONCE = PTHREAD_ONCE_INIT;

static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

static void *map(size_t bytes, int protection) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *start = mmap(NULL, bytes, protection, flags, -1, 0);
  return start == MAP_FAILED ? NULL : start;
}

static void reserve_space(void) {
  size_t space = MOST_SPACE;
  int devices = memplan_device()->visible ? memplan_device()->visible : 1;
  while (!(BASE = map(space, PROT_NONE)) && space > LEAST_SPACE) space /= 2;
  if (!BASE) {
    fprintf(stderr, "memplan: virtual GPU: no address space (ulimit -v?)\n");
    exit(2);
  }
  PER_DEVICE = space / (size_t)devices / GRANULE * GRANULE;
  char *first = (char *)round_up((uintptr_t)BASE + 1, GRANULE);
  for (int i = 0; i < devices; i++) NEXT[i] = first + (size_t)i * PER_DEVICE;
}

static char *base(void) {
  pthread_once(&ONCE, reserve_space);
  return BASE;
}

int memplan_device_of(const void *pointer) {
  size_t offset = (size_t)((const char *)pointer - base());
  int device = (int)((offset - 1) / PER_DEVICE);
  return device < MAX_DEVICES ? device : 0;
}

int memplan_is_device(const void *pointer) {
  int devices = memplan_device()->visible ? memplan_device()->visible : 1;
  return (const char *)pointer >= base() &&
         (const char *)pointer < BASE + PER_DEVICE * (size_t)devices;
}

void *memplan_reserve(size_t bytes, int device) {
  char *end = base() + PER_DEVICE * (size_t)(device + 1);
  bytes = round_up(bytes, GRANULE);
  pthread_mutex_lock(&LOCK);
  char *start = NEXT[device];
  if (bytes > (size_t)(end - start)) start = NULL;
  else NEXT[device] += bytes;
  pthread_mutex_unlock(&LOCK);
  if (!start) memplan_note("addresses", "used up by allocations and frees; this is no shortage of memory");
  return start;
}

int memplan_charge(size_t bytes, int device) {
  const device_t *facts = memplan_device();
  pthread_mutex_lock(&LOCK);
  int fits = USED[device] + facts->context_bytes + bytes <= facts->total_bytes;
  if (fits) USED[device] += bytes;
  pthread_mutex_unlock(&LOCK);
  return fits;
}

void memplan_release(size_t bytes, int device) {
  pthread_mutex_lock(&LOCK);
  USED[device] -= bytes;
  pthread_mutex_unlock(&LOCK);
}

size_t memplan_used(int device) {
  const device_t *facts = memplan_device();
  size_t used = USED[device] + facts->context_bytes;
  return used < facts->total_bytes ? used : facts->total_bytes;
}

static range_t **bucket(const void *start) {
  return &BUCKETS[(unsigned)((uintptr_t)start >> 9) * 2654435761u % NUM_BUCKETS];
}

static void remember(void *start, size_t bytes, int kind) {
  range_t *range = malloc(sizeof *range);
  *range = (range_t){start, bytes, memplan_device_current(), kind, NULL};
  pthread_mutex_lock(&LOCK);
  range->next = *bucket(start);
  *bucket(start) = range;
  pthread_mutex_unlock(&LOCK);
}

/* Take the range that starts there out of the table; `bytes` is 0 when there is none. */
static range_t forget(const void *start) {
  range_t taken = {0};
  pthread_mutex_lock(&LOCK);
  for (range_t **at = bucket(start); *at; at = &(*at)->next) {
    if ((*at)->start != start) continue;
    range_t *range = *at;
    taken = *range;
    *at = range->next;
    free(range);
    break;
  }
  pthread_mutex_unlock(&LOCK);
  return taken;
}

API status_t cudaMalloc(void **pointer, size_t bytes) {
  int device = memplan_device_current();
  size_t rounded = round_up(bytes, bytes >= MIB ? GRANULE : 512);
  memplan_trace("malloc %zu\n", bytes);
  *pointer = NULL;
  if (!bytes) return SUCCESS;
  if (!memplan_charge(rounded, device)) return memplan_failed(OUT_OF_MEMORY);
  *pointer = memplan_reserve(rounded, device);
  if (!*pointer) {
    memplan_release(rounded, device);
    return memplan_failed(OUT_OF_MEMORY);
  }
  remember(*pointer, rounded, MEMORY_DEVICE);
  return SUCCESS;
}
API status_t cudaFree(void *pointer) {
  if (!pointer) return SUCCESS;
  range_t range = forget(pointer);
  memplan_trace("free %zu\n", range.bytes);
  if (!range.bytes) return memplan_failed(INVALID_VALUE);
  if (range.kind == MEMORY_DEVICE) memplan_release(range.bytes, range.device);
  else munmap(range.start, range.bytes);
  return SUCCESS;
}
API status_t cudaMallocAsync(void **pointer, size_t bytes, stream_t stream) {
  (void)stream;
  return cudaMalloc(pointer, bytes);
}
API status_t cudaFreeAsync(void *pointer, stream_t stream) {
  (void)stream;
  return cudaFree(pointer);
}
API status_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  *total_bytes = memplan_device()->total_bytes;
  *free_bytes = *total_bytes - memplan_used(memplan_device_current());
  return SUCCESS;
}
API status_t cudaMemPoolGetAttribute(void *pool, int attribute, void *value) {
  (void)pool, (void)attribute;
  *(uint64_t *)value = 0;
  return SUCCESS;
}
API status_t cudaDeviceGetDefaultMemPool(void **pool, int device) {
  static void *handle;
  (void)device;
  if (!handle) handle = memplan_handle();
  *pool = handle;
  return SUCCESS;
}
API status_t cudaDeviceGetGraphMemAttribute(int device, int attribute, void *value) {
  (void)device, (void)attribute;
  *(uint64_t *)value = 0;
  return SUCCESS;
}
API status_t cudaGetSymbolAddress(void **pointer, const void *symbol) {
  static char *page;
  (void)symbol;
  if (!page) page = memplan_reserve(MIB, memplan_device_current());
  *pointer = page;
  return SUCCESS;
}

static status_t host_memory(void **pointer, size_t bytes, int kind) {
  bytes = round_up(bytes ? bytes : 1, 4096);
  *pointer = map(bytes, PROT_READ | PROT_WRITE);
  if (!*pointer) return memplan_failed(OUT_OF_MEMORY);
  remember(*pointer, bytes, kind);
  return SUCCESS;
}
API status_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  (void)flags;
  return host_memory(pointer, bytes, MEMORY_HOST);
}
API status_t cudaMallocHost(void **pointer, size_t bytes) {
  return host_memory(pointer, bytes, MEMORY_HOST);
}
API status_t cudaMallocManaged(void **pointer, size_t bytes, unsigned flags) {
  (void)flags;
  return host_memory(pointer, bytes, MEMORY_MANAGED);
}
API status_t cudaFreeHost(void *pointer) {
  if (!pointer) return SUCCESS;
  range_t range = forget(pointer);
  if (range.bytes) munmap(range.start, range.bytes);
  return SUCCESS;
}
API status_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags) {
  (void)pointer, (void)bytes, (void)flags;
  return SUCCESS;
}
API status_t cudaHostUnregister(void *pointer) {
  (void)pointer;
  return SUCCESS;
}
API status_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
  (void)flags;
  *device = host;
  return SUCCESS;
}

static int kind_of_host_memory(const char *pointer) {
  int kind = 0;
  pthread_mutex_lock(&LOCK);
  for (unsigned i = 0; i < NUM_BUCKETS && !kind; i++)
    for (range_t *range = BUCKETS[i]; range; range = range->next)
      if (range->kind != MEMORY_DEVICE && pointer >= range->start &&
          pointer < range->start + range->bytes)
        kind = range->kind;
  pthread_mutex_unlock(&LOCK);
  return kind;
}
API status_t cudaPointerGetAttributes(pointer_attributes_t *attributes, const void *pointer) {
  memset(attributes, 0, offsetof(pointer_attributes_t, reserved));
  attributes->type = memplan_is_device(pointer) ? MEMORY_DEVICE : kind_of_host_memory(pointer);
  if (attributes->type) attributes->device_pointer = (void *)pointer;
  if (attributes->type == MEMORY_DEVICE) attributes->device = memplan_device_of(pointer);
  else if (attributes->type) attributes->host_pointer = (void *)pointer;
  return SUCCESS;
}
