/* libcublas: torch gives it its workspaces from its own allocator, so they are counted exactly. */
#include "abi.h"

#define CUBLAS_VERSION (CUDA_VERSION / 1000 * 10000 + CUDA_VERSION % 1000 / 10 * 100 + 101)

API int cublasGetMathMode(void *handle, int *mode) {
  (void)handle;
  *mode = 0;
  return SUCCESS;
}
API int cublasGetPointerMode_v2(void *handle, int *mode) {
  (void)handle;
  *mode = 0;
  return SUCCESS;
}
API int cublasGetStream_v2(void *handle, void **stream) {
  (void)handle;
  *stream = NULL;
  return SUCCESS;
}
API int cublasGetVersion_v2(void *handle, int *version) {
  (void)handle;
  *version = CUBLAS_VERSION;
  return SUCCESS;
}
