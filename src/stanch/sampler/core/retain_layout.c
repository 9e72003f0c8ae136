#include "retain_layout.h"

#include <string.h>

#include "internal/pycore_code.h"
#include "internal/pycore_context.h"
#include "internal/pycore_dict.h"
#include "internal/pycore_gc.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
#error "stanch: this version of CPython has objects that retain_layout.c does not know"
#endif

/* ---- objects ---- */

size_t layout_before(PyTypeObject *type) {
    size_t before = PyType_IS_GC(type) ? sizeof(PyGC_Head) : 0;
#if PY_VERSION_HEX >= 0x030C0000
    if (type->tp_flags & Py_TPFLAGS_PREHEADER) before += 2 * sizeof(PyObject *);
#else
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) before += 2 * sizeof(PyObject *);
#endif
    return before;
}

bool layout_is_gc(PyObject *object, PyTypeObject *type) {
    return PyType_IS_GC(type) && (!type->tp_is_gc || type->tp_is_gc(object));
}

PyObject *layout_instance_dict(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject *const *words = (PyObject *const *)object;
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
        PyObject *dict = words[-3];
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000
        if ((uintptr_t)dict & 1) return NULL; /* values instead */
#endif
        return dict;
    }
    Py_ssize_t offset = type->tp_dictoffset;
    if (offset == 0) return NULL;
    if (offset < 0) {
        Py_ssize_t items = Py_SIZE(object) < 0 ? -Py_SIZE(object) : Py_SIZE(object);
        offset += (Py_ssize_t)_PyObject_VAR_SIZE(type, items);
    }
    return *(PyObject **)((char *)object + offset);
}

PyDictKeysObject *layout_cached_keys(PyTypeObject *type) {
    if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) return NULL;
    return ((PyHeapTypeObject *)type)->ht_cached_keys;
}

#if PY_VERSION_HEX < 0x030D0000
static const void *values_block(PyDictValues *values) {
    return (char *)values - ((uint8_t *)values)[-1]; /* the size of what lies before */
}
#endif

bool layout_inline_values(PyObject *object, layout_values *out) {
    PyTypeObject *type = Py_TYPE(object);
    if (!(type->tp_flags & Py_TPFLAGS_MANAGED_DICT)) return false;
    out->keys = layout_cached_keys(type);
    if (!out->keys) return false;
    PyDictValues *values;
#if PY_VERSION_HEX >= 0x030D0000
    if (!(type->tp_flags & Py_TPFLAGS_INLINE_VALUES)) return false;
    values = (PyDictValues *)((char *)object + type->tp_basicsize);
    if (!values->valid) return false;
    out->block = NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    char *tagged = ((char **)object)[-3];
    if (!((uintptr_t)tagged & 1)) return false;
    values = (PyDictValues *)(tagged + 1);
    out->block = values_block(values);
#else
    values = ((PyDictValues **)object)[-4];
    if (!values) return false;
    out->block = values_block(values);
#endif
    out->values = values->values;
    return true;
}

Py_ssize_t layout_key_count(const PyDictKeysObject *keys) { return keys->dk_nentries; }

PyObject *layout_key(PyDictKeysObject *keys, Py_ssize_t at) {
    return DK_IS_UNICODE(keys) ? DK_UNICODE_ENTRIES(keys)[at].me_key : DK_ENTRIES(keys)[at].me_key;
}

const void *layout_dict_values_block(PyDictObject *dict) {
    if (!dict->ma_values) return NULL;
#if PY_VERSION_HEX >= 0x030D0000
    return dict->ma_values->embedded ? NULL : dict->ma_values;
#else
    return values_block(dict->ma_values);
#endif
}

void layout_visit_text_keys(PyDictObject *dict, layout_visit visit, void *arg) {
    PyDictKeysObject *keys = dict->ma_keys;
    if (!DK_IS_UNICODE(keys)) return;
    for (Py_ssize_t i = 0; i < keys->dk_nentries; i++) {
        PyObject *key = DK_UNICODE_ENTRIES(keys)[i].me_key;
        if (key) visit(key, arg);
    }
}

