/* Locks: none. The GIL is held, or this is a snapshot in which nothing else runs. */
#include "retain_walk.h"

#include <string.h>

#include "clock.h"

#define ENTRIES_PER_LOOK 4096u /* between two looks at the clock */
#define SCAN_BYTES 512         /* of an object's own words */

/* ---- targets ---- */

/* The upper bits of a product depend on all bits of the address. */
static inline uint32_t bloom_bit(uint64_t address) {
    return (uint32_t)((address >> 3) * 0x9e3779b97f4a7c15ull >> 48);
}

static inline bool maybe_target(const walk *walk, uint64_t address) {
    uint32_t bit = bloom_bit(address);
    return walk->bloom[bit >> 6] >> (bit & 63) & 1;
}

static __attribute__((noinline)) void found_slow(walk *walk, uint64_t address, uint32_t holder, const void *leaf,
                  enum retain_how how) {
    uint32_t number = address_map_get(&walk->by_address, address);
    if (number == RETAIN_NONE || walk->targets[number].how != HOW_NOT_FOUND) return;
    retain_target *target = &walk->targets[number];
    target->holder = holder;
    target->leaf = (uintptr_t)leaf;
    target->how = how;
    walk->unresolved--;
}

static inline void found(walk *walk, uint64_t address, uint32_t holder, const void *leaf,
                         enum retain_how how) {
    if (maybe_target(walk, address)) found_slow(walk, address, holder, leaf, how);
}

/* An object's own block, and with a debugging allocator what it put before it. */
static inline void found_object(walk *walk, PyObject *object, size_t before, uint32_t holder,
                                const void *leaf) {
    uint64_t block = (uintptr_t)object - before;
    found(walk, block, holder, leaf, HOW_OBJECT);
    if (walk->skew) found(walk, block - walk->skew, holder, leaf, HOW_OBJECT);
}

static void found_buffer(walk *walk, const void *block, uint32_t holder, const void *leaf) {
    found(walk, (uintptr_t)block, holder, leaf, HOW_BUFFER);
    if (walk->skew) found(walk, (uintptr_t)block - walk->skew, holder, leaf, HOW_BUFFER);
}

/* A buffer is known by its address standing in its owner: a list's items, a dict's keys, a
 * bytearray's bytes, an array's data, a structure of an extension. */
static inline void scan_words(walk *walk, PyObject *object, const walk_type *info, uint32_t holder,
                              const void *leaf) {
    const uint64_t *words = (const uint64_t *)object;
    for (uint32_t i = sizeof(PyObject) / 8; i < info->words; i++)
        if (maybe_target(walk, words[i] - walk->skew) || (walk->skew && maybe_target(walk, words[i])))
            found_buffer(walk, (const void *)words[i], holder, leaf);
}

typedef struct {
    walk *walk;
    uint32_t holder;
} block_seer;

static void see_block(const void *block, void *arg) {
    block_seer *seer = arg;
    found_buffer(seer->walk, block, seer->holder, NULL);
}

/* ---- objects ---- */

static bool is_array(const walk *walk, PyTypeObject *type) {
    if (!walk->options->ndarray) return false;
    for (; type; type = type->tp_base)
        if (type == walk->options->ndarray) return true;
    return false;
}

static const walk_type *info_of(walk *walk, PyTypeObject *type) {
    walk_type *info = &walk->types[((uintptr_t)type >> 4) % TYPES];
    if (info->type == type) return info;
    Py_ssize_t bytes = type->tp_basicsize < SCAN_BYTES ? type->tp_basicsize : SCAN_BYTES;
    *info = (walk_type){.type = type,
                        .before = (uint16_t)layout_before(type),
                        .words = (uint16_t)(bytes > 0 ? bytes / 8 : 0),
                        .is_array = is_array(walk, type),
                        .is_deque = layout_is_deque(type)};
    return info;
}

/* Objects without references to others, which there are most of. */
static inline bool is_plain(PyTypeObject *type) {
    return type == &PyUnicode_Type || type == &PyBytes_Type || type == &PyLong_Type ||
           type == &PyFloat_Type || type == &PyBool_Type || type == Py_TYPE(Py_None);
}

