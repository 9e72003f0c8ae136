/* Columns of many profiles, the pieces, put into one order of all their rows without being joined
 * first. An order is a place for each row: its piece in the upper half of 64 bits, its row there in
 * the lower. Each place is checked against its piece before anything is read. */
#include "arrange.h"

#include <stdint.h>
#include <string.h>

#include "order.h"

struct piece {
    const char *at;
    size_t rows;
};

/* The bytes objects of a list as pieces of rows of `size` bytes; NULL with an error. The list keeps
 * the bytes; the caller frees the pieces. */
static struct piece *pieces_of(PyObject *list, size_t size, size_t *rows)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    struct piece *pieces = PyMem_Calloc((size_t)count + 1, sizeof *pieces);
    if (pieces == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *rows = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        char *data;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(list, at), &data, &length) < 0) {
            PyMem_Free(pieces);
            return NULL;
        }
        pieces[at] = (struct piece){data, (size_t)length / size};
        *rows += pieces[at].rows;
    }
    return pieces;
}

/* Whether each place of an order is one of a row of the pieces. */
static int is_sound(const uint64_t *places, size_t count, const struct piece *pieces, size_t most)
{
    for (size_t at = 0; at < count; at++) {
        uint64_t piece = places[at] >> 32;
        if (piece >= most || (places[at] & UINT32_MAX) >= pieces[piece].rows)
            return 0;
    }
    return 1;
}

PyObject *arrange_order(PyObject *module, PyObject *arguments)
{
    PyObject *groups, *stacks, *result = NULL;
    Py_ssize_t group_count;
    size_t rows, row = 0;
    int failed = 0;
    if (!PyArg_ParseTuple(arguments, "O!nO!", &PyList_Type, &groups, &group_count, &PyList_Type,
                          &stacks))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(stacks);
    if (PyList_GET_SIZE(groups) != count)
        return PyErr_Format(PyExc_ValueError, "%zd groups are not those of %zd pieces",
                            PyList_GET_SIZE(groups), count);
    struct piece *pieces = pieces_of(stacks, sizeof(struct digest), &rows);
    if (pieces == NULL)
        return NULL;
    struct digest *joined = PyMem_Malloc((rows + 1) * sizeof *joined);
    uint32_t *group_of = PyMem_Malloc((rows + 1) * sizeof *group_of);
    uint64_t *place_of = PyMem_Malloc((rows + 1) * sizeof *place_of);
    uint32_t *order = PyMem_Malloc((rows + 1) * sizeof *order);
    if (joined == NULL || group_of == NULL || place_of == NULL || order == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (rows > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%zu rows are more than can be numbered", rows);
        goto done;
    }
    for (Py_ssize_t piece = 0; piece < count; piece++) {
        long long group = PyLong_AsLongLong(PyList_GET_ITEM(groups, piece));
        if (group == -1 && PyErr_Occurred())
            goto done;
        if (group < 0 || group >= group_count) {
            PyErr_Format(PyExc_ValueError, "the group %lld is not below %zd", group, group_count);
            goto done;
        }
        memcpy(joined + row, pieces[piece].at, pieces[piece].rows * sizeof *joined);
        for (size_t own = 0; own < pieces[piece].rows; own++, row++) {
            group_of[row] = (uint32_t)group;
            place_of[row] = (uint64_t)piece << 32 | own;
        }
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(rows * sizeof(uint64_t)));
    if (result == NULL)
        goto done;
    uint64_t *places = (uint64_t *)PyBytes_AS_STRING(result);
    Py_BEGIN_ALLOW_THREADS
    failed = order_rows(joined, group_of, (size_t)group_count, rows, order);
    for (size_t at = 0; !failed && at < rows; at++)
        places[at] = place_of[order[at]];
    Py_END_ALLOW_THREADS
    if (failed) {
        Py_CLEAR(result);
        PyErr_NoMemory();
    }
done:
    PyMem_Free(pieces);
    PyMem_Free(joined);
    PyMem_Free(group_of);
    PyMem_Free(place_of);
    PyMem_Free(order);
    return result;
}

#define COPY_ROWS(bytes)                                                                           \
    for (size_t at = 0; at < count; at++)                                                          \
        memcpy(to + at * (bytes),                                                                  \
               pieces[places[at] >> 32].at + (places[at] & UINT32_MAX) * (bytes), (bytes))

PyObject *arrange_gather(PyObject *module, PyObject *arguments)
{
    PyObject *order, *column, *result = NULL;
    Py_ssize_t size;
    size_t rows;
    if (!PyArg_ParseTuple(arguments, "SO!n", &order, &PyList_Type, &column, &size))
        return NULL;
    if (size != 4 && size != 8 && size != 16)
        return PyErr_Format(PyExc_ValueError, "values have 4, 8 or 16 bytes, not %zd", size);
    const uint64_t *places = (const uint64_t *)PyBytes_AS_STRING(order);
    size_t count = (size_t)PyBytes_GET_SIZE(order) / sizeof *places;
    struct piece *pieces = pieces_of(column, (size_t)size, &rows);
    if (pieces == NULL)
        return NULL;
    if (!is_sound(places, count, pieces, (size_t)PyList_GET_SIZE(column))) {
        PyErr_SetString(PyExc_ValueError, "the order is not of these rows");
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)count * size);
    if (result == NULL)
        goto done;
    char *to = PyBytes_AS_STRING(result);
    Py_BEGIN_ALLOW_THREADS
    if (size == 4)
        COPY_ROWS(4);
    else if (size == 8)
        COPY_ROWS(8);
    else
        COPY_ROWS(16);
    Py_END_ALLOW_THREADS
done:
    PyMem_Free(pieces);
    return result;
}

