/* Locks: the table's, around each stretch of entries. malloc's own are taken by mallinfo2. */
#define _GNU_SOURCE
#include "memory.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sampling.h"
#include "table.h"
#include "table_inner.h"

#define HEAP_BYTES (64ull << 20)  /* a heap of an arena of glibc: aligned to its greatest size */
#define LARGEST_GUARD (64u << 10) /* below a thread's stack lies one page, or some */
#define LONGEST_STACK (8u << 20)  /* where the C library does not say */
#define PAGES_AT_ONCE 4096u       /* the kernel holds its lock on the mappings for so many */
#define ENTRIES_AT_ONCE 4096u
#define LARGE_BYTES (128u << 10) /* malloc gives such a block a mapping of its own, at first */
#define LARGE_AT_ONCE 256u
#define SMALL_BYTES 512u /* pymalloc's own bound and grain */
#define SMALL_GRAIN 16u
#define DOMAIN_RAW 0u
#define DOMAIN_NATIVE 3u

/* ---- mappings ---- */

typedef struct {
    uint64_t start, end;
    bool writable;     /* rw-p */
    bool inaccessible; /* ---p */
    bool anonymous;    /* no file, and no name but [anon:...] */
    const char *name;
} mapping;

typedef struct {
    int page_map; /* of another process; -1 for our own */
    uint64_t page_bytes;
    uint64_t stack_bytes;
    mapping last;
    memory_mappings *found;
} walk;

static uint64_t resident_pages(const walk *walk, uint64_t start, uint64_t pages) {
    uint64_t count = 0;
    if (walk->page_map < 0) {
        unsigned char there[PAGES_AT_ONCE];
        /* A range that was unmapped meanwhile counts as nothing. */
        if (mincore((void *)(uintptr_t)start, pages * walk->page_bytes, there)) return 0;
        for (uint64_t i = 0; i < pages; i++) count += there[i] & 1;
        return count;
    }
    uint64_t entries[PAGES_AT_ONCE];
    off_t at = (off_t)(start / walk->page_bytes * sizeof entries[0]);
    ssize_t got = pread(walk->page_map, entries, pages * sizeof entries[0], at);
    for (ssize_t i = 0; i < got / (ssize_t)sizeof entries[0]; i++) count += entries[i] >> 63;
    return count;
}

static uint64_t resident_bytes(const walk *walk, uint64_t start, uint64_t end) {
    uint64_t count = 0;
    while (start < end) {
        uint64_t pages = (end - start) / walk->page_bytes;
        if (pages > PAGES_AT_ONCE) pages = PAGES_AT_ONCE;
        if (!pages) break;
        count += resident_pages(walk, start, pages);
        start += pages * walk->page_bytes;
    }
    return count * walk->page_bytes;
}

static void count_heap(walk *walk, const mapping *heap) {
    walk->found->malloc_bytes += resident_bytes(walk, heap->start, heap->end);
}

static void count_stack(walk *walk, uint64_t start, uint64_t end) {
    walk->found->stack_bytes += resident_bytes(walk, start, end);
    walk->found->stacks++;
}

/* An arena's heap is writable from its aligned start, and reserved from there to its full size. */
static bool is_heap(const mapping *start, const mapping *rest) {
    return start->writable && start->anonymous && start->start % HEAP_BYTES == 0 &&
           rest->inaccessible && rest->anonymous && rest->start == start->end &&
           rest->end >= start->start + HEAP_BYTES;
}

static bool is_guard_of(const mapping *guard, const mapping *stack) {
    return guard->inaccessible && guard->anonymous && guard->end == stack->start &&
           guard->end - guard->start <= LARGEST_GUARD && stack->writable && stack->anonymous &&
           stack->start % HEAP_BYTES != 0;
}

static void take_mapping(walk *walk, const mapping *now) {
    if (is_heap(&walk->last, now)) count_heap(walk, &walk->last);
    if (!strcmp(now->name, "[heap]")) {
        count_heap(walk, now);
    } else if (!strcmp(now->name, "[stack]")) {
        count_stack(walk, now->start, now->end);
    } else if (is_guard_of(&walk->last, now)) {
        /* What was mapped right above a stack may have become one mapping with it. */
        uint64_t end = now->start + walk->stack_bytes;
        count_stack(walk, now->start, end < now->end ? end : now->end);
    }
    walk->last = *now;
    walk->last.name = "";
}

/* A line of /proc/PID/maps: START-END PERMS OFFSET DEVICE INODE [NAME] */
static bool parse_mapping(char *line, mapping *now) {
    char *at;
    now->start = strtoull(line, &at, 16);
    if (*at++ != '-') return false;
    now->end = strtoull(at, &at, 16);
    if (*at++ != ' ' || strlen(at) < 5) return false;
    now->writable = !strncmp(at, "rw-p", 4);
    now->inaccessible = !strncmp(at, "---p", 4);
    for (int field = 0; field < 3; field++) { /* past the permissions, the offset and the device */
        at = strchr(at, ' ');
        if (!at) return false;
        at++;
    }
    bool of_file = strtoull(at, &at, 10) != 0;
    while (*at == ' ') at++;
    now->name = at;
    now->anonymous = !of_file && (!*at || !strncmp(at, "[anon:", 6));
    return now->end > now->start;
}

