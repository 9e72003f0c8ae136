/* Locks: none, as in retain_walk.c. Reads keys and names, and of values only the integers that
 * say how large a container may become.
 */
#include "retain_name.h"

#include <string.h>
#include <structmember.h>

#define MAX_KEYS 20000 /* of a namespace; beyond that a reference stays nameless */
#define MAX_SHOWN_KEYS 4096

static PyObject *object_of(const walk *walk, uint32_t entry) { return walk->queue[entry].object; }

static bool is_named(PyObject *object, const char *name) {
    return strcmp(Py_TYPE(object)->tp_name, name) == 0;
}

/* ---- attributes ---- */

typedef bool (*see_attribute)(PyObject *name, PyObject *value, void *arg);

/* Calls `see` for the attributes of an instance until it returns true. */
static bool for_attributes(PyObject *object, see_attribute see, void *arg) {
    layout_values values;
    if (layout_inline_values(object, &values)) {
        Py_ssize_t count = layout_key_count(values.keys);
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *name = layout_key(values.keys, i);
            if (name && values.values[i] && see(name, values.values[i], arg)) return true;
        }
    }
    PyObject *dict = layout_instance_dict(object);
    if (dict && PyDict_Check(dict) && ((PyDictObject *)dict)->ma_used <= MAX_KEYS) {
        Py_ssize_t at = 0;
        PyObject *name, *value;
        while (PyDict_Next(dict, &at, &name, &value))
            if (see(name, value, arg)) return true;
    }
    return false;
}

/* Slots, and members of C types: their names are C strings. */
static const char *member_name(PyObject *object, PyObject *held) {
    for (PyTypeObject *type = Py_TYPE(object); type; type = type->tp_base) {
        for (PyMemberDef *member = type->tp_members; member && member->name; member++) {
            if (member->type != T_OBJECT && member->type != T_OBJECT_EX) continue;
            if (*(PyObject **)((char *)object + member->offset) == held) return member->name;
        }
    }
    return NULL;
}

/* The str of a slot's C string: a key of the class. */
static PyObject *class_key(PyObject *object, const char *wanted) {
    for (PyTypeObject *type = Py_TYPE(object); type; type = type->tp_base) {
        Py_ssize_t at = 0;
        PyObject *key, *value;
        if (!type->tp_dict || !PyDict_Check(type->tp_dict)) continue;
        while (PyDict_Next(type->tp_dict, &at, &key, &value))
            if (PyUnicode_Check(key) && PyUnicode_IS_COMPACT_ASCII(key) &&
                strcmp(PyUnicode_DATA(key), wanted) == 0)
                return key;
    }
    return NULL;
}

typedef struct {
    PyObject *wanted, *name;
} value_search;

static bool is_wanted(PyObject *name, PyObject *value, void *arg) {
    value_search *search = arg;
    if (value != search->wanted) return false;
    search->name = name;
    return true;
}

/* ---- namespaces ---- */

static bool is_thread_local(PyObject *object) { return is_named(object, "_thread._local"); }

/* What an attribute in this dict is; EDGE_ITEM when it is a container like another. */
static enum retain_edge namespace_of(const walk *walk, uint32_t entry) {
    PyObject *dict = object_of(walk, entry);
    uint32_t holder = walk->queue[entry].holder;
    if (holder & IS_ROOT) {
        return walk->roots[holder & ~IS_ROOT].kind == ROOT_MODULE ? EDGE_GLOBAL : EDGE_ITEM;
    }
    PyObject *owner = object_of(walk, holder);
    if (PyModule_Check(owner)) return EDGE_GLOBAL;
    if (PyType_Check(owner))
        return ((PyTypeObject *)owner)->tp_dict == dict ? EDGE_CLASS : EDGE_ITEM;
    if (PyFunction_Check(owner) && ((PyFunctionObject *)owner)->func_dict == dict)
        return EDGE_ATTRIBUTE;
    if (layout_instance_dict(owner) == dict) return EDGE_ATTRIBUTE;
    if (PyDict_Check(owner)) {
        /* threading.local: the object, its dict of threads, one thread's attributes */
        uint32_t above = walk->queue[holder].holder;
        if (!(above & IS_ROOT) && is_thread_local(object_of(walk, above))) return EDGE_ATTRIBUTE;
    }
    return EDGE_ITEM;
}

