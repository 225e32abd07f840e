/* libcudnn: every graph is accepted by one engine, which asks for no workspace.
 *
 * Assumption: workspaces of convolutions and of cuDNN's attention plans are 0; what the frontend
 * inside of torch works out itself is real.
 */
#include "abi.h"

#include <stdio.h>

#ifndef CUDNN_VERSION
#define CUDNN_VERSION 92400
#endif

API size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
API size_t cudnnGetCudartVersion(void) { return CUDA_VERSION; }
API const char *cudnnGetErrorString(int status) {
  return status ? "not done by memplan's virtual GPU" : "CUDNN_STATUS_SUCCESS";
}
API void cudnnGetLastErrorString(char *text, size_t length) {
  if (length) snprintf(text, length, "not done by memplan's virtual GPU");
}
API int cudnnGetProperty(int kind, int *value) {
  static const int parts[] = {CUDNN_VERSION / 10000, CUDNN_VERSION / 100 % 100, CUDNN_VERSION % 100};
  *value = kind >= 0 && kind < 3 ? parts[kind] : 0;
  return SUCCESS;
}
API int cudnnGetStream(void *handle, void **stream) {
  (void)handle;
  *stream = NULL;
  return SUCCESS;
}
API int cudnnDropoutGetStatesSize(void *handle, size_t *bytes) {
  (void)handle;
  *bytes = 1 << 20;
  return SUCCESS;
}

API int cudnnBackendCreateDescriptor(int kind, void **descriptor) {
  extern void *memplan_handle(void);
  (void)kind;
  *descriptor = memplan_handle();
  return SUCCESS;
}

/* Attributes, by the numbers of cudnnBackendAttributeName_t. */
enum {
  HEURISTIC_RESULTS = 202,
  CONFIG_ENGINE = 300,
  CONFIG_WORKSPACE = 303,
  CONFIG_SHARED_MEMORY = 304,
  PLAN_WORKSPACE = 402,
  GRAPH_ENGINES = 802,
  ENGINE_INDEX = 1301,
};
enum { INT64 = 3 };

API int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted,
                                 int64_t *count, void *values) {
  int room = values && wanted > 0;
  int64_t given = 1;
  (void)descriptor;
  switch (name) {
    case HEURISTIC_RESULTS: case CONFIG_ENGINE: break; /* the caller's own descriptor */
    case CONFIG_SHARED_MEMORY:
      if (room) *(int32_t *)values = 0;
      break;
    case CONFIG_WORKSPACE: case PLAN_WORKSPACE: case GRAPH_ENGINES: case ENGINE_INDEX:
      if (room) *(int64_t *)values = name == GRAPH_ENGINES;
      break;
    default:
      given = type == INT64 && room;
      if (given) *(int64_t *)values = 0;
  }
  if (count) *count = given;
  return SUCCESS;
}
