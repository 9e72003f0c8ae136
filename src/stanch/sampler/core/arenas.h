/* How much memory CPython's small-object allocator has taken from the system.
 *
 * pymalloc asks for it in arenas (1 MiB each since 3.10). Its public arena allocator is hooked,
 * which is called once per arena, so the count is exact and costs nothing. Arenas from before
 * arenas_start() are not in it.
 */
#ifndef STANCH_ARENAS_H
#define STANCH_ARENAS_H

#include <stdint.h>

/* Both need the GIL, and do nothing when there is nothing to do. */
void arenas_start(void);
void arenas_stop(void);
/* Bytes of the arenas that were allocated since the start and are there still. */
uint64_t arenas_bytes(void);

#endif
