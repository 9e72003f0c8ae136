/* Sees CPython's internals: the layout of a context and of the tree of its variables, the same
 * from 3.11 to 3.13. The tree is immutable, and a context is entered by one thread at a time,
 * so a thread can read its own without the GIL. PyContextVar_Get is not used in its stead: it
 * counts references, and may compare keys in Python's terms, which can raise.
 *
 * Locks: `threads`, `routes`, `early_threads` and `enabled` are protected by the table's lock.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>

#include "labels.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "idmap.h"
#include "table.h"

#if PY_VERSION_HEX < 0x030E0000
#include "internal/pycore_context.h"
#endif

#define TEXT_BYTES 190 /* kept of a longer text: its beginning, which tells more of a route */
#define OS_NAME_BYTES 16

/* ---- texts ---- */

typedef struct {
    uint16_t bytes;
    char chars[TEXT_BYTES];
} label_text;

typedef struct {
    label_text *texts;
    uint32_t used, capacity;
    idmap numbers; /* hash of the text -> its place */
} text_list;

enum { TEXT_NONE, TEXT_OVERFLOW, TEXT_FIRST };

static label_text thread_texts[64 + TEXT_FIRST] = {
    [TEXT_OVERFLOW] = {23, "[too many thread names]"}};
static label_text route_texts[1000 + TEXT_FIRST] = {[TEXT_OVERFLOW] = {17, "[too many routes]"}};
static text_list threads = {thread_texts, TEXT_FIRST, 64 + TEXT_FIRST, {.max_used = 64}};
static text_list routes = {route_texts, TEXT_FIRST, 1000 + TEXT_FIRST, {.max_used = 1000}};

static uint32_t text_number_locked(text_list *list, const char *chars, size_t bytes) {
    if (!bytes) return TEXT_NONE;
    if (bytes > TEXT_BYTES) {
        bytes = TEXT_BYTES;
        while (bytes && ((uint8_t)chars[bytes] & 0xC0) == 0x80) bytes--; /* whole characters */
    }
    uint64_t hash = hash_bytes(bytes, chars, bytes), key = hash ? hash : 1;
    uint32_t number = idmap_get(&list->numbers, key);
    if (number != IDMAP_NONE) return number;
    if (list->used == list->capacity || !idmap_put(&list->numbers, key, list->used))
        return TEXT_OVERFLOW;
    label_text *text = &list->texts[list->used];
    text->bytes = (uint16_t)bytes;
    memcpy(text->chars, chars, bytes);
    return list->used++;
}

/* TEXT_NONE, with an error set, for what is no text. */
static uint32_t number_of(text_list *list, PyObject *string) {
    Py_ssize_t bytes;
    const char *chars = PyUnicode_AsUTF8AndSize(string, &bytes);
    if (!chars) return TEXT_NONE;
    table_lock();
    uint32_t number = text_number_locked(list, chars, (size_t)bytes);
    table_unlock();
    return number;
}

/* ---- threads ---- */

static _Thread_local uint32_t thread_name __attribute__((tls_model("initial-exec")));
/* pthread_self() -> name, until that thread takes its first sample: a later thread may be given
 * the same identity. */
static idmap early_threads = {.max_used = 1024};

static uint32_t thread_name_locked_nopy(void) {
    if (thread_name) return thread_name;
    thread_name = idmap_remove(&early_threads, (uint64_t)pthread_self());
    if (thread_name != IDMAP_NONE) return thread_name;
    char name[OS_NAME_BYTES] = "";
    if (syscall(SYS_gettid) == getpid())
        strcpy(name, "MainThread");
    else
        prctl(PR_GET_NAME, name, 0, 0, 0);
    thread_name = text_number_locked(&threads, name, strnlen(name, sizeof name));
    return thread_name;
}

/* ---- routes ---- */

typedef struct {
    PyObject_HEAD
    _Atomic uint32_t route; /* read without the GIL */
} label_object;