static inline void meet_plain(walk *walk, PyObject *object, PyTypeObject *type) {
    found_object(walk, object, 0, walk->holder, object);
    if (type == &PyUnicode_Type && !PyUnicode_IS_COMPACT_ASCII(object))
        found_buffer(walk, ((PyCompactUnicodeObject *)object)->utf8, walk->holder, object);
}

static int visit(PyObject *object, void *arg) {
    walk *walk = arg;
    walk->edges++;
    PyTypeObject *type = Py_TYPE(object);
    if (is_plain(type)) {
        meet_plain(walk, object, type);
        return 0;
    }
    const walk_type *info = info_of(walk, type);
    bool inner = ((uintptr_t)object & 15) == 0 &&
                 ((PyType_IS_GC(type) && (!type->tp_is_gc || type->tp_is_gc(object))) ||
                  type == &PyCode_Type || info->is_array || PyType_Check(object));
    if (!inner) {
        found_object(walk, object, info->before, walk->holder, object);
        scan_words(walk, object, info, walk->holder, object);
        return 0;
    }
    bool full = false;
    if (address_set_test_and_add(&walk->seen, (uintptr_t)object, &full)) {
        if (full) walk->flags |= FLAG_MEMORY;
        return 0;
    }
    if (walk->used >= walk->capacity) {
        walk->flags |= FLAG_MEMORY;
        return 0;
    }
    walk->queue[walk->used] = (walk_entry){object, walk->holder};
    found_object(walk, object, info->before, walk->used, NULL);
    walk->used++;
    return 0;
}

/* Only the address is looked at, so that the keys of a large dict cost little. */
static int meet_text_key(PyObject *key, void *arg) {
    walk *walk = arg;
    found_object(walk, key, 0, walk->holder, key);
    return 0;
}

/* Everything that an object refers to. */
void walk_children(walk *walk, PyObject *object, PyTypeObject *type, layout_visit see, void *arg) {
    bool is_gc = layout_is_gc(object, type);
    if (is_gc && type->tp_traverse) type->tp_traverse(object, see, arg);
    if (type == &PyCode_Type) layout_visit_code((PyCodeObject *)object, see, arg);
    if (!is_gc && is_array(walk, type)) layout_visit_array(object, see, arg);
    if (PyType_Check(object) && !is_gc && ((PyTypeObject *)object)->tp_dict)
        see(((PyTypeObject *)object)->tp_dict, arg); /* a static type */
}

/* What tp_traverse need not tell: static types, and dicts beside inline values. */
static void visit_beside(walk *walk, PyObject *object, PyTypeObject *type) {
    if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) visit((PyObject *)type, walk);
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
        PyObject *dict = layout_instance_dict(object);
        if (dict) visit(dict, walk);
    }
}

static void find_buffers(walk *walk, PyObject *object, PyTypeObject *type, uint32_t holder) {
    const walk_type *info = info_of(walk, type);
    scan_words(walk, object, info, holder, NULL);
    layout_values values;
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT && layout_inline_values(object, &values) &&
        values.block)
        found_buffer(walk, values.block, holder, NULL);
    if (PyDict_Check(object) || info->is_deque) {
        block_seer seer = {walk, holder};
        layout_inner_blocks(object, see_block, &seer);
        if (PyDict_Check(object))
            layout_visit_text_keys((PyDictObject *)object, meet_text_key, walk);
    }
}

bool walk_over(walk *walk) {
    if (walk->flags & (FLAG_TIME | FLAG_MEMORY)) return true;
    if (clock_ns(CLOCK_MONOTONIC) > walk->deadline_ns) walk->flags |= FLAG_TIME;
    if (walk_own_bytes(walk) > walk->memory_bytes) walk->flags |= FLAG_MEMORY;
    return walk->flags & (FLAG_TIME | FLAG_MEMORY);
}

static uint32_t next_entry(const walk *walk) {
    return walk->phase_count ? walk->phases[walk->phase_count - 1].end : 0;
}

