/* Two ways to see a block's birth and death.
 *
 * Divert, the normal one. `free` of MEM and OBJ is not hooked at all. pymalloc hands every
 * request above 512 bytes on to the RAW domain, so a small block that is to be sampled is
 * asked of pymalloc as 513 bytes: it then comes from RAW, and pymalloc's own free, which
 * does not find it in its arenas, gives it back to RAW, whose free is hooked. Where a probe
 * shows that a domain hands RAW's block on as it is, RAW is then asked for the true size only,
 * except by a realloc, for which pymalloc copies into the block. Blocks that
 * are not sampled pay a subtraction on malloc and nothing on free. Larger blocks are left
 * to the trial of the RAW hook; the gaps are memoryless, so MEM and OBJ just discard theirs.
 *
 * Classic, where a probe at the start shows that large requests do not reach RAW
 * (PYTHONMALLOC=malloc): MEM and OBJ record in place, and their free asks the filter.
 *
 * The original's context is passed through untouched. So any mixture of an old and a new
 * allocator that another thread may read while PyMem_SetAllocator writes is a valid one.
 *
 * Locks: none of its own. MEM and OBJ run under the GIL. `gil` is shared by the
 * sub-interpreters that have a GIL of their own: a race there only shifts a sample.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "hooks.h"

#include <stdatomic.h>
#include <string.h>

#include "frames.h"
#include "labels.h"
#include "sampling.h"
#include "table.h"

#define SMALL_BYTES 512 /* pymalloc's own bound, the same from 3.3 to 3.15 */
#define PAUSE_BYTES (1 << 20) /* a paused thread looks again after this many bytes */
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define COLD __attribute__((noinline, cold))
#define THREAD_LOCAL static _Thread_local __attribute__((tls_model("initial-exec")))

enum domain { RAW, MEM, OBJ, DOMAINS };

typedef struct {
    uint32_t interval_bytes; /* the mean that the present gap was drawn with; 0: none drawn */
    sampling_rng rng;
} gap;

/* In cache lines of its own: read by threads without the GIL, which would else wait for the line
 * that the thread with the GIL counts in. */
static PyMemAllocatorEx originals[DOMAINS] __attribute__((aligned(64)));
static enum hooks_mode mode;
static _Atomic bool sampling;
static _Atomic uint32_t interval_bytes;

/* All that a hook of MEM and OBJ needs, in one cache line: the bytes to the next sample, of which
 * it subtracts, to take the slow path below zero; and where it passes a request on to. */
typedef struct {
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *old, size_t size);
} passing;
static struct __attribute__((aligned(64))) {
    int64_t counter;
    passing mem, obj;
    gap now;
} gil;
THREAD_LOCAL int64_t raw_counter;
THREAD_LOCAL gap raw_gap;

/* A small block on its way through pymalloc to RAW; `pending` until the RAW hook sees it. */
THREAD_LOCAL struct {
    bool pending;
    bool shrink;
    enum domain domain;
    size_t size_bytes;
    uint32_t interval_bytes;
    int64_t raw_counter; /* to put back */
} diverted;

/* A probe: the domains whose hook this thread's test allocation reached. */
THREAD_LOCAL bool probing;
THREAD_LOCAL bool probe_reached[DOMAINS];
THREAD_LOCAL void *probe_block; /* RAW's answer to a malloc of a probe, full of PROBE_BYTE */
#define PROBE_BYTE 0xA5

/* The domains that hand RAW's block on as it is: nothing before it, nothing written into it. */
static bool hands_on[DOMAINS];

/* ---- samples ---- */

typedef struct {
    bool taken;
    bool shrink;
    enum domain domain;
    size_t size_bytes;
    uint32_t interval_bytes;
} trial;

/* Every eighth slow path is timed, for eight. The clock runs on while the thread does not: what
 * lasts longer than a deep stack that is seen for the first time was an interruption. */
#define TIMED_SHARE 8
#define LONGEST_NS 100000
static uint32_t slow_paths;

static uint64_t begin_timing_locked(void) {
    return slow_paths++ % TIMED_SHARE ? 0 : table_uptime_ns();
}

