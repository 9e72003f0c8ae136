/* Takes native memory in every way there is, for the tests; each function keeps what it takes. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct node {
    struct node *next;
    char text[104];
};

static struct node *nodes;

__attribute__((noinline)) static struct node *make_node(void) {
    struct node *made = malloc(sizeof *made);
    made->next = nodes;
    return made;
}

void keep_nodes(long count) {
    for (long i = 0; i < count; i++) nodes = make_node();
}

void free_nodes(void) {
    while (nodes) {
        struct node *next = nodes->next;
        free(nodes);
        nodes = next;
    }
}

#define KEEPER(name, call)                                    \
    void *name(long size) {                                   \
        void *block = call;                                   \
        if (block) memset(block, 1, size);                    \
        return block;                                         \
    }

static void *by_posix_memalign(long size) {
    void *block;
    return posix_memalign(&block, 64, size) ? NULL : block;
}

KEEPER(keep_malloc, malloc(size))
KEEPER(keep_calloc, calloc(1, size))
KEEPER(keep_realloc, realloc(malloc(16), size))
KEEPER(keep_reallocarray, reallocarray(NULL, 1, size))
KEEPER(keep_posix_memalign, by_posix_memalign(size))
KEEPER(keep_aligned_alloc, aligned_alloc(64, size))
KEEPER(keep_memalign, memalign(64, size))
KEEPER(keep_valloc, valloc(size))
KEEPER(keep_pvalloc, pvalloc(size))
KEEPER(keep_mmap, mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))

void *keep_strdup(long size) {
    char *text = malloc(size);
    memset(text, 'x', size - 1);
    text[size - 1] = 0;
    char *copy = strdup(text);
    free(text);
    return copy;
}

void release(void *block) { free(block); }
void *resize(void *block, long size) { return realloc(block, size); }
void unmap(void *block, long size) { munmap(block, size); }
void *remap(void *block, long old_size, long size) {
    return mremap(block, old_size, size, MREMAP_MAYMOVE);
}

/* Not memory of a library's own: a thread's stack, a reservation, a file's shared pages. */
void map_other(long size) {
    mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void *keep_in_thread(void *count) {
    struct node *mine = NULL;
    for (long i = 0; i < (long)count; i++) {
        struct node *made = malloc(sizeof *made);
        made->next = mine;
        mine = made;
    }
    return mine;
}

/* Threads that no Python ever enters. */
void keep_in_threads(long threads, long count) {
    pthread_t started[64];
    for (long i = 0; i < threads; i++) pthread_create(&started[i], NULL, keep_in_thread, (void *)count);
    for (long i = 0; i < threads; i++) pthread_join(started[i], NULL);
}

/* Blocks of every size that come and go, each filled and checked. Returns how many were wrong. */
long churn(long rounds, unsigned seed) {
    enum { SLOTS = 64 };
    unsigned char *slot[SLOTS] = {0};
    size_t size[SLOTS] = {0};
    long wrong = 0;
    for (long i = 0; i < rounds; i++) {
        seed = seed * 1664525u + 1013904223u;
        unsigned at = seed >> 26;
        size_t want = (seed >> 8) % 5000 + 1;
        if (slot[at] && (slot[at][0] != (unsigned char)at || slot[at][size[at] - 1] != (unsigned char)at))
            wrong++;
        if (seed & 1) {
            slot[at] = realloc(slot[at], want);
        } else {
            free(slot[at]);
            slot[at] = malloc(want);
        }
        size[at] = want;
        memset(slot[at], (int)at, want);
    }
    for (int at = 0; at < SLOTS; at++) free(slot[at]);
    return wrong;
}

void refuse(void) {
    volatile size_t huge = SIZE_MAX - 100;
    for (int i = 0; i < 1000; i++) {
        free(malloc(huge));
        free(calloc(huge / 4, 8));
        void *block = malloc(100);
        if (realloc(block, huge)) abort();
        free(block);
    }
}
