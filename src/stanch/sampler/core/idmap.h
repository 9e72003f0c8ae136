/* A growable map from nonzero 64-bit keys to 32-bit numbers.
 *
 * Open addressing with linear probing; removal shifts the run back, so there are no
 * tombstones. Memory comes from mmap, never from malloc: the map is used inside
 * allocator hooks. Not thread-safe: every map is guarded by the table's lock.
 */
#ifndef STANCH_IDMAP_H
#define STANCH_IDMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define IDMAP_NONE UINT32_MAX

typedef struct {
    uint64_t key; /* 0: empty */
    uint32_t value;
    uint32_t unused;
} idmap_slot;

typedef struct {
    idmap_slot *slots; /* owned; NULL until the first put */
    uint32_t capacity; /* a power of two */
    uint32_t used;
    uint32_t max_used; /* puts beyond this many keys are refused */
} idmap;

/* Spreads the bits of an address or an identifier. Source: the finaliser of MurmurHash3. */
static inline uint64_t idmap_mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

/* A key for a content: its hash, begun with `hash`, which tells kinds of content apart. */
static inline uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *at = data;
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = idmap_mix(hash ^ word);
    }
    uint64_t word = bytes;
    if (bytes) memcpy((uint8_t *)&word + 1, at, bytes);
    return idmap_mix(hash ^ word);
}

void idmap_init(idmap *map, uint32_t max_used);
void idmap_free(idmap *map);
/* Forgets every key and keeps the memory. */
void idmap_clear(idmap *map);
uint32_t idmap_get(const idmap *map, uint64_t key);
/* Starts to fetch the memory where the key is or would go. */
static inline void idmap_prefetch(const idmap *map, uint64_t key) {
    if (map->slots) __builtin_prefetch(&map->slots[(uint32_t)idmap_mix(key) & (map->capacity - 1)], 1);
}
/* False when the map is at its bound or out of memory; the map is unchanged then. */
bool idmap_put(idmap *map, uint64_t key, uint32_t value);
/* Returns the removed value, or IDMAP_NONE. */
uint32_t idmap_remove(idmap *map, uint64_t key);

#endif
