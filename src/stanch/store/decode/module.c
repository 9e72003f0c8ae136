/* stanch.store._decode: the Python face of pprof.h. Parsing and adding up run without the GIL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arrange.h"
#include "pprof.h"

enum { MAX_SAMPLES = 200000, MAX_LOCATIONS = 200000, MAX_FRAMES = 256 };

typedef struct {
    PyObject_HEAD
    PyObject *data; /* the bytes that all slices point into */
    struct profile profile;
    int made_rows;
} Decoded;

static PyObject *text_of(const struct profile *profile, uint64_t number)
{
    struct slice text = string_of(profile, number);
    return PyUnicode_DecodeUTF8((const char *)text.at, (Py_ssize_t)text.size, "replace");
}

static int is_text(struct slice text, const char *wanted)
{
    return text.size == strlen(wanted) && memcmp(text.at, wanted, text.size) == 0;
}

/* Decoded(data): raises ValueError with one clause that says what is wrong. */
static PyObject *decoded_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", NULL};
    PyObject *data;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "S", names, &data))
        return NULL;
    Decoded *self = (Decoded *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(data);
    self->data = data;
    struct slice slice = {(const uint8_t *)PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
    struct options options = {.max_samples = MAX_SAMPLES, .max_locations = MAX_LOCATIONS};
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = profile_read(&self->profile, slice, &options);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        PyErr_SetString(PyExc_ValueError, self->profile.error);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void decoded_dealloc(Decoded *self)
{
    PyTypeObject *type = Py_TYPE(self);
    profile_free(&self->profile);
    Py_XDECREF(self->data);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *sample_types(Decoded *self, void *closure)
{
    const struct profile *profile = &self->profile;
    PyObject *types = PyTuple_New((Py_ssize_t)profile->sample_types.size);
    for (size_t at = 0; types != NULL && at < profile->sample_types.size; at++) {
        uint64_t type, unit;
        value_type_of(profile->sample_types.at[at], &type, &unit);
        PyObject *pair = Py_BuildValue("(NN)", text_of(profile, type), text_of(profile, unit));
        if (pair == NULL)
            Py_CLEAR(types);
        else
            PyTuple_SET_ITEM(types, (Py_ssize_t)at, pair);
    }
    return types;
}

static PyObject *comments(Decoded *self, void *closure)
{
    const struct profile *profile = &self->profile;
    PyObject *texts = PyTuple_New((Py_ssize_t)profile->comments.size);
    for (size_t at = 0; texts != NULL && at < profile->comments.size; at++) {
        struct slice text = profile->comments.at[at];
        PyObject *one =
            PyUnicode_DecodeUTF8((const char *)text.at, (Py_ssize_t)text.size, "replace");
        if (one == NULL)
            Py_CLEAR(texts);
        else
            PyTuple_SET_ITEM(texts, (Py_ssize_t)at, one);
    }
    return texts;
}

static PyObject *default_type(Decoded *self, void *closure)
{
    return text_of(&self->profile, self->profile.default_type);
}

static PyObject *period_type(Decoded *self, void *closure)
{
    uint64_t type, unit;
    value_type_of(self->profile.period_type, &type, &unit);
    return Py_BuildValue("(NN)", text_of(&self->profile, type), text_of(&self->profile, unit));
}

static PyObject *program(Decoded *self, void *closure)
{
    uint64_t file, build_id;
    program_of(&self->profile, &file, &build_id);
    return Py_BuildValue("(NN)", text_of(&self->profile, file), text_of(&self->profile, build_id));
}

static PyObject *number(Decoded *self, void *which)
{
    const struct profile *profile = &self->profile;
    const int64_t numbers[] = {profile->time_nanos, profile->duration_nanos, profile->period};
    return PyLong_FromLongLong(numbers[(intptr_t)which]);
}

static int ends_with(struct slice text, const char *tail)
{
    size_t size = strlen(tail);
    return text.size >= size && memcmp(text.at + text.size - size, tail, size) == 0;
}

/* Whether the first function with a file is one of a Go program. */
static PyObject *is_go(Decoded *self, void *closure)
{
    const struct profile *profile = &self->profile;
    for (size_t at = 0; at < profile->functions.size; at++) {
        struct slice file = string_of(profile, profile->functions.at[at].file);
        if (file.size > 0)
            return PyBool_FromLong(ends_with(file, ".go") || ends_with(file, ".s"));
    }
    Py_RETURN_FALSE;
}

static PyGetSetDef decoded_attributes[] = {
    {"sample_types", (getter)sample_types, NULL, NULL, NULL},
    {"comments", (getter)comments, NULL, NULL, NULL},
    {"default_type", (getter)default_type, NULL, NULL, NULL},
    {"period_type", (getter)period_type, NULL, NULL, NULL},
    {"program", (getter)program, NULL, NULL, NULL},
    {"is_go", (getter)is_go, NULL, NULL, NULL},
    {"time_nanos", (getter)number, NULL, NULL, (void *)0},
    {"duration_nanos", (getter)number, NULL, NULL, (void *)1},
    {"period", (getter)number, NULL, NULL, (void *)2},
    {NULL},
};

/* Where the values of each sample type go: by the names of a heap profile's types, or else the
 * default type's (the last one's when there is none) alone: bytes to bytes, others to objects. */
static void choose_values(const struct profile *profile, uint8_t *value_of_type)
{
    static const struct {
        const char *name;
        uint8_t value;
    } heap[] = {{"alloc_objects", ALLOC_OBJECTS}, {"alloc_space", ALLOC_BYTES},
                {"inuse_objects", LIVE_OBJECTS},  {"inuse_space", LIVE_BYTES},
                {"objects", LIVE_OBJECTS},        {"space", LIVE_BYTES}};
    size_t types = profile->sample_types.size, chosen = types - 1;
    uint64_t type, unit;
    int is_heap = 0;
    for (size_t at = 0; at < types; at++) {
        value_of_type[at] = VALUES;
        value_type_of(profile->sample_types.at[at], &type, &unit);
        if (type == profile->default_type && type != 0)
            chosen = at;
        for (size_t known = 0; known < sizeof heap / sizeof *heap; known++)
            if (is_text(string_of(profile, type), heap[known].name)) {
                value_of_type[at] = heap[known].value;
                is_heap = 1;
            }
    }
    if (is_heap)
        return;
    value_type_of(profile->sample_types.at[chosen], &type, &unit);
    value_of_type[chosen] = is_text(string_of(profile, unit), "bytes") ? LIVE_BYTES : LIVE_OBJECTS;
}

/* The frames of a location, made once for all stacks through it: a tuple, or NULL with an error. */
static PyObject *frames_of_location(const struct profile *profile, const struct location *location)
{
    uint32_t count = location->line_count < MAX_FRAMES ? location->line_count : MAX_FRAMES;
    if (count == 0) {
        char address[32];
        snprintf(address, sizeof address, "0x%llx", (unsigned long long)location->address);
        return Py_BuildValue("((ssii))", address, "", 0, 0);
    }
    PyObject *frames = PyTuple_New(count);
    for (uint32_t at = 0; frames != NULL && at < count; at++) {
        const struct line *line = &profile->lines.at[location->first_line + at];
        const struct function *function = &profile->functions.at[line->function];
        PyObject *frame = Py_BuildValue("(NNKK)", text_of(profile, function->name),
                                        text_of(profile, function->file),
                                        (unsigned long long)(uint32_t)line->line,
                                        (unsigned long long)(uint32_t)function->start_line);
        if (frame == NULL)
            Py_CLEAR(frames);
        else
            PyTuple_SET_ITEM(frames, at, frame);
    }
    return frames;
}

/* The frames of a row's stack. made: for each location its frames, NULL until somebody wants them. */
static PyObject *frames_of(const struct profile *profile, const struct row *row, PyObject **made)
{
    PyObject *frames = PyList_New(0);
    for (uint32_t at = 0; frames != NULL && at < row->frame_count; at++) {
        uint32_t position = profile->frames.at[row->first_frame + at];
        if (made[position] == NULL)
            made[position] = frames_of_location(profile, &profile->locations.at[position]);
        if (made[position] == NULL) {
            Py_CLEAR(frames);
            break;
        }
        for (Py_ssize_t one = 0; one < PyTuple_GET_SIZE(made[position]); one++) {
            if (PyList_Append(frames, PyTuple_GET_ITEM(made[position], one)) < 0) {
                Py_CLEAR(frames);
                break;
            }
            if (PyList_GET_SIZE(frames) >= MAX_FRAMES)
                return frames;
        }
    }
    return frames;
}

/* The frames of each stack whose name is not in the set `known`: {name: [frame, ...]}. */
static PyObject *new_stacks(const struct profile *profile, PyObject *known)
{
    PyObject **made = PyMem_Calloc(profile->locations.size + 1, sizeof *made);
    if (made == NULL)
        return PyErr_NoMemory();
    PyObject *stacks = PyDict_New();
    for (size_t at = 0; stacks != NULL && at < profile->rows.size; at++) {
        const struct row *row = &profile->rows.at[at];
        PyObject *name = PyBytes_FromStringAndSize((const char *)&row->stack, sizeof row->stack);
        int found = name == NULL ? -1 : PySet_Contains(known, name);
        if (found == 0)
            found = PyDict_Contains(stacks, name);
        if (found == 0) {
            PyObject *frames = frames_of(profile, row, made);
            if (frames == NULL || PyDict_SetItem(stacks, name, frames) < 0)
                found = -1;
            Py_XDECREF(frames);
        }
        Py_XDECREF(name);
        if (found < 0)
            Py_CLEAR(stacks);
    }
    for (size_t at = 0; at < profile->locations.size; at++)
        Py_XDECREF(made[at]);
    PyMem_Free(made);
    return stacks;
}

static PyObject *label_sets(const struct profile *profile)
{
    PyObject *sets = PyList_New(0);
    for (size_t at = 0; sets != NULL && at < profile->label_sets.size; at++) {
        const struct label_set *set = &profile->label_sets.at[at];
        PyObject *pairs = PyList_New(0);
        for (uint32_t one = 0; pairs != NULL && one < set->count; one++) {
            const struct label *label = &profile->labels.at[set->first + one];
            PyObject *pair = Py_BuildValue("(NN)", text_of(profile, label->key),
                                           text_of(profile, label->text));
            if (pair == NULL || PyList_Append(pairs, pair) < 0)
                Py_CLEAR(pairs);
            Py_XDECREF(pair);
        }
        if (pairs == NULL || PyList_Append(sets, pairs) < 0)
            Py_CLEAR(sets);
        Py_XDECREF(pairs);
    }
    return sets;
}

/* A column of the rows or births as bytes: `field` of each of `count` elements of `array`. */
#define COLUMN(array, count, type, expression)                                                     \
    __extension__({                                                                                \
        PyObject *column_bytes =                                                                   \
            PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((count) * sizeof(type)));                 \
        if (column_bytes != NULL) {                                                                \
            char *column_at = PyBytes_AS_STRING(column_bytes);                                     \
            for (size_t at = 0; at < (count); at++) {                                              \
                type column_value = (expression);                                                  \
                memcpy(column_at + at * sizeof(type), &column_value, sizeof(type));                \
            }                                                                                      \
        }                                                                                          \
        column_bytes;                                                                              \
    })

static PyObject *birth_ends(const struct profile *profile)
{
    size_t birth = 0;
    return COLUMN(profile->rows, profile->rows.size, uint64_t, __extension__({
                      while (birth < profile->births.size && profile->births.at[birth].row <= at)
                          birth++;
                      (uint64_t)birth;
                  }));
}

/* rows(known, birth_offset_s, band_s): see _decode.pyi. Can be asked once. */
static PyObject *rows(Decoded *self, PyObject *arguments)
{
    struct profile *profile = &self->profile;
    uint8_t value_of_type[64];
    struct options options = {.max_frames = MAX_FRAMES, .value_of_type = value_of_type};
    PyObject *known;
    int result;
    if (!PyArg_ParseTuple(arguments, "OdI", &known, &options.birth_offset_s, &options.band_s))
        return NULL;
    if (!PySet_Check(known))
        return PyErr_Format(PyExc_TypeError, "known must be a set of bytes");
    if (self->made_rows)
        return PyErr_Format(PyExc_RuntimeError, "the rows were asked for twice");
    self->made_rows = 1;
    options.types = profile->sample_types.size;
    choose_values(profile, value_of_type);
    Py_BEGIN_ALLOW_THREADS
    result = profile_rows(profile, &options);
    Py_END_ALLOW_THREADS
    if (result < 0)
        return PyErr_Format(PyExc_ValueError, "%s", profile->error);
    return Py_BuildValue(
        "(nNNNNNNNNNNN)", (Py_ssize_t)profile->rows.size,
        COLUMN(profile->rows, profile->rows.size, struct digest, profile->rows.at[at].stack),
        label_sets(profile),
        COLUMN(profile->rows, profile->rows.size, uint32_t, profile->rows.at[at].labels),
        COLUMN(profile->rows, profile->rows.size, uint64_t, profile->rows.at[at].values[0]),
        COLUMN(profile->rows, profile->rows.size, uint64_t, profile->rows.at[at].values[1]),
        COLUMN(profile->rows, profile->rows.size, uint64_t, profile->rows.at[at].values[2]),
        COLUMN(profile->rows, profile->rows.size, uint64_t, profile->rows.at[at].values[3]),
        birth_ends(profile),
        COLUMN(profile->births, profile->births.size, uint32_t, profile->births.at[at].second),
        COLUMN(profile->births, profile->births.size, uint64_t, profile->births.at[at].bytes),
        new_stacks(profile, known));
}

/* digest(data): 16 bytes, the same on each machine. */
static PyObject *digest(PyObject *module, PyObject *data)
{
    char *at;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(data, &at, &size) < 0)
        return NULL;
    struct digest result;
    Py_BEGIN_ALLOW_THREADS
    result = digest_of(0, at, (size_t)size);
    Py_END_ALLOW_THREADS
    return PyBytes_FromStringAndSize((const char *)&result, sizeof result);
}

static PyMethodDef decoded_methods[] = {
    {"rows", (PyCFunction)rows, METH_VARARGS, NULL},
    {NULL},
};

static PyType_Slot decoded_slots[] = {
    {Py_tp_new, decoded_new},
    {Py_tp_dealloc, decoded_dealloc},
    {Py_tp_getset, decoded_attributes},
    {Py_tp_methods, decoded_methods},
    {0, NULL},
};

static PyType_Spec decoded_spec = {
    .name = "stanch.store._decode.Decoded",
    .basicsize = sizeof(Decoded),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = decoded_slots,
};

static int add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&decoded_spec);
    int result = type == NULL ? -1 : PyModule_AddObjectRef(module, "Decoded", type);
    Py_XDECREF(type);
    return result;
}

static PyMethodDef module_methods[] = {
    {"digest", digest, METH_O, NULL},
    {"order", arrange_order, METH_VARARGS, NULL},
    {"gather", arrange_gather, METH_VARARGS, NULL},
    {"gather_lists", arrange_gather_lists, METH_VARARGS, NULL},
    {NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, add_type},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_decode",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__decode(void)
{
    return PyModuleDef_Init(&module);
}
