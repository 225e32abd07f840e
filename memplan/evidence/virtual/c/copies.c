/* Copies: what the host reads back from a device on which nothing is ever computed.
 *
 * What the host wrote there comes back if it was small and no kernel has run since: the sizes and
 * orders that ranks exchange are right. All else reads as zeros, but for a single byte, which is
 * the answer to a question (`if mask.all():`): true when the last kernel asked whether all are true
 * ("no padding", "not packed", "equal"), false otherwise ("any nan?", "any above?"), so that code
 * goes the way of an ordinary batch. MEMPLAN_GPU_BOOL=0 or 1 fixes the answer.
 */
#include "device.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NUM_SHADES 512
#define MAX_SHADE_BYTES MIB

/* A shade is a copy of what the host wrote to a place, good until the next kernel. */
typedef struct {
  const char *place;
  size_t bytes;
  unsigned long kernels; /* launched when it was written */
  char *data;
} shade_t;

static shade_t SHADES[NUM_SHADES];
static unsigned long NUM_WRITTEN;
static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;

/* Call the next two with the lock held. */
static const char *find_shade(const char *place, size_t bytes) {
  for (unsigned long i = 0; i < NUM_SHADES && i < NUM_WRITTEN; i++) {
    const shade_t *shade = &SHADES[(NUM_WRITTEN - 1 - i) % NUM_SHADES];
    if (shade->kernels == memplan_kernels && place >= shade->place &&
        place + bytes <= shade->place + shade->bytes)
      return shade->data + (place - shade->place);
  }
  return NULL;
}

static void put_shade(const char *place, const char *data, size_t bytes) {
  shade_t *shade = &SHADES[NUM_WRITTEN++ % NUM_SHADES];
  char *copy = malloc(bytes);
  memcpy(copy, data, bytes);
  free(shade->data);
  *shade = (shade_t){place, bytes, memplan_kernels, copy};
}

void memplan_copy_shade(void *to, const void *from, size_t bytes) {
  if (!bytes || bytes > MAX_SHADE_BYTES || to == from) return;
  pthread_mutex_lock(&LOCK);
  const char *data = find_shade(from, bytes);
  if (data) put_shade(to, data, bytes);
  pthread_mutex_unlock(&LOCK);
}

static void write_device(void *to, const void *from, size_t bytes) {
  if (!bytes || bytes > MAX_SHADE_BYTES) return;
  pthread_mutex_lock(&LOCK);
  put_shade(to, from, bytes);
  pthread_mutex_unlock(&LOCK);
}

static void read_device(void *to, const void *from, size_t bytes) {
  memplan_trace("read %zu\n", bytes);
  const char *sized = memplan_take_sized();
  pthread_mutex_lock(&LOCK);
  const char *data = find_shade(from, bytes);
  if (data) memcpy(to, data, bytes);
  else memset(to, 0, bytes);
  pthread_mutex_unlock(&LOCK);
  if (data) return;
  if (sized && bytes <= sizeof(int64_t))
    memplan_note(sized, "its size depends on values, which are zero here");
  int answer = memplan_device()->answer;
  if (bytes == 1) *(char *)to = (char)(answer < 0 ? memplan_last_is_all : answer);
}

static status_t copy(void *to, const void *from, size_t bytes) {
  int to_device = memplan_is_device(to), from_device = memplan_is_device(from);
  if (to_device && from_device) {
    memplan_copy_shade(to, from, bytes);
    /* all() of one element is a copy, not a kernel; so is any(), of a number that was converted */
    if (bytes == 1) memplan_last_is_all = !memplan_last_converts;
  } else if (to_device) {
    write_device(to, from, bytes);
  } else if (from_device) {
    read_device(to, from, bytes);
  } else {
    memmove(to, from, bytes);
  }
  return SUCCESS;
}

API status_t cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  (void)kind;
  return copy(to, from, bytes);
}
API status_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, stream_t stream) {
  (void)kind, (void)stream;
  return copy(to, from, bytes);
}
API status_t cudaMemcpy2DAsync(char *to, size_t to_pitch, const char *from, size_t from_pitch,
                               size_t width, size_t height, int kind, stream_t stream) {
  (void)kind, (void)stream;
  for (size_t i = 0; i < height; i++) copy(to + i * to_pitch, from + i * from_pitch, width);
  return SUCCESS;
}
API status_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                 size_t bytes, stream_t stream) {
  (void)to_device, (void)from_device, (void)stream;
  memplan_copy_shade(to, from, bytes);
  return SUCCESS;
}
API status_t cudaMemset(void *to, int value, size_t bytes) {
  if (!memplan_is_device(to)) memset(to, value, bytes);
  return SUCCESS;
}
API status_t cudaMemsetAsync(void *to, int value, size_t bytes, stream_t stream) {
  (void)stream;
  return cudaMemset(to, value, bytes);
}
