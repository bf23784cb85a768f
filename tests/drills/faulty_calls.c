/* Makes chosen system calls of one process fail or kill it. Preloaded; idle until faulty_calls_arm.

Interposed are the functions of the C library by which Python and its extensions change files. Of their calls
those count that concern a path below one folder. What calls the kernel by itself is not seen. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE, RENAME, SYNC, OPEN, UNLINK, MKDIR, TRUNCATE, LOCK, KINDS };
enum action { COUNT, FAIL, KILL, TORN, FULL, GONE }; /* the order of faulty_calls.py */

static const char *const names[KINDS] = {"write", "rename", "sync", "open", "unlink", "mkdir", "truncate", "lock"};
static char folder[PATH_MAX];
static size_t folder_length;
static int trace = -1;
static enum kind chosen_kind;
static long chosen;
static enum action action;
static int error_number;
static atomic_long seen[KINDS];
static atomic_int is_over; /* FULL and GONE: since the chosen call */

void faulty_calls_arm(const char *below, int trace_descriptor, int kind, long number, int what, int error) {
    trace = trace_descriptor;
    chosen_kind = kind, chosen = number, action = what, error_number = error;
    strncpy(folder, below, sizeof folder - 1);
    folder_length = strlen(folder);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* The path that a call names, absolute; a null name means the descriptor itself. */
static int path_of(int descriptor, const char *name, char *path) {
    char link[64];
    size_t length = 0;
    if (name && name[0] == '/') return snprintf(path, PATH_MAX, "%s", name) > 0;
    snprintf(link, sizeof link, descriptor == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", descriptor);
    ssize_t read = readlink(link, path, PATH_MAX - 1);
    if (read < 0) return 0;
    path[length = read] = 0;
    if (name) snprintf(path + length, PATH_MAX - length, "/%s", name);
    return 1;
}

/* What this call gets: COUNT lets it through. */
static enum action met(enum kind kind, int descriptor, const char *name) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    int before = errno;
    enum action now = COUNT;
    if (!folder_length || !path_of(descriptor, name, path)) goto out;
    if (strncmp(path, folder, folder_length) || (path[folder_length] && path[folder_length] != '/')) goto out;
    long number = atomic_fetch_add(&seen[kind], 1) + 1;
    if (kind == chosen_kind && number == chosen) {
        now = action;
        is_over = action == FULL || action == GONE;
    } else if (is_over) {
        int needs_room = kind == WRITE || kind == MKDIR || (kind == OPEN && access(path, F_OK));
        now = action == GONE || needs_room ? FAIL : COUNT;
    }
    int length = snprintf(line, sizeof line, "%s %d %s\n", names[kind], now != COUNT, path);
    syscall(SYS_write, trace, line, length);
    if (now == KILL) die();
out:
    errno = before;
    return now;
}

static int fails(enum kind kind, int descriptor, const char *name) {
    if (met(kind, descriptor, name) == COUNT) return 0;
    errno = error_number;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Writes of Python end here, and those of Rust. A disk that gets full takes a part of what it is given. */
static ssize_t cut(enum action now, int descriptor, const void *data, size_t size) {
    ssize_t done = 0;
    if (now == TORN || now == FULL) done = syscall(SYS_write, descriptor, data, size / 2);
    if (now == TORN) die();
    if (done > 0) return done;
    errno = error_number;
    return -1;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    enum action now = met(WRITE, descriptor, NULL);
    return now == COUNT ? NEXT(write)(descriptor, data, size) : cut(now, descriptor, data, size);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    enum action now = met(WRITE, descriptor, NULL);
    return now == COUNT ? NEXT(writev)(descriptor, parts, count)
                        : cut(now, descriptor, parts[0].iov_base, count ? parts[0].iov_len : 0);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t place) {
    enum action now = met(WRITE, descriptor, NULL);
    if (now == TORN) syscall(SYS_pwrite64, descriptor, data, size / 2, place), die();
    if (now == COUNT) return NEXT(pwrite64)(descriptor, data, size, place);
    errno = error_number;
    return -1;
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t place) {
    return pwrite64(descriptor, data, size, place);
}

int rename(const char *from, const char *to) {
    return fails(RENAME, AT_FDCWD, to) ? -1 : NEXT(rename)(from, to);
}
int renameat(int one, const char *from, int other, const char *to) {
    return fails(RENAME, other, to) ? -1 : NEXT(renameat)(one, from, other, to);
}
int renameat2(int one, const char *from, int other, const char *to, unsigned flags) {
    return fails(RENAME, other, to) ? -1 : NEXT(renameat2)(one, from, other, to, flags);
}

int fsync(int descriptor) { return fails(SYNC, descriptor, NULL) ? -1 : NEXT(fsync)(descriptor); }
int fdatasync(int descriptor) { return fails(SYNC, descriptor, NULL) ? -1 : NEXT(fdatasync)(descriptor); }

static int opened(int descriptor, const char *name, int flags, mode_t mode) {
    if (flags & O_CREAT && fails(OPEN, descriptor, name)) return -1;
    return NEXT(openat64)(descriptor, name, flags, mode);
}
#define OPENS(function, arguments, descriptor)                       \
    int function arguments {                                         \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                \
        return opened(descriptor, name, flags, mode);                \
    }
OPENS(open, (const char *name, int flags, ...), AT_FDCWD)
OPENS(open64, (const char *name, int flags, ...), AT_FDCWD)
OPENS(openat, (int from, const char *name, int flags, ...), from)
OPENS(openat64, (int from, const char *name, int flags, ...), from)

int unlink(const char *name) { return fails(UNLINK, AT_FDCWD, name) ? -1 : NEXT(unlink)(name); }
int unlinkat(int from, const char *name, int flags) {
    return fails(UNLINK, from, name) ? -1 : NEXT(unlinkat)(from, name, flags);
}
int rmdir(const char *name) { return fails(UNLINK, AT_FDCWD, name) ? -1 : NEXT(rmdir)(name); }

int mkdir(const char *name, mode_t mode) { return fails(MKDIR, AT_FDCWD, name) ? -1 : NEXT(mkdir)(name, mode); }
int mkdirat(int from, const char *name, mode_t mode) {
    return fails(MKDIR, from, name) ? -1 : NEXT(mkdirat)(from, name, mode);
}

int ftruncate(int descriptor, off_t size) {
    return fails(TRUNCATE, descriptor, NULL) ? -1 : NEXT(ftruncate)(descriptor, size);
}
int ftruncate64(int descriptor, off64_t size) {
    return fails(TRUNCATE, descriptor, NULL) ? -1 : NEXT(ftruncate64)(descriptor, size);
}

int flock(int descriptor, int operation) {
    return fails(LOCK, descriptor, NULL) ? -1 : NEXT(flock)(descriptor, operation);
}