static void end_timing_locked(uint64_t began_ns) {
    if (!began_ns) return;
    uint64_t ns = table_uptime_ns() - began_ns;
    table_add_overhead_locked(TIMED_SHARE * (ns < LONGEST_NS ? ns : LONGEST_NS));
}

/* Ends the gap that ran out and draws the next. True when the gap was a real one: a thread's
 * first and the first after a pause only begin. */
static bool next_gap(int64_t *counter, gap *now, uint32_t *drawn_with) {
    *drawn_with = now->interval_bytes;
    if (!atomic_load_explicit(&sampling, memory_order_relaxed)) {
        *counter = PAUSE_BYTES;
        now->interval_bytes = 0;
        return false;
    }
    bool hit = now->interval_bytes != 0;
    now->interval_bytes = atomic_load_explicit(&interval_bytes, memory_order_relaxed);
    if (!hit) {
        *counter += sampling_draw_gap(&now->rng, now->interval_bytes);
        *drawn_with = now->interval_bytes;
        hit = *counter < 0;
    }
    /* Memoryless: what is left of the gap in which the block ends is a gap like any other. One
     * draw, then, also for a request of exabytes that will fail. */
    if (*counter < 0) *counter = sampling_draw_gap(&now->rng, now->interval_bytes);
    return hit;
}

static void record(const void *address, const trial *sample, bool gil_held) {
    if (!address || !sample->taken) return;
    table_lock();
    if (table_active_locked()) {
        uint64_t began = begin_timing_locked();
        table_expect_locked(address);
        PyThreadState *state = frames_thread_state_nopy(gil_held);
        uint32_t stack = frames_stack_locked_nopy(state);
        table_insert_locked(address, sample->size_bytes, stack, sample->interval_bytes,
                            sample->domain, labels_now_locked_nopy(state));
        end_timing_locked(began);
    }
    table_unlock();
}

static bool forget(const void *address, table_entry *removed) {
    bool found = false;
    table_lock();
    if (table_active_locked()) {
        uint64_t began = begin_timing_locked();
        found = table_remove_locked(address, removed);
        end_timing_locked(began);
    }
    table_unlock();
    return found;
}

static void remember(const void *address, const table_entry *removed) {
    table_lock();
    if (table_active_locked()) table_restore_locked(address, removed);
    table_unlock();
}

/* ---- RAW: with or without the GIL ---- */

static trial raw_trial(size_t size_bytes) {
    if (diverted.pending) {
        diverted.pending = false;
        raw_counter = diverted.raw_counter;
        if (probing) {
            probe_reached[RAW] = true;
            return (trial){.taken = false};
        }
        bool shrink = diverted.shrink && size_bytes == SMALL_BYTES + 1;
        return (trial){true, shrink, diverted.domain, diverted.size_bytes, diverted.interval_bytes};
    }
    trial sample = {.domain = RAW, .size_bytes = size_bytes};
    sample.taken = next_gap(&raw_counter, &raw_gap, &sample.interval_bytes);
    return sample;
}

/* pymalloc's blocks are aligned to 16 bytes; some allocators align by the size. */
static size_t shrunk(const trial *sample) {
    return sample->size_bytes ? (sample->size_bytes + 15) & ~(size_t)15 : 16;
}

static COLD void *raw_malloc_slow(void *ctx, size_t size) {
    trial sample = raw_trial(size);
    if (sample.shrink) size = shrunk(&sample);
    void *address = originals[RAW].malloc(ctx, size);
    if (UNLIKELY(probing) && address) probe_block = memset(address, PROBE_BYTE, size);
    record(address, &sample, sample.domain != RAW);
    return address;
}

static COLD void *raw_calloc_slow(void *ctx, size_t count, size_t size) {
    trial sample = raw_trial(count * size);
    if (sample.shrink) {
        count = 1;
        size = shrunk(&sample);
    }
    void *address = originals[RAW].calloc(ctx, count, size);
    record(address, &sample, sample.domain != RAW);
    return address;
}

/* A reallocation is a free and a new trial. The entry goes before the call, since another
 * thread may be given the old address at once; it comes back if the call fails. */
