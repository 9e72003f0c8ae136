#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "gcwatch.h"

#include <stdbool.h>
#include <stdint.h>

#include "clock.h"

/* Written by the collector under the GIL. */
static uint64_t began_ns, pauses, total_ns, longest_ns;

PyObject *gcwatch_callback(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    bool starts = count > 0 && PyUnicode_Check(args[0]) && PyUnicode_GET_LENGTH(args[0]) > 2 &&
                  PyUnicode_READ_CHAR(args[0], 2) == 'a'; /* "start", not "stop" */
    if (starts) {
        began_ns = clock_ns(CLOCK_MONOTONIC);
    } else if (began_ns) {
        uint64_t pause = clock_ns(CLOCK_MONOTONIC) - began_ns;
        began_ns = 0;
        pauses++;
        total_ns += pause;
        if (pause > longest_ns) longest_ns = pause;
    }
    Py_RETURN_NONE;
}

PyObject *gcwatch_pauses(PyObject *self, PyObject *unused) {
    return Py_BuildValue("(KKK)", (unsigned long long)pauses, (unsigned long long)total_ns,
                         (unsigned long long)longest_ns);
}
