/* What CPython's own allocator takes from malloc and mmap is not native memory: it is sampled by
 * hooks.c. So while one of its functions runs, a mark of the thread makes the trial of the
 * preload library void; the gaps are memoryless, so a trial may be discarded at any moment. The
 * mark is set by a layer around the RAW domain, around MEM and OBJ where they do not rest on RAW
 * (the classic hooks), and around the allocator of pymalloc's arenas.
 *
 * Frees need no such care. A block is in the table once, by whichever way it came, and is found
 * there by its address.
 *
 * Locks: none of its own. maps_refresh takes the dynamic loader's lock, so it runs before the
 * table's is taken. fork() would leave the loader's in the child as a thread in there held it; so a
 * fork waits until none is in there, and lets none in meanwhile (`lookers`, `forks`).
 * While a thread is in here, or holds the table's lock, what it allocates and frees passes by:
 * also from a signal handler, so none can wait for what its own thread holds.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "native.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "../preload/preload.h"
#include "frames.h"
#include "hooks.h"
#include "idmap.h"
#include "labels.h"
#include "maps.h"
#include "sampling.h"
#include "table.h"
#include "unwind.h"

#define PAUSE_BYTES (1u << 20)
#define WAIT_NS 20000
#define MAX_WAITS 1000
#define THREAD_LOCAL static _Thread_local __attribute__((tls_model("initial-exec")))

enum domain { RAW, MEM, OBJ, DOMAINS };

static _Atomic bool sampling;
static _Atomic uint32_t interval_bytes;
static maps_range allocator_code; /* of a preloaded malloc, whose mappings are its blocks' */

static _Atomic uint64_t passed;  /* samples not taken since their thread was in here already */
static _Atomic uint32_t lookers; /* threads that may have the loader's lock because of us */
static _Atomic uint32_t forks;   /* threads that are about to fork */

/* CPython's own allocator is at work. */
THREAD_LOCAL bool in_python;
/* A probe: whether the mark was set when this thread's test allocation came to its trial. */
THREAD_LOCAL bool probing, probe_was_marked;

_Static_assert(sizeof(table_entry) <= sizeof(preload_entry), "a removed entry fits");

/* ---- what the preload library calls ---- */

static bool is_passing(const preload_thread *thread) {
    return thread->busy || table_held_here();
}

/* A trial that cannot be taken, in a signal handler that interrupted a sample. Our own mappings
 * pass, too, and are no loss. */
static void count_passed(const void *map_caller) {
    if (!map_caller) atomic_fetch_add(&passed, 1);
}

static uint32_t trial(preload_thread *thread, uint64_t size_bytes, const void *map_caller) {
    if (probing) probe_was_marked = in_python;
    if (!atomic_load_explicit(&sampling, memory_order_relaxed)) {
        thread->countdown = PAUSE_BYTES;
        thread->interval_bytes = 0;
        return 0;
    }
    int64_t countdown = (int64_t)thread->countdown;
    uint32_t drawn_with = thread->interval_bytes;
    uint32_t mean = atomic_load_explicit(&interval_bytes, memory_order_relaxed);
    sampling_rng rng = {thread->rng_state};
    bool hit = drawn_with != 0;
    if (!hit) {
        /* A thread's first gap begins at this block. */
        countdown = sampling_draw_gap(&rng, mean) - (int64_t)size_bytes;
        drawn_with = mean;
        hit = countdown < 0;
    }
    if (countdown < 0) countdown = sampling_draw_gap(&rng, mean);
    thread->interval_bytes = mean;
    thread->rng_state = rng.state;
    thread->countdown = (uint64_t)countdown;
    if (!hit || in_python) return 0;
    if (is_passing(thread)) {
        count_passed(map_caller);
        return 0;
    }
    uintptr_t caller = (uintptr_t)map_caller;
    if (caller - allocator_code.start < allocator_code.end - allocator_code.start) return 0;
    return drawn_with;
}

/* Native frames, leaf first. Those of a new library stay unknown while a thread is about to fork. */
static uint32_t walk(uintptr_t addresses[UNWIND_MAX_DEPTH]) {
    uint32_t depth = unwind_walk(addresses);
    table_lock();
    bool is_known = maps_are_known_locked(addresses, depth);
    table_unlock();
    if (is_known) return depth;
    atomic_fetch_add(&lookers, 1);
    if (!atomic_load(&forks)) maps_refresh();
    atomic_fetch_sub(&lookers, 1);
    return depth;
}

