/* A snapshot of this process for one piece of work: a child that the host never notices.
 *
 * It is made by a bare clone, so no fork handler of the host, of glibc or of CPython runs. It
 * has no exit signal: no SIGCHLD is sent, and waitpid(-1) does not see it. It dies with the
 * thread that made it, holds none of the host's descriptors, has default signal actions, and is
 * the kernel's first choice when memory runs out.
 */
#ifndef STANCH_RETAIN_FORK_H
#define STANCH_RETAIN_FORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int pid;
    int answer_fd; /* the parent's end of the pipe */
    uint64_t pause_ns;
} snapshot;

enum snapshot_end {
    SNAPSHOT_ANSWERED,
    SNAPSHOT_TIME,   /* killed at the deadline */
    SNAPSHOT_MEMORY, /* killed above the ceiling */
    SNAPSHOT_DIED,   /* by itself; `signal` says how */
    SNAPSHOT_NO_MEMORY
};

/* Makes the child, in which `work` runs with the descriptor to write to and then _exits.
 * Returns 0 or an errno value. */
int snapshot_make(snapshot *child, uint64_t cpu_s, void (*work)(int fd, void *arg), void *arg);
/* Reads what the child writes: first its length in the 8 bytes at `length_at`, in all at most
 * `max_bytes`. Ends and reaps the child in any case. The bytes are mapped: the caller unmaps
 * `*bytes` of `*answer`. */
enum snapshot_end snapshot_read(snapshot *child, size_t length_at, size_t max_bytes,
                                uint64_t time_ns, const char *usage_path, uint64_t ceiling,
                                void **answer, size_t *bytes, int *signal);
/* Writes all of it; for the child. */
void snapshot_write(int fd, const void *bytes, size_t length);

#endif
