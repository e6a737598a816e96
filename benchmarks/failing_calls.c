/* Makes the n-th call that changes a file fail: write, sync, truncate and allocate.

   gcc -shared -fPIC -O2 -o failing_calls.so failing_calls.c -ldl
   LD_PRELOAD=./failing_calls.so python ...

   Linux only. It stands before the C library, so it reaches what HDF5 writes, too. Calls
   count whose file's name ends as `arm` says; `arm` is called from Python with ctypes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum call { WRITE = 1, SYNC = 2, RESIZE = 4 };
enum how { COUNT = 0, FAIL = 1, SHORT = 2, KILL = 3, KILL_HALF = 4, SLOW = 5 };

static char ending[256];
static int calls, what, number, ever_after;
static long first;
static atomic_long seen;

void arm(const char *name_ending, int which_calls, int how, int error_or_ms, long at, int stay) {
    strncpy(ending, name_ending, sizeof ending - 1);
    what = how, number = error_or_ms, first = at, ever_after = stay;
    atomic_store(&seen, 0);
    calls = which_calls;
}

void disarm(void) { calls = 0; }

long count(void) { return atomic_load(&seen); }

/* Whether this call is the one. */
static int is_hit(int descriptor, int call) {
    if (!(calls & call)) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t wanted = strlen(ending);
    if (length < 1 || path[0] != '/') return 0; /* a pipe or a socket */
    if (length < (ssize_t)wanted || memcmp(path + length - wanted, ending, wanted)) return 0;
    long at = atomic_fetch_add(&seen, 1) + 1;
    return what != COUNT && (at == first || (ever_after && at > first));
}

static void sleep_ms(int ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, 0);
}

#define NEXT(type, name, ...)                                         \
    static type (*next)(__VA_ARGS__);                                 \
    if (!next) next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define WRITES(name, ...)                                             \
    if (is_hit(descriptor, WRITE)) {                                  \
        size_t half = size / 2;                                       \
        if (what == SLOW) sleep_ms(number);                           \
        if (what == FAIL) { errno = number; return -1; }              \
        if (what == KILL) kill(getpid(), SIGKILL);                    \
        if (what == SHORT && half) return next(descriptor, data, half, ##__VA_ARGS__); \
        if (what == KILL_HALF) {                                      \
            if (half && next(descriptor, data, half, ##__VA_ARGS__)) {} \
            kill(getpid(), SIGKILL);                                  \
        }                                                             \
    }                                                                 \
    return next(descriptor, data, size, ##__VA_ARGS__)

ssize_t write(int descriptor, const void *data, size_t size) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    WRITES("write");
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t);
    WRITES("pwrite", offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) {
    NEXT(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    WRITES("pwrite64", offset);
}

#define OTHERS(call, failed, ...)                                     \
    if (is_hit(descriptor, call)) {                                   \
        if (what == SLOW) sleep_ms(number);                           \
        if (what == FAIL) failed;                                     \
        if (what == KILL || what == KILL_HALF) kill(getpid(), SIGKILL); \
    }                                                                 \
    return next(__VA_ARGS__)

int fsync(int descriptor) {
    NEXT(int, "fsync", int);
    OTHERS(SYNC, { errno = number; return -1; }, descriptor);
}

int fdatasync(int descriptor) {
    NEXT(int, "fdatasync", int);
    OTHERS(SYNC, { errno = number; return -1; }, descriptor);
}

int ftruncate(int descriptor, off_t length) {
    NEXT(int, "ftruncate", int, off_t);
    OTHERS(RESIZE, { errno = number; return -1; }, descriptor, length);
}

int ftruncate64(int descriptor, off_t length) {
    NEXT(int, "ftruncate64", int, off_t);
    OTHERS(RESIZE, { errno = number; return -1; }, descriptor, length);
}

/* These two return their error. */
int posix_fallocate(int descriptor, off_t offset, off_t length) {
    NEXT(int, "posix_fallocate", int, off_t, off_t);
    OTHERS(RESIZE, return number, descriptor, offset, length);
}

int posix_fallocate64(int descriptor, off_t offset, off_t length) {
    NEXT(int, "posix_fallocate64", int, off_t, off_t);
    OTHERS(RESIZE, return number, descriptor, offset, length);
}
