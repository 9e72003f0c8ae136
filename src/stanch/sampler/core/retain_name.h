/* What a person would call a reference: the attribute, variable, cell or local that holds. */
#ifndef STANCH_RETAIN_NAME_H
#define STANCH_RETAIN_NAME_H

#include "retain_walk.h"

typedef struct {
    enum retain_edge edge;
    PyObject *name;             /* str or NULL */
    _PyInterpreterFrame *frame; /* EDGE_LOCAL: of which */
} edge_name;

/* How entry `holder` of the queue, or a root, holds `held`. */
edge_name name_edge(const walk *walk, uint32_t holder, PyObject *held);
enum retain_shape shape_of(const walk *walk, uint32_t entry);
/* The qualified name of a function, class or coroutine; a str or NULL. */
PyObject *name_of_object(PyObject *object);
/* The most items that a container may have, by what its owner says; -1: nothing is known. */
int64_t bound_of(const walk *walk, uint32_t entry);

#endif
