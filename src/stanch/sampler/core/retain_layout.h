/* Sees CPython's internals for the retention search: where objects of 3.11 to 3.13 keep what.
 *
 * Everything here only reads, from objects that something else keeps alive. What CPython's
 * headers do not tell (deque, OrderedDict's nodes, lru_cache) is checked against the object's
 * own count before it is believed.
 */
#ifndef STANCH_RETAIN_LAYOUT_H
#define STANCH_RETAIN_LAYOUT_H

#define Py_BUILD_CORE 1
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "internal/pycore_frame.h"

typedef int (*layout_visit)(PyObject *, void *);

/* Bytes of an object's allocation that lie before the object. */
size_t layout_before(PyTypeObject *type);
bool layout_is_gc(PyObject *object, PyTypeObject *type);
/* The dict of an instance, or NULL; never makes one. */
PyObject *layout_instance_dict(PyObject *object);
/* The values that an instance keeps without a dict, and their names; false: there are none. */
typedef struct {
    PyDictKeysObject *keys;
    PyObject **values;
    const void *block; /* their own allocation; NULL when they are part of the object */
} layout_values;
bool layout_inline_values(PyObject *object, layout_values *out);
Py_ssize_t layout_key_count(const PyDictKeysObject *keys);
PyObject *layout_key(PyDictKeysObject *keys, Py_ssize_t at);
/* Allocations of a dict that begin before the address the dict holds. */
const void *layout_dict_values_block(PyDictObject *dict);
/* The keys of a dict whose keys are all text: its tp_traverse leaves them out. */
void layout_visit_text_keys(PyDictObject *dict, layout_visit visit, void *arg);
PyDictKeysObject *layout_cached_keys(PyTypeObject *type);

/* Calls `see` for the blocks of a deque or an OrderedDict that its own words do not name. */
void layout_inner_blocks(PyObject *object, void (*see)(const void *, void *), void *arg);
bool layout_is_deque(PyTypeObject *type);
bool layout_is_lru(PyTypeObject *type);
/* Items and bound of a container; -1: none. */
int64_t layout_length(PyObject *object);
int64_t layout_bound(PyObject *object);

/* An array of numpy: what it is a view of, and its elements when these are objects. */
void layout_visit_array(PyObject *array, layout_visit visit, void *arg);

/* Frames: of a thread, innermost first; of a generator or frame object, or NULL. */
_PyInterpreterFrame *layout_thread_frame(PyThreadState *state);
_PyInterpreterFrame *layout_owned_frame(PyObject *object);
PyCodeObject *layout_frame_code(_PyInterpreterFrame *frame); /* NULL: no Python frame */
int layout_frame_line(_PyInterpreterFrame *frame, PyCodeObject *code);
void layout_visit_frame(_PyInterpreterFrame *frame, layout_visit visit, void *arg);
/* The name of the local that holds an object, or NULL. */
PyObject *layout_local_name(_PyInterpreterFrame *frame, PyObject *held);

/* What a code object holds; the collector does not know code. */
void layout_visit_code(PyCodeObject *code, layout_visit visit, void *arg);

PyObject *layout_modules(PyInterpreterState *interpreter); /* sys.modules; may be NULL */
void layout_visit_interpreter(PyInterpreterState *interpreter, layout_visit visit, void *arg);
PyThreadState *layout_threads(PyInterpreterState *interpreter);
void layout_visit_thread(PyThreadState *state, layout_visit visit, void *arg);
bool layout_collecting(PyInterpreterState *interpreter);
/* Calls `see` for every object that the collector knows, until it returns false. */
void layout_collector_objects(PyInterpreterState *interpreter, bool (*see)(PyObject *, void *),
                              void *arg);
PyObject *layout_context_variable_name(PyObject *object); /* NULL: no context variable */

#endif
