/* Sees CPython's internals: frames, through frame_layout.h.
 *
 * Locks: the caches here are protected by the table's lock.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1 /* for frame_layout.h; before any header of CPython */
#include <Python.h>

#include "frames.h"

#include "frame_layout.h"
#include "idmap.h"
#include "table.h"

#define MAX_TEXT_BYTES 512 /* of a name or a path; the tail is kept, it tells more */

/* code object -> serial number of its cache entry, and what hangs on the serial. A bound
 * that is reached only empties the caches; the numbers in the table stay. */
static idmap code_serials = {.max_used = 64u << 10};
static idmap instruction_frames = {.max_used = 256u << 10}; /* serial, instruction -> frame */
static idmap walked_stacks = {.max_used = 128u << 10};      /* hash of the walk -> stack */
static uint32_t last_serial;
/* How often code that a walk had seen was freed, by a hash of its address. A walk is hashed by
 * addresses in its code, and by these: code that takes a freed one's place is another walk. */
#define FREED_BUCKETS 2048
static uint32_t code_freed[FREED_BUCKETS];

const char *frames_refusal(void) { return frame_layout_refusal(); }

/* Serials go on counting, so a walk that is under way when the caches empty stays right. */
void frames_forget_locked(void) {
    idmap_free(&code_serials);
    idmap_free(&instruction_frames);
    idmap_free(&walked_stacks);
    for (uint32_t i = 0; i < FREED_BUCKETS; i++) code_freed[i]++;
}

static uint32_t *freed_bucket(const PyObject *code) {
    return &code_freed[((uintptr_t)code * 0x9e3779b97f4a7c15ull) >> 53];
}

PyThreadState *frames_thread_state_nopy(bool gil_held) {
    /* On 3.11 the unchecked getter is process-wide: without the GIL it may give the state of
     * another thread. */
    if (!gil_held) return PyGILState_GetThisThreadState();
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

/* ---- text ---- */

/* Writes one code point as UTF-8; a lone surrogate becomes '?'. */
static size_t put_utf8(char *to, Py_UCS4 point) {
    if (point >= 0xD800 && point <= 0xDFFF) point = '?';
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--, point >>= 6) to[i] = (char)(0x80 | (point & 0x3F));
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    to[0] = (char)(lead[bytes] | point);
    return bytes;
}

typedef struct {
    char buffer[MAX_TEXT_BYTES];
    const char *bytes; /* into the buffer or into the string object */
    size_t length;
} text;

static void text_of(PyObject *string, text *out) {
    out->bytes = "?";
    out->length = 1;
    if (!string || !PyUnicode_Check(string)) return;
    Py_ssize_t length = PyUnicode_GET_LENGTH(string);
    if (PyUnicode_IS_COMPACT_ASCII(string)) {
        Py_ssize_t skipped = length > MAX_TEXT_BYTES ? length - MAX_TEXT_BYTES : 0;
        out->bytes = (const char *)PyUnicode_DATA(string) + skipped;
        out->length = (size_t)(length - skipped);
        return;
    }
    Py_ssize_t points = MAX_TEXT_BYTES / 4;
    out->length = 0;
    for (Py_ssize_t i = length > points ? length - points : 0; i < length; i++)
        out->length += put_utf8(out->buffer + out->length, PyUnicode_READ_CHAR(string, i));
    out->bytes = out->buffer;
}

/* ---- numbers ---- */

static uint32_t serial_of(PyCodeObject *code) {
    uint32_t serial = idmap_get(&code_serials, (uintptr_t)code);
    if (serial != IDMAP_NONE) return serial;
    if (last_serial == UINT32_MAX) {
        frames_forget_locked();
        last_serial = 0;
    }
    serial = ++last_serial;
    if (!idmap_put(&code_serials, (uintptr_t)code, serial)) {
        frames_forget_locked();
        idmap_put(&code_serials, (uintptr_t)code, serial);
    }
    return serial;
}

