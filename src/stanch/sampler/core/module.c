/* The method table of stanch.sampler._core, and the parsing of its arguments. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <unistd.h>

#include "arenas.h"
#include "frames.h"
#include "gcwatch.h"
#include "hooks.h"
#include "labels.h"
#include "memory.h"
#include "native.h"
#include "retain.h"
#include "table.h"

static PyObject *start(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"interval_bytes", "limit_bytes", "service", NULL};
    unsigned int interval_bytes;
    unsigned long long limit_bytes;
    const char *service;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IKs", names, &interval_bytes, &limit_bytes,
                                     &service))
        return NULL;
    if (interval_bytes == 0) return PyErr_Format(PyExc_ValueError, "interval_bytes is 0");
    const char *refusal = frames_refusal();
    if (refusal)
        return PyErr_Format(PyExc_RuntimeError, "this interpreter cannot be sampled: %s", refusal);
    table_options options = {interval_bytes, limit_bytes, PY_VERSION_HEX, service};
    int error = table_start(&options);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    hooks_start(interval_bytes);
    arenas_start();
    Py_RETURN_NONE;
}

static PyObject *move_to_file(PyObject *self, PyObject *path) {
    PyObject *bytes;
    if (!PyUnicode_FSConverter(path, &bytes)) return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = table_move_to_file(PyBytes_AS_STRING(bytes));
    Py_END_ALLOW_THREADS
    Py_DECREF(bytes);
    if (error) {
        errno = error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    }
    Py_RETURN_NONE;
}

static PyObject *start_native(PyObject *self, PyObject *unused) {
    const table_header *header = table_header_now();
    if (!header) return PyErr_Format(PyExc_RuntimeError, "sampling does not run");
    const char *problem = native_start(header->interval_bytes);
    return problem ? PyUnicode_FromString(problem) : Py_NewRef(Py_None);
}

static PyObject *stop(PyObject *self, PyObject *unused) {
    native_stop();
    hooks_stop();
    arenas_stop();
    table_stop();
    Py_RETURN_NONE;
}

static PyObject *set_interval(PyObject *self, PyObject *interval) {
    unsigned long interval_bytes = PyLong_AsUnsignedLong(interval);
    if (PyErr_Occurred()) return NULL;
    if (interval_bytes == 0 || interval_bytes > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "the interval is %lu bytes", interval_bytes);
    hooks_set_interval((uint32_t)interval_bytes);
    native_set_interval((uint32_t)interval_bytes);
    Py_RETURN_NONE;
}

static PyObject *running(PyObject *self, PyObject *unused) {
    table_lock();
    bool active = table_active_locked();
    table_unlock();
    return PyBool_FromLong(active);
}

static PyObject *snapshot(PyObject *self, PyObject *unused) {
    size_t need = table_snapshot(NULL, 0);
    for (;;) {
        if (!need) Py_RETURN_NONE;
        size_t capacity = need + need / 8;
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
        if (!bytes) return NULL;
        need = table_snapshot(PyBytes_AS_STRING(bytes), capacity);
        if (need && need <= capacity) {
            _PyBytes_Resize(&bytes, (Py_ssize_t)need);
            return bytes;
        }
        Py_DECREF(bytes);
    }
}

static PyObject *counters(PyObject *self, PyObject *unused) {
    table_lock();
    table_header header;
    bool active = table_active_locked();
    if (active) header = *table_header_now();
    table_unlock();
    if (!active) Py_RETURN_NONE;
    static const char *const mode[] = {"off", "divert", "classic"};
    return Py_BuildValue(
        "{s:I,s:K,s:K,s:d,s:d,s:d,s:K,s:K,s:K,s:K,s:K,s:K,s:s,s:O,s:d,s:K}", "interval_bytes",
        header.interval_bytes, "samples", (unsigned long long)header.samples, "live_samples",
        (unsigned long long)header.live_samples, "live_bytes", header.live_bytes, "live_objects",
        header.live_objects, "alloc_objects", header.alloc_objects, "dropped_table_full",
        (unsigned long long)header.dropped[DROP_TABLE_FULL], "dropped_no_space",
        (unsigned long long)header.dropped[DROP_NO_SPACE], "labels_refused",
        (unsigned long long)header.labels_refused, "overhead_ns",
        (unsigned long long)header.overhead_ns, "requests", (unsigned long long)header.requests,
        "start_unix_ns", (unsigned long long)header.start_unix_ns, "mode", mode[hooks_mode_now()],
        "native", native_running() ? Py_True : Py_False, "live_native_bytes",
        header.live_native_bytes, "dropped_busy", (unsigned long long)native_passed());
}

static PyObject *count_request(PyObject *self, PyObject *unused) {
    table_header *header = table_header_now();
    if (header) atomic_fetch_add_explicit(&header->requests, 1, memory_order_relaxed);
    Py_RETURN_NONE;
}

static PyObject *mappings(PyObject *self, PyObject *pid) {
    long long number = PyLong_AsLongLong(pid);
    if (number == -1 && PyErr_Occurred()) return NULL;
    memory_mappings found;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = memory_read_mappings(number, &found);
    Py_END_ALLOW_THREADS
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("{s:K,s:K,s:I}", "malloc_bytes", (unsigned long long)found.malloc_bytes,
                         "stack_bytes", (unsigned long long)found.stack_bytes, "stacks",
                         (unsigned int)found.stacks);
}

static PyObject *malloc_figures(PyObject *self, PyObject *unused) {
    memory_malloc found;
    bool known;
    Py_BEGIN_ALLOW_THREADS
    known = memory_read_malloc(&found);
    Py_END_ALLOW_THREADS
    if (!known) Py_RETURN_NONE;
    return Py_BuildValue("(KKK)", (unsigned long long)found.used_bytes,
                         (unsigned long long)found.free_bytes,
                         (unsigned long long)found.mapped_bytes);
}

static PyObject *live_figures(PyObject *self, PyObject *unused) {
    memory_live live;
    Py_BEGIN_ALLOW_THREADS
    memory_read_live(&live);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{s:(ddd),s:(ddd),s:(ddd),s:K}", "small", live.small.bytes,
                         live.small.variance, live.small.absent, "large", live.large.bytes,
                         live.large.variance, live.large.absent, "native", live.native.bytes,
                         live.native.variance, live.native.absent, "arena_bytes",
                         (unsigned long long)arenas_bytes());
}

#if PY_VERSION_HEX < 0x030E0000
static PyObject *retain(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"stacks",     "max_targets", "time_ns",       "memory_bytes",
                            "files",      "late",        "ndarray",       "values",
                            "in_process",
                            "usage_path", "usage_ceiling", NULL};
    const char *stacks;
    Py_ssize_t stacks_used;
    unsigned long long time_ns, memory_bytes, usage_ceiling;
    unsigned int max_targets;
    PyObject *files, *late, *ndarray;
    int values, in_process;
    const char *usage_path;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#IKKO!O!OppzK", names, &stacks, &stacks_used,
                                     &max_targets, &time_ns, &memory_bytes, &PyTuple_Type, &files,
                                     &PyTuple_Type, &late, &ndarray, &values, &in_process, &usage_path, &usage_ceiling))
        return NULL;
    if (max_targets < 1 || max_targets > RETAIN_MAX_TARGETS || stacks_used > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "max_targets is %u", max_targets);
    retain_options options = {.stacks = (const uint8_t *)stacks,
                              .stacks_used = (uint32_t)stacks_used,
                              .max_targets = max_targets,
                              .time_ns = time_ns,
                              .memory_bytes = memory_bytes,
                              .files = files,
                              .late = late,
                              .ndarray = PyType_Check(ndarray) ? (PyTypeObject *)ndarray : NULL,
                              .values = values,
                              .in_process = in_process,
                              .usage_path = usage_path,
                              .usage_ceiling = usage_ceiling};
    return retain_search(&options);
}
#endif

static PyObject *exit_now(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"status", NULL};
    int status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:_exit", names, &status)) return NULL;
    table_end_now();
    _exit(status);
}

static PyMethodDef methods[] = {
    {"start", (PyCFunction)(void (*)(void))start, METH_VARARGS | METH_KEYWORDS,
     "Start sampling into a new table in private memory."},
    {"move_to_file", move_to_file, METH_O, "Move the running table into a new file."},
    {"start_native", start_native, METH_NOARGS,
     "Sample native memory too. Returns None, or a sentence that says why not."},
    {"stop", stop, METH_NOARGS, "Stop sampling and forget the table."},
    {"set_interval", set_interval, METH_O, "Draw gaps with another mean from now on."},
    {"running", running, METH_NOARGS, "Whether a table is being filled."},
    {"snapshot", snapshot, METH_NOARGS, "The table as bytes in the file format, or None."},
    {"counters", counters, METH_NOARGS, "The table's counters, or None."},
    {"count_request", count_request, METH_NOARGS, "Count one request served."},
    {"_exit", (PyCFunction)(void (*)(void))exit_now, METH_VARARGS | METH_KEYWORDS,
     "As os._exit, but the table's file says that the process ended in good order."},
    {"gc_callback", (PyCFunction)(void (*)(void))gcwatch_callback, METH_FASTCALL,
     "For gc.callbacks: times collections."},
    {"gc_pauses", gcwatch_pauses, METH_NOARGS, "(collections, total ns, longest ns) timed."},
    {"mappings", mappings, METH_O, "Resident bytes of a process's heaps and stacks; 0: our own."},
    {"malloc_figures", malloc_figures, METH_NOARGS, "(used, free, mapped) bytes, or None."},
    {"live_figures", live_figures, METH_NOARGS, "Live samples by where they lie, and arenas."},
    {"label_samples", labels_switch, METH_O, "Whether samples get labels from now on."},
    {"enter", labels_enter, METH_O, "Give the context a label; return the one it had."},
    {"leave", (PyCFunction)(void (*)(void))labels_leave, METH_FASTCALL,
     "Give the context back the label it had before."},
    {"name_thread", labels_name_thread, METH_VARARGS, "Name a thread by its identity."},
    {"label_now", labels_now, METH_NOARGS, "(thread, route) of a sample taken now."},
    {"labels_known", labels_known, METH_NOARGS, "(threads, routes) known so far."},
#if PY_VERSION_HEX < 0x030E0000
    {"retain", (PyCFunction)(void (*)(void))retain, METH_VARARGS | METH_KEYWORDS,
     "What keeps the live samples of these stacks alive, as bytes; see retention.py."},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "stanch.sampler._core", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__core(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && labels_add_to(module)) Py_CLEAR(module);
    return module;
}
