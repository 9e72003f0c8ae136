/* From a thread's Python frames to the number of a stack in the live table.
 *
 * Runs inside allocator hooks: creates no Python object, touches no reference count, calls
 * no Python allocator. With or without the GIL: a thread reads only its own frames, which
 * nobody else changes, and the code objects that these frames keep alive.
 */
#ifndef STANCH_FRAMES_H
#define STANCH_FRAMES_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "table_format.h"

#define FRAMES_MAX_DEPTH TABLE_MAX_DEPTH

/* NULL when this interpreter's frames can be read, else the reason that they cannot; to be asked
 * once, before the first walk. Needs the GIL and a Python caller. */
const char *frames_refusal(void);
/* The state of the calling thread; `gil_held` says whether it surely holds the GIL. */
PyThreadState *frames_thread_state_nopy(bool gil_held);
/* Always a valid stack number; STACK_NO_PYTHON without frames. table_lock() is held. */
uint32_t frames_stack_locked_nopy(PyThreadState *state);
/* Drops all caches; for a new table. table_lock() is held. */
void frames_forget_locked(void);
/* From now on a freed code object leaves the caches, so a reused address is not mistaken
 * for it. Needs the GIL. Idempotent; stays for the life of the process. */
void frames_watch_code(void);

#endif