static edge_name name_dict_edge(const walk *walk, uint32_t holder, PyObject *held) {
    PyDictObject *dict = (PyDictObject *)object_of(walk, holder);
    edge_name answer = {.edge = namespace_of(walk, holder)};
    bool shows = answer.edge != EDGE_ITEM;
    if (!shows && !walk->options->values) {
        uint32_t above = walk->queue[holder].holder;
        if (!(above & IS_ROOT) && is_thread_local(object_of(walk, above))) answer.edge = EDGE_DICT;
        return answer;
    }
    if (dict->ma_used > (shows ? MAX_KEYS : MAX_SHOWN_KEYS)) return answer;
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next((PyObject *)dict, &at, &key, &value)) {
        if (value != held || !PyUnicode_Check(key)) continue;
        answer.name = key;
        if (!shows) answer.edge = EDGE_KEY;
        return answer;
    }
    return answer;
}

/* ---- functions ---- */

static edge_name name_function_edge(PyFunctionObject *function, PyObject *held) {
    if (held == function->func_defaults || held == function->func_kwdefaults)
        return (edge_name){.edge = EDGE_DEFAULT};
    if (held == function->func_dict) return (edge_name){.edge = EDGE_DICT};
    return (edge_name){.edge = EDGE_PLAIN};
}

/* A closure is a tuple of cells, in the order of the code's free variables. */
static edge_name name_cell_edge(const walk *walk, uint32_t holder, PyObject *cell) {
    PyObject *closure = object_of(walk, holder);
    uint32_t above = walk->queue[holder].holder;
    edge_name answer = {.edge = EDGE_ITEM};
    if ((above & IS_ROOT) || !PyFunction_Check(object_of(walk, above))) return answer;
    PyFunctionObject *function = (PyFunctionObject *)object_of(walk, above);
    if (function->func_closure != closure) return answer;
    PyCodeObject *code = (PyCodeObject *)function->func_code;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(closure) && i < code->co_nfreevars; i++) {
        if (PyTuple_GET_ITEM(closure, i) != cell) continue;
        Py_ssize_t at = code->co_nlocalsplus - code->co_nfreevars + i;
        answer.edge = EDGE_CELL;
        answer.name = PyTuple_GET_ITEM(code->co_localsplusnames, at);
    }
    return answer;
}

/* ---- context variables ---- */

typedef struct {
    PyObject *wanted, *before, *after, *last;
    bool seen;
} neighbour_search;

static int see_neighbour(PyObject *object, void *arg) {
    neighbour_search *search = arg;
    if (search->seen && !search->after) search->after = object;
    if (object == search->wanted && !search->seen) {
        search->seen = true;
        search->before = search->last;
    }
    search->last = object;
    return 0;
}

/* A node of a context's tree has a variable beside each value. */
static PyObject *variable_beside(PyObject *node, PyObject *value) {
    if (strncmp(Py_TYPE(node)->tp_name, "hamt_", 5) != 0) return NULL;
    neighbour_search search = {.wanted = value};
    Py_TYPE(node)->tp_traverse(node, see_neighbour, &search);
    PyObject *after = search.after ? layout_context_variable_name(search.after) : NULL;
    if (after) return after;
    return search.before ? layout_context_variable_name(search.before) : NULL;
}

/* ---- edges ---- */

static edge_name name_instance_edge(PyObject *owner, PyObject *held) {
    if (layout_instance_dict(owner) == held) return (edge_name){.edge = EDGE_DICT};
    value_search search = {.wanted = held};
    if (for_attributes(owner, is_wanted, &search))
        return (edge_name){.edge = EDGE_ATTRIBUTE, .name = search.name};
    const char *slot = member_name(owner, held);
    if (slot) return (edge_name){.edge = EDGE_ATTRIBUTE, .name = class_key(owner, slot)};
    return (edge_name){.edge = layout_length(owner) >= 0 ? EDGE_ITEM : EDGE_PLAIN};
}

static edge_name name_root_edge(const walk *walk, uint32_t root, PyObject *held) {
    const walk_root *from = &walk->roots[root];
    if (from->kind == ROOT_MODULE)
        return (edge_name){.edge = EDGE_ROOT, .name = (PyObject *)from->what};
    if (from->kind == ROOT_FRAME) {
        _PyInterpreterFrame *frame = (_PyInterpreterFrame *)from->what;
        return (edge_name){EDGE_LOCAL, layout_local_name(frame, held), frame};
    }
    return (edge_name){.edge = EDGE_ROOT};
}

