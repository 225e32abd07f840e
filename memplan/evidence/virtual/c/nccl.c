/* libnccl: one process, one rank. Every collective returns at once, as if all ranks held what this
 * one holds; NCCL's own buffers are in no counter of torch's, here as on a real device.
 */
#include "device.h"

typedef struct { int rank, size; } communicator_t;
typedef struct { char bytes[128]; } unique_id_t;

static size_t bytes_of(size_t count, int type) {
  static const int widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  return count * (size_t)(type >= 0 && type < 12 ? widths[type] : 1);
}

static int create(communicator_t **communicator, int size, int rank) {
  *communicator = memplan_handle();
  **communicator = (communicator_t){rank, size};
  return SUCCESS;
}

API int ncclGetVersion(int *version) {
  *version = 23007;
  return SUCCESS;
}
API const char *ncclGetErrorString(int status) {
  return status ? "an error of memplan's virtual GPU" : "no error";
}
API const char *ncclGetLastError(void *communicator) {
  (void)communicator;
  return "";
}
API int ncclCommGetAsyncError(void *communicator, int *error) {
  (void)communicator;
  *error = 0;
  return SUCCESS;
}
API int ncclCommInitRank(communicator_t **communicator, int size, unique_id_t id, int rank) {
  (void)id;
  return create(communicator, size, rank);
}
API int ncclCommInitRankConfig(communicator_t **communicator, int size, unique_id_t id, int rank,
                               void *config) {
  (void)id, (void)config;
  return create(communicator, size, rank);
}
API int ncclCommInitRankScalable(communicator_t **communicator, int size, int rank, int count,
                                 void *ids, void *config) {
  (void)count, (void)ids, (void)config;
  return create(communicator, size, rank);
}
API int ncclCommSplit(communicator_t *parent, int color, int key, communicator_t **communicator,
                      void *config) {
  (void)color, (void)key, (void)config;
  return create(communicator, parent ? parent->size : 1, 0);
}
API int ncclCommCount(communicator_t *communicator, int *size) {
  *size = communicator->size;
  return SUCCESS;
}
API int ncclCommUserRank(communicator_t *communicator, int *rank) {
  *rank = communicator->rank;
  return SUCCESS;
}

API int ncclAllGather(const char *from, char *to, size_t count, int type,
                      communicator_t *communicator, stream_t stream) {
  size_t bytes = bytes_of(count, type);
  (void)stream;
  for (int i = 0; i < communicator->size; i++)
    memplan_copy_shade(to + (size_t)i * bytes, from, bytes);
  return SUCCESS;
}
API int ncclReduceScatter(const char *from, void *to, size_t count, int type, int operation,
                          communicator_t *communicator, stream_t stream) {
  size_t bytes = bytes_of(count, type);
  (void)operation, (void)stream;
  memplan_copy_shade(to, from + (size_t)communicator->rank * bytes, bytes);
  return SUCCESS;
}
API int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation,
                      communicator_t *communicator, stream_t stream) {
  (void)operation, (void)communicator, (void)stream;
  memplan_copy_shade(to, from, bytes_of(count, type));
  return SUCCESS;
}
API int ncclBroadcast(const void *from, void *to, size_t count, int type, int root,
                      communicator_t *communicator, stream_t stream) {
  (void)root;
  return ncclAllReduce(from, to, count, type, 0, communicator, stream);
}
API int ncclReduce(const void *from, void *to, size_t count, int type, int operation, int root,
                   communicator_t *communicator, stream_t stream) {
  (void)root;
  return ncclAllReduce(from, to, count, type, operation, communicator, stream);
}
