/* What the memory of a process is made of, without Python: its mappings, malloc, live samples.
 *
 * Nothing here needs the GIL or allocates. Costs: see benchmarks/README.md.
 */
#ifndef STANCH_MEMORY_H
#define STANCH_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Resident bytes of the mappings whose owner their place gives away. */
typedef struct {
    uint64_t malloc_bytes; /* [heap] and the heaps of glibc's other arenas */
    uint64_t stack_bytes;  /* the main stack, and each mapping right above a guard */
    uint32_t stacks;
} memory_mappings;

/* Reads the mappings of a process, 0 for this one. Returns 0 or an errno value. Of another
 * process it reads the page map, which needs the right to trace it. */
int memory_read_mappings(int64_t pid, memory_mappings *found);

/* glibc's mallinfo2 over all its arenas, in bytes. */
typedef struct {
    uint64_t used_bytes;   /* blocks in use within arenas, their headers included */
    uint64_t free_bytes;   /* free within arenas */
    uint64_t mapped_bytes; /* blocks that are mappings of their own: in use */
} memory_malloc;

/* False where the C library has no mallinfo2 (musl, glibc before 2.33). Takes each arena's lock
 * while it walks the arena's free blocks. */
bool memory_read_malloc(memory_malloc *found);

/* An estimate and its variance, in bytes and bytes squared. absent: what of it is not resident,
 * in blocks of 128 KiB and more, which malloc maps one by one: never touched, or swapped out. */
typedef struct {
    double bytes;
    double variance;
    double absent;
} memory_estimate;

/* The live samples by where their blocks lie. */
typedef struct {
    memory_estimate small;  /* at most 512 bytes, of MEM and OBJ: in arenas; rounded up to 16 */
    memory_estimate large;  /* the rest of CPython's */
    memory_estimate native; /* sampled from malloc itself */
} memory_live;

/* Adds the live samples up; takes the table's lock for some thousands at a time. */
void memory_read_live(memory_live *found);

#endif
