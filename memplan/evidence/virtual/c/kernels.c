/* Kernels: launching one does nothing but count it, and remember by its name what it asked.
 *
 * A program compiled for CUDA registers each of its kernels with a name before it launches any. A
 * few names matter: those that ask "are all true?" (see copies.c), and those whose result has a
 * size that depends on values, which is said when the host reads that size right after them.
 */
#include "device.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NUM_SLOTS 8192 /* of the table of kernels that matter, a few hundred */

static const struct { const char *part; int kind; const char *makes; } NAMES[] = {
    {"and_kernel_cuda", KERNEL_ALL, NULL},
    {"sum_functorIlll", KERNEL_SUM, NULL},     /* transformers: mask.sum() == ... */
    {"CompareEqFunctorIl", KERNEL_EQUAL, NULL}, /* ... mask.numel() */
    {"direct_copy_kernel_cuda", KERNEL_CONVERT, NULL},
    {"NonZeroOp", KERNEL_SIZED, "nonzero (also boolean indexing, masked_select)"},
    {"equal_toIvE", KERNEL_SIZED, "unique"},
    {"RunLengthEncode", KERNEL_SIZED, "unique"},
    {"DeviceScanKernel", KERNEL_SIZED, "the last of a cumsum (repeat_interleave, packed sequences)"},
};
#define NUM_NAMES (sizeof NAMES / sizeof *NAMES)

typedef struct { const void *function; int name; } slot_t;
static slot_t SLOTS[NUM_SLOTS];
static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;

unsigned long memplan_kernels;
__thread int memplan_last_is_all, memplan_last_converts;
static __thread const char *SIZED;

static slot_t *slot_of(const void *function) {
  unsigned at = (unsigned)((uintptr_t)function >> 4) * 2654435761u % NUM_SLOTS;
  for (unsigned i = 0; i < NUM_SLOTS; i++, at = (at + 1) % NUM_SLOTS)
    if (!SLOTS[at].function || SLOTS[at].function == function) return &SLOTS[at];
  return NULL;
}

const char *memplan_take_sized(void) {
  const char *sized = SIZED;
  SIZED = NULL;
  return sized;
}

API void **__cudaRegisterFatBinary(void *binary) {
  (void)binary;
  return memplan_handle();
}
API void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
API void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
API char __cudaInitModule(void **handle) {
  (void)handle;
  return 0;
}
API void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external,
                           size_t bytes, int constant, int global) {
  (void)handle, (void)host, (void)device, (void)name, (void)external, (void)bytes;
  (void)constant, (void)global;
}
API void __cudaRegisterFunction(void **handle, const char *function, char *device,
                                const char *name, int limit, void *thread, void *block,
                                void *block_size, void *grid_size, int *warp) {
  (void)handle, (void)device, (void)limit, (void)thread, (void)block, (void)block_size;
  (void)grid_size, (void)warp;
  for (size_t i = 0; i < NUM_NAMES; i++) {
    if (!strstr(name, NAMES[i].part)) continue;
    pthread_mutex_lock(&LOCK);
    slot_t *slot = slot_of(function);
    if (slot) *slot = (slot_t){function, (int)i};
    pthread_mutex_unlock(&LOCK);
    return;
  }
  memplan_trace("kernel %p %s\n", (const void *)function, name);
}

/* The launch syntax of CUDA C++ pushes a configuration and pops it inside the kernel's stub. */
typedef struct { grid_t grid, block; size_t shared_bytes; stream_t stream; } pushed_t;
static __thread pushed_t PUSHED[16];
static __thread int NUM_PUSHED;

