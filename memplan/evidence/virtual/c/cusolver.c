/* libcusolver. Assumption: workspaces are 0; only cuSOLVER knows the true ones. */
#include "abi.h"

/* `_bufferSize` functions differ in how many arguments stand before the size that they report. */
#define SIZE(name, ...)                                               \
  API int cusolverDn##name##_bufferSize(void *handle, __VA_ARGS__) { \
    *size = 0;                                                        \
    return SUCCESS;                                                   \
  }
#define FOUR(macro, s, d, c, z) macro(s) macro(d) macro(c) macro(z)

#define FACTOR(name) SIZE(name, long m, long n, void *a, long lda, int *size)
FOUR(FACTOR, Sgeqrf, Dgeqrf, Cgeqrf, Zgeqrf)
FOUR(FACTOR, Sgetrf, Dgetrf, Cgetrf, Zgetrf)
FOUR(FACTOR, Spotrf, Dpotrf, Cpotrf, Zpotrf)

#define WITH_VECTOR(name) \
  SIZE(name, long m, long n, long k, void *a, long lda, void *vector, int *size)
FOUR(WITH_VECTOR, Sorgqr, Dorgqr, Cungqr, Zungqr)
FOUR(WITH_VECTOR, Ssyevd, Dsyevd, Cheevd, Zheevd)

#define BY_SHAPE(name) SIZE(name, long m, long n, int *size)
FOUR(BY_SHAPE, Sgesvd, Dgesvd, Cgesvd, Zgesvd)

#define JACOBI(name)                                                                            \
  SIZE(name, long vectors, long economy, long m, long n, void *a, long lda, void *s, void *u,   \
       long ldu, void *v, long ldv, int *size, void *parameters)
FOUR(JACOBI, Sgesvdj, Dgesvdj, Cgesvdj, Zgesvdj)

#define JACOBI_BATCHED(name)                                                                    \
  SIZE(name, long vectors, long m, long n, void *a, long lda, void *s, void *u, long ldu,       \
       void *v, long ldv, int *size, void *parameters, long batch)
FOUR(JACOBI_BATCHED, SgesvdjBatched, DgesvdjBatched, CgesvdjBatched, ZgesvdjBatched)

/* The 64-bit interface reports a size on the device and one on the host. */
#define BOTH(name, ...)                                                \
  API int cusolverDn##name##_bufferSize(void *handle, __VA_ARGS__,     \
                                        size_t *device, size_t *host) { \
    *device = *host = 0;                                               \
    return SUCCESS;                                                    \
  }
BOTH(Xgeqrf, void *p, int64_t m, int64_t n, long ta, void *a, int64_t lda, long tt, void *tau,
     long tc)
BOTH(Xpotrf, void *p, long uplo, int64_t n, long ta, void *a, int64_t lda, long tc)
BOTH(Xsyevd, void *p, long vectors, long uplo, int64_t n, long ta, void *a, int64_t lda, long tw,
     void *w, long tc)