static COLD void *raw_realloc_slow(void *ctx, void *old, size_t size) {
    trial sample = {.taken = false};
    if (raw_counter < 0) sample = raw_trial(size);
    table_entry entry;
    bool was_sampled = old && forget(old, &entry);
    void *address = originals[RAW].realloc(ctx, old, size);
    if (address)
        record(address, &sample, sample.domain != RAW);
    else if (was_sampled)
        remember(old, &entry);
    return address;
}

static COLD void raw_free_slow(void *ctx, void *address) {
    forget(address, NULL);
    originals[RAW].free(ctx, address);
}

static void *raw_malloc(void *ctx, size_t size) {
    if (UNLIKELY((raw_counter -= (int64_t)size) < 0)) return raw_malloc_slow(ctx, size);
    return originals[RAW].malloc(ctx, size);
}

static void *raw_calloc(void *ctx, size_t count, size_t size) {
    if (UNLIKELY((raw_counter -= (int64_t)(count * size)) < 0))
        return raw_calloc_slow(ctx, count, size);
    return originals[RAW].calloc(ctx, count, size);
}

static void *raw_realloc(void *ctx, void *old, size_t size) {
    if (UNLIKELY((raw_counter -= (int64_t)size) < 0 || filter_maybe(&table_filter, old)))
        return raw_realloc_slow(ctx, old, size);
    return originals[RAW].realloc(ctx, old, size);
}

static void raw_free(void *ctx, void *address) {
    if (UNLIKELY(filter_maybe(&table_filter, address))) {
        raw_free_slow(ctx, address);
        return;
    }
    originals[RAW].free(ctx, address);
}

/* ---- MEM and OBJ: under the GIL ---- */

static trial gil_trial(enum domain domain, size_t size_bytes) {
    if (probing) probe_reached[domain] = true;
    trial sample = {.domain = domain, .size_bytes = size_bytes};
    sample.taken = next_gap(&gil.counter, &gil.now, &sample.interval_bytes);
    if (mode == HOOKS_DIVERT && size_bytes > SMALL_BYTES) sample.taken = false;
    sample.shrink = hands_on[domain];
    return sample;
}

static void begin_divert(const trial *sample) {
    diverted.pending = true;
    diverted.shrink = sample->shrink;
    diverted.domain = sample->domain;
    diverted.size_bytes = sample->size_bytes;
    diverted.interval_bytes = sample->interval_bytes;
    diverted.raw_counter = raw_counter;
    raw_counter = INT64_MIN / 2; /* sends the RAW hook into its slow path */
}

static void end_divert(void) {
    if (!diverted.pending) return;
    diverted.pending = false;
    raw_counter = diverted.raw_counter;
}

/* Given count == 0, a malloc. */
static COLD void *divert_alloc_slow(void *ctx, size_t count, size_t size, enum domain domain) {
    trial sample = gil_trial(domain, count ? count * size : size);
    if (!sample.taken)
        return count ? originals[domain].calloc(ctx, count, size)
                     : originals[domain].malloc(ctx, size);
    begin_divert(&sample);
    void *address = count ? originals[domain].calloc(ctx, 1, SMALL_BYTES + 1)
                          : originals[domain].malloc(ctx, SMALL_BYTES + 1);
    end_divert();
    return address;
}

static COLD void *divert_realloc_slow(void *ctx, void *old, size_t size, enum domain domain) {
    trial sample = gil_trial(domain, size);
    if (!sample.taken) return originals[domain].realloc(ctx, old, size);
    sample.shrink = false;
    begin_divert(&sample);
    void *address = originals[domain].realloc(ctx, old, SMALL_BYTES + 1);
    end_divert();
    return address;
}

static COLD void *classic_alloc_slow(void *ctx, size_t count, size_t size, enum domain domain) {
    trial sample = gil_trial(domain, count ? count * size : size);
    void *address = count ? originals[domain].calloc(ctx, count, size)
                          : originals[domain].malloc(ctx, size);
    record(address, &sample, true);
    return address;
}

static COLD void *classic_realloc_slow(void *ctx, void *old, size_t size, enum domain domain) {
    trial sample = {.taken = false};
    if (gil.counter < 0) sample = gil_trial(domain, size);
    table_entry entry;
    bool was_sampled = old && forget(old, &entry);
    void *address = originals[domain].realloc(ctx, old, size);
    if (address)
        record(address, &sample, true);
    else if (was_sampled)
        remember(old, &entry);
    return address;
}

