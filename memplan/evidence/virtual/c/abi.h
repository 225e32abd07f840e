/* What the CUDA runtime's interface looks like from outside: the few structures and numbers that
 * the functions here are called with. Own declarations, so that no CUDA toolkit is needed.
 *
 * Source: the published CUDA Runtime API reference, 12.8 and 13.0; sizes and offsets are asserted
 * at the end of properties.c, so that a slip is a compiler's error.
 */
#ifndef MEMPLAN_ABI_H
#define MEMPLAN_ABI_H

#include <stddef.h>
#include <stdint.h>

/* Everything is hidden (-fvisibility=hidden) but what callers outside of the library need. */
#define API __attribute__((visibility("default")))

#ifndef CUDA_VERSION
#define CUDA_VERSION 13000 /* that of the torch build; build.py passes it */
#endif

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2, /* the same number in the runtime, the driver and torch's tests */
  INVALID_DEVICE = 101,
};
enum { MEMORY_HOST = 1, MEMORY_DEVICE = 2, MEMORY_MANAGED = 3 };

typedef int status_t;
typedef void *stream_t;
typedef void *event_t;
typedef struct { unsigned x, y, z; } grid_t;

typedef struct {
  int type;
  int device;
  void *device_pointer;
  void *host_pointer;
  long reserved[8];
} pointer_attributes_t;

typedef struct {
  grid_t grid, block;
  size_t dynamic_shared_bytes;
  stream_t stream;
  void *attributes;
  unsigned num_attributes;
} launch_config_t;

typedef struct {
  size_t shared_bytes, constant_bytes, local_bytes;
  int max_threads_per_block, num_registers, ptx_version, binary_version;
  int cache_mode, max_dynamic_shared_bytes, shared_carveout, cluster_must_be_set;
  int cluster_width, cluster_height, cluster_depth, cluster_policy, non_portable_cluster;
  int reserved[16];
} function_attributes_t;

/* cudaDeviceProp. CUDA 13 dropped the eight fields inside `#if`. */
typedef struct {
  char name[256];
  char uuid[16];
  char luid[8];
  unsigned luid_device_node_mask;
  size_t total_global_mem, shared_mem_per_block;
  int regs_per_block, warp_size;
  size_t mem_pitch;
  int max_threads_per_block, max_threads_dim[3], max_grid_size[3];
#if CUDA_VERSION < 13000
  int clock_rate;
#endif
  size_t total_const_mem;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
#if CUDA_VERSION < 13000
  int device_overlap;
#endif
  int multi_processor_count;
#if CUDA_VERSION < 13000
  int kernel_exec_timeout_enabled;
#endif
  int integrated, can_map_host_memory;
#if CUDA_VERSION < 13000
  int compute_mode;
#endif
  int texture_1d, texture_1d_mipmap;
#if CUDA_VERSION < 13000
  int texture_1d_linear;
#endif
  int texture_2d[2], texture_2d_mipmap[2], texture_2d_linear[3], texture_2d_gather[2];
  int texture_3d[3], texture_3d_alternate[3], texture_cubemap;
  int texture_1d_layered[2], texture_2d_layered[3], texture_cubemap_layered[2];
  int surface_1d, surface_2d[2], surface_3d[3];
  int surface_1d_layered[2], surface_2d_layered[3], surface_cubemap, surface_cubemap_layered[2];
  size_t surface_alignment;
  int concurrent_kernels, ecc_enabled, pci_bus_id, pci_device_id, pci_domain_id, tcc_driver;
  int async_engine_count, unified_addressing;
#if CUDA_VERSION < 13000
  int memory_clock_rate;
#endif
  int memory_bus_width, l2_cache_size, persisting_l2_cache_max_size;
  int max_threads_per_multiprocessor;
  int stream_priorities_supported, global_l1_cache_supported, local_l1_cache_supported;
  size_t shared_mem_per_multiprocessor;
  int regs_per_multiprocessor, managed_memory, is_multi_gpu_board, multi_gpu_board_group_id;
  int host_native_atomic_supported;
#if CUDA_VERSION < 13000
  int single_to_double_ratio;
#endif
  int pageable_memory_access, concurrent_managed_access, compute_preemption_supported;
  int can_use_host_pointer, cooperative_launch;
#if CUDA_VERSION < 13000
  int cooperative_multi_device_launch;
#endif
  size_t shared_mem_per_block_optin;
  int pageable_uses_host_tables, direct_managed_access;
  int max_blocks_per_multiprocessor, access_policy_max_window_size;
  size_t reserved_shared_mem_per_block;
  int host_register_supported, sparse_array_supported, host_register_read_only_supported;
  int timeline_semaphore_supported, memory_pools_supported, gpu_direct_rdma_supported;
  unsigned gpu_direct_rdma_flush_options;
  int gpu_direct_rdma_writes_ordering;
  unsigned memory_pool_handle_types;
  int deferred_mapping_supported, ipc_event_supported, cluster_launch, unified_function_pointers;
#if CUDA_VERSION < 13000
  int reserved[63];
#else
  int numa_config, numa_id, mps_enabled, host_numa_id;
  unsigned pci_id, pci_subsystem_id;
  int host_numa_multinode_ipc_supported;
  int reserved[56];
#endif
} device_properties_t;

#endif
