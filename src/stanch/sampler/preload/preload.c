/* Stands in front of malloc and mmap in every library of a process, by LD_PRELOAD.
 *
 * It passes everything on to the allocator that would have been called without it (libc's, or
 * one that is preloaded behind it), and subtracts the sizes from a countdown of the thread.
 * Until a core attaches, which in a process without the agent is never, that is all. A free asks
 * an 8 KiB bitmap first. It writes nothing, starts nothing and reads no environment.
 *
 * realloc of a sampled block is a free and a new trial. The entry goes before the call, since
 * another thread may be given the old address at once; it comes back if the call fails.
 *
 * Locks: none. `next` is filled by the first call, made by the dynamic loader or a constructor
 * while there is one thread.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

#ifndef __GLIBC__
#error "stanch: the preload library is for glibc"
#endif

#define PAUSE_BYTES (1u << 20) /* a paused thread looks again after this many bytes */
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define COLD __attribute__((noinline, cold))
#define EXPORT __attribute__((visibility("default")))

static _Thread_local __attribute__((tls_model("initial-exec"))) preload_thread here;
static _Atomic(const preload_core *) attached;
static address_filter nothing;
static const address_filter *filter = &nothing;

/* ---- the allocator behind ---- */

static void *first_malloc(size_t size);
static void *first_calloc(size_t count, size_t size);
static void *first_realloc(void *old, size_t size);
static void first_free(void *address);
static int first_posix_memalign(void **address, size_t alignment, size_t size);
static void *first_aligned_alloc(size_t alignment, size_t size);
static void *first_memalign(size_t alignment, size_t size);
static void *first_valloc(size_t size);
static void *first_pvalloc(size_t size);
static void *first_mmap(void *, size_t, int, int, int, off_t);
static int first_munmap(void *address, size_t size);
static void *first_mremap(void *, size_t, size_t, int, void *);

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
    int (*munmap)(void *, size_t);
    void *(*mremap)(void *, size_t, size_t, int, void *);
} next = {first_malloc,   first_calloc, first_realloc, first_free, first_posix_memalign, first_aligned_alloc,
          first_memalign, first_valloc, first_pvalloc, first_mmap, first_munmap,         first_mremap};

/* dlsym may itself allocate, before its answer is known. Such blocks come from here and are
 * never given back; only when there are any does free look for them. */
static _Alignas(64) unsigned char early[16u << 10];
static size_t early_used;

static void *early_alloc(size_t size) {
    size_t start = early_used + 16; /* the size stands in front */
    if (size > sizeof early || start + size > sizeof early) {
        errno = ENOMEM;
        return NULL;
    }
    memcpy(early + early_used, &size, sizeof size);
    early_used = (start + size + 15) & ~(size_t)15;
    return early + start;
}

static bool is_early(const void *address) {
    return (uintptr_t)address - (uintptr_t)early < sizeof early;
}

static void (*real_free)(void *);
static void *(*real_realloc)(void *, size_t);

static void free_unless_early(void *address) {
    if (!is_early(address)) real_free(address);
}

static void *realloc_unless_early(void *old, size_t size) {
    if (!is_early(old)) return real_realloc(old, size);
    size_t had;
    memcpy(&had, (unsigned char *)old - 16, sizeof had);
    void *address = next.malloc(size);
    if (address) memcpy(address, old, had < size ? had : size);
    return address;
}

/* False while it is under way. What is found serves at once; free comes last, when it is known
 * whether it must look for early blocks. */
