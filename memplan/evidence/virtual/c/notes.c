/* What the program that runs here must be told, said once; and a trace for those who debug this.
 *
 * Notes are appended to the file that MEMPLAN_GPU_NOTES names, a line each. MEMPLAN_GPU_TRACE=1
 * writes every launch and allocation to the standard error.
 */
#include "device.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_NOTES 64

static const char *SAID[MAX_NOTES];
static int NUM_SAID;
static pthread_mutex_t LOCK = PTHREAD_MUTEX_INITIALIZER;

static int first_time(const char *what) {
  int first = 1;
  pthread_mutex_lock(&LOCK);
  for (int i = 0; i < NUM_SAID; i++) first = first && strcmp(SAID[i], what);
  if (first && NUM_SAID < MAX_NOTES) SAID[NUM_SAID++] = what;
  pthread_mutex_unlock(&LOCK);
  return first;
}

/* `what` is a literal. One write, so that lines of several processes do not mix. */
void memplan_note(const char *what, const char *why) {
  const char *path = getenv("MEMPLAN_GPU_NOTES");
  char line[512];
  if (!path || !*path || !first_time(what)) return;
  int length = snprintf(line, sizeof line, "memplan: virtual GPU: %s: %s\n", what, why);
  int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return;
  if (write(file, line, (size_t)length) < 0) perror("memplan: virtual GPU: MEMPLAN_GPU_NOTES");
  close(file);
}

void memplan_trace(const char *format, ...) {
  static int wanted = -1;
  if (wanted < 0) wanted = getenv("MEMPLAN_GPU_TRACE") && atoi(getenv("MEMPLAN_GPU_TRACE")) > 0;
  if (!wanted) return;
  va_list values;
  va_start(values, format);
  vfprintf(stderr, format, values);
  va_end(values);
}