static PyTypeObject Label;
static PyObject *variable; /* the context variable; owned, for good */

#if PY_VERSION_HEX < 0x030E0000

/* The nodes of a context's tree that no header declares. */
typedef struct {
    PyObject_VAR_HEAD
    uint32_t bitmap;
    PyObject *pairs[1]; /* key, value; or NULL, node */
} bitmap_node;

typedef struct {
    PyObject_HEAD
    PyObject *nodes[32];
} array_node;

typedef struct {
    PyObject_VAR_HEAD
    int32_t hash;
    PyObject *pairs[1];
} collision_node;

static bool is_a(PyObject *node, const char *type_name) {
    return strcmp(Py_TYPE(node)->tp_name, type_name) == 0;
}

/* The value that the variable has in a tree, borrowed; or NULL. */
static PyObject *find_nopy(PyObject *node) {
    Py_hash_t whole = ((PyContextVar *)variable)->var_hash;
    uint32_t hash = (uint32_t)((uint64_t)whole & 0xFFFFFFFF) ^ (uint32_t)((uint64_t)whole >> 32);
    if (hash == UINT32_MAX) hash--; /* as CPython avoids -1 */
    for (uint32_t shift = 0; node && shift <= 5 * _Py_HAMT_MAX_TREE_DEPTH; shift += 5) {
        uint32_t place = shift < 32 ? hash >> shift & 31 : 0;
        if (is_a(node, "hamt_bitmap_node")) {
            bitmap_node *here = (bitmap_node *)node;
            uint32_t bit = 1u << place;
            if (!(here->bitmap & bit)) return NULL;
            int at = 2 * __builtin_popcount(here->bitmap & (bit - 1));
            if (here->pairs[at]) return here->pairs[at] == variable ? here->pairs[at + 1] : NULL;
            node = here->pairs[at + 1];
        } else if (is_a(node, "hamt_array_node")) {
            node = ((array_node *)node)->nodes[place];
        } else if (is_a(node, "hamt_collision_node")) {
            collision_node *here = (collision_node *)node;
            for (Py_ssize_t at = 0; at < Py_SIZE(here); at += 2)
                if (here->pairs[at] == variable) return here->pairs[at + 1];
            return NULL;
        } else {
            return NULL;
        }
    }
    return NULL;
}

static PyObject *value_nopy(PyThreadState *state) {
    PyHamtObject *tree = ((PyContext *)state->context)->ctx_vars;
    return tree ? find_nopy((PyObject *)tree->h_root) : NULL;
}

#else
/* Of later versions the layout is not known here: their samples have threads and no routes. */
static PyObject *value_nopy(PyThreadState *state) { return NULL; }
#endif

/* A Label, or an object of a class that derives from it directly. */
static bool is_label_nopy(PyObject *value) {
    return value && (Py_TYPE(value) == &Label || Py_TYPE(value)->tp_base == &Label);
}

static uint32_t route_nopy(PyThreadState *state) {
    if (!state || !state->context || !variable) return TEXT_NONE;
    PyObject *value = value_nopy(state);
    if (!is_label_nopy(value)) return TEXT_NONE;
    return atomic_load_explicit(&((label_object *)value)->route, memory_order_relaxed);
}

/* ---- samples ---- */

static bool enabled;

uint32_t labels_now_locked_nopy(PyThreadState *state) {
    if (!enabled) return LABEL_NONE;
    uint32_t thread = thread_name_locked_nopy(), route = route_nopy(state);
    const label_text *name = &threads.texts[thread], *text = &routes.texts[route];
    uint32_t label = table_label_locked(name->chars, name->bytes, text->chars, text->bytes);
    /* A label refused by the table is counted there. */
    if (label != LABEL_OVERFLOW && (thread == TEXT_OVERFLOW || route == TEXT_OVERFLOW))
        table_header_now()->labels_refused++;
    return label;
}

