/* From the ids of a profile, which any number can be, to positions. The first of two equal wins.
 * Small ids, as all writers use them, are looked up directly. */
#ifndef STANCH_IDMAP_H
#define STANCH_IDMAP_H

#include <stdint.h>
#include <stdlib.h>

struct idmap {
    uint32_t *direct; /* by id below `mask`, plus one; 0 is free */
    uint64_t *ids;    /* of the others, in slots */
    uint32_t *positions;
    size_t mask;
};

static inline void idmap_free(struct idmap *map)
{
    free(map->direct);
    free(map->ids);
    free(map->positions);
}

static inline int idmap_init(struct idmap *map, size_t count)
{
    size_t room = 16;
    while (room < count * 2)
        room *= 2;
    map->mask = room - 1;
    map->direct = calloc(room, sizeof *map->direct);
    map->ids = calloc(room, sizeof *map->ids);
    map->positions = calloc(room, sizeof *map->positions);
    if (map->direct != NULL && map->ids != NULL && map->positions != NULL)
        return 0;
    idmap_free(map);
    *map = (struct idmap){0};
    return -1;
}

/* Where the position of an id is or will be; 0 there is free. */
static inline uint32_t *idmap_slot(const struct idmap *map, uint64_t id)
{
    if (id <= map->mask)
        return &map->direct[id];
    size_t slot = (size_t)((id * 0x9e3779b97f4a7c15ULL) >> 32) & map->mask;
    while (map->positions[slot] != 0 && map->ids[slot] != id)
        slot = (slot + 1) & map->mask;
    if (map->positions[slot] == 0)
        map->ids[slot] = id;
    return &map->positions[slot];
}

static inline void idmap_put(struct idmap *map, uint64_t id, uint32_t position)
{
    uint32_t *slot = idmap_slot(map, id);
    if (*slot == 0)
        *slot = position + 1;
}

static inline int idmap_find(const struct idmap *map, uint64_t id, uint32_t *position)
{
    uint32_t found = *idmap_slot(map, id);
    *position = found - 1;
    return found == 0 ? -1 : 0;
}

#endif