/* Where the list of a row begins and ends among the values of its piece. */
static void list_of(const struct piece *ends, uint64_t place, uint64_t *from, uint64_t *until)
{
    const char *at = ends[place >> 32].at + (place & UINT32_MAX) * sizeof(uint64_t);
    *from = 0;
    if ((place & UINT32_MAX) > 0)
        memcpy(from, at - sizeof *from, sizeof *from);
    memcpy(until, at, sizeof *until);
}

PyObject *arrange_gather_lists(PyObject *module, PyObject *arguments)
{
    PyObject *order, *end_lists, *value_lists, *result = NULL;
    struct piece *ends, *values = NULL;
    Py_ssize_t size;
    size_t rows, total = 0, before = 0;
    uint64_t from, until;
    if (!PyArg_ParseTuple(arguments, "SO!O!n", &order, &PyList_Type, &end_lists, &PyList_Type,
                          &value_lists, &size))
        return NULL;
    if (size < 1 || PyList_GET_SIZE(end_lists) != PyList_GET_SIZE(value_lists))
        return PyErr_Format(PyExc_ValueError, "%zd pieces have ends and %zd values of %zd bytes",
                            PyList_GET_SIZE(end_lists), PyList_GET_SIZE(value_lists), size);
    const uint64_t *places = (const uint64_t *)PyBytes_AS_STRING(order);
    size_t count = (size_t)PyBytes_GET_SIZE(order) / sizeof *places;
    ends = pieces_of(end_lists, sizeof(uint64_t), &rows);
    values = ends == NULL ? NULL : pieces_of(value_lists, (size_t)size, &rows);
    if (values == NULL)
        goto done;
    int sound = is_sound(places, count, ends, (size_t)PyList_GET_SIZE(end_lists));
    for (size_t at = 0; sound && at < count; at++) {
        list_of(ends, places[at], &from, &until);
        sound = from <= until && until <= values[places[at] >> 32].rows;
        total += until - from;
    }
    if (!sound || total > rows) {
        PyErr_SetString(PyExc_ValueError, "the order or the ends are not of these rows");
        goto done;
    }
    size_t ends_size = count * sizeof(uint64_t);
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(ends_size + total * (size_t)size));
    if (result == NULL)
        goto done;
    char *to = PyBytes_AS_STRING(result);
    Py_BEGIN_ALLOW_THREADS
    for (size_t at = 0; at < count; at++) {
        list_of(ends, places[at], &from, &until);
        memcpy(to + ends_size + before * (size_t)size,
               values[places[at] >> 32].at + from * (size_t)size, (until - from) * (size_t)size);
        before += until - from;
        memcpy(to + at * sizeof(uint64_t), &before, sizeof(uint64_t));
    }
    Py_END_ALLOW_THREADS
done:
    PyMem_Free(ends);
    PyMem_Free(values);
    return result;
}
