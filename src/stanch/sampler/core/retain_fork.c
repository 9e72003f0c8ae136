/* Locks: none. In the child only system calls are made by this file, no function of glibc that
 * might take a lock which another thread held when the snapshot was made.
 */
#define _GNU_SOURCE
#include "retain_fork.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "retain_memory.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define LOOK_MS 5 /* between two looks at the memory in use */
#define KERNEL_SIGSET_BYTES 8

/* As the kernel takes it. */
typedef struct {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
} kernel_action;

/* ---- the child ---- */

static void set_limit(int which, rlim_t value) {
    struct rlimit limit = {value, value};
    syscall(SYS_prlimit64, 0, which, &limit, NULL);
}

static void close_all_but(int fd) {
    if (fd > 0 && syscall(SYS_close_range, 0u, (unsigned)fd - 1, 0u) == 0 &&
        syscall(SYS_close_range, (unsigned)fd + 1, ~0u, 0u) == 0)
        return;
    struct rlimit limit = {1024, 1024};
    syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
    int end = limit.rlim_cur < 65536 ? (int)limit.rlim_cur : 65536;
    for (int i = 0; i < end; i++)
        if (i != fd) syscall(SYS_close, i);
}

static void be_first_to_die(void) {
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY, 0);
    if (file < 0) return;
    syscall(SYS_write, file, "1000", 4);
    syscall(SYS_close, file);
}

/* All signals are blocked; a fault in it still ends it, without a core. */
static void become_invisible(int fd, int parent, uint64_t cpu_s) {
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if ((int)syscall(SYS_getppid) != parent) syscall(SYS_exit_group, 1);
    close_all_but(fd);
    static const kernel_action by_default; /* SIG_DFL */
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, &by_default, NULL, KERNEL_SIGSET_BYTES);
    set_limit(RLIMIT_CORE, 0);
    set_limit(RLIMIT_CPU, cpu_s);
    be_first_to_die();
}

void snapshot_write(int fd, const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        long written = syscall(SYS_write, fd, at, length);
        if (written <= 0) return;
        at += written;
        length -= (size_t)written;
    }
}

/* ---- the parent ---- */

/* `noinline`: the child goes on with its parent's stack, so both return from here once. */
static __attribute__((noinline)) long clone_without_signal(void) {
    return syscall(SYS_clone, 0ul, 0ul, 0ul, 0ul, 0ul);
}

int snapshot_make(snapshot *child, uint64_t cpu_s, void (*work)(int fd, void *arg), void *arg) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return errno;
    int parent = getpid();
    uint64_t all = ~0ull, before = 0;
    /* No handler of the host may run in the child, not even at its first instruction. */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, KERNEL_SIGSET_BYTES);
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    long pid = clone_without_signal();
    int error = pid < 0 ? errno : 0;
    if (pid == 0) {
        become_invisible(ends[1], parent, cpu_s);
        work(ends[1], arg);
        syscall(SYS_exit_group, 0);
        __builtin_unreachable();
    }
    child->pause_ns = clock_ns(CLOCK_MONOTONIC) - began;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, KERNEL_SIGSET_BYTES);
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return error;
    }
    child->pid = (int)pid;
    child->answer_fd = ends[0];
    return 0;
}

static uint64_t number_in(int file) {
    char text[32];
    ssize_t length = file < 0 ? -1 : pread(file, text, sizeof text - 1, 0);
    uint64_t number = 0;
    for (ssize_t i = 0; i < length && text[i] >= '0' && text[i] <= '9'; i++)
        number = number * 10 + (uint64_t)(text[i] - '0');
    return number;
}

typedef struct {
    char *bytes;
    size_t used, capacity, wanted; /* wanted: 0 until the length is known */
    size_t length_at, max_bytes;
} reading;

/* Takes what is there. False at the end, or when it makes no sense. */
static bool take(reading *in, int fd) {
    if (in->used == in->capacity) return false;
    ssize_t got = read(fd, in->bytes + in->used, in->capacity - in->used);
    if (got < 0) return errno == EINTR;
    if (got == 0) return false;
    in->used += (size_t)got;
    if (!in->wanted && in->used >= in->length_at + 8) {
        uint64_t length;
        memcpy(&length, in->bytes + in->length_at, 8);
        if (length < in->length_at + 8 || length > in->max_bytes) return false;
        in->wanted = length;
    }
    return true;
}

static bool complete(const reading *in) { return in->wanted && in->used >= in->wanted; }

static enum snapshot_end read_all(reading *in, int fd, uint64_t deadline, int usage,
                                  uint64_t ceiling) {
    while (!complete(in)) {
        if (clock_ns(CLOCK_MONOTONIC) > deadline) return SNAPSHOT_TIME;
        if (usage >= 0 && number_in(usage) > ceiling) return SNAPSHOT_MEMORY;
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (poll(&poll_fd, 1, LOOK_MS) <= 0) continue;
        if (!take(in, fd)) return complete(in) ? SNAPSHOT_ANSWERED : SNAPSHOT_DIED;
    }
    return SNAPSHOT_ANSWERED;
}

static int reap(int pid) {
    int status = 0;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {}
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

enum snapshot_end snapshot_read(snapshot *child, size_t length_at, size_t max_bytes,
                                uint64_t time_ns, const char *usage_path, uint64_t ceiling,
                                void **answer, size_t *bytes, int *signal_number) {
    reading in = {.capacity = max_bytes, .length_at = length_at, .max_bytes = max_bytes};
    in.bytes = memory_map(max_bytes);
    int usage = usage_path ? open(usage_path, O_RDONLY | O_CLOEXEC) : -1;
    enum snapshot_end end = SNAPSHOT_NO_MEMORY;
    if (in.bytes)
        end = read_all(&in, child->answer_fd, clock_ns(CLOCK_MONOTONIC) + time_ns, usage, ceiling);
    if (usage >= 0) close(usage);
    close(child->answer_fd);
    if (end != SNAPSHOT_DIED) kill(child->pid, SIGKILL); /* an exiting one, too: it has answered */
    *signal_number = reap(child->pid);
    if (end != SNAPSHOT_ANSWERED) {
        memory_unmap(in.bytes, max_bytes);
        return end;
    }
    *answer = in.bytes;
    *bytes = max_bytes;
    return end;
}