static bool resolve(void) {
    static bool begun, done;
    if (begun) return done;
    begun = true;
#define FIND(name)                                                                       \
    do {                                                                                 \
        void *found = dlsym(RTLD_NEXT, #name);                                           \
        memcpy(&next.name, &found, sizeof found);                                        \
    } while (0)
    FIND(malloc);
    FIND(calloc);
    FIND(posix_memalign);
    FIND(aligned_alloc);
    FIND(memalign);
    FIND(valloc);
    FIND(pvalloc);
    FIND(mmap);
    FIND(munmap);
    FIND(mremap);
    FIND(realloc);
    FIND(free);
#undef FIND
    if (early_used) {
        real_free = next.free;
        real_realloc = next.realloc;
        next.free = free_unless_early;
        next.realloc = realloc_unless_early;
    }
    return done = true;
}

static void *first_malloc(size_t size) { return resolve() ? next.malloc(size) : early_alloc(size); }
static void *first_calloc(size_t count, size_t size) {
    return resolve() ? next.calloc(count, size) : early_alloc(count * size); /* it is zero */
}
static void *first_realloc(void *old, size_t size) {
    return resolve() ? next.realloc(old, size) : realloc_unless_early(old, size);
}
static void first_free(void *address) {
    if (resolve()) next.free(address);
}
static int first_posix_memalign(void **address, size_t alignment, size_t size) {
    return resolve() ? next.posix_memalign(address, alignment, size) : ENOMEM;
}
static void *first_aligned_alloc(size_t alignment, size_t size) {
    return resolve() ? next.aligned_alloc(alignment, size) : NULL;
}
static void *first_memalign(size_t alignment, size_t size) {
    return resolve() ? next.memalign(alignment, size) : NULL;
}
static void *first_valloc(size_t size) { return resolve() ? next.valloc(size) : NULL; }
static void *first_pvalloc(size_t size) { return resolve() ? next.pvalloc(size) : NULL; }
static void *first_mmap(void *address, size_t size, int prot, int flags, int fd, off_t offset) {
    return resolve() ? next.mmap(address, size, prot, flags, fd, offset) : MAP_FAILED;
}
static int first_munmap(void *address, size_t size) {
    return resolve() ? next.munmap(address, size) : -1;
}
static void *first_mremap(void *old, size_t old_size, size_t size, int flags, void *wanted) {
    return resolve() ? next.mremap(old, old_size, size, flags, wanted) : MAP_FAILED;
}

/* ---- trials ---- */

static uint32_t trial(uint64_t size, const void *map_caller) {
    if (size > PTRDIFF_MAX) { /* will be refused; it must not count */
        here.countdown += size;
        return 0;
    }
    const preload_core *core = atomic_load_explicit(&attached, memory_order_acquire);
    if (core) return core->trial(&here, size, map_caller);
    here.countdown = PAUSE_BYTES;
    return 0;
}

static void record(const void *address, uint64_t size, uint32_t interval_bytes) {
    if (interval_bytes && address)
        atomic_load_explicit(&attached, memory_order_relaxed)
            ->record(&here, address, size, interval_bytes);
}

/* Only where the filter knows the address, so a core is attached. */
static uint32_t forget(const void *address, preload_entry *entry) {
    const preload_core *core = atomic_load_explicit(&attached, memory_order_acquire);
    return core ? core->forget(&here, address, entry) : 0;
}

static void remember(const void *address, const preload_entry *entry) {
    atomic_load_explicit(&attached, memory_order_relaxed)->remember(&here, address, entry);
}

static inline bool runs_out(uint64_t size) {
    return UNLIKELY(__builtin_sub_overflow(here.countdown, size, &here.countdown));
}

static inline bool maybe_sampled(const void *address) {
    return UNLIKELY(filter_maybe(__atomic_load_n(&filter, __ATOMIC_RELAXED), address));
}

/* ---- malloc and its family ---- */

static COLD void *malloc_slow(size_t size) {
    uint32_t interval = trial(size, NULL);
    void *address = next.malloc(size);
    record(address, size, interval);
    return address;
}

EXPORT void *malloc(size_t size) {
    if (runs_out(size)) return malloc_slow(size);
    return next.malloc(size);
}

static COLD void *calloc_slow(size_t count, size_t size) {
    uint32_t interval = trial(count * size, NULL);
    void *address = next.calloc(count, size);
    record(address, count * size, interval);
    return address;
}

EXPORT void *calloc(size_t count, size_t size) {
    if (runs_out(count * size)) return calloc_slow(count, size);
    return next.calloc(count, size);
}

static COLD void *realloc_slow(void *old, size_t size, bool is_trial) {
    uint32_t interval = is_trial ? trial(size, NULL) : 0;
    preload_entry entry;
    bool was_sampled = old && maybe_sampled(old) && forget(old, &entry);
    void *address = next.realloc(old, size);
    if (address)
        record(address, size, interval);
    else if (was_sampled && size)
        remember(old, &entry);
    return address;
}

EXPORT void *realloc(void *old, size_t size) {
    bool is_trial = runs_out(size);
    if (UNLIKELY(is_trial || maybe_sampled(old))) return realloc_slow(old, size, is_trial);
    return next.realloc(old, size);
}

static COLD void free_slow(void *address) {
    forget(address, NULL);
    next.free(address);
}

EXPORT void free(void *address) {
    if (maybe_sampled(address)) {
        free_slow(address);
        return;
    }
    next.free(address);
}

EXPORT int posix_memalign(void **address, size_t alignment, size_t size) {
    uint32_t interval = runs_out(size) ? trial(size, NULL) : 0;
    int error = next.posix_memalign(address, alignment, size);
    if (!error) record(*address, size, interval);
    return error;
}

/* Those that few call need no path without a frame of their own. */
#define ALIGNED(call, size)                                                              \
    uint32_t interval = runs_out(size) ? trial(size, NULL) : 0;                          \
    void *address = call;                                                                \
    record(address, size, interval);                                                     \
    return address

EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    ALIGNED(next.aligned_alloc(alignment, size), size);
}
EXPORT void *memalign(size_t alignment, size_t size) {
    ALIGNED(next.memalign(alignment, size), size);
}
EXPORT void *valloc(size_t size) { ALIGNED(next.valloc(size), size); }
EXPORT void *pvalloc(size_t size) { ALIGNED(next.pvalloc(size), size); }

