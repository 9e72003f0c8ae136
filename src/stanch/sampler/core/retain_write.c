/* Locks: none, as in retain_walk.c. */
#include "retain_write.h"

#include <string.h>

#include "clock.h"
#include "retain_name.h"

#define MAX_NODES (256u << 10)
#define MAX_TEXT (8u << 20)
#define MAX_TEXT_POINTS 160u
#define TAIL 64u /* steps above a target that are told of a long chain */
#define MEMO_MASK 1023u

typedef struct {
    walk *walk;
    retain_node *nodes;
    char *texts;
    uint32_t node_count, text_used, flags;
    address_map by_entry; /* entry + 1 -> node */
    address_map by_text;  /* address of a str, a type or a code -> offset */
    uint32_t known_texts, known_heads;
    address_map heads; /* entry + 1 -> the shallow entry above it */
} writer;

/* ---- texts ---- */

static bool put_byte(writer *to, char byte) {
    if (to->text_used >= MAX_TEXT) {
        to->flags |= FLAG_ANSWER;
        return false;
    }
    to->texts[to->text_used++] = byte;
    return true;
}

/* Unprintable characters and lone surrogates become '?'. */
static void put_point(writer *to, Py_UCS4 point) {
    if (point < 0x20 || point == 0x7F || (point >= 0xD800 && point <= 0xDFFF)) point = '?';
    if (point < 0x80) {
        put_byte(to, (char)point);
        return;
    }
    int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    put_byte(to, (char)(lead[more] | point >> (6 * more)));
    while (more--) put_byte(to, (char)(0x80 | (point >> (6 * more) & 0x3F)));
}

static uint32_t begin_text(writer *to, const void *key, uint32_t *known) {
    *known = address_map_get(&to->by_text, (uintptr_t)key);
    if (*known == RETAIN_NONE && to->known_texts < MAX_NODES / 2) {
        to->known_texts++;
        address_map_put(&to->by_text, (uintptr_t)key, to->text_used);
    }
    return to->text_used;
}

static uint32_t put_string(writer *to, PyObject *string) {
    if (!string || !PyUnicode_Check(string)) return 0;
    uint32_t known, at = begin_text(to, string, &known);
    if (known != RETAIN_NONE) return known;
    Py_ssize_t length = PyUnicode_GET_LENGTH(string);
    Py_ssize_t first = length > MAX_TEXT_POINTS ? length - MAX_TEXT_POINTS : 0;
    for (Py_ssize_t i = first; i < length; i++) put_point(to, PyUnicode_READ_CHAR(string, i));
    put_byte(to, 0);
    return at;
}

static uint32_t put_type(writer *to, PyTypeObject *type) {
    uint32_t known, at = begin_text(to, type, &known);
    if (known != RETAIN_NONE) return known;
    for (const char *c = type->tp_name; *c && c < type->tp_name + MAX_TEXT_POINTS; c++)
        put_byte(to, *c);
    put_byte(to, 0);
    return at;
}

/* "function\tfile": of a frame */
static uint32_t put_place(writer *to, PyCodeObject *code) {
    uint32_t known, at = begin_text(to, code, &known);
    if (known != RETAIN_NONE) return known;
    PyObject *parts[] = {code->co_qualname, code->co_filename};
    for (int part = 0; part < 2; part++) {
        Py_ssize_t length = PyUnicode_GET_LENGTH(parts[part]);
        Py_ssize_t first = length > MAX_TEXT_POINTS ? length - MAX_TEXT_POINTS : 0;
        if (part) put_byte(to, '\t');
        for (Py_ssize_t i = first; i < length; i++)
            put_point(to, PyUnicode_READ_CHAR(parts[part], i));
    }
    put_byte(to, 0);
    return at;
}

/* ---- nodes ---- */