#define GIL_HOOKS(name, DOMAIN)                                                          \
    static void *name##_divert_malloc(void *ctx, size_t size) {                          \
        if (UNLIKELY((gil.counter -= (int64_t)size) < 0))                                \
            return divert_alloc_slow(ctx, 0, size, DOMAIN);                              \
        return gil.name.malloc(ctx, size);                                               \
    }                                                                                    \
    static void *name##_divert_calloc(void *ctx, size_t count, size_t size) {            \
        if (UNLIKELY((gil.counter -= (int64_t)(count * size)) < 0 && count))             \
            return divert_alloc_slow(ctx, count, size, DOMAIN);                          \
        return gil.name.calloc(ctx, count, size);                                        \
    }                                                                                    \
    static void *name##_divert_realloc(void *ctx, void *old, size_t size) {              \
        if (UNLIKELY((gil.counter -= (int64_t)size) < 0))                                \
            return divert_realloc_slow(ctx, old, size, DOMAIN);                          \
        return gil.name.realloc(ctx, old, size);                                         \
    }                                                                                    \
    static void *name##_classic_malloc(void *ctx, size_t size) {                         \
        if (UNLIKELY((gil.counter -= (int64_t)size) < 0))                                \
            return classic_alloc_slow(ctx, 0, size, DOMAIN);                             \
        return gil.name.malloc(ctx, size);                                               \
    }                                                                                    \
    static void *name##_classic_calloc(void *ctx, size_t count, size_t size) {           \
        if (UNLIKELY((gil.counter -= (int64_t)(count * size)) < 0 && count))             \
            return classic_alloc_slow(ctx, count, size, DOMAIN);                         \
        return gil.name.calloc(ctx, count, size);                                        \
    }                                                                                    \
    static void *name##_classic_realloc(void *ctx, void *old, size_t size) {             \
        if (UNLIKELY((gil.counter -= (int64_t)size) < 0 || filter_maybe(&table_filter, old))) \
            return classic_realloc_slow(ctx, old, size, DOMAIN);                         \
        return gil.name.realloc(ctx, old, size);                                         \
    }                                                                                    \
    static void name##_classic_free(void *ctx, void *address) {                          \
        if (UNLIKELY(filter_maybe(&table_filter, address))) forget(address, NULL);       \
        originals[DOMAIN].free(ctx, address);                                            \
    }

GIL_HOOKS(mem, MEM)
GIL_HOOKS(obj, OBJ)

/* ---- in and out ---- */

static const PyMemAllocatorDomain CPYTHON_DOMAIN[DOMAINS] = {
    [RAW] = PYMEM_DOMAIN_RAW, [MEM] = PYMEM_DOMAIN_MEM, [OBJ] = PYMEM_DOMAIN_OBJ};

static PyMemAllocatorEx hook_for(enum domain domain, enum hooks_mode wanted) {
    void *ctx = originals[domain].ctx;
    if (domain == RAW)
        return (PyMemAllocatorEx){ctx, raw_malloc, raw_calloc, raw_realloc, raw_free};
    bool mem = domain == MEM;
    if (wanted == HOOKS_DIVERT)
        return (PyMemAllocatorEx){ctx, mem ? mem_divert_malloc : obj_divert_malloc,
                                  mem ? mem_divert_calloc : obj_divert_calloc,
                                  mem ? mem_divert_realloc : obj_divert_realloc,
                                  originals[domain].free};
    return (PyMemAllocatorEx){ctx, mem ? mem_classic_malloc : obj_classic_malloc,
                              mem ? mem_classic_calloc : obj_classic_calloc,
                              mem ? mem_classic_realloc : obj_classic_realloc,
                              mem ? mem_classic_free : obj_classic_free};
}

static void install(enum domain domain, enum hooks_mode wanted) {
    PyMem_GetAllocator(CPYTHON_DOMAIN[domain], &originals[domain]);
    const PyMemAllocatorEx *original = &originals[domain];
    if (domain != RAW)
        *(domain == MEM ? &gil.mem : &gil.obj) =
            (passing){original->malloc, original->calloc, original->realloc};
    PyMemAllocatorEx hook = hook_for(domain, wanted);
    PyMem_SetAllocator(CPYTHON_DOMAIN[domain], &hook);
}

