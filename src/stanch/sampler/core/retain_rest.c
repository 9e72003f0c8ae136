/* Objects that no root reaches. Either something else than a Python object refers to them, or
 * they are cycles that wait for the collector. The collector's own reckoning tells which: an
 * object with more references than its fellows account for is held from elsewhere.
 *
 * Locks: none, as in retain_walk.c.
 */
#include "retain_walk.h"

typedef struct {
    walk *walk;
    PyObject **objects;
    int64_t *outside; /* references that no fellow accounts for */
    address_map numbers;
    uint32_t count, capacity;
} rest;

static bool count_one(PyObject *object, void *arg) {
    rest *rest = arg;
    if (!address_set_has(&rest->walk->seen, (uintptr_t)object)) rest->capacity++;
    return rest->capacity < IS_ROOT;
}

static bool collect_one(PyObject *object, void *arg) {
    rest *rest = arg;
    if (address_set_has(&rest->walk->seen, (uintptr_t)object)) return true;
    if (rest->count == rest->capacity) return false;
    rest->objects[rest->count] = object;
    rest->outside[rest->count] = Py_REFCNT(object);
    address_map_put(&rest->numbers, (uintptr_t)object, rest->count++);
    return true;
}

static int account(PyObject *object, void *arg) {
    rest *rest = arg;
    uint32_t number = address_map_get(&rest->numbers, (uintptr_t)object);
    if (number != RETAIN_NONE) rest->outside[number]--;
    return 0;
}

static void classify(rest *rest) {
    walk *walk = rest->walk;
    layout_collector_objects(walk->interpreter, collect_one, rest);
    for (uint32_t i = 0; i < rest->count; i++) {
        if (i % 4096 == 0 && walk_over(walk)) return;
        walk_children(walk, rest->objects[i], Py_TYPE(rest->objects[i]), account, rest);
    }
    uint32_t native = walk_add_root(walk, ROOT_NATIVE, NULL, NULL);
    for (uint32_t i = 0; i < rest->count; i++)
        if (rest->outside[i] > 0) walk_push_from_root(walk, native, rest->objects[i]);
    walk_drain(walk);
    uint32_t garbage = walk_add_root(walk, ROOT_GARBAGE, NULL, NULL);
    for (uint32_t i = 0; i < rest->count; i++) {
        if (address_set_has(&walk->seen, (uintptr_t)rest->objects[i])) continue;
        walk->garbage++;
        walk_push_from_root(walk, garbage, rest->objects[i]);
    }
    walk_drain(walk);
}

void walk_rest(walk *walk) {
    rest rest = {.walk = walk};
    layout_collector_objects(walk->interpreter, count_one, &rest);
    if (!rest.capacity) return;
    uint64_t bytes = (uint64_t)rest.capacity * (8 + 8 + 16 * 3);
    if (walk_own_bytes(walk) + bytes > walk->memory_bytes) {
        walk->flags |= FLAG_MEMORY;
        return;
    }
    rest.objects = memory_map((size_t)rest.capacity * 8);
    rest.outside = memory_map((size_t)rest.capacity * 8);
    if (rest.objects && rest.outside && address_map_init(&rest.numbers, rest.capacity))
        classify(&rest);
    else
        walk->flags |= FLAG_MEMORY;
    memory_unmap(rest.objects, (size_t)rest.capacity * 8);
    memory_unmap(rest.outside, (size_t)rest.capacity * 8);
    address_map_free(&rest.numbers);
}