API unsigned __cudaPushCallConfiguration(grid_t grid, grid_t block, size_t bytes, void *stream) {
  if (NUM_PUSHED < 16) PUSHED[NUM_PUSHED++] = (pushed_t){grid, block, bytes, stream};
  return 0;
}
API status_t __cudaPopCallConfiguration(grid_t *grid, grid_t *block, size_t *bytes, void *stream) {
  if (!NUM_PUSHED) return memplan_failed(INVALID_VALUE);
  pushed_t pushed = PUSHED[--NUM_PUSHED];
  *grid = pushed.grid;
  *block = pushed.block;
  *bytes = pushed.shared_bytes;
  *(stream_t *)stream = pushed.stream;
  return SUCCESS;
}

static status_t launch(const void *function) {
  static __thread int before;
  slot_t *slot = slot_of(function);
  int known = slot && slot->function;
  int kind = known ? NAMES[slot->name].kind : KERNEL_OTHER;
  __atomic_add_fetch(&memplan_kernels, 1, __ATOMIC_RELAXED);
  SIZED = kind == KERNEL_SIZED ? NAMES[slot->name].makes : NULL;
  memplan_last_is_all = kind == KERNEL_ALL || (kind == KERNEL_EQUAL && before == KERNEL_SUM);
  memplan_last_converts = kind == KERNEL_CONVERT;
  before = kind;
  memplan_trace("launch %p\n", function);
  return SUCCESS;
}

API status_t __cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return SUCCESS;
}
API status_t cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return SUCCESS;
}
API status_t cudaLaunchKernel(const void *function, grid_t grid, grid_t block, void **arguments,
                              size_t shared_bytes, stream_t stream) {
  (void)grid, (void)block, (void)arguments, (void)shared_bytes, (void)stream;
  return launch(function);
}
API status_t __cudaLaunchKernel(void *kernel, grid_t grid, grid_t block, void **arguments,
                                size_t shared_bytes, stream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
API status_t cudaLaunchCooperativeKernel(const void *function, grid_t grid, grid_t block,
                                         void **arguments, size_t shared_bytes, stream_t stream) {
  return cudaLaunchKernel(function, grid, block, arguments, shared_bytes, stream);
}
API status_t cudaLaunchKernelExC(const launch_config_t *config, const void *function,
                                 void **arguments) {
  (void)config, (void)arguments;
  return launch(function);
}
API status_t cudaLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned n,
                                 void *c, void *d, unsigned m) {
  (void)code, (void)a, (void)b, (void)n, (void)c, (void)d, (void)m;
  *library = memplan_handle();
  return SUCCESS;
}
API status_t cudaLibraryGetKernel(void **kernel, void *library, const char *name) {
  (void)library, (void)name;
  *kernel = memplan_handle();
  return SUCCESS;
}

/* Kernels choose code and split work by these; registers are what a typical kernel takes. */
static int binary_version(void) {
  static const int built[] = {75, 80, 86, 90, 100, 120}; /* what torch's wheels are built for */
  int capability = memplan_device()->major * 10 + memplan_device()->minor, version = built[0];
  for (size_t i = 0; i < sizeof built / sizeof *built; i++)
    if (built[i] <= capability) version = built[i];
  return version;
}
API status_t cudaFuncGetAttributes(function_attributes_t *attributes, const void *function) {
  (void)function;
  memset(attributes, 0, sizeof *attributes);
  attributes->max_threads_per_block = 1024;
  attributes->num_registers = 32;
  attributes->ptx_version = attributes->binary_version = binary_version();
  attributes->max_dynamic_shared_bytes = memplan_device()->shared_per_block;
  return SUCCESS;
}

static int smaller(int a, int b) { return a < b ? a : b; }

API status_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function,
                                                           int threads, size_t shared_bytes) {
  (void)function, (void)shared_bytes;
  const device_t *facts = memplan_device();
  *blocks = 1;
  if (threads <= 0) return SUCCESS;
  int by_registers = 65536 / (32 * threads);
  int most = smaller(smaller(facts->threads_per_sm / threads, by_registers), facts->blocks_per_sm);
  if (most > 1) *blocks = most;
  return SUCCESS;
}
API status_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *function, int threads, size_t shared_bytes, unsigned flags) {
  (void)flags;
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared_bytes);
}
