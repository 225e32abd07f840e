/* What a program may ask about the device: cudaDeviceProp and the numbered attributes. */
#include "device.h"

#include <stdio.h>
#include <string.h>

#define REGISTERS 65536
#define WINDOW 134213632 /* access policy window, as an A100 and an H100 report it */

static void fill_limits(device_properties_t *p) {
  p->shared_mem_per_block = 48 << 10;
  p->regs_per_block = p->regs_per_multiprocessor = REGISTERS;
  p->warp_size = 32;
  p->mem_pitch = 2147483647;
  p->max_threads_per_block = 1024;
  p->max_threads_dim[0] = p->max_threads_dim[1] = 1024;
  p->max_threads_dim[2] = 64;
  p->max_grid_size[0] = 2147483647;
  p->max_grid_size[1] = p->max_grid_size[2] = 65535;
  p->total_const_mem = 65536;
  p->texture_alignment = p->surface_alignment = 512;
  p->texture_pitch_alignment = 32;
  p->texture_1d = p->texture_2d[0] = 131072;
  p->texture_2d[1] = 65536;
  p->access_policy_max_window_size = WINDOW;
  p->reserved_shared_mem_per_block = 1024;
}

static void fill_abilities(device_properties_t *p) {
  p->can_map_host_memory = p->concurrent_kernels = p->ecc_enabled = 1;
  p->async_engine_count = 3;
  p->unified_addressing = p->stream_priorities_supported = 1;
  p->global_l1_cache_supported = p->local_l1_cache_supported = 1;
  p->managed_memory = p->compute_preemption_supported = p->concurrent_managed_access = 1;
  p->can_use_host_pointer = p->cooperative_launch = 1;
  p->host_register_supported = p->memory_pools_supported = p->ipc_event_supported = 1;
}

API status_t cudaGetDeviceProperties(device_properties_t *p, int device) {
  const device_t *facts = memplan_device();
  if (device < 0 || device >= facts->visible) return memplan_failed(INVALID_DEVICE);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "%s", facts->name);
  memset(p->uuid, 0x11 + device, sizeof p->uuid);
  p->pci_bus_id = device + 1;
  fill_limits(p);
  fill_abilities(p);
  p->total_global_mem = facts->total_bytes;
  p->major = facts->major;
  p->minor = facts->minor;
  p->multi_processor_count = facts->sm_count;
  p->l2_cache_size = facts->l2_bytes;
  p->persisting_l2_cache_max_size = facts->l2_bytes / 8 * 5;
  p->max_threads_per_multiprocessor = facts->threads_per_sm;
  p->max_blocks_per_multiprocessor = facts->blocks_per_sm;
  p->shared_mem_per_multiprocessor = (size_t)facts->shared_per_sm;
  p->shared_mem_per_block_optin = (size_t)facts->shared_per_block;
  p->cluster_launch = facts->major >= 9;
  return SUCCESS;
}
API status_t cudaGetDeviceProperties_v2(device_properties_t *p, int device) {
  return cudaGetDeviceProperties(p, device);
}

/* Numbers of cudaDeviceAttr, which are those of CUdevice_attribute. Others are 0: "no". */
int memplan_device_attribute(int attribute) {
  const device_t *facts = memplan_device();
  switch (attribute) {
    case 1: case 2: case 3: return 1024;       /* threads per block, block dimensions x and y */
    case 4: return 64;                         /* block dimension z */
    case 5: case 11: return 2147483647;        /* grid dimension x, pitch */
    case 6: case 7: return 65535;              /* grid dimensions y and z */
    case 8: return 48 << 10;                   /* shared memory per block */
    case 9: return 65536;                      /* constant memory */
    case 10: return 32;                        /* warp */
    case 12: case 82: return REGISTERS;        /* per block, per multiprocessor */
    case 13: return 1755000;                   /* clock [kHz] */
    case 14: case 30: return 512;              /* alignment of textures and surfaces */
    case 16: return facts->sm_count;
    case 36: return 2619000;                   /* memory clock [kHz] */
    case 37: return 0;                         /* bus width: not known here */
    case 38: return facts->l2_bytes;
    case 39: return facts->threads_per_sm;
    case 40: return 3;                         /* copy engines */
    case 75: return facts->major;
    case 76: return facts->minor;
    case 81: return facts->shared_per_sm;
    case 87: return facts->major == 8 && facts->minor ? 64 : 2; /* single to double ratio */
    case 97: return facts->shared_per_block;
    case 106: return facts->blocks_per_sm;
    case 108: return facts->l2_bytes / 8 * 5;  /* persisting L2 */
    case 109: return WINDOW;
    case 111: return 1024;                     /* shared memory that the system keeps */
    case 120: return facts->major >= 9;        /* clusters */
    /* overlap, host mapping, concurrent kernels, ECC, unified addressing, stream priorities, L1
     * caches, managed memory, compute preemption, host pointers, cooperative launch, host
     * registration, virtual memory, file handles for it, memory pools, IPC events */
    case 15: case 19: case 31: case 32: case 41: case 78: case 79: case 80: case 83: case 89:
    case 90: case 91: case 95: case 99: case 102: case 103: case 115: case 125: return 1;
    default: return 0;
  }
}
API status_t cudaDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = memplan_device_attribute(attribute);
  return SUCCESS;
}

#if CUDA_VERSION >= 13000
#define AT(field, in_13, in_12) _Static_assert(offsetof(device_properties_t, field) == in_13, #field)
#else
#define AT(field, in_13, in_12) _Static_assert(offsetof(device_properties_t, field) == in_12, #field)
#endif
AT(total_global_mem, 288, 288);
AT(major, 360, 360);
AT(multi_processor_count, 384, 388);
AT(texture_1d, 396, 408);
AT(surface_alignment, 552, 568);
AT(l2_cache_size, 596, 616);
AT(shared_mem_per_multiprocessor, 624, 640);
AT(shared_mem_per_block_optin, 672, 696);
AT(max_blocks_per_multiprocessor, 688, 712);
AT(cluster_launch, 748, 772);
AT(reserved[0], 784, 780);
_Static_assert(sizeof(device_properties_t) == (CUDA_VERSION >= 13000 ? 1008 : 1032), "its size");
_Static_assert(sizeof(function_attributes_t) == 144, "cudaFuncAttributes");
_Static_assert(sizeof(launch_config_t) == 56, "cudaLaunchConfig_t");
