/* One walk over what can be reached, from all roots, with the targets met on the way. */
#ifndef STANCH_RETAIN_WALK_H
#define STANCH_RETAIN_WALK_H

#include "retain.h"
#include "retain_layout.h"
#include "retain_memory.h"

#define IS_ROOT 0x80000000u /* a holder that is the number of a root */
#define MAX_ROOTS 65536u
#define SEPARATE_FRAMES 24u /* outermost frames that are walked one after the other */
#define HEAD_DEPTH 48u /* levels from the root of which every step is told */

typedef struct {
    PyObject *object;
    uint32_t holder; /* entry of the queue, or IS_ROOT and a root's number */
} __attribute__((packed)) walk_entry;

typedef struct {
    enum retain_root kind;
    const void *what; /* module's name, frame, thread state, or nothing */
    PyObject *file;   /* of a module, or NULL */
} walk_root;

typedef struct {
    uint32_t first, head_end, end; /* entries of this phase; those before head_end are shallow */
} walk_phase;

/* What is asked of a type for each object, remembered: there are few types and many objects. */
typedef struct {
    PyTypeObject *type;
    uint16_t before; /* bytes of the allocation before the object */
    uint16_t words;  /* of the object itself that are looked at */
    bool is_array, is_deque;
} walk_type;

#define TYPES 1024u

typedef struct {
    const retain_options *options;
    PyInterpreterState *interpreter;
    walk_type types[TYPES];
    retain_target *targets;
    uint32_t target_count, unresolved;
    address_map by_address;
    uint64_t bloom[1024];
    size_t skew; /* bytes that a debugging allocator puts before each block */

    address_set seen;
    walk_entry *queue;
    uint32_t used, capacity;
    size_t queue_bytes;
    uint32_t holder; /* of what is being visited */
    walk_root *roots;
    uint32_t root_count;
    walk_phase phases[SEPARATE_FRAMES + ROOT_KINDS + 2];
    uint32_t phase_count;

    uint64_t edges, began_ns, deadline_ns, memory_bytes;
    uint32_t flags;   /* enum retain_flag */
    uint32_t garbage; /* objects in cycles that nothing refers to */
} walk;

/* Prepares the tables for `count` targets; they stay the caller's. False without memory. */
bool walk_init(walk *walk, const retain_options *options, PyInterpreterState *interpreter,
               retain_target *targets, uint32_t count);
void walk_free(walk *walk);
/* Walks everything: modules, threads, the interpreter, then what only native code or cycles
 * hold. Stops when all targets are found or a limit is reached. */
void walk_all(walk *walk);
uint64_t walk_own_bytes(const walk *walk);
/* Looks whether time or memory is over. */
bool walk_over(walk *walk);

/* For retain_rest.c */
uint32_t walk_add_root(walk *walk, enum retain_root kind, const void *what, PyObject *file);
void walk_push_from_root(walk *walk, uint32_t root, PyObject *object);
void walk_drain(walk *walk);
/* Objects that no root reaches: what native code holds, and cycles. */
void walk_rest(walk *walk);
void walk_children(walk *walk, PyObject *object, PyTypeObject *type, layout_visit visit, void *arg);

#endif
