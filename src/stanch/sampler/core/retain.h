/* The retention search: which objects keep the sampled blocks alive, as paths from roots.
 *
 * Forward breadth-first from named roots by tp_traverse, so one walk answers thousands of
 * targets. The walk writes no reference count, runs no Python, takes no lock, calls no
 * allocator, does not recurse; its memory is mapped for it and bounded. It runs in a snapshot
 * that fork made (retain_fork.c), or in place under the GIL.
 */
#ifndef STANCH_RETAIN_H
#define STANCH_RETAIN_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#define RETAIN_MAX_TARGETS 16384u
#define RETAIN_NONE UINT32_MAX
#define RETAIN_MAGIC 0x4E494152u /* "RAIN" */

/* A sampled block that is alive, and what the search found of it. */
typedef struct {
    uint64_t address;
    uint64_t size_bytes;
    uint64_t birth_ns;
    uint32_t stack;
    uint32_t interval_bytes;
    uint32_t domain;
    uint32_t holder; /* entry of the queue: the object itself, or what holds `leaf` */
    uint64_t leaf;   /* an object that is not in the queue; 0: none */
    uint32_t how;    /* enum retain_how */
    uint32_t node;   /* in the answer */
} retain_target;

enum retain_how { HOW_NOT_FOUND, HOW_OBJECT, HOW_BUFFER };

enum retain_root {
    ROOT_MODULE,
    ROOT_FRAME,
    ROOT_THREAD,
    ROOT_CONTEXT,
    ROOT_INTERPRETER,
    ROOT_NATIVE,  /* only something else than a Python object refers to it */
    ROOT_GARBAGE, /* a cycle that the collector has not taken yet */
    ROOT_LATE,    /* what holds for the moment only */
    ROOT_KINDS
};

/* How a holder refers to what it holds. */
enum retain_edge {
    EDGE_PLAIN,     /* nothing more is known */
    EDGE_ROOT,      /* held by a root: `name` is the root's */
    EDGE_ATTRIBUTE, /* of an instance */
    EDGE_CLASS,     /* attribute of a class */
    EDGE_GLOBAL,    /* of a module */
    EDGE_DICT,      /* the namespace of its holder */
    EDGE_ITEM,      /* of a container */
    EDGE_CELL,      /* closure cell, `name` the variable */
    EDGE_LOCAL,     /* of a frame: name, function, file */
    EDGE_CONTEXT,   /* value of a context variable */
    EDGE_DEFAULT,   /* default argument */
    EDGE_TYPE,      /* an object's class */
    EDGE_SKIPPED,   /* stands for a long chain of holders */
    EDGE_KEY        /* item of a dict whose key may be shown */
};

enum retain_flag {
    FLAG_TIME = 1,       /* the time was over before the end */
    FLAG_MEMORY = 2,     /* the search's own memory was at its limit */
    FLAG_COLLECTING = 4, /* a collection was under way: cycles were not looked for */
    FLAG_ANSWER = 8      /* the answer did not fit */
};

typedef struct {
    const uint8_t *stacks; /* one byte for each stack number: nonzero when it is asked for */
    uint32_t stacks_used;
    uint32_t max_targets;
    uint64_t time_ns;
    uint64_t memory_bytes;  /* of the search itself */
    PyObject *files;        /* tuple of str: modules of these files are looked at first */
    PyObject *late;         /* tuple of objects that hold for the moment only: looked into last */
    PyTypeObject *ndarray;  /* borrowed; NULL without numpy */
    bool values;            /* show the keys of containers */
    bool in_process;
    const char *usage_path; /* file with the cgroup's memory in use; NULL: none */
    uint64_t usage_ceiling; /* the search is given up above it */
} retain_options;

/* The answer: this header, then nodes, targets and strings. */
typedef struct {
    uint32_t magic;
    uint32_t flags;
    uint64_t bytes; /* of the whole answer */
    uint64_t visited;
    uint64_t edges;
    uint64_t walk_ns;
    uint64_t pause_ns; /* of the host; set by the parent */
    uint64_t own_bytes;
    uint64_t matched; /* live samples that match, of which at most max_targets were looked for */
    uint32_t nodes;
    uint32_t targets;
    uint32_t text_bytes;
    uint32_t garbage; /* objects in cycles that nothing refers to */
} retain_answer;

typedef struct {
    uint64_t identity; /* of the object while it lives */
    int64_t length;    /* items; -1: no container */
    int64_t bound;     /* of its items; -1: none known */
    uint32_t parent;   /* node; RETAIN_NONE at a root */
    uint32_t type, name, label; /* offsets of NUL-terminated texts */
    uint32_t line;              /* EDGE_LOCAL: of the frame. EDGE_SKIPPED: how many */
    uint8_t edge, root, shape, unused;
} retain_node;

/* What an object is, for the words that describe it. */
enum retain_shape { SHAPE_OTHER, SHAPE_NAMESPACE, SHAPE_FUNCTION, SHAPE_CLASS, SHAPE_COROUTINE,
                    SHAPE_CONTAINER, SHAPE_LRU };

typedef struct {
    uint64_t size_bytes;
    uint64_t birth_ns;
    uint32_t stack, interval_bytes, domain, how, node, unused;
} retain_found;

_Static_assert(sizeof(retain_answer) == 80, "as retention.py reads it");
_Static_assert(sizeof(retain_node) == 48, "as retention.py reads it");
_Static_assert(sizeof(retain_found) == 40, "as retention.py reads it");

/* Searches. Returns the answer as bytes, or NULL with an OSError of which the text says what
 * was not possible. The GIL is held; it is released while a child works. */
PyObject *retain_search(const retain_options *options);

#endif
