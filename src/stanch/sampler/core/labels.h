/* Whose memory a sample is: the calling thread's name and the route or job of its context.
 *
 * A route is set by putting a Label, the Python type of this file, into the context variable
 * `route` of the module (see enter and leave); it then follows the context into tasks and over `await`.
 * Texts are interned for the life of the process, in lists of fixed size: what comes when one
 * is full gets a text that says so.
 */
#ifndef STANCH_LABELS_H
#define STANCH_LABELS_H

#include <Python.h>
#include <stdint.h>

/* Adds the type Label and the context variable `route` to the module. Returns 0, or -1 with an
 * error set. */
int labels_add_to(PyObject *module);

/* The label of a sample that this thread takes now; always a valid number. Runs inside
 * allocator hooks: reads only, with or without the GIL. `state` is the calling thread's own or
 * NULL. table_lock() is held. */
uint32_t labels_now_locked_nopy(PyThreadState *state);

/* METH_O (bool): whether samples get labels from now on. */
PyObject *labels_switch(PyObject *self, PyObject *on);
/* METH_O (mark): gives the context that label; returns the one it had, or None. */
PyObject *labels_enter(PyObject *self, PyObject *mark);
/* METH_FASTCALL (mark, before): gives the context `before`, unless it has not `mark` any more. */
PyObject *labels_leave(PyObject *self, PyObject *const *args, Py_ssize_t count);
/* METH_VARARGS (ident: int, name: str): names the calling thread, or one that was there before
 * the names of new threads were seen. */
PyObject *labels_name_thread(PyObject *self, PyObject *args);
/* METH_NOARGS: (thread, route) that a sample taken now would get, as texts. */
PyObject *labels_now(PyObject *self, PyObject *unused);
/* METH_NOARGS: (threads, routes) known so far, the texts for a full list apart. */
PyObject *labels_known(PyObject *self, PyObject *unused);

#endif
