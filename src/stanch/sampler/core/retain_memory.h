/* The search's own memory: mapped, bounded, counted, and never from an allocator.
 *
 * Knows nothing of Python. Everything is plain anonymous memory that is given back in one piece.
 */
#ifndef STANCH_RETAIN_MEMORY_H
#define STANCH_RETAIN_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHUNK_SHIFT 20 /* of address space: 1 MiB, 64 Ki possible objects */
#define CHUNK_BITMAP_BYTES 8192u
#define CHUNKS (1u << 16) /* 64 GiB of address space */

typedef struct {
    uint64_t key; /* address >> CHUNK_SHIFT, 0: free */
    uint8_t *bitmap;
} chunk;

/* A set of addresses that are multiples of 16. */
typedef struct {
    chunk *chunks;
    uint8_t *bitmaps;
    uint32_t used;
    uint64_t last_key;
    uint8_t *last_bitmap;
} address_set;

/* Addresses -> numbers; open addressing, no removal, never grows. */
typedef struct {
    uint64_t *slots; /* pairs of address and number */
    uint32_t mask;
} address_map;

/* Zeroed memory that takes pages as they are touched; NULL when the kernel has none. */
void *memory_map(size_t bytes);
void memory_unmap(void *memory, size_t bytes);

bool address_set_init(address_set *set);
void address_set_free(address_set *set);
/* Adds an address; true when it was in the set before. `full` is set when there is no room. */
bool address_set_test_and_add(address_set *set, uint64_t address, bool *full);
bool address_set_has(const address_set *set, uint64_t address);
static inline uint64_t address_set_bytes(const address_set *set) {
    return (uint64_t)set->used * (CHUNK_BITMAP_BYTES + sizeof(chunk));
}

/* Room for `count` keys. */
bool address_map_init(address_map *map, uint32_t count);
void address_map_free(address_map *map);
void address_map_put(address_map *map, uint64_t address, uint32_t number);
/* UINT32_MAX when it is not there. */
uint32_t address_map_get(const address_map *map, uint64_t address);

static inline uint64_t address_hash(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return x ^ (x >> 32);
}

#endif