PyObject *labels_switch(PyObject *self, PyObject *on) {
    int wanted = PyObject_IsTrue(on);
    if (wanted < 0) return NULL;
    table_lock();
    enabled = wanted;
    table_unlock();
    Py_RETURN_NONE;
}

PyObject *labels_name_thread(PyObject *self, PyObject *args) {
    unsigned long long ident;
    PyObject *name;
    if (!PyArg_ParseTuple(args, "KU", &ident, &name)) return NULL;
    uint32_t number = number_of(&threads, name);
    if (PyErr_Occurred()) return NULL;
    if (ident == (unsigned long long)pthread_self()) {
        thread_name = number;
    } else if (ident) {
        table_lock();
        idmap_put(&early_threads, ident, number);
        table_unlock();
    }
    Py_RETURN_NONE;
}

PyObject *labels_now(PyObject *self, PyObject *unused) {
    table_lock();
    label_text name = threads.texts[thread_name_locked_nopy()];
    label_text route = routes.texts[route_nopy(PyThreadState_Get())];
    table_unlock();
    return Py_BuildValue("(s#s#)", name.chars, (Py_ssize_t)name.bytes, route.chars,
                         (Py_ssize_t)route.bytes);
}

PyObject *labels_known(PyObject *self, PyObject *unused) {
    table_lock();
    uint32_t names = threads.used - TEXT_FIRST, texts = routes.used - TEXT_FIRST;
    table_unlock();
    return Py_BuildValue("(II)", names, texts);
}

/* ---- the type Label ---- */

static int label_set_route(PyObject *self, PyObject *text, void *unused) {
    if (!text) {
        PyErr_SetString(PyExc_AttributeError, "a Label always has a route");
        return -1;
    }
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "a route is a str, not %.100s", Py_TYPE(text)->tp_name);
        return -1;
    }
    uint32_t number = number_of(&routes, text);
    if (PyErr_Occurred()) return -1;
    atomic_store_explicit(&((label_object *)self)->route, number, memory_order_relaxed);
    return 0;
}

static PyObject *label_get_route(PyObject *self, void *unused) {
    uint32_t number = ((label_object *)self)->route;
    table_lock();
    label_text text = routes.texts[number];
    table_unlock();
    return PyUnicode_DecodeUTF8(text.chars, text.bytes, "replace");
}

static int label_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"route", NULL};
    PyObject *route;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &route)) return -1;
    return label_set_route(self, route, NULL);
}

static int put(PyObject *value) {
    PyObject *token = PyContextVar_Set(variable, value);
    if (!token) return -1;
    Py_DECREF(token); /* not kept: a body may be closed in another context, where it would raise */
    return 0;
}

PyObject *labels_enter(PyObject *self, PyObject *mark) {
    PyObject *before;
    if (PyContextVar_Get(variable, Py_None, &before)) return NULL;
    if (put(mark)) Py_CLEAR(before);
    return before;
}

PyObject *labels_leave(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "leave takes a label and what enter returned, not %zd", count);
        return NULL;
    }
    PyObject *now;
    if (PyContextVar_Get(variable, Py_None, &now)) return NULL;
    bool is_mark = now == args[0];
    Py_DECREF(now);
    if (is_mark && put(args[1])) return NULL;
    Py_RETURN_NONE;
}

static PyGetSetDef label_attributes[] = {
    {"route", label_get_route, label_set_route, "The text, as far as it is kept.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Label = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "stanch.sampler._core.Label",
    .tp_doc = "The route or job of a context, which may be renamed while it is in use.",
    .tp_basicsize = sizeof(label_object),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = label_init,
    .tp_getset = label_attributes,
};

int labels_add_to(PyObject *module) {
    if (PyModule_AddType(module, &Label)) return -1;
    if (!variable) variable = PyContextVar_New("stanch.route", NULL);
    return variable ? PyModule_AddObjectRef(module, "route", variable) : -1;
}
