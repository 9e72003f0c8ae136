/* Columns of many profiles put into the order of a table: the Python functions; see _decode.pyi. */
#ifndef STANCH_ARRANGE_H
#define STANCH_ARRANGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *arrange_order(PyObject *module, PyObject *arguments);
PyObject *arrange_gather(PyObject *module, PyObject *arguments);
PyObject *arrange_gather_lists(PyObject *module, PyObject *arguments);

#endif