static void record(preload_thread *thread, const void *address, uint64_t size_bytes,
                   uint32_t drawn_with) {
    if (is_passing(thread)) return;
    int saved_errno = errno;
    thread->busy = true;
    uint64_t began = table_uptime_ns();
    uintptr_t addresses[UNWIND_MAX_DEPTH];
    uint32_t depth = walk(addresses), known = 0;
    PyThreadState *state = frames_thread_state_nopy(false);
    table_lock();
    if (table_active_locked()) {
        uint32_t frames[UNWIND_MAX_DEPTH];
        for (uint32_t i = 0; i < depth; i++) {
            frames[known] = maps_frame_locked(addresses[i]);
            if (frames[known] != IDMAP_NONE) known++;
        }
        uint32_t stack =
            table_stack_beneath_locked(frames, known, frames_stack_locked_nopy(state));
        table_insert_locked(address, size_bytes, stack, drawn_with, DOMAIN_NATIVE,
                            labels_now_locked_nopy(state));
        table_add_overhead_locked(table_uptime_ns() - began);
    }
    table_unlock();
    thread->busy = false;
    errno = saved_errno;
}

static uint32_t forget(preload_thread *thread, const void *address, preload_entry *room) {
    if (is_passing(thread)) return 0;
    thread->busy = true;
    table_entry entry;
    table_lock();
    bool found = table_active_locked() && table_remove_locked(address, &entry);
    table_unlock();
    thread->busy = false;
    if (found && room) memcpy(room, &entry, sizeof entry);
    return found ? entry.interval_bytes : 0;
}

static void remember(preload_thread *thread, const void *address, const preload_entry *room) {
    int saved_errno = errno;
    table_entry entry;
    memcpy(&entry, room, sizeof entry);
    thread->busy = true;
    table_lock();
    if (table_active_locked()) table_restore_locked(address, &entry);
    table_unlock();
    thread->busy = false;
    errno = saved_errno;
}

static const preload_core core = {&table_filter, trial, record, forget, remember};

/* ---- CPython's own allocator ---- */

static const PyMemAllocatorDomain CPYTHON_DOMAIN[DOMAINS] = {
    [RAW] = PYMEM_DOMAIN_RAW, [MEM] = PYMEM_DOMAIN_MEM, [OBJ] = PYMEM_DOMAIN_OBJ};
static PyMemAllocatorEx beneath[DOMAINS];
static bool marked[DOMAINS];
static PyObjectArenaAllocator arenas_beneath;
static bool arenas_marked;

/* As in hooks.c, the context is passed through, so a mixture of old and new is a valid one. */
#define MARKED(name, DOMAIN)                                                             \
    static void *name##_malloc(void *ctx, size_t size) {                                 \
        bool before = in_python;                                                         \
        in_python = true;                                                                \
        void *address = beneath[DOMAIN].malloc(ctx, size);                               \
        in_python = before;                                                              \
        return address;                                                                  \
    }                                                                                    \
    static void *name##_calloc(void *ctx, size_t count, size_t size) {                   \
        bool before = in_python;                                                         \
        in_python = true;                                                                \
        void *address = beneath[DOMAIN].calloc(ctx, count, size);                        \
        in_python = before;                                                              \
        return address;                                                                  \
    }                                                                                    \
    static void *name##_realloc(void *ctx, void *old, size_t size) {                     \
        bool before = in_python;                                                         \
        in_python = true;                                                                \
        void *address = beneath[DOMAIN].realloc(ctx, old, size);                         \
        in_python = before;                                                              \
        return address;                                                                  \
    }

MARKED(raw, RAW)
MARKED(mem, MEM)
MARKED(obj, OBJ)

static void *arena_alloc(void *ctx, size_t size) {
    bool before = in_python;
    in_python = true;
    void *address = arenas_beneath.alloc(ctx, size);
    in_python = before;
    return address;
}

static PyMemAllocatorEx mark_for(enum domain domain) {
    static void *(*const malloc_of[])(void *, size_t) = {raw_malloc, mem_malloc, obj_malloc};
    static void *(*const calloc_of[])(void *, size_t, size_t) = {raw_calloc, mem_calloc,
                                                                 obj_calloc};
    static void *(*const realloc_of[])(void *, void *, size_t) = {raw_realloc, mem_realloc,
                                                                  obj_realloc};
    return (PyMemAllocatorEx){beneath[domain].ctx, malloc_of[domain], calloc_of[domain],
                              realloc_of[domain], beneath[domain].free};
}

/* Does an allocation still come through the mark? Another profiler's stop may have cut it out. */
static bool is_reached(enum domain domain, preload_thread *thread) {
    probing = true;
    probe_was_marked = false;
    thread->countdown = 0;
    switch (domain) {
        case RAW: PyMem_RawFree(PyMem_RawMalloc(1)); break;
        case MEM: PyMem_Free(PyMem_Malloc(1)); break;
        default: PyObject_Free(PyObject_Malloc(1));
    }
    probing = false;
    return probe_was_marked;
}