/* ---- containers whose structures are private to their modules ---- */

typedef struct deque_block {
    struct deque_block *left;
    PyObject *items[64];
    struct deque_block *right;
} deque_block;

typedef struct {
    PyObject_VAR_HEAD
    deque_block *left, *right;
    Py_ssize_t left_at, right_at;
    size_t state;
    Py_ssize_t max_length; /* -1: none */
} deque_object;

typedef struct ordered_node {
    PyObject *key;
    Py_hash_t hash;
    struct ordered_node *next, *previous;
} ordered_node;

typedef struct {
    PyDictObject dict;
    ordered_node *first, *last;
    ordered_node **fast;
    Py_ssize_t fast_size;
    void *keys; /* of the dict, as they were when `fast` was made */
} ordered_dict;

typedef struct {
    PyObject_HEAD
    void *previous, *next;
    Py_hash_t hash;
    PyObject *key, *result;
    void *wrapper;
    int typed;
    PyObject *cache;
    Py_ssize_t hits;
    PyObject *function;
    Py_ssize_t max_size; /* -1: none */
} lru_object;

static bool is_named(PyTypeObject *type, const char *name) {
    return strcmp(type->tp_name, name) == 0;
}

bool layout_is_deque(PyTypeObject *type) {
    for (; type; type = type->tp_base)
        if (is_named(type, "collections.deque")) return true;
    return false;
}

bool layout_is_lru(PyTypeObject *type) { return is_named(type, "functools._lru_cache_wrapper"); }

/* A deque is as laid out above when its indices count its items. */
static bool deque_is_known(const deque_object *deque) {
    return deque->left && deque->right && deque->left_at >= 0 && deque->left_at < 64 + 1 &&
           deque->right_at >= -1 && deque->right_at < 64 && deque->max_length >= -1 &&
           (deque->max_length < 0 || Py_SIZE(deque) <= deque->max_length);
}

static PyDictObject *lru_dict(const lru_object *lru) {
    return lru->cache && PyDict_CheckExact(lru->cache) && lru->max_size >= -1
               ? (PyDictObject *)lru->cache
               : NULL;
}

int64_t layout_length(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    if (PyList_Check(object) || PyTuple_Check(object)) return Py_SIZE(object);
    if (PyDict_Check(object)) return ((PyDictObject *)object)->ma_used;
    if (PyAnySet_Check(object)) return ((PySetObject *)object)->used;
    if (layout_is_lru(type)) {
        PyDictObject *dict = lru_dict((lru_object *)object);
        return dict ? dict->ma_used : -1;
    }
    if (layout_is_deque(type)) return Py_SIZE(object);
    return -1;
}

int64_t layout_bound(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    if (layout_is_lru(type)) {
        const lru_object *lru = (lru_object *)object;
        return lru_dict(lru) ? lru->max_size : -1;
    }
    if (layout_is_deque(type)) {
        const deque_object *deque = (deque_object *)object;
        return deque_is_known(deque) ? deque->max_length : -1;
    }
    return -1;
}

void layout_inner_blocks(PyObject *object, void (*see)(const void *, void *), void *arg) {
    if (PyODict_Check(object)) {
        const ordered_dict *ordered = (ordered_dict *)object;
        if (ordered->keys != ordered->dict.ma_keys) return; /* just resized, or not as we know it */
        Py_ssize_t left = ordered->dict.ma_used;
        ordered_node *node = ordered->first;
        for (; node && left > 0; node = node->next, left--) see(node, arg);
    } else if (PyDict_Check(object)) {
        const void *block = layout_dict_values_block((PyDictObject *)object);
        if (block) see(block, arg);
    } else if (layout_is_deque(Py_TYPE(object))) {
        const deque_object *deque = (deque_object *)object;
        if (!deque_is_known(deque)) return;
        Py_ssize_t left = Py_SIZE(deque) / 64 + 2;
        for (deque_block *block = deque->left; block && left > 0; block = block->right, left--) {
            see(block, arg);
            if (block == deque->right) break;
        }
    }
}

