/* How long the collector stops the process: a gc callback in C. */
#ifndef STANCH_GCWATCH_H
#define STANCH_GCWATCH_H

#include <Python.h>

/* METH_FASTCALL, for gc.callbacks: (phase: str, info: dict). */
PyObject *gcwatch_callback(PyObject *self, PyObject *const *args, Py_ssize_t count);
/* METH_NOARGS: (collections seen, total ns, longest ns). */
PyObject *gcwatch_pauses(PyObject *self, PyObject *unused);

#endif
