/* The native frames between an allocation and the interpreter.
 *
 * Walks with the unwinder of libgcc_s, which reads the unwind tables that compilers write; most
 * libraries keep no frame pointers. It may allocate, so the table's lock must not be held. Knows
 * no Python.
 */
#ifndef STANCH_UNWIND_H
#define STANCH_UNWIND_H

#include <stdint.h>

#include "maps.h"

#define UNWIND_MAX_DEPTH 32u

/* own: the code of the core and of the preload library, which is left out at the leaf.
 * interpreter: the code at which a walk ends. Returns NULL, or a sentence that says why there
 * will be no frames. Idempotent. */
const char *unwind_start(const maps_range own[2], maps_range interpreter);
/* Fills in the addresses of the calls, leaf first, and returns their number. The interpreter's own
 * code is named when it is the leaf, else the walk ends before it. */
uint32_t unwind_walk(uintptr_t addresses[UNWIND_MAX_DEPTH]);

#endif