static uint32_t frame_number(PyCodeObject *code, uint32_t serial, int instruction) {
    uint64_t key = (uint64_t)serial << 32 | (uint32_t)instruction;
    uint32_t number = idmap_get(&instruction_frames, key);
    if (number != IDMAP_NONE) return number;
    text name, path;
    text_of(code->co_qualname, &name);
    text_of(code->co_filename, &path);
    uint32_t function = table_function_locked(name.bytes, name.length, path.bytes, path.length,
                                              code->co_firstlineno);
    if (function == IDMAP_NONE) return IDMAP_NONE;
    int line = code->co_firstlineno;
    if (instruction >= 0) {
        int found = PyCode_Addr2Line(code, instruction);
        if (found > 0) line = found;
    }
    number = table_frame_locked(function, line);
    if (number != IDMAP_NONE && !idmap_put(&instruction_frames, key, number)) {
        idmap_clear(&instruction_frames);
        idmap_put(&instruction_frames, key, number);
    }
    return number;
}

typedef struct {
    PyCodeObject *code;
    int instruction; /* bytes into the code; -1 before the first */
} walked_frame;

static uint32_t stack_of_walk(const walked_frame *walk, uint32_t depth) {
    uint32_t numbers[FRAMES_MAX_DEPTH];
    uint32_t count = 0;
    for (uint32_t i = 0; i < depth; i++) {
        if (code_is_shim(walk[i].code)) continue;
        uint32_t number =
            frame_number(walk[i].code, serial_of(walk[i].code), walk[i].instruction);
        if (number == IDMAP_NONE) return STACK_OVERFLOW;
        numbers[count++] = number;
    }
    if (!count) return STACK_NO_PYTHON;
    uint32_t stack = table_stack_locked(numbers, count);
    return stack == IDMAP_NONE ? STACK_OVERFLOW : stack;
}

uint32_t frames_stack_locked_nopy(PyThreadState *state) {
    if (!state) return STACK_NO_PYTHON;
    walked_frame walk[FRAMES_MAX_DEPTH];
    uint32_t depth = 0;
    uint64_t hash = 0;
    for (const python_frame *frame = frame_innermost(state); frame && depth < FRAMES_MAX_DEPTH;
         frame = frame_previous(frame)) {
        PyCodeObject *code = frame_code(frame);
        if (!code) continue;
        walked_frame *step = &walk[depth++];
        step->code = code;
        step->instruction = frame_instruction(frame, code);
        uint64_t place = (uintptr_t)code + (uintptr_t)(step->instruction + 1);
        place += *freed_bucket((PyObject *)code) * 0x9e3779b97f4a7c15ull;
        hash = idmap_mix(hash ^ place);
    }
    if (!depth) return STACK_NO_PYTHON;
    uint64_t key = hash ? hash : 1;
    uint32_t stack = idmap_get(&walked_stacks, key);
    if (stack != IDMAP_NONE) return stack;
    stack = stack_of_walk(walk, depth);
    if (stack != STACK_OVERFLOW && !idmap_put(&walked_stacks, key, stack)) {
        idmap_clear(&walked_stacks);
        idmap_put(&walked_stacks, key, stack);
    }
    return stack;
}

/* ---- freed code ---- */

static destructor code_dealloc;

static void forget_code(PyObject *code) {
    table_lock();
    if (idmap_remove(&code_serials, (uintptr_t)code) != IDMAP_NONE) ++*freed_bucket(code);
    table_unlock();
    code_dealloc(code);
}

void frames_watch_code(void) {
    /* The type's own slot rather than PyCode_AddWatcher: 3.11 has no watchers, and a watcher
     * sees one interpreter only. */
    if (code_dealloc) return;
    code_dealloc = PyCode_Type.tp_dealloc;
    PyCode_Type.tp_dealloc = forget_code;
}