/* ---- numpy ---- */

typedef struct {
    PyObject_HEAD
    char *data;
    int dimensions;
    Py_ssize_t *shape, *strides;
    PyObject *base, *descriptor;
} array_object;

typedef struct {
    PyObject_HEAD
    PyTypeObject *type;
    char kind;
} array_descriptor;

void layout_visit_array(PyObject *object, layout_visit visit, void *arg) {
    const array_object *array = (array_object *)object;
    if (array->base) visit(array->base, arg);
    const array_descriptor *descriptor = (array_descriptor *)array->descriptor;
    if (!descriptor || descriptor->kind != 'O' || array->base || !array->data ||
        array->dimensions < 0 || array->dimensions > 64)
        return;
    /* An array that owns its data is contiguous. */
    Py_ssize_t count = 1;
    for (int i = 0; i < array->dimensions; i++) count *= array->shape[i];
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *element = ((PyObject **)array->data)[i];
        if (element) visit(element, arg);
    }
}

/* ---- frames and code ---- */

_PyInterpreterFrame *layout_thread_frame(PyThreadState *state) {
#if PY_VERSION_HEX >= 0x030D0000
    return state->current_frame;
#else
    return state->cframe ? state->cframe->current_frame : NULL;
#endif
}

PyCodeObject *layout_frame_code(_PyInterpreterFrame *frame) {
#if PY_VERSION_HEX >= 0x030C0000
    if (frame->owner == FRAME_OWNED_BY_CSTACK) return NULL;
#endif
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *code = frame->f_executable;
#else
    PyObject *code = (PyObject *)frame->f_code;
#endif
    return code && PyCode_Check(code) ? (PyCodeObject *)code : NULL;
}

int layout_frame_line(_PyInterpreterFrame *frame, PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030D0000
    int instruction = (int)(frame->instr_ptr - _PyCode_CODE(code));
#else
    int instruction = (int)(frame->prev_instr - _PyCode_CODE(code));
#endif
    if (instruction < 0) return code->co_firstlineno;
    int line = PyCode_Addr2Line(code, instruction * (int)sizeof(_Py_CODEUNIT));
    return line > 0 ? line : code->co_firstlineno;
}

/* The whole stack where it is known; of a frame that runs, the locals. */
static int frame_slots(_PyInterpreterFrame *frame, PyCodeObject *code) {
    return frame->stacktop >= 0 ? frame->stacktop : code->co_nlocalsplus;
}

void layout_visit_frame(_PyInterpreterFrame *frame, layout_visit visit, void *arg) {
    PyCodeObject *code = layout_frame_code(frame);
    if (!code) return;
    int slots = frame_slots(frame, code);
    for (int i = 0; i < slots; i++)
        if (frame->localsplus[i]) visit(frame->localsplus[i], arg);
    if (frame->f_locals) visit(frame->f_locals, arg);
    if (frame->f_globals) visit(frame->f_globals, arg);
    if (frame->frame_obj) visit((PyObject *)frame->frame_obj, arg);
#if PY_VERSION_HEX >= 0x030C0000
    if (frame->f_funcobj) visit(frame->f_funcobj, arg);
#else
    if (frame->f_func) visit((PyObject *)frame->f_func, arg);
#endif
    visit((PyObject *)code, arg);
}

_PyInterpreterFrame *layout_owned_frame(PyObject *object) {
    if (PyFrame_Check(object)) return ((PyFrameObject *)object)->f_frame;
    if (PyGen_Check(object) || PyCoro_CheckExact(object) || PyAsyncGen_CheckExact(object)) {
        PyGenObject *generator = (PyGenObject *)object;
        if (generator->gi_frame_state >= FRAME_COMPLETED) return NULL;
        return (_PyInterpreterFrame *)generator->gi_iframe;
    }
    return NULL;
}

