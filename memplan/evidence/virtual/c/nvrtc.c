/* libnvrtc: compiles every program to nothing. */
#include "abi.h"

API int nvrtcVersion(int *major, int *minor) {
  *major = CUDA_VERSION / 1000;
  *minor = CUDA_VERSION % 1000 / 10;
  return SUCCESS;
}
API const char *nvrtcGetErrorString(int status) {
  return status ? "an error of memplan's virtual GPU" : "NVRTC_SUCCESS";
}
API int nvrtcGetCUBINSize(void *program, size_t *bytes) {
  (void)program;
  *bytes = 64;
  return SUCCESS;
}
API int nvrtcGetPTXSize(void *program, size_t *bytes) { return nvrtcGetCUBINSize(program, bytes); }
API int nvrtcGetProgramLogSize(void *program, size_t *bytes) {
  (void)program;
  *bytes = 1;
  return SUCCESS;
}
API int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
  (void)program;
  *lowered = name;
  return SUCCESS;
}
