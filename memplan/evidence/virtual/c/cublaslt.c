/* libcublasLt: every product has one algorithm, which asks for no workspace of its own. */
#include "abi.h"

#include <string.h>

#define CUBLAS_VERSION (CUDA_VERSION / 1000 * 10000 + CUDA_VERSION % 1000 / 10 * 100 + 101)

typedef struct {
  uint64_t algorithm[8];
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
} heuristic_t;

API size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }

API int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c,
                                       void *d, void *preference, int wanted,
                                       heuristic_t *results, int *found) {
  (void)handle, (void)product, (void)a, (void)b, (void)c, (void)d, (void)preference;
  memset(results, 0, sizeof *results * (size_t)(wanted > 0 ? wanted : 1));
  results->waves = 1.0f;
  *found = 1;
  return SUCCESS;
}
API int cublasLtMatmulAlgoCheck(void *handle, void *product, void *a, void *b, void *c, void *d,
                                void *algorithm, heuristic_t *result) {
  int found;
  (void)algorithm;
  return cublasLtMatmulAlgoGetHeuristic(handle, product, a, b, c, d, NULL, 1, result, &found);
}
API int cublasLtMatmulDescGetAttribute(void *product, int attribute, void *value, size_t bytes,
                                       size_t *written) {
  (void)product, (void)attribute;
  if (value) memset(value, 0, bytes);
  if (written) *written = bytes;
  return SUCCESS;
}
API int cublasLtMatmulAlgoConfigGetAttribute(void *algorithm, int attribute, void *value,
                                             size_t bytes, size_t *written) {
  return cublasLtMatmulDescGetAttribute(algorithm, attribute, value, bytes, written);
}
