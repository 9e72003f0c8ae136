/* Interning: texts, functions, frames, stacks, mappings and labels get numbers in the table.
 *
 * Keys are 64-bit hashes of the contents. Two of n contents share one with probability
 * n^2 / 2^65, which for full sections is below 1e-9; they would then share a number.
 *
 * Locks: everything here is protected by the table's lock.
 */
#include <string.h>

#include "idmap.h"
#include "table.h"
#include "table_inner.h"

static idmap strings, functions, frames, stacks, mappings, labels;

static uint64_t nonzero(uint64_t hash) { return hash ? hash : 1; }

static uint32_t intern_string(const char *text, size_t bytes) {
    uint64_t key = nonzero(hash_bytes(bytes, text, bytes));
    uint32_t offset = idmap_get(&strings, key);
    if (offset != IDMAP_NONE) return offset;
    if (!table_make_room(SECTION_STRINGS, (uint32_t)bytes)) return IDMAP_NONE;
    offset = HEADER->sections[SECTION_STRINGS].used;
    memcpy(ITEMS(SECTION_STRINGS, char) + offset, text, bytes);
    table_publish(SECTION_STRINGS, (uint32_t)bytes);
    idmap_put(&strings, key, offset);
    return offset;
}

uint32_t table_function_locked(const char *name, size_t name_bytes, const char *file_name,
                               size_t file_bytes, int32_t first_line) {
    uint32_t name_offset = intern_string(name, name_bytes);
    uint32_t file_offset = intern_string(file_name, file_bytes);
    if (name_offset == IDMAP_NONE || file_offset == IDMAP_NONE) return IDMAP_NONE;
    table_function function = {name_offset, file_offset, (uint16_t)name_bytes, (uint16_t)file_bytes,
                               first_line};
    uint64_t key = nonzero(hash_bytes(1, &function, sizeof function));
    uint32_t number = idmap_get(&functions, key);
    if (number != IDMAP_NONE || !table_make_room(SECTION_FUNCTIONS, 1)) return number;
    number = HEADER->sections[SECTION_FUNCTIONS].used;
    ITEMS(SECTION_FUNCTIONS, table_function)[number] = function;
    table_publish(SECTION_FUNCTIONS, 1);
    idmap_put(&functions, key, number);
    return number;
}

uint32_t table_frame_locked(uint32_t function, int32_t line) {
    uint64_t key = nonzero((uint64_t)function << 32 | (uint32_t)line);
    uint32_t number = idmap_get(&frames, key);
    if (number != IDMAP_NONE || !table_make_room(SECTION_FRAMES, 1)) return number;
    number = HEADER->sections[SECTION_FRAMES].used;
    ITEMS(SECTION_FRAMES, table_frame)[number] = (table_frame){function, line};
    table_publish(SECTION_FRAMES, 1);
    idmap_put(&frames, key, number);
    return number;
}

uint32_t table_stack_locked(const uint32_t *stack_frames, uint32_t depth) {
    uint64_t key = nonzero(hash_bytes(depth, stack_frames, depth * sizeof *stack_frames));
    uint32_t number = idmap_get(&stacks, key);
    if (number != IDMAP_NONE) return number;
    if (!table_make_room(SECTION_STACK_FRAMES, depth) || !table_make_room(SECTION_STACKS, 1)) return IDMAP_NONE;
    uint32_t first = HEADER->sections[SECTION_STACK_FRAMES].used;
    if (depth)
        memcpy(ITEMS(SECTION_STACK_FRAMES, uint32_t) + first, stack_frames,
               depth * sizeof *stack_frames);
    table_publish(SECTION_STACK_FRAMES, depth);
    number = HEADER->sections[SECTION_STACKS].used;
    ITEMS(SECTION_STACKS, table_stack)[number] = (table_stack){first, depth, 0, 0};
    table_publish(SECTION_STACKS, 1);
    idmap_put(&stacks, key, number);
    return number;
}

uint32_t table_stack_beneath_locked(const uint32_t *stack_frames, uint32_t depth,
                                    uint32_t caller) {
    if (!depth) return caller;
    table_stack outer = ITEMS(SECTION_STACKS, table_stack)[caller];
    uint32_t joined[TABLE_MAX_DEPTH];
    if (depth > TABLE_MAX_DEPTH) depth = TABLE_MAX_DEPTH;
    if (outer.depth > TABLE_MAX_DEPTH - depth) outer.depth = TABLE_MAX_DEPTH - depth;
    memcpy(joined, stack_frames, depth * sizeof *joined);
    memcpy(joined + depth, ITEMS(SECTION_STACK_FRAMES, uint32_t) + outer.first_frame,
           outer.depth * sizeof *joined);
    uint32_t stack = table_stack_locked(joined, depth + outer.depth);
    return stack == IDMAP_NONE ? STACK_OVERFLOW : stack;
}

