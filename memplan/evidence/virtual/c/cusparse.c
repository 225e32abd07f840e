/* libcusparse. */
#include "abi.h"

API const char *cusparseGetErrorString(int status) {
  return status ? "an error of memplan's virtual GPU" : "success";
}
API const char *cusparseGetErrorName(int status) { return cusparseGetErrorString(status); }