edge_name name_edge(const walk *walk, uint32_t holder, PyObject *held) {
    if (holder & IS_ROOT) return name_root_edge(walk, holder & ~IS_ROOT, held);
    PyObject *owner = object_of(walk, holder);
    if (PyDict_Check(owner)) {
        edge_name answer = name_dict_edge(walk, holder, held);
        if (answer.name || PyDict_CheckExact(owner)) return answer;
        edge_name attribute = name_instance_edge(owner, held); /* of a subclass */
        return attribute.edge == EDGE_ATTRIBUTE || attribute.edge == EDGE_DICT ? attribute : answer;
    }
    if (PyModule_Check(owner)) return (edge_name){.edge = EDGE_DICT};
    if (PyType_Check(owner) && ((PyTypeObject *)owner)->tp_dict == held)
        return (edge_name){.edge = EDGE_DICT};
    if (PyFunction_Check(owner)) return name_function_edge((PyFunctionObject *)owner, held);
    if (PyTuple_CheckExact(owner) && PyCell_Check(held)) return name_cell_edge(walk, holder, held);
    _PyInterpreterFrame *frame = layout_owned_frame(owner);
    if (frame) {
        PyObject *local = layout_local_name(frame, held);
        if (local) return (edge_name){EDGE_LOCAL, local, frame};
    }
    PyObject *variable = variable_beside(owner, held);
    if (variable) return (edge_name){.edge = EDGE_CONTEXT, .name = variable};
    if (held == (PyObject *)Py_TYPE(owner)) return (edge_name){.edge = EDGE_TYPE};
    return name_instance_edge(owner, held);
}

enum retain_shape shape_of(const walk *walk, uint32_t entry) {
    PyObject *object = object_of(walk, entry);
    if (PyFunction_Check(object)) return SHAPE_FUNCTION;
    if (PyType_Check(object)) return SHAPE_CLASS;
    if (PyGen_Check(object) || PyCoro_CheckExact(object) || PyAsyncGen_CheckExact(object))
        return SHAPE_COROUTINE;
    if (layout_is_lru(Py_TYPE(object))) return SHAPE_LRU;
    if (PyModule_Check(object)) return SHAPE_NAMESPACE;
    if (PyDict_CheckExact(object) && namespace_of(walk, entry) != EDGE_ITEM) return SHAPE_NAMESPACE;
    return layout_length(object) >= 0 ? SHAPE_CONTAINER : SHAPE_OTHER;
}

PyObject *name_of_object(PyObject *object) {
    if (PyFunction_Check(object)) return ((PyFunctionObject *)object)->func_qualname;
    if (PyCode_Check(object)) return ((PyCodeObject *)object)->co_qualname;
    if (PyType_Check(object) && ((PyTypeObject *)object)->tp_flags & Py_TPFLAGS_HEAPTYPE)
        return ((PyHeapTypeObject *)object)->ht_qualname;
    if (PyGen_Check(object) || PyCoro_CheckExact(object) || PyAsyncGen_CheckExact(object))
        return ((PyGenObject *)object)->gi_qualname;
    return NULL;
}

/* ---- bounds ---- */

/* `_Cache__maxsize` of cachetools is one too: the end of the name counts. */
static bool says_bound(PyObject *name) {
    static const char *const ends[] = {"maxsize", "max_size", "maxlen", "max_len", "capacity",
                                       "max_entries", "max_items"};
    if (!PyUnicode_Check(name) || !PyUnicode_IS_COMPACT_ASCII(name)) return false;
    const char *text = PyUnicode_DATA(name);
    size_t length = (size_t)PyUnicode_GET_LENGTH(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t end = strlen(ends[i]);
        if (length >= end && strcmp(text + length - end, ends[i]) == 0 &&
            (length == end || text[length - end - 1] == '_'))
            return true;
    }
    return false;
}

static bool take_bound(PyObject *name, PyObject *value, void *arg) {
    if (!says_bound(name) || !PyLong_CheckExact(value)) return false;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || number <= 0) return false;
    *(int64_t *)arg = number;
    return true;
}

static int64_t instance_bound(PyObject *object) {
    int64_t bound = -1;
    if (Py_TYPE(object)->tp_flags & Py_TPFLAGS_HEAPTYPE) {
        if (for_attributes(object, take_bound, &bound)) return bound;
        for (PyTypeObject *type = Py_TYPE(object); type; type = type->tp_base)
            for (PyMemberDef *member = type->tp_members; member && member->name; member++) {
                PyObject *value = *(PyObject **)((char *)object + member->offset);
                bool holds = member->type == T_OBJECT || member->type == T_OBJECT_EX;
                PyObject *name = holds && value ? class_key(object, member->name) : NULL;
                if (name && take_bound(name, value, &bound)) return bound;
            }
    }
    return bound;
}

int64_t bound_of(const walk *walk, uint32_t entry) {
    PyObject *object = object_of(walk, entry);
    int64_t bound = layout_bound(object);
    if (bound >= 0 || layout_length(object) < 0) return bound;
    bound = instance_bound(object);
    uint32_t holder = walk->queue[entry].holder;
    for (int up = 0; bound < 0 && up < 2 && !(holder & IS_ROOT); up++) {
        bool dict = PyDict_CheckExact(object_of(walk, holder));
        if (!dict) return instance_bound(object_of(walk, holder));
        holder = walk->queue[holder].holder; /* the dict may be an instance's */
    }
    return bound;
}
