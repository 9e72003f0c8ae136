/* Locks: the table's, for the time in which the targets are copied from it. */
#define PY_SSIZE_T_CLEAN
#include "retain.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "clock.h"
#include "retain_fork.h"
#include "retain_walk.h"
#include "retain_write.h"
#include "table.h"

#define MAX_ANSWER_BYTES (64u << 20)
#define GRACE_NS 2000000000ull /* after the child's own deadline: to write, and to be read */

typedef struct {
    const retain_options *options;
    retain_target *targets;
    size_t targets_bytes;
    uint32_t count;
    uint64_t matched;
    PyInterpreterState *interpreter;
    size_t skew;
} search;

/* Under PYTHONMALLOC=debug a block begins before the address that is given out, and what lies
 * just before that is filled with 0xFD. */
static size_t debug_skew(void) {
    uint8_t *block = PyObject_Malloc(8);
    if (!block) return 0;
    size_t fill = 0;
    while (fill < 7 && block[-1 - (int)fill] == 0xFD) fill++;
    PyObject_Free(block);
    return fill == 7 ? 2 * sizeof(size_t) : 0;
}

static bool take_targets(search *search) {
    const retain_options *options = search->options;
    search->targets_bytes = options->max_targets * sizeof(retain_target);
    search->targets = memory_map(search->targets_bytes);
    if (!search->targets) return false;
    table_lock();
    search->matched = table_live_locked(options->stacks, options->stacks_used, NULL, 0, 1);
    /* Every n-th, so that what is looked for is a fair part of all. */
    uint64_t step = (search->matched + options->max_targets - 1) / options->max_targets;
    table_entry *entries = memory_map(options->max_targets * sizeof(table_entry));
    if (entries && step)
        search->count = (uint32_t)table_live_locked(options->stacks, options->stacks_used, entries,
                                                    options->max_targets, (uint32_t)step);
    table_unlock();
    for (uint32_t i = 0; entries && i < search->count; i++)
        search->targets[i] = (retain_target){.address = entries[i].address,
                                             .size_bytes = entries[i].size_bytes,
                                             .birth_ns = entries[i].birth_ns,
                                             .stack = entries[i].stack,
                                             .interval_bytes = entries[i].interval_bytes,
                                             .domain = entries[i].domain};
    memory_unmap(entries, options->max_targets * sizeof(table_entry));
    return entries != NULL;
}

/* The walk and its answer; mapped memory of `*mapped` bytes, or NULL. */
static retain_answer *walk_and_write(search *search, size_t *mapped) {
    walk *walk = memory_map(sizeof *walk);
    retain_answer *answer = NULL;
    if (walk && walk_init(walk, search->options, search->interpreter, search->targets,
                          search->count)) {
        walk->skew = search->skew;
        walk_all(walk);
        answer = write_answer(walk, mapped);
    }
    if (walk) walk_free(walk);
    memory_unmap(walk, sizeof *walk);
    if (answer) answer->matched = search->matched;
    return answer;
}

static void work_in_child(int fd, void *arg) {
    size_t mapped = 0;
    retain_answer *answer = walk_and_write(arg, &mapped);
    if (answer) snapshot_write(fd, answer, answer->bytes);
}

/* ---- failures, in words ---- */

static PyObject *cannot_fork(int error) {
    const char *reason = "";
    if (error == EAGAIN) reason = ": a limit on processes (RLIMIT_NPROC or the cgroup's pids.max)";
    if (error == EPERM || error == ENOSYS) reason = ": a seccomp filter forbids it";
    if (error == ENOMEM) reason = ": the kernel does not promise the memory (overcommit)";
    if (error == EMFILE || error == ENFILE) reason = ": no descriptor is left for a pipe";
    PyErr_Format(PyExc_OSError, "no snapshot by fork is possible here (%s)%s", strerror(error),
                 reason);
    return NULL;
}

static PyObject *no_answer(enum snapshot_end end, int signal_number) {
    switch (end) {
        case SNAPSHOT_TIME:
            PyErr_SetString(PyExc_OSError, "the snapshot gave no answer within its time and was "
                                           "ended");
            break;
        case SNAPSHOT_MEMORY:
            PyErr_SetString(PyExc_OSError, "the search was ended, because memory came too near "
                                           "to its limit while the snapshot lived");
            break;
        case SNAPSHOT_NO_MEMORY: return PyErr_NoMemory();
        default:
            PyErr_Format(PyExc_OSError, "the snapshot died before its answer (signal %d)",
                         signal_number);
    }
    return NULL;
}

static PyObject *search_in_snapshot(search *search) {
    const retain_options *options = search->options;
    snapshot child;
    uint64_t cpu_s = options->time_ns / 1000000000u + 2;
    int error = snapshot_make(&child, cpu_s, work_in_child, search);
    if (error) return cannot_fork(error);
    void *bytes = NULL;
    size_t mapped = 0;
    int signal_number = 0;
    enum snapshot_end end;
    Py_BEGIN_ALLOW_THREADS
    end = snapshot_read(&child, offsetof(retain_answer, bytes), MAX_ANSWER_BYTES,
                        options->time_ns + GRACE_NS, options->usage_path, options->usage_ceiling,
                        &bytes, &mapped, &signal_number);
    Py_END_ALLOW_THREADS
    if (end != SNAPSHOT_ANSWERED) return no_answer(end, signal_number);
    retain_answer *answer = bytes;
    answer->pause_ns = child.pause_ns;
    PyObject *result = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)answer->bytes);
    memory_unmap(bytes, mapped);
    return result;
}

static PyObject *search_in_place(search *search) {
    size_t mapped = 0;
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    retain_answer *answer = walk_and_write(search, &mapped);
    if (!answer) return PyErr_NoMemory();
    answer->pause_ns = clock_ns(CLOCK_MONOTONIC) - began;
    PyObject *result = PyBytes_FromStringAndSize((char *)answer, (Py_ssize_t)answer->bytes);
    memory_unmap(answer, mapped);
    return result;
}

PyObject *retain_search(const retain_options *options) {
    search search = {.options = options,
                     .interpreter = PyInterpreterState_Get(),
                     .skew = debug_skew()};
    PyObject *result = NULL;
    if (!take_targets(&search))
        PyErr_NoMemory();
    else
        result = options->in_process ? search_in_place(&search) : search_in_snapshot(&search);
    memory_unmap(search.targets, search.targets_bytes);
    return result;
}
