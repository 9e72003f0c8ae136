/* From the ids of a profile, which any number can be, to positions. The first of two equal wins. */
#ifndef STANCH_IDMAP_H
#define STANCH_IDMAP_H

#include <stdint.h>
#include <stdlib.h>

struct idmap {
    uint64_t *ids;
    uint32_t *positions; /* plus one; 0 is free */
    size_t mask;
};

static inline int idmap_init(struct idmap *map, size_t count)
{
    size_t room = 16;
    while (room < count * 2)
        room *= 2;
    map->mask = room - 1;
    map->ids = calloc(room, sizeof *map->ids);
    map->positions = calloc(room, sizeof *map->positions);
    if (map->ids != NULL && map->positions != NULL)
        return 0;
    free(map->ids);
    free(map->positions);
    return -1;
}

static inline size_t idmap_slot(const struct idmap *map, uint64_t id)
{
    size_t slot = (size_t)((id * 0x9e3779b97f4a7c15ULL) >> 32) & map->mask;
    while (map->positions[slot] != 0 && map->ids[slot] != id)
        slot = (slot + 1) & map->mask;
    return slot;
}

static inline void idmap_put(struct idmap *map, uint64_t id, uint32_t position)
{
    size_t slot = idmap_slot(map, id);
    if (map->positions[slot] != 0)
        return;
    map->ids[slot] = id;
    map->positions[slot] = position + 1;
}

static inline int idmap_find(const struct idmap *map, uint64_t id, uint32_t *position)
{
    size_t slot = idmap_slot(map, id);
    if (map->positions[slot] == 0)
        return -1;
    *position = map->positions[slot] - 1;
    return 0;
}

static inline void idmap_free(struct idmap *map)
{
    free(map->ids);
    free(map->positions);
}

#endif