/* ---- large mappings ---- */

static bool is_memory(size_t size, int prot, int flags) {
    const int other = MAP_SHARED | MAP_FIXED | MAP_STACK | MAP_GROWSDOWN;
    return size >= PRELOAD_MAP_BYTES && (flags & MAP_ANONYMOUS) && (flags & MAP_PRIVATE) &&
           !(flags & other) && (prot & PROT_WRITE);
}

EXPORT void *mmap(void *wanted, size_t size, int prot, int flags, int fd, off_t offset) {
    uint32_t interval = 0;
    if (is_memory(size, prot, flags) && runs_out(size))
        interval = trial(size, __builtin_return_address(0));
    void *address = next.mmap(wanted, size, prot, flags, fd, offset);
    if (address != MAP_FAILED) record(address, size, interval);
    return address;
}

EXPORT void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

EXPORT int munmap(void *address, size_t size) {
    preload_entry entry;
    bool was_sampled = maybe_sampled(address) && forget(address, &entry);
    int error = next.munmap(address, size);
    if (error && was_sampled) remember(address, &entry);
    return error;
}

EXPORT void *mremap(void *old, size_t old_size, size_t size, int flags, ...) {
    void *wanted = NULL;
    if (flags & MREMAP_FIXED) {
        va_list rest;
        va_start(rest, flags);
        wanted = va_arg(rest, void *);
        va_end(rest);
    }
    /* Only what was a sample is surely private memory. It stays one, with its new size: a trial
     * of the others, which may be files, would be none of theirs. */
    preload_entry entry;
    uint32_t interval = maybe_sampled(old) ? forget(old, &entry) : 0;
    void *address = next.mremap(old, old_size, size, flags, wanted);
    if (address != MAP_FAILED)
        record(address, size, interval);
    else if (interval)
        remember(old, &entry);
    return address;
}

/* ---- the core's way in ---- */

static void attach(const preload_core *core) {
    __atomic_store_n(&filter, core->filter, __ATOMIC_RELEASE);
    atomic_store_explicit(&attached, core, memory_order_release);
}

static preload_thread *thread(void) { return &here; }

EXPORT preload_library stanch_preload = {PRELOAD_VERSION, attach, thread, NULL};

__attribute__((constructor)) static void begin(void) {
    resolve();
    memcpy(&stanch_preload.allocator, &next.malloc, sizeof stanch_preload.allocator);
}