uint32_t table_mapping_locked(uint64_t start, uint64_t end, uint64_t file_start, const char *path,
                              size_t path_bytes, const char *build_id, size_t build_id_bytes) {
    uint32_t path_offset = intern_string(path, path_bytes);
    uint32_t build_id_offset = intern_string(build_id, build_id_bytes);
    if (path_offset == IDMAP_NONE || build_id_offset == IDMAP_NONE) return IDMAP_NONE;
    table_mapping mapping = {.start = start,
                             .end = end,
                             .file_start = file_start,
                             .path_offset = path_offset,
                             .build_id_offset = build_id_offset,
                             .path_bytes = (uint16_t)path_bytes,
                             .build_id_bytes = (uint16_t)build_id_bytes};
    uint64_t key = nonzero(hash_bytes(3, &mapping, sizeof mapping));
    uint32_t number = idmap_get(&mappings, key);
    if (number != IDMAP_NONE || !table_make_room(SECTION_MAPPINGS, 1)) return number;
    number = HEADER->sections[SECTION_MAPPINGS].used;
    ITEMS(SECTION_MAPPINGS, table_mapping)[number] = mapping;
    table_publish(SECTION_MAPPINGS, 1);
    idmap_put(&mappings, key, number);
    return number;
}

static uint32_t add_label(table_label label) {
    uint32_t number = HEADER->sections[SECTION_LABELS].used;
    if (number == HEADER->sections[SECTION_LABELS].capacity ||
        !table_make_room(SECTION_LABELS, 1)) {
        HEADER->labels_refused++;
        return LABEL_OVERFLOW;
    }
    ITEMS(SECTION_LABELS, table_label)[number] = label;
    table_publish(SECTION_LABELS, 1);
    return number;
}

uint32_t table_label_locked(const char *thread, size_t thread_bytes, const char *route,
                            size_t route_bytes) {
    if (!thread_bytes && !route_bytes) return LABEL_NONE;
    uint64_t key = hash_bytes(4, thread, thread_bytes);
    key = nonzero(hash_bytes(key, route, route_bytes));
    uint32_t number = idmap_get(&labels, key);
    if (number != IDMAP_NONE) return number;
    uint32_t thread_offset = intern_string(thread, thread_bytes);
    uint32_t route_offset = intern_string(route, route_bytes);
    if (thread_offset == IDMAP_NONE || route_offset == IDMAP_NONE) {
        HEADER->labels_refused++;
        return LABEL_OVERFLOW;
    }
    number = add_label((table_label){thread_offset, route_offset, (uint16_t)thread_bytes,
                                     (uint16_t)route_bytes});
    if (number != LABEL_OVERFLOW) idmap_put(&labels, key, number);
    return number;
}

void intern_bound(const table_header *layout) {
    idmap_init(&strings, layout->sections[SECTION_FUNCTIONS].capacity * 2);
    idmap_init(&functions, layout->sections[SECTION_FUNCTIONS].capacity);
    idmap_init(&frames, layout->sections[SECTION_FRAMES].capacity);
    idmap_init(&stacks, layout->sections[SECTION_STACKS].capacity);
    idmap_init(&mappings, layout->sections[SECTION_MAPPINGS].capacity);
    idmap_init(&labels, layout->sections[SECTION_LABELS].capacity);
}

void intern_begin_locked(void) {
    static const char full[] = "[stanch: the table of stacks is full]";
    table_stack_locked(NULL, 0);
    uint32_t frame = table_frame_locked(table_function_locked(full, sizeof full - 1, "", 0, 0), 0);
    table_stack_locked(&frame, 1);
    static const char too_many[] = "[too many labels]";
    uint32_t text = intern_string(too_many, sizeof too_many - 1);
    uint32_t empty = intern_string("", 0);
    add_label((table_label){empty, empty, 0, 0});
    add_label((table_label){text, text, sizeof too_many - 1, sizeof too_many - 1});
}

void intern_forget_locked(void) {
    idmap *maps[] = {&strings, &functions, &frames, &stacks, &mappings, &labels};
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) idmap_free(maps[i]);
}