void walk_drain(walk *walk) {
    walk_phase *phase = &walk->phases[walk->phase_count];
    phase->first = next_entry(walk);
    phase->head_end = UINT32_MAX;
    uint32_t level = 0, level_end = walk->used, at = phase->first;
    for (; at < walk->used && walk->unresolved; at++) {
        if (at == level_end) {
            level_end = walk->used;
            if (++level == HEAD_DEPTH) phase->head_end = at;
        }
        if (at % ENTRIES_PER_LOOK == 0 && walk_over(walk)) break;
        PyObject *object = walk->queue[at].object;
        PyTypeObject *type = Py_TYPE(object);
        if (at + 8 < walk->used) __builtin_prefetch(walk->queue[at + 8].object);
        walk->holder = at;
        walk_children(walk, object, type, visit, walk);
        visit_beside(walk, object, type);
        find_buffers(walk, object, type, at);
    }
    phase->end = at;
    if (walk->phase_count + 1 < sizeof walk->phases / sizeof *walk->phases) walk->phase_count++;
}

/* ---- roots ---- */

uint32_t walk_add_root(walk *walk, enum retain_root kind, const void *what, PyObject *file) {
    if (walk->root_count >= MAX_ROOTS) return MAX_ROOTS - 1;
    walk->roots[walk->root_count] = (walk_root){kind, what, file};
    return walk->root_count++;
}

void walk_push_from_root(walk *walk, uint32_t root, PyObject *object) {
    walk->holder = IS_ROOT | root;
    visit(object, walk);
}

static PyObject *module_file(PyObject *dict) {
    Py_ssize_t at = 0;
    PyObject *key, *value;
    for (int i = 0; i < 32 && PyDict_Next(dict, &at, &key, &value); i++)
        if (PyUnicode_Check(key) && PyUnicode_IS_COMPACT_ASCII(key) &&
            strcmp(PyUnicode_DATA(key), "__file__") == 0)
            return PyUnicode_Check(value) ? value : NULL;
    return NULL;
}

static bool same_text(PyObject *a, PyObject *b) {
    if (!PyUnicode_Check(a) || !PyUnicode_Check(b) || PyUnicode_KIND(a) != PyUnicode_KIND(b) ||
        PyUnicode_GET_LENGTH(a) != PyUnicode_GET_LENGTH(b))
        return false;
    return memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b),
                  (size_t)(PyUnicode_GET_LENGTH(a) * PyUnicode_KIND(a))) == 0;
}

/* The modules of the asked stacks go first: of two names for one object, theirs is told. */
static bool is_first_choice(const walk *walk, PyObject *file) {
    for (Py_ssize_t i = 0; file && i < PyTuple_GET_SIZE(walk->options->files); i++)
        if (same_text(file, PyTuple_GET_ITEM(walk->options->files, i))) return true;
    return false;
}

static void push_modules(walk *walk, bool first_choice) {
    PyObject *modules = layout_modules(walk->interpreter), *name, *module;
    Py_ssize_t at = 0;
    if (!modules || !PyDict_Check(modules)) return;
    while (PyDict_Next(modules, &at, &name, &module)) {
        if (!PyModule_Check(module) || !PyUnicode_Check(name)) continue;
        PyObject *dict = PyModule_GetDict(module); /* borrowed */
        if (!dict) continue;
        PyObject *file = module_file(dict);
        if (is_first_choice(walk, file) != first_choice) continue;
        walk_push_from_root(walk, walk_add_root(walk, ROOT_MODULE, name, file), dict);
    }
}

/* The oldest thread's outermost frames first, each with all that it reaches: a server that a
 * program's main function holds says more than a timer of the moment that leads to it too. */
static void walk_frames(walk *walk) {
    uint32_t first = walk->root_count;
    PyThreadState *state = layout_threads(walk->interpreter);
    for (; state; state = state->next) {
        _PyInterpreterFrame *frame = layout_thread_frame(state);
        for (; frame; frame = frame->previous)
            if (layout_frame_code(frame)) walk_add_root(walk, ROOT_FRAME, frame, NULL);
    }
    uint32_t separate = SEPARATE_FRAMES;
    for (uint32_t root = walk->root_count; root-- > first;) {
        walk->holder = IS_ROOT | root;
        layout_visit_frame((_PyInterpreterFrame *)walk->roots[root].what, visit, walk);
        if (!separate) continue;
        separate--;
        walk_drain(walk);
        if (!walk->unresolved || walk_over(walk)) return;
    }
    walk_drain(walk);
}

