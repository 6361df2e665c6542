/* Ends a process at a chosen point: loaded before the C library (LD_PRELOAD), it stands before every call by which a
 * process changes files or says something to another machine, notes them, and kills the process at the one it is told.
 *
 * Between two such calls nothing changes that a crash would not undo. So when each of them in turn has been the last
 * before which the process was killed, it has been killed at every point there is. A call that writes can also be torn:
 * half of it is done.
 *
 * Orders and what became of them are in the file named by CRASH_CONTROL (`struct control`, mapped by the test too).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct control {
    int left;     /* the process dies at the call that makes this 0; nothing is noted while it is 0 */
    int torn;     /* count writes of files only, and do half of the last one */
    char calls[1 << 20];  /* those noted, a line each: the name, then the paths, or the port that it speaks to */
    int length;   /* of `calls`: lines that are whole */
    int noting;   /* the process that is at it, or was when it died */
} *control;

/* For the test: nothing is counted from now on. Returns 0 if the process has come to the call that it was told. */
int stop_counting(struct control *counting)
{
    return __atomic_exchange_n(&counting->left, 0, __ATOMIC_SEQ_CST);
}

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv("CRASH_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        control = mapped;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void note(const char *name, const char *path, const char *other)
{
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s %s\n", name, path, other);
    int self = getpid(), holder = 0;
    while (!__atomic_compare_exchange_n(&control->noting, &holder, self, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        if (holder == self) {
            holder = 0;
            sched_yield();
        }
    int at = control->length;
    for (int i = 0; i < length && at + i < (int)sizeof control->calls; i++)
        control->calls[at + i] = line[i];
    __atomic_store_n(&control->length, at + length, __ATOMIC_SEQ_CST);
    __atomic_store_n(&control->noting, 0, __ATOMIC_SEQ_CST);
}

/* Whether this call is the last. */
static int is_last(const char *name, const char *path, const char *other)
{
    int left = __atomic_load_n(&control->left, __ATOMIC_SEQ_CST);
    while (left && !__atomic_compare_exchange_n(&control->left, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    if (!left)
        return 0;
    note(name, path, other);
    return left == 1;
}

/* Before a call that changes what is in directories, or that waits for the disk. */
static void before(const char *name, const char *path, const char *other)
{
    if (control && control->left && !control->torn && is_last(name, path, other))
        die();
}

/* The path of an open file, and of what is named below it. */
static const char *path_of(int fd, const char *below, char *buffer)
{
    char link[32];
    if (below && (*below == '/' || fd == AT_FDCWD))
        return below;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX);
    if (length < 0)
        length = 0;
    snprintf(buffer + length, PATH_MAX, below ? "/%s" : "%s", below ? below : "");
    return buffer;
}

static int is_file(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/* Before a call that writes `size` bytes; how many of them are to be written before the process dies, or all. */
static size_t before_write(const char *name, int fd, size_t size, int *last)
{
    char buffer[2 * PATH_MAX];
    *last = 0;
    if (control && control->left && is_file(fd) && is_last(name, path_of(fd, NULL, buffer), "")) {
        if (!control->torn)
            die();
        *last = 1;
        return size / 2;
    }
    return size;
}

static void before_send(int fd)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    char port[16];
    if (control && control->left && getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sin_family == AF_INET) {
        snprintf(port, sizeof port, "%d", ntohs(peer.sin_port));
        before("send", port, "");
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What waits for the disk is noted a second time when the disk has it. */
#define SYNCS(name) \
    int name(int fd) \
    { \
        char buffer[2 * PATH_MAX]; \
        before(#name, path_of(fd, NULL, buffer), ""); \
        int failed = REAL(name)(fd); \
        if (!failed && control && control->left && !control->torn) \
            note("synced", path_of(fd, NULL, buffer), ""); \
        return failed; \
    }

SYNCS(fsync)
SYNCS(fdatasync)

#define CHANGES(name, parameters, arguments, path, other) \
    int name parameters \
    { \
        char buffer[2 * PATH_MAX]; \
        (void)buffer; \
        before(#name, path, other); \
        return REAL(name) arguments; \
    }

CHANGES(ftruncate, (int fd, off_t size), (fd, size), path_of(fd, NULL, buffer), "")
CHANGES(ftruncate64, (int fd, off64_t size), (fd, size), path_of(fd, NULL, buffer), "")
CHANGES(rename, (const char *from, const char *to), (from, to), from, to)
CHANGES(link, (const char *from, const char *to), (from, to), from, to)
CHANGES(symlink, (const char *text, const char *path), (text, path), text, path)
CHANGES(unlink, (const char *path), (path), path, "")
CHANGES(unlinkat, (int fd, const char *path, int flags), (fd, path, flags), path_of(fd, path, buffer), "")
CHANGES(mkdir, (const char *path, mode_t mode), (path, mode), path, "")
CHANGES(rmdir, (const char *path), (path), path, "")

#define OPENS(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        int mode = flags & O_CREAT ? va_arg(rest, int) : 0; \
        va_end(rest); \
        if (flags & (O_CREAT | O_TRUNC)) \
            before(#name, path, ""); \
        return REAL(name)(path, flags, mode); \
    }

OPENS(open)
OPENS(open64)

#define WRITES(name, parameters, arguments) \
    ssize_t name parameters \
    { \
        int last; \
        size = before_write(#name, fd, size, &last); \
        ssize_t done = REAL(name) arguments; \
        if (last) \
            die(); \
        return done; \
    }

WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRITES(copy_file_range, (int from, off64_t *a, int fd, off64_t *b, size_t size, unsigned flags), (from, a, fd, b, size, flags))

ssize_t write(int fd, const void *data, size_t size)
{
    int last;
    before_send(fd);
    size = before_write("write", fd, size, &last);
    ssize_t done = REAL(write)(fd, data, size);
    if (last)
        die();
    return done;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    before_send(fd);
    return REAL(send)(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    before_send(fd);
    return REAL(sendmsg)(fd, message, flags);
}
