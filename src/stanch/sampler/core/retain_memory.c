/* Locks: none; every table belongs to one search. */
#define _GNU_SOURCE
#include "retain_memory.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By the system call: through mmap the preload library would take it for memory of the host. */
void *memory_map(size_t bytes) {
    long memory = syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, (off_t)0);
    return memory == -1 ? NULL : (void *)memory;
}

void memory_unmap(void *memory, size_t bytes) {
    if (memory) munmap(memory, bytes);
}

/* ---- set ---- */

bool address_set_init(address_set *set) {
    memset(set, 0, sizeof *set);
    set->chunks = memory_map(CHUNKS * sizeof(chunk));
    set->bitmaps = memory_map((size_t)CHUNKS * CHUNK_BITMAP_BYTES);
    return set->chunks && set->bitmaps;
}

void address_set_free(address_set *set) {
    memory_unmap(set->chunks, CHUNKS * sizeof(chunk));
    memory_unmap(set->bitmaps, (size_t)CHUNKS * CHUNK_BITMAP_BYTES);
    memset(set, 0, sizeof *set);
}

static uint32_t slot_of(const address_set *set, uint64_t key) {
    uint32_t at = (uint32_t)address_hash(key) & (CHUNKS - 1);
    while (set->chunks[at].key && set->chunks[at].key != key) at = (at + 1) & (CHUNKS - 1);
    return at;
}

bool address_set_test_and_add(address_set *set, uint64_t address, bool *full) {
    uint64_t key = address >> CHUNK_SHIFT;
    if (key != set->last_key) {
        uint32_t at = slot_of(set, key);
        if (!set->chunks[at].key) {
            if (set->used >= CHUNKS / 2) { /* probing stays short */
                *full = true;
                return true;
            }
            set->chunks[at].key = key;
            set->chunks[at].bitmap = set->bitmaps + (size_t)set->used++ * CHUNK_BITMAP_BYTES;
        }
        set->last_key = key;
        set->last_bitmap = set->chunks[at].bitmap;
    }
    uint32_t bit = (uint32_t)(address >> 4) & 0xFFFF;
    uint8_t *byte = &set->last_bitmap[bit >> 3], mask = (uint8_t)(1u << (bit & 7));
    bool was = *byte & mask;
    *byte |= mask;
    return was;
}

bool address_set_has(const address_set *set, uint64_t address) {
    const chunk *found = &set->chunks[slot_of(set, address >> CHUNK_SHIFT)];
    uint32_t bit = (uint32_t)(address >> 4) & 0xFFFF;
    return found->key && found->bitmap[bit >> 3] >> (bit & 7) & 1;
}

/* ---- map ---- */

static size_t map_bytes(const address_map *map) { return ((size_t)map->mask + 1) * 16; }

bool address_map_init(address_map *map, uint32_t count) {
    uint64_t slots = 64;
    while (slots < (uint64_t)count * 2) slots *= 2;
    map->mask = (uint32_t)(slots - 1);
    map->slots = memory_map(slots * 16);
    return map->slots != NULL;
}

void address_map_free(address_map *map) {
    if (map->slots) memory_unmap(map->slots, map_bytes(map));
    map->slots = NULL;
}

static uint32_t map_slot(const address_map *map, uint64_t address) {
    uint32_t at = (uint32_t)address_hash(address) & map->mask;
    while (map->slots[2 * (size_t)at] && map->slots[2 * (size_t)at] != address)
        at = (at + 1) & map->mask;
    return at;
}

void address_map_put(address_map *map, uint64_t address, uint32_t number) {
    size_t at = map_slot(map, address);
    map->slots[2 * at] = address;
    map->slots[2 * at + 1] = number;
}

uint32_t address_map_get(const address_map *map, uint64_t address) {
    size_t at = map_slot(map, address);
    return map->slots[2 * at] ? (uint32_t)map->slots[2 * at + 1] : UINT32_MAX;
}