static retain_node *new_node(writer *to, uint32_t parent) {
    if (to->node_count >= MAX_NODES) {
        to->flags |= FLAG_ANSWER;
        return NULL;
    }
    retain_node *node = &to->nodes[to->node_count++];
    *node = (retain_node){.length = -1, .bound = -1, .parent = parent};
    return node;
}

static void describe_edge(writer *to, retain_node *node, uint32_t holder, PyObject *held) {
    const walk *walk = to->walk;
    edge_name edge = name_edge(walk, holder, held);
    node->edge = (uint8_t)edge.edge;
    node->name = put_string(to, edge.name);
    node->root = ROOT_KINDS;
    if (holder & IS_ROOT) {
        const walk_root *root = &walk->roots[holder & ~IS_ROOT];
        node->root = (uint8_t)root->kind;
        if (root->file) node->label = put_string(to, root->file);
    }
    PyCodeObject *code = edge.frame ? layout_frame_code(edge.frame) : NULL;
    if (code) {
        node->label = put_place(to, code);
        node->line = (uint32_t)layout_frame_line(edge.frame, code);
    }
}

static uint32_t put_node(writer *to, uint32_t entry, uint32_t parent) {
    const walk_entry *from = &to->walk->queue[entry];
    PyObject *object = from->object;
    retain_node *node = new_node(to, parent);
    if (!node) return RETAIN_NONE;
    uint32_t number = to->node_count - 1;
    node->identity = (uintptr_t)object;
    node->type = put_type(to, Py_TYPE(object));
    node->shape = (uint8_t)shape_of(to->walk, entry);
    node->length = layout_length(object);
    if (node->shape == SHAPE_CONTAINER || node->shape == SHAPE_LRU)
        node->bound = bound_of(to->walk, entry);
    describe_edge(to, node, from->holder, object);
    if (!node->label) node->label = put_string(to, name_of_object(object));
    address_map_put(&to->by_entry, (uint64_t)entry + 1, number);
    return number;
}

/* ---- paths ---- */

static bool is_shallow(const walk *walk, uint32_t entry) {
    for (uint32_t i = walk->phase_count; i-- > 0;)
        if (entry >= walk->phases[i].first) return entry < walk->phases[i].head_end;
    return true;
}

/* The shallow entry above a deep one. Some of the entries on the way are remembered, so that
 * many targets in one long chain cost its length only once. */
static uint32_t shallow_above(writer *to, uint32_t entry) {
    uint32_t at = entry, head = RETAIN_NONE;
    while (!is_shallow(to->walk, at)) {
        if ((address_hash(at) & MEMO_MASK) == 0) {
            head = address_map_get(&to->heads, (uint64_t)at + 1);
            if (head != RETAIN_NONE) break;
        }
        at = to->walk->queue[at].holder;
    }
    if (head == RETAIN_NONE) head = at;
    for (uint32_t mark = entry; mark != at; mark = to->walk->queue[mark].holder)
        if ((address_hash(mark) & MEMO_MASK) == 0 && to->known_heads < MAX_NODES / 2) {
            if (address_map_get(&to->heads, (uint64_t)mark + 1) == RETAIN_NONE) to->known_heads++;
            address_map_put(&to->heads, (uint64_t)mark + 1, head);
        }
    return head;
}

/* The node of an entry, with all that is told of the path to it. */
static uint32_t node_of(writer *to, uint32_t entry) {
    uint32_t chain[TAIL + HEAD_DEPTH], count = 0, at = entry, parent = RETAIN_NONE;
    while (!(at & IS_ROOT)) {
        parent = address_map_get(&to->by_entry, (uint64_t)at + 1);
        if (parent != RETAIN_NONE) break;
        if (count >= TAIL && !is_shallow(to->walk, at)) {
            parent = node_of(to, shallow_above(to, at)); /* which is not deep: one level only */
            retain_node *skipped = new_node(to, parent);
            if (!skipped) return RETAIN_NONE;
            skipped->edge = EDGE_SKIPPED;
            skipped->root = ROOT_KINDS;
            parent = to->node_count - 1;
            break;
        }
        if (count == TAIL + HEAD_DEPTH) return RETAIN_NONE;
        chain[count++] = at;
        at = to->walk->queue[at].holder;
    }
    while (count-- > 0) {
        parent = put_node(to, chain[count], parent);
        if (parent == RETAIN_NONE) return RETAIN_NONE;
    }
    return parent;
}