static void push_threads(walk *walk) {
    PyThreadState *state = layout_threads(walk->interpreter);
    for (; state; state = state->next) {
        walk->holder = IS_ROOT | walk_add_root(walk, ROOT_THREAD, state, NULL);
        layout_visit_thread(state, visit, walk);
        if (state->context)
            walk_push_from_root(walk, walk_add_root(walk, ROOT_CONTEXT, state, NULL),
                                state->context);
    }
}

/* What holds others for the moment only, such as callbacks that are about to run, counts as seen
 * until all else was looked into: whatever lasts and holds the same is told. */
static void hold_back(walk *walk) {
    bool full = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(walk->options->late); i++)
        address_set_test_and_add(&walk->seen, (uintptr_t)PyTuple_GET_ITEM(walk->options->late, i),
                                 &full);
    if (full) walk->flags |= FLAG_MEMORY;
}

static void push_held_back(walk *walk) {
    uint32_t root = walk_add_root(walk, ROOT_LATE, NULL, NULL);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(walk->options->late); i++) {
        if (walk->used >= walk->capacity) {
            walk->flags |= FLAG_MEMORY;
            return;
        }
        PyObject *object = PyTuple_GET_ITEM(walk->options->late, i);
        size_t before = info_of(walk, Py_TYPE(object))->before;
        walk->queue[walk->used] = (walk_entry){object, IS_ROOT | root};
        found_object(walk, object, before, walk->used, NULL);
        walk->used++;
    }
}

void walk_all(walk *walk) {
    hold_back(walk);
    push_modules(walk, true);
    push_modules(walk, false);
    walk_drain(walk);
    if (!walk->unresolved || walk_over(walk)) return;
    walk_frames(walk);
    if (!walk->unresolved || walk_over(walk)) return;
    push_threads(walk);
    walk_drain(walk);
    if (!walk->unresolved || walk_over(walk)) return;
    push_held_back(walk);
    walk->holder = IS_ROOT | walk_add_root(walk, ROOT_INTERPRETER, NULL, NULL);
    layout_visit_interpreter(walk->interpreter, visit, walk);
    walk_drain(walk);
    if (!walk->unresolved || walk_over(walk)) return;
    if (layout_collecting(walk->interpreter))
        walk->flags |= FLAG_COLLECTING;
    else
        walk_rest(walk);
}

/* ---- life ---- */

uint64_t walk_own_bytes(const walk *walk) {
    return walk->used * sizeof(walk_entry) + address_set_bytes(&walk->seen) +
           walk->root_count * sizeof(walk_root) + walk->target_count * sizeof(retain_target);
}

bool walk_init(walk *walk, const retain_options *options, PyInterpreterState *interpreter,
               retain_target *targets, uint32_t count) {
    walk->options = options;
    walk->interpreter = interpreter;
    walk->targets = targets;
    walk->target_count = walk->unresolved = count;
    walk->began_ns = clock_ns(CLOCK_MONOTONIC);
    walk->deadline_ns = walk->began_ns + options->time_ns;
    walk->memory_bytes = options->memory_bytes;
    uint64_t entries = options->memory_bytes / sizeof(walk_entry);
    walk->capacity = entries < IS_ROOT - 1 ? (uint32_t)entries : IS_ROOT - 1;
    walk->queue_bytes = (size_t)walk->capacity * sizeof(walk_entry);
    walk->queue = memory_map(walk->queue_bytes);
    walk->roots = memory_map(MAX_ROOTS * sizeof(walk_root));
    if (!walk->queue || !walk->roots || !address_set_init(&walk->seen) ||
        !address_map_init(&walk->by_address, count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bit = bloom_bit(targets[i].address);
        walk->bloom[bit >> 6] |= 1ull << (bit & 63);
        address_map_put(&walk->by_address, targets[i].address, i);
    }
    return true;
}

void walk_free(walk *walk) {
    memory_unmap(walk->queue, walk->queue_bytes);
    memory_unmap(walk->roots, MAX_ROOTS * sizeof(walk_root));
    address_set_free(&walk->seen);
    address_map_free(&walk->by_address);
}
