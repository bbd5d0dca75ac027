/* Preloaded into a step and its workers: counts the calls that change files below one folder, and
 * lets the calls from number `from` to number `to` fail with an error number, or kills the process.
 *
 * TVRKIT_FAULTS = "folder:counter file:from:to:errno"; errno 0 only counts, errno -1 kills.
 * The counter file is shared by all processes. Built by tests/torture/faults.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long from, to;
static int number;
static volatile long *counter;

static void set_up(void) {
    static int done;
    if (done) return;
    done = 1;
    const char *text = getenv("TVRKIT_FAULTS");
    if (!text) return;
    char file[PATH_MAX];
    if (sscanf(text, "%4095[^:]:%4095[^:]:%ld:%ld:%d", folder, file, &from, &to, &number) != 5) return;
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(long))) return;
    void *place = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (place != MAP_FAILED) counter = place;
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* 1 if this call has to fail; errno is set */
static int fails(const char *path) {
    set_up();
    if (!counter || !below(path)) return 0;
    long now = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    if (number == 0 || now < from || now > to) return 0;
    if (number < 0) kill(0, SIGKILL);
    errno = number;
    return 1;
}

static int fd_fails(int fd) {
    char link[64], path[PATH_MAX];
    set_up();
    if (!counter) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(path);
}

static int path_fails(const char *path) {
    char whole[PATH_MAX * 2];
    set_up();
    if (!counter || !path) return 0;
    if (path[0] == '/') return fails(path);
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here)) return 0;
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    return fails(whole);
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return fd_fails(fd) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return fd_fails(fd) ? -1 : real(fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return fd_fails(fd) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return fd_fails(fd) ? -1 : real(fd, data, size, at);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return fd_fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return fd_fails(fd) ? -1 : real(fd);
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    return fd_fails(fd) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    return fd_fails(fd) ? -1 : real(fd, size);
}

int rename(const char *old, const char *path) {
    REAL(int, "rename", const char *, const char *);
    return path_fails(path) ? -1 : real(old, path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return path_fails(path) ? -1 : real(path, mode);
}
