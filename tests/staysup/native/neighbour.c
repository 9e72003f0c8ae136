/* What a library of the host may do beside the sampler: allocator hooks of its own, threads that
 * Python does not know, and forks that Python does not see. Loaded by ctypes.
 */
#define _GNU_SOURCE
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAGIC 0x6e65696768626f75ull
#define HEADER_BYTES 16 /* keeps the alignment of malloc, and lies within its own header */

/* ---- hooks that put a header before each block, as debuggers and some profilers do ---- */

typedef struct {
    uint64_t magic;
    uint64_t size : 56, domain : 8;
} header;

static PyMemAllocatorEx below[3];
static atomic_long live_blocks;
static atomic_long mismatches; /* a block given back to another domain than it came from */

static void *wrap(char *base, size_t size, size_t domain) {
    if (!base) return NULL;
    *(header *)base = (header){MAGIC, size, domain};
    live_blocks++;
    return base + HEADER_BYTES;
}

static header *own_header(void *block) {
    header *found = (header *)((char *)block - HEADER_BYTES);
    return found->magic == MAGIC ? found : NULL; /* else from before the hooks */
}

static void *padded_malloc(void *ctx, size_t size) {
    PyMemAllocatorEx *next = ctx;
    return wrap(next->malloc(next->ctx, size + HEADER_BYTES), size, (size_t)(next - below));
}

static void *padded_calloc(void *ctx, size_t count, size_t size) {
    PyMemAllocatorEx *next = ctx;
    size_t bytes = count * size;
    return wrap(next->calloc(next->ctx, 1, bytes + HEADER_BYTES), bytes, (size_t)(next - below));
}

static void padded_free(void *ctx, void *block) {
    PyMemAllocatorEx *next = ctx;
    header *own = block ? own_header(block) : NULL;
    if (!own) {
        next->free(next->ctx, block);
        return;
    }
    if (own->domain != (size_t)(next - below)) mismatches++;
    own->magic = 0;
    live_blocks--;
    next->free(next->ctx, own);
}

static void *padded_realloc(void *ctx, void *old, size_t size) {
    PyMemAllocatorEx *next = ctx;
    if (!old) return padded_malloc(ctx, size);
    header *own = own_header(old);
    if (!own) return next->realloc(next->ctx, old, size);
    void *block = padded_malloc(ctx, size);
    if (!block) return NULL;
    memcpy(block, old, own->size < size ? own->size : size);
    padded_free(ctx, old);
    return block;
}

static const PyMemAllocatorDomain DOMAINS[] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                               PYMEM_DOMAIN_OBJ};

/* They stay for good, as their blocks do. On MEM and OBJ only. */
EXPORT void install_padded_hooks(void) {
    for (size_t i = 1; i < 3; i++) {
        PyMem_GetAllocator(DOMAINS[i], &below[i]);
        PyMemAllocatorEx hook = {&below[i], padded_malloc, padded_calloc, padded_realloc,
                                 padded_free};
        PyMem_SetAllocator(DOMAINS[i], &hook);
    }
}

EXPORT long padded_blocks(void) { return live_blocks; }
EXPORT long padded_mismatches(void) { return mismatches; }

/* ---- hooks that only count, and are taken out by putting back what was found ---- */

static PyMemAllocatorEx found[3];
static atomic_long counted;

static void *counting_malloc(void *ctx, size_t size) {
    PyMemAllocatorEx *next = ctx;
    counted++;
    return next->malloc(next->ctx, size);
}

static void *counting_calloc(void *ctx, size_t count, size_t size) {
    PyMemAllocatorEx *next = ctx;
    counted++;
    return next->calloc(next->ctx, count, size);
}

static void *counting_realloc(void *ctx, void *old, size_t size) {
    PyMemAllocatorEx *next = ctx;
    return next->realloc(next->ctx, old, size);
}

static void counting_free(void *ctx, void *block) {
    PyMemAllocatorEx *next = ctx;
    next->free(next->ctx, block);
}

EXPORT void install_counting_hooks(void) {
    for (size_t i = 0; i < 3; i++) {
        PyMem_GetAllocator(DOMAINS[i], &found[i]);
        PyMemAllocatorEx hook = {&found[i], counting_malloc, counting_calloc, counting_realloc,
                                 counting_free};
        PyMem_SetAllocator(DOMAINS[i], &hook);
    }
}

EXPORT void remove_counting_hooks(void) {
    for (size_t i = 0; i < 3; i++) PyMem_SetAllocator(DOMAINS[i], &found[i]);
}

EXPORT long counted_allocations(void) { return counted; }

/* ---- threads without a Python thread state ---- */

static void *allocate_for_a_while(void *rounds) {
    unsigned char *kept[64] = {0};
    for (uintptr_t i = 0; i < (uintptr_t)rounds; i++) {
        size_t at = i % 64, size = 1 + i * 37 % 3000;
        unsigned char *block = kept[at];
        if (block && block[0] != (unsigned char)at) return "torn";
        block = i % 3 ? PyMem_RawRealloc(block, size) : (PyMem_RawFree(block), PyMem_RawCalloc(1, size));
        if (!block) return "no memory";
        block[0] = (unsigned char)at;
        kept[at] = block;
    }
    for (size_t at = 0; at < 64; at++) PyMem_RawFree(kept[at]);
    return NULL;
}

/* Returns the number of threads that found their memory damaged. Called without the GIL. */
EXPORT long allocate_in_threads(long threads, long rounds) {
    pthread_t started[64];
    long damaged = 0;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&started[i], NULL, allocate_for_a_while, (void *)rounds)) return -1;
    for (long i = 0; i < threads; i++) {
        void *answer;
        pthread_join(started[i], &answer);
        damaged += answer != NULL;
    }
    return damaged;
}

static void *allocate_for_ever(void *unused) {
    for (size_t size = 1;; size = size % 5000 + 7) PyMem_RawFree(PyMem_RawMalloc(size));
    return unused;
}

/* Threads that go on while, and after, the interpreter is finalised. */
EXPORT void start_endless_threads(long threads) {
    for (pthread_t thread; threads > 0; threads--) pthread_create(&thread, NULL, allocate_for_ever, NULL);
}

/* ---- forks that os.fork does not make ---- */

/* As uWSGI does: fork in C, and tell Python in the child only, as long as Python lets one. */
EXPORT int fork_late(void) {
#if PY_VERSION_HEX >= 0x030D0000
    PyOS_BeforeFork();
    pid_t child = fork();
    if (child) PyOS_AfterFork_Parent();
#else
    pid_t child = fork();
#endif
    if (child == 0) PyOS_AfterFork_Child();
    return child;
}

/* As a library does that knows no Python: its child allocates, and ends. */
EXPORT int fork_and_allocate(void) {
    pid_t child = fork();
    if (child == 0) _exit(allocate_for_a_while((void *)20000) ? 1 : 0);
    int status;
    return waitpid(child, &status, 0) == child ? status : -1;
}

EXPORT int vfork_and_exec(void) {
    pid_t child = vfork();
    if (child == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    int status;
    return waitpid(child, &status, 0) == child ? status : -1;
}
