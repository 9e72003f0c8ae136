#define _GNU_SOURCE
#include "idmap.h"

#include <string.h>
#include <sys/mman.h>

#define FIRST_CAPACITY 1024u

static idmap_slot *allocate_slots(uint32_t capacity) {
    void *memory = mmap(NULL, (size_t)capacity * sizeof(idmap_slot), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void idmap_init(idmap *map, uint32_t max_used) {
    *map = (idmap){.max_used = max_used};
}

void idmap_free(idmap *map) {
    if (map->slots) munmap(map->slots, (size_t)map->capacity * sizeof(idmap_slot));
    idmap_init(map, map->max_used);
}

void idmap_clear(idmap *map) {
    if (map->slots) memset(map->slots, 0, (size_t)map->capacity * sizeof(idmap_slot));
    map->used = 0;
}

/* The slot that holds the key, or the empty slot where it would go. */
static uint32_t find(const idmap *map, uint64_t key) {
    uint32_t mask = map->capacity - 1;
    uint32_t at = (uint32_t)idmap_mix(key) & mask;
    while (map->slots[at].key && map->slots[at].key != key) at = (at + 1) & mask;
    return at;
}

static bool grow(idmap *map) {
    uint32_t capacity = map->capacity ? map->capacity * 2 : FIRST_CAPACITY;
    idmap_slot *slots = allocate_slots(capacity);
    if (!slots) return false;
    idmap bigger = {.slots = slots, .capacity = capacity, .used = map->used, .max_used = map->max_used};
    for (uint32_t at = 0; at < map->capacity; at++)
        if (map->slots[at].key) slots[find(&bigger, map->slots[at].key)] = map->slots[at];
    idmap_free(map);
    *map = bigger;
    return true;
}

uint32_t idmap_get(const idmap *map, uint64_t key) {
    if (!map->slots) return IDMAP_NONE;
    const idmap_slot *slot = &map->slots[find(map, key)];
    return slot->key ? slot->value : IDMAP_NONE;
}

bool idmap_put(idmap *map, uint64_t key, uint32_t value) {
    if (map->slots) {
        idmap_slot *slot = &map->slots[find(map, key)];
        if (slot->key) {
            slot->value = value;
            return true;
        }
    }
    if (map->used >= map->max_used) return false;
    if (2 * (map->used + 1) > map->capacity && !grow(map)) return false;
    map->slots[find(map, key)] = (idmap_slot){.key = key, .value = value};
    map->used++;
    return true;
}

uint32_t idmap_remove(idmap *map, uint64_t key) {
    if (!map->slots) return IDMAP_NONE;
    uint32_t mask = map->capacity - 1;
    uint32_t hole = find(map, key);
    if (!map->slots[hole].key) return IDMAP_NONE;
    uint32_t value = map->slots[hole].value;
    for (uint32_t at = (hole + 1) & mask; map->slots[at].key; at = (at + 1) & mask) {
        /* A key may fill the hole unless its home lies cyclically within (hole, at]. */
        uint32_t home = (uint32_t)idmap_mix(map->slots[at].key) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->slots[hole] = map->slots[at];
            hole = at;
        }
    }
    map->slots[hole].key = 0;
    map->used--;
    return value;
}