static void mark(enum domain domain, preload_thread *thread) {
    /* It may have had to stay, with another profiler on top. */
    if (marked[domain] && is_reached(domain, thread)) return;
    PyMem_GetAllocator(CPYTHON_DOMAIN[domain], &beneath[domain]);
    PyMemAllocatorEx layer = mark_for(domain);
    PyMem_SetAllocator(CPYTHON_DOMAIN[domain], &layer);
    marked[domain] = true;
}

static void unmark(enum domain domain) {
    PyMemAllocatorEx top;
    PyMem_GetAllocator(CPYTHON_DOMAIN[domain], &top);
    if (!marked[domain] || top.malloc != mark_for(domain).malloc) return;
    PyMem_SetAllocator(CPYTHON_DOMAIN[domain], &beneath[domain]);
    marked[domain] = false;
}

static void mark_arenas(void) {
    if (arenas_marked) return;
    PyObject_GetArenaAllocator(&arenas_beneath);
    PyObjectArenaAllocator layer = {arenas_beneath.ctx, arena_alloc, arenas_beneath.free};
    PyObject_SetArenaAllocator(&layer);
    arenas_marked = true;
}

static void unmark_arenas(void) {
    PyObjectArenaAllocator top;
    PyObject_GetArenaAllocator(&top);
    if (!arenas_marked || top.alloc != arena_alloc) return;
    PyObject_SetArenaAllocator(&arenas_beneath);
    arenas_marked = false;
}

/* ---- fork ---- */

/* A thread in here is soon out, unless it is the one that forks, from a signal handler. */
static void before_fork(void) {
    atomic_fetch_add(&forks, 1);
    for (int i = 0; atomic_load(&lookers) && i < MAX_WAITS; i++)
        nanosleep(&(struct timespec){0, WAIT_NS}, NULL);
}

static void after_fork_in_parent(void) { atomic_fetch_sub(&forks, 1); }

static void after_fork_in_child(void) {
    atomic_store(&forks, 0);
    atomic_store(&lookers, 0);
}

/* ---- in and out ---- */

static bool code_around(const void *address, maps_range *found) {
    table_lock();
    bool is_known = maps_find_locked((uintptr_t)address, found);
    table_unlock();
    return is_known;
}

static bool malloc_reaches(const preload_library *library) {
    uint64_t before = library->thread()->countdown;
    void *volatile block = malloc(4096);
    free(block);
    return library->thread()->countdown != before;
}

const char *native_start(uint32_t mean_bytes) {
    const preload_library *library = dlsym(RTLD_DEFAULT, PRELOAD_SYMBOL);
    if (!library)
        return "the preload library is not in this process from its start; "
               "start it with: stanch run --native";
    if (library->version != PRELOAD_VERSION)
        return "the preload library is of another version of Stanch than this interpreter's; "
               "install the same version in both places";
    if (!malloc_reaches(library))
        return "malloc of this program does not pass through the preload library; "
               "it brings an allocator of its own";
    if (!maps_start())
        return "it needs glibc 2.35 or newer, whose loader tells of libraries without a lock";
    maps_refresh();
    maps_range own[2], interpreter;
    void (*attach)(const preload_core *) = library->attach;
    if (!code_around((void *)(uintptr_t)&native_start, &own[0]) ||
        !code_around((void *)(uintptr_t)attach, &own[1]) ||
        !code_around((void *)(uintptr_t)&_PyEval_EvalFrameDefault, &interpreter))
        return "the dynamic loader does not list this program's code";
    if (!code_around(library->allocator, &allocator_code)) allocator_code = (maps_range){0, 0};
    const char *problem = unwind_start(own, interpreter);
    if (problem) return problem;
    static bool fork_is_watched;
    if (!fork_is_watched && pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child))
        return "there is no memory";
    fork_is_watched = true;
    table_lock();
    maps_forget_locked();
    table_unlock();
    preload_thread *thread = library->thread();
    library->attach(&core);
    mark(RAW, thread);
    if (hooks_mode_now() == HOOKS_CLASSIC) {
        mark(MEM, thread);
        mark(OBJ, thread);
    }
    mark_arenas();
    native_set_interval(mean_bytes);
    atomic_store(&sampling, true);
    thread->countdown = 0; /* the next allocation draws a fresh gap */
    thread->interval_bytes = 0;
    return NULL;
}

void native_stop(void) {
    if (!native_running()) return;
    atomic_store(&sampling, false);
    unmark_arenas();
    for (int domain = OBJ; domain >= RAW; domain--) unmark(domain);
}

uint64_t native_passed(void) { return atomic_load(&passed); }

bool native_running(void) { return atomic_load(&sampling); }

void native_set_interval(uint32_t mean_bytes) { atomic_store(&interval_bytes, mean_bytes); }
