/* A small C extension with two bugs and their repairs.
 *
 * hold(object): a reference is taken and never given back. borrow(object) gives it back.
 * parse(bytes): a linked list of nodes that nobody frees, as a parser's. parse_and_free(bytes) frees it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    char text[1000];
};

static PyObject *hold(PyObject *module, PyObject *object)
{
    (void)module;
    Py_INCREF(object);
    Py_RETURN_NONE;
}

static PyObject *borrow(PyObject *module, PyObject *object)
{
    (void)module;
    Py_INCREF(object);
    Py_DECREF(object);
    Py_RETURN_NONE;
}

static struct node *list_of(long bytes)
{
    struct node *first = NULL;
    for (long made = 0; made < bytes; made += (long)sizeof *first) {
        struct node *node = malloc(sizeof *node);
        if (node == NULL)
            break;
        memset(node->text, 'x', sizeof node->text);
        node->next = first;
        first = node;
    }
    return first;
}

static PyObject *parse(PyObject *module, PyObject *argument)
{
    (void)module;
    long bytes = PyLong_AsLong(argument);
    if (bytes == -1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(list_of(bytes) != NULL);
}

static PyObject *parse_and_free(PyObject *module, PyObject *argument)
{
    (void)module;
    long bytes = PyLong_AsLong(argument);
    if (bytes == -1 && PyErr_Occurred())
        return NULL;
    struct node *first = list_of(bytes);
    while (first != NULL) {
        struct node *next = first->next;
        free(first);
        first = next;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"hold", hold, METH_O, "Forget to give a reference back."},
    {"borrow", borrow, METH_O, "Take a reference and give it back."},
    {"parse", parse, METH_O, "Make nodes that nobody frees."},
    {"parse_and_free", parse_and_free, METH_O, "Make nodes and free them."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "leaky", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_leaky(void)
{
    return PyModule_Create(&definition);
}