static int walk_lines(walk *walk, int maps) {
    char text[8192];
    size_t have = 0;
    bool skipping = false; /* within a line that is longer than the buffer */
    for (;;) {
        ssize_t got = read(maps, text + have, sizeof text - 1 - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) return 0;
        have += (size_t)got;
        char *line = text, *end;
        while ((end = memchr(line, '\n', have - (size_t)(line - text)))) {
            *end = 0;
            mapping now;
            if (!skipping && parse_mapping(line, &now)) take_mapping(walk, &now);
            skipping = false;
            line = end + 1;
        }
        have -= (size_t)(line - text);
        if (have == sizeof text - 1) {
            skipping = true;
            have = 0;
        }
        memmove(text, line, have);
    }
}

static uint64_t default_stack_bytes(void) {
    pthread_attr_t attributes;
    size_t bytes = 0;
    if (pthread_attr_init(&attributes) == 0) {
        pthread_attr_getstacksize(&attributes, &bytes);
        pthread_attr_destroy(&attributes);
    }
    return bytes ? bytes : LONGEST_STACK;
}

static int open_of(int64_t pid, const char *name) {
    char path[64];
    if (pid)
        snprintf(path, sizeof path, "/proc/%lld/%s", (long long)pid, name);
    else
        snprintf(path, sizeof path, "/proc/self/%s", name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int memory_read_mappings(int64_t pid, memory_mappings *found) {
    *found = (memory_mappings){0};
    walk walk = {.page_map = -1,
                 .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
                 .stack_bytes = default_stack_bytes(),
                 .last = {.name = ""},
                 .found = found};
    int maps = open_of(pid, "maps");
    if (maps < 0) return errno;
    int error = 0;
    if (pid && (walk.page_map = open_of(pid, "pagemap")) < 0) error = errno;
    if (!error) error = walk_lines(&walk, maps);
    close(maps);
    if (walk.page_map >= 0) close(walk.page_map);
    return error;
}

/* ---- malloc ---- */

/* struct mallinfo2 of glibc 2.33 and later, which older headers lack. */
typedef struct {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
} glibc_mallinfo2;

bool memory_read_malloc(memory_malloc *found) {
    glibc_mallinfo2 (*mallinfo2)(void);
    *(void **)&mallinfo2 = dlsym(RTLD_DEFAULT, "mallinfo2");
    if (!mallinfo2) return false;
    glibc_mallinfo2 info = mallinfo2();
    *found = (memory_malloc){info.uordblks, info.fordblks, info.hblkhd};
    return true;
}

/* ---- live samples ---- */

typedef struct {
    memory_estimate *sum;
    uint64_t address, bytes;
    double weight;
} large_block;

static memory_estimate *sum_of(memory_live *live, const table_entry *entry) {
    if (entry->domain == DOMAIN_NATIVE) return &live->native;
    bool small = entry->size_bytes <= SMALL_BYTES && entry->domain != DOMAIN_RAW;
    return small ? &live->small : &live->large;
}

static double add_sample(memory_live *live, const table_entry *entry) {
    memory_estimate *sum = sum_of(live, entry);
    double bytes = (double)entry->size_bytes;
    if (sum == &live->small)
        bytes = (double)((entry->size_bytes + SMALL_GRAIN - 1) / SMALL_GRAIN * SMALL_GRAIN);
    double weight = sampling_weight(entry->size_bytes, entry->interval_bytes);
    sum->bytes += weight * bytes;
    /* The variance that Horvitz and Thompson give for blocks that are sampled one by one. */
    sum->variance += weight * (weight - 1.0) * bytes * bytes;
    return weight;
}

static void add_absent(const walk *walk, const large_block *block) {
    uint64_t page = walk->page_bytes;
    uint64_t start = block->address / page * page;
    uint64_t end = (block->address + block->bytes + page - 1) / page * page;
    uint64_t there = resident_bytes(walk, start, end);
    if (there < block->bytes) block->sum->absent += block->weight * (double)(block->bytes - there);
}

/* Adds entries from `at` on, and returns where to go on: after ENTRIES_AT_ONCE of them, or when
 * `large` is full. `used` becomes how many entries there are. */
static uint32_t add_some(memory_live *live, uint32_t at, uint32_t *used, large_block *large,
                         uint32_t *larges) {
    *larges = 0;
    table_lock();
    *used = table_active_locked() ? HEADER->sections[SECTION_ENTRIES].used : 0;
    const table_entry *entries = *used ? ITEMS(SECTION_ENTRIES, table_entry) : NULL;
    for (uint32_t n = 0; at < *used && n < ENTRIES_AT_ONCE && *larges < LARGE_AT_ONCE; n++, at++) {
        const table_entry *entry = &entries[at];
        if (!entry->address) continue;
        double weight = add_sample(live, entry);
        if (entry->size_bytes >= LARGE_BYTES)
            large[(*larges)++] = (large_block){sum_of(live, entry), entry->address,
                                               entry->size_bytes, weight};
    }
    table_unlock();
    return at;
}

void memory_read_live(memory_live *found) {
    *found = (memory_live){0};
    walk walk = {.page_map = -1, .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE)};
    large_block large[LARGE_AT_ONCE];
    uint32_t at = 0, used, larges;
    do {
        at = add_some(found, at, &used, large, &larges);
        for (uint32_t i = 0; i < larges; i++) add_absent(&walk, &large[i]);
    } while (at < used);
}