static bool on_top(enum domain domain) {
    PyMemAllocatorEx top, ours = hook_for(domain, mode);
    PyMem_GetAllocator(CPYTHON_DOMAIN[domain], &top);
    return top.malloc == ours.malloc;
}

static bool full_of_probe_bytes(const uint8_t *block, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (block[i] != PROBE_BYTE) return false;
    return true;
}

/* Does a request above pymalloc's bound, made of this domain's original, reach RAW's hook? Notes
 * whether it hands RAW's block on. */
static bool large_requests_reach_raw(enum domain domain) {
    PyMemAllocatorEx original;
    PyMem_GetAllocator(CPYTHON_DOMAIN[domain], &original);
    trial probe = {.taken = true, .domain = domain, .interval_bytes = 1};
    probing = true;
    probe_reached[RAW] = false;
    probe_block = NULL;
    begin_divert(&probe);
    void *address = original.malloc(original.ctx, SMALL_BYTES + 1);
    end_divert();
    probing = false;
    hands_on[domain] =
        address && address == probe_block && full_of_probe_bytes(address, SMALL_BYTES + 1);
    if (address) original.free(original.ctx, address);
    return probe_reached[RAW];
}

static void pause_counters(void) {
    gil.counter = raw_counter = 0; /* the next allocation draws a fresh gap, or pauses */
    gil.now.interval_bytes = raw_gap.interval_bytes = 0;
}

/* Does an allocation still reach each domain's hook? Another profiler's stop may cut us out. */
static bool hooks_reached(void) {
    int64_t saved_gil = gil.counter, saved_raw = raw_counter;
    gap saved_gap = gil.now;
    trial probe = {.taken = true, .domain = RAW, .interval_bytes = 1};
    memset(probe_reached, 0, sizeof probe_reached);
    probing = true;
    begin_divert(&probe);
    PyMem_RawFree(PyMem_RawMalloc(1));
    end_divert();
    for (enum domain domain = MEM; domain <= OBJ; domain++) {
        gil.counter = -1;
        gil.now.interval_bytes = 0; /* begins a gap, takes no sample */
        if (domain == MEM)
            PyMem_Free(PyMem_Malloc(SMALL_BYTES + 1));
        else
            PyObject_Free(PyObject_Malloc(SMALL_BYTES + 1));
    }
    probing = false;
    gil.counter = saved_gil;
    raw_counter = saved_raw;
    gil.now = saved_gap;
    return probe_reached[RAW] && probe_reached[MEM] && probe_reached[OBJ];
}

void hooks_start(uint32_t mean_bytes) {
    atomic_store(&interval_bytes, mean_bytes);
    table_lock();
    frames_forget_locked(); /* the table is a new one */
    table_unlock();
    frames_watch_code();
    if (mode != HOOKS_OFF && !hooks_reached()) mode = HOOKS_OFF;
    if (mode == HOOKS_OFF) {
        install(RAW, HOOKS_DIVERT);
        bool divert = large_requests_reach_raw(MEM) && large_requests_reach_raw(OBJ);
        mode = divert ? HOOKS_DIVERT : HOOKS_CLASSIC;
        install(MEM, mode);
        install(OBJ, mode);
    }
    atomic_store(&sampling, true);
    pause_counters();
}

void hooks_stop(void) {
    if (mode == HOOKS_OFF) return;
    atomic_store(&sampling, false);
    pause_counters();
    if (!on_top(RAW) || !on_top(MEM) || !on_top(OBJ)) return;
    for (int domain = OBJ; domain >= RAW; domain--)
        PyMem_SetAllocator(CPYTHON_DOMAIN[domain], &originals[domain]);
    mode = HOOKS_OFF;
}

void hooks_set_interval(uint32_t mean_bytes) {
    atomic_store(&interval_bytes, mean_bytes);
    table_lock();
    if (table_active_locked()) table_set_interval_locked(mean_bytes);
    table_unlock();
    /* A thread's own gap in RAW runs out with the mean that it was drawn with, which its sample
     * will carry. */
    gil.counter = 0;
    gil.now.interval_bytes = 0;
}

enum hooks_mode hooks_mode_now(void) { return mode; }