static uint32_t leaf_node(writer *to, const retain_target *target) {
    uint32_t parent = RETAIN_NONE;
    if (!(target->holder & IS_ROOT)) {
        parent = node_of(to, target->holder);
        if (parent == RETAIN_NONE) return RETAIN_NONE;
    }
    retain_node *node = new_node(to, parent);
    if (!node) return RETAIN_NONE;
    uint32_t number = to->node_count - 1;
    PyObject *leaf = (PyObject *)target->leaf;
    node->identity = target->leaf;
    node->type = put_type(to, Py_TYPE(leaf));
    describe_edge(to, node, target->holder, leaf);
    return number;
}

/* ---- the whole ---- */

static retain_answer *assemble(writer *to, size_t *mapped) {
    walk *walk = to->walk;
    uint64_t node_bytes = (uint64_t)to->node_count * sizeof(retain_node);
    uint64_t found_bytes = (uint64_t)walk->target_count * sizeof(retain_found);
    uint64_t bytes = sizeof(retain_answer) + node_bytes + found_bytes + to->text_used;
    retain_answer *answer = memory_map(bytes);
    if (!answer) return NULL;
    *mapped = bytes;
    *answer = (retain_answer){.magic = RETAIN_MAGIC,
                              .flags = walk->flags | to->flags,
                              .bytes = bytes,
                              .visited = walk->used,
                              .edges = walk->edges,
                              .own_bytes = walk_own_bytes(walk),
                              .nodes = to->node_count,
                              .targets = walk->target_count,
                              .text_bytes = to->text_used,
                              .garbage = walk->garbage};
    char *at = (char *)(answer + 1);
    memcpy(at, to->nodes, node_bytes);
    retain_found *found = (retain_found *)(at + node_bytes);
    for (uint32_t i = 0; i < walk->target_count; i++) {
        const retain_target *target = &walk->targets[i];
        found[i] = (retain_found){target->size_bytes,     target->birth_ns, target->stack,
                                  target->interval_bytes, target->domain,   target->how,
                                  target->node,           0};
    }
    memcpy(at + node_bytes + found_bytes, to->texts, to->text_used);
    answer->walk_ns = clock_ns(CLOCK_MONOTONIC) - walk->began_ns;
    return answer;
}

retain_answer *write_answer(walk *walk, size_t *mapped) {
    writer to = {.walk = walk};
    to.nodes = memory_map(MAX_NODES * sizeof(retain_node));
    to.texts = memory_map(MAX_TEXT);
    retain_answer *answer = NULL;
    if (to.nodes && to.texts && address_map_init(&to.by_entry, MAX_NODES) &&
        address_map_init(&to.by_text, MAX_NODES) && address_map_init(&to.heads, MAX_NODES)) {
        put_byte(&to, 0); /* offset 0: the empty text */
        for (uint32_t i = 0; i < walk->target_count; i++) {
            retain_target *target = &walk->targets[i];
            target->node = RETAIN_NONE;
            if (target->how == HOW_NOT_FOUND) continue;
            bool is_leaf = target->leaf != 0 || (target->holder & IS_ROOT);
            target->node = is_leaf ? leaf_node(&to, target) : node_of(&to, target->holder);
        }
        answer = assemble(&to, mapped);
    }
    memory_unmap(to.nodes, MAX_NODES * sizeof(retain_node));
    memory_unmap(to.texts, MAX_TEXT);
    address_map_free(&to.by_entry);
    address_map_free(&to.by_text);
    address_map_free(&to.heads);
    return answer;
}