PyObject *layout_local_name(_PyInterpreterFrame *frame, PyObject *held) {
    PyCodeObject *code = layout_frame_code(frame);
    if (!code || !code->co_localsplusnames) return NULL;
    int slots = frame_slots(frame, code);
    if (slots > code->co_nlocalsplus) slots = code->co_nlocalsplus;
    for (int i = 0; i < slots; i++)
        if (frame->localsplus[i] == held) return PyTuple_GET_ITEM(code->co_localsplusnames, i);
    return NULL;
}

void layout_visit_code(PyCodeObject *code, layout_visit visit, void *arg) {
    PyObject *held[] = {code->co_consts,   code->co_names,         code->co_localsplusnames,
                        code->co_filename, code->co_name,          code->co_qualname,
                        code->co_linetable, code->co_exceptiontable};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i]) visit(held[i], arg);
}

/* ---- the interpreter ---- */

PyObject *layout_modules(PyInterpreterState *interpreter) {
#if PY_VERSION_HEX >= 0x030C0000
    return interpreter->imports.modules;
#else
    return interpreter->modules;
#endif
}

PyThreadState *layout_threads(PyInterpreterState *interpreter) { return interpreter->threads.head; }

/* The names of attributes that were looked up last, and from 3.12 on the interned strings. */
static void visit_caches(PyInterpreterState *interpreter, layout_visit visit, void *arg) {
#if PY_VERSION_HEX >= 0x030C0000
    const struct type_cache *cache = &interpreter->types.type_cache;
    PyObject *interned = interpreter->cached_objects.interned_strings;
    if (interned) visit(interned, arg);
#else
    const struct type_cache *cache = &interpreter->type_cache;
#endif
    for (size_t i = 0; i < sizeof cache->hashtable / sizeof *cache->hashtable; i++)
        if (cache->hashtable[i].name) visit(cache->hashtable[i].name, arg);
}

void layout_visit_interpreter(PyInterpreterState *interpreter, layout_visit visit, void *arg) {
    PyObject *held[] = {layout_modules(interpreter),       interpreter->sysdict,
                        interpreter->builtins,             interpreter->dict,
                        interpreter->before_forkers,       interpreter->after_forkers_parent,
                        interpreter->after_forkers_child};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i]) visit(held[i], arg);
    for (int i = 0; interpreter->atexit.callbacks && i < interpreter->atexit.ncallbacks; i++) {
        if (!interpreter->atexit.callbacks[i]) continue;
        visit(interpreter->atexit.callbacks[i]->func, arg);
        if (interpreter->atexit.callbacks[i]->args) visit(interpreter->atexit.callbacks[i]->args, arg);
        if (interpreter->atexit.callbacks[i]->kwargs)
            visit(interpreter->atexit.callbacks[i]->kwargs, arg);
    }
    visit_caches(interpreter, visit, arg);
}

void layout_visit_thread(PyThreadState *state, layout_visit visit, void *arg) {
    PyObject *held[] = {state->dict, state->c_profileobj, state->c_traceobj};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i]) visit(held[i], arg);
    for (_PyErr_StackItem *handled = state->exc_info; handled; handled = handled->previous_item)
        if (handled->exc_value) visit(handled->exc_value, arg);
}

bool layout_collecting(PyInterpreterState *interpreter) { return interpreter->gc.collecting; }

void layout_collector_objects(PyInterpreterState *interpreter, bool (*see)(PyObject *, void *),
                              void *arg) {
    struct _gc_runtime_state *collector = &interpreter->gc;
    for (int i = 0; i <= NUM_GENERATIONS; i++) {
        PyGC_Head *head = i < NUM_GENERATIONS ? &collector->generations[i].head
                                              : &collector->permanent_generation.head;
        for (PyGC_Head *at = (PyGC_Head *)head->_gc_next; at && at != head;
             at = (PyGC_Head *)at->_gc_next)
            if (!see((PyObject *)(at + 1), arg)) return;
    }
}

PyObject *layout_context_variable_name(PyObject *object) {
    if (!PyContextVar_CheckExact(object)) return NULL;
    return ((struct _pycontextvarobject *)object)->var_name;
}
