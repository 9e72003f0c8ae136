/* The hooks on CPython's allocator domains RAW, MEM and OBJ.
 *
 * All functions need the GIL. The hooks themselves do not, in the RAW domain.
 */
#ifndef STANCH_HOOKS_H
#define STANCH_HOOKS_H

#include <stdint.h>

enum hooks_mode { HOOKS_OFF, HOOKS_DIVERT, HOOKS_CLASSIC };

/* Puts the hooks in place and lets samples flow into the table, which must be started. */
void hooks_start(uint32_t interval_bytes);
/* Takes the hooks out; where another profiler sits on top of them, they stay and only pass. */
void hooks_stop(void);
/* From now on gaps are drawn with another mean. */
void hooks_set_interval(uint32_t interval_bytes);
enum hooks_mode hooks_mode_now(void);

#endif
