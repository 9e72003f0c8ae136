/* Where a frame keeps what a walk reads: all that differs between versions of CPython.
 *
 * 3.11 to 3.13: the layout of the headers that the core is compiled with, which a minor version
 * does not change. 3.14 and later: the offsets that the running interpreter itself publishes for
 * debuggers in _PyRuntime.debug_offsets, read and checked once by frame_layout_refusal().
 *
 * For frames.c only. Py_BUILD_CORE is defined before Python.h.
 */
#ifndef STANCH_FRAME_LAYOUT_H
#define STANCH_FRAME_LAYOUT_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#error "stanch: the frames of this version of CPython are not known (3.11 to 3.15 are)"
#endif
#ifdef Py_GIL_DISABLED
#error "stanch: free-threaded CPython builds are not supported yet"
#endif

/* A _PyInterpreterFrame, seen from outside. */
typedef struct python_frame python_frame;

/* NULL once the layout is known and agrees with what CPython's own functions say of the calling
 * thread's frames; else the reason why not. Needs the GIL and a Python caller. */
const char *frame_layout_refusal(void);

/* The code that 3.12 and later put between a class and its __init__; no line of it is ever
 * traced. */
static inline bool code_is_shim(const PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030C0000
    return code->_co_firsttraceable >= Py_SIZE(code);
#else
    (void)code;
    return false;
#endif
}

#if PY_VERSION_HEX < 0x030E0000

#include "internal/pycore_frame.h"

#define INTERNAL(frame) ((const _PyInterpreterFrame *)(frame))

static inline const python_frame *frame_innermost(const PyThreadState *state) {
#if PY_VERSION_HEX >= 0x030D0000
    return (const python_frame *)state->current_frame;
#else
    return state->cframe ? (const python_frame *)state->cframe->current_frame : NULL;
#endif
}

static inline const python_frame *frame_previous(const python_frame *frame) {
    return (const python_frame *)INTERNAL(frame)->previous;
}

/* NULL for a frame that stands for a call from C rather than for a Python function. */
static inline PyCodeObject *frame_code(const python_frame *frame) {
#if PY_VERSION_HEX >= 0x030C0000
    if (INTERNAL(frame)->owner == FRAME_OWNED_BY_CSTACK) return NULL;
#endif
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *executable = INTERNAL(frame)->f_executable;
    return executable && PyCode_Check(executable) ? (PyCodeObject *)executable : NULL;
#else
    return INTERNAL(frame)->f_code;
#endif
}

/* Bytes into the code, as in f_lasti; -1 before the first instruction. */
static inline int frame_instruction(const python_frame *frame, PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030D0000
    const void *instruction = INTERNAL(frame)->instr_ptr;
#else
    const void *instruction = INTERNAL(frame)->prev_instr;
#endif
    ptrdiff_t bytes = (const char *)instruction - (const char *)_PyCode_CODE(code);
    return bytes < 0 ? -1 : (int)bytes;
}

#undef INTERNAL

#else

#include "internal/pycore_interpframe_structs.h" /* the owners of frames */

/* Bytes from the start of a thread state, of a frame and of a code object. */
typedef struct {
    size_t current_frame;
    size_t previous, executable, instruction, owner;
    size_t bytecode;
} frame_offsets;

extern frame_offsets frame_offset;

/* A reference in a frame keeps flags in the low bits of the pointer. */
#define REFERENCE_FLAGS ((uintptr_t)3)

static inline const void *frame_word(const void *base, size_t offset) {
    return *(const void *const *)((const char *)base + offset);
}

static inline const python_frame *frame_innermost(const PyThreadState *state) {
    return frame_word(state, frame_offset.current_frame);
}

static inline const python_frame *frame_previous(const python_frame *frame) {
    return frame_word(frame, frame_offset.previous);
}

/* Stands for a call from C rather than for a Python function. */
static inline bool frame_is_from_c(const python_frame *frame) {
    return ((const char *)frame)[frame_offset.owner] >= FRAME_OWNED_BY_INTERPRETER;
}

static inline PyObject *frame_executable(const python_frame *frame) {
    uintptr_t reference = (uintptr_t)frame_word(frame, frame_offset.executable);
    return (PyObject *)(reference & ~REFERENCE_FLAGS);
}

/* NULL for a frame from C. */
static inline PyCodeObject *frame_code(const python_frame *frame) {
    PyObject *executable = frame_is_from_c(frame) ? NULL : frame_executable(frame);
    return executable && PyCode_Check(executable) ? (PyCodeObject *)executable : NULL;
}

/* Bytes into the code, as in f_lasti; -1 before the first instruction. */
static inline int frame_instruction(const python_frame *frame, PyCodeObject *code) {
    const char *instruction = frame_word(frame, frame_offset.instruction);
    ptrdiff_t bytes = instruction - ((const char *)code + frame_offset.bytecode);
    return bytes < 0 ? -1 : (int)bytes;
}

#endif
#endif
