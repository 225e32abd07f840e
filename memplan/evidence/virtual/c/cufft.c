/* libcufft. Assumption: plans need no workspace. */
#include "abi.h"

API int cufftCreate(int *plan) {
  *plan = 1;
  return SUCCESS;
}
API int cufftXtMakePlanMany(int plan, int rank, long long *n, long long *in, long long in_stride,
                            long long in_distance, int in_type, long long *out,
                            long long out_stride, long long out_distance, int out_type,
                            long long batch, size_t *workspace, int type) {
  (void)plan, (void)rank, (void)n, (void)in, (void)in_stride, (void)in_distance, (void)in_type;
  (void)out, (void)out_stride, (void)out_distance, (void)out_type, (void)batch, (void)type;
  if (workspace) *workspace = 0;
  return SUCCESS;
}
