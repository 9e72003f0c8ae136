/* Learns the layout of frames from the interpreter that runs, and checks it against CPython's
 * own functions before anybody relies on it. */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>

#include "frame_layout.h"

#include <string.h>

#if PY_VERSION_HEX < 0x030E0000

const char *frame_layout_refusal(void) { return NULL; }

#else

#include "internal/pycore_debug_offsets.h"

PyAPI_DATA(struct pyruntimestate) _PyRuntime;

#define CHECKED_FRAMES 8

frame_offsets frame_offset;

/* Does a pointer at this offset lie within an object of this size? */
static bool fits(uint64_t offset, uint64_t size_bytes) {
    return offset % sizeof(void *) == 0 && offset + sizeof(void *) <= size_bytes;
}

/* Reads the offsets; they are the first member of _PyRuntime by CPython's contract with
 * debuggers. */
static const char *learn(void) {
    const _Py_DebugOffsets *offsets = (const _Py_DebugOffsets *)&_PyRuntime;
    if (memcmp(offsets->cookie, _Py_Debug_Cookie, sizeof offsets->cookie) != 0)
        return "it does not publish debug offsets";
    if (offsets->version >> 16 != PY_VERSION_HEX >> 16)
        return "its debug offsets are of another version";
    if (offsets->free_threaded) return "it is a free-threaded build";
    frame_offset = (frame_offsets){
        .current_frame = offsets->thread_state.current_frame,
        .previous = offsets->interpreter_frame.previous,
        .executable = offsets->interpreter_frame.executable,
        .instruction = offsets->interpreter_frame.instr_ptr,
        .owner = offsets->interpreter_frame.owner,
        .bytecode = offsets->code_object.co_code_adaptive,
    };
    uint64_t frame_bytes = offsets->interpreter_frame.size;
    bool fit = fits(frame_offset.current_frame, offsets->thread_state.size) &&
               fits(frame_offset.previous, frame_bytes) &&
               fits(frame_offset.executable, frame_bytes) &&
               fits(frame_offset.instruction, frame_bytes) && frame_offset.owner < frame_bytes &&
               frame_offset.bytecode < offsets->code_object.size;
    return fit ? NULL : "its debug offsets are out of bounds";
}

/* Compares a frame as it is read here with CPython's own view of it. Follows no pointer of the
 * frame before it is known to be right. */
static bool same_frame(const python_frame *seen, PyFrameObject *known) {
    PyCodeObject *code = PyFrame_GetCode(known);
    bool same = frame_executable(seen) == (PyObject *)code &&
                frame_instruction(seen, code) == PyFrame_GetLasti(known);
    Py_DECREF(code);
    return same;
}

/* Is it a frame that PyFrame_GetBack passes over? */
static bool is_hidden(const python_frame *frame) {
    PyCodeObject *code = frame_code(frame);
    return !code || code_is_shim(code);
}

static bool agrees(void) {
    const python_frame *seen = frame_innermost(PyThreadState_GetUnchecked());
    PyFrameObject *known = PyThreadState_GetFrame(PyThreadState_GetUnchecked());
    bool same = known && seen && same_frame(seen, known); /* the caller's own, never hidden */
    for (int i = 0; same && known && i < CHECKED_FRAMES; i++) {
        PyFrameObject *back = PyFrame_GetBack(known);
        Py_DECREF(known);
        known = back;
        do seen = frame_previous(seen);
        while (seen && is_hidden(seen));
        same = !known || (seen && same_frame(seen, known));
    }
    Py_XDECREF(known);
    return same;
}

const char *frame_layout_refusal(void) {
    static bool known; /* the offsets do not change under a hook that reads them */
    if (known) return NULL;
    const char *refusal = learn();
    if (!refusal && !agrees()) refusal = "its frames are not where its debug offsets say";
    known = !refusal;
    return refusal;
}

#endif
