/* Ends a process at a chosen point: loaded before the C library (LD_PRELOAD), it stands before every call by which a
 * process changes files or says something to another machine, counts them, and kills the process at the one it is told.
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
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct control {
    int left;     /* the process dies at the call that makes this 0; nothing is counted while it is 0 */
    int torn;     /* count writes of files only, and do half of the last one */
    char calls[1 << 16];  /* the names of those counted, a line each */
    int length;   /* of `calls` */
} *control;

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

/* Whether this call is the last. */
static int is_last(const char *name)
{
    int left = __atomic_load_n(&control->left, __ATOMIC_SEQ_CST);
    while (left && !__atomic_compare_exchange_n(&control->left, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    if (!left)
        return 0;
    char line[32];
    int length = snprintf(line, sizeof line, "%s\n", name);
    int at = __atomic_fetch_add(&control->length, length, __ATOMIC_SEQ_CST);
    for (int i = 0; i < length && at + i < (int)sizeof control->calls; i++)
        control->calls[at + i] = line[i];
    return left == 1;
}

/* Before a call that changes what is in directories, or that waits for the disk. */
static void before(const char *name)
{
    if (control && control->left && !control->torn && is_last(name))
        die();
}

static int is_file(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/* Before a call that writes `size` bytes; how many of them are to be written before the process dies, or all. */
static size_t before_write(const char *name, int fd, size_t size, int *last)
{
    *last = 0;
    if (control && control->left && is_file(fd) && is_last(name)) {
        if (!control->torn)
            die();
        *last = 1;
        return size / 2;
    }
    return size;
}

static void before_send(int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    if (control && control->left && getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.ss_family == AF_INET)
        before("send");
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define CHANGES(name, parameters, arguments) \
    int name parameters { before(#name); return REAL(name) arguments; }

CHANGES(fsync, (int fd), (fd))
CHANGES(fdatasync, (int fd), (fd))
CHANGES(ftruncate, (int fd, off_t size), (fd, size))
CHANGES(ftruncate64, (int fd, off64_t size), (fd, size))
CHANGES(rename, (const char *from, const char *to), (from, to))
CHANGES(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
CHANGES(link, (const char *from, const char *to), (from, to))
CHANGES(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
CHANGES(symlink, (const char *text, const char *path), (text, path))
CHANGES(unlink, (const char *path), (path))
CHANGES(unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
CHANGES(mkdir, (const char *path, mode_t mode), (path, mode))
CHANGES(rmdir, (const char *path), (path))

#define OPENS(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        int mode = flags & O_CREAT ? va_arg(rest, int) : 0; \
        va_end(rest); \
        if (flags & (O_CREAT | O_TRUNC)) \
            before(#name); \
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
