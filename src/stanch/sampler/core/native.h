/* Native memory: what libraries take from malloc and mmap, seen through the preload library.
 *
 * Functions named native_start and native_stop need the GIL; hooks.c is started before the one
 * and stopped after the other.
 */
#ifndef STANCH_NATIVE_H
#define STANCH_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

/* Lets native samples flow into the table, which must be started. Returns NULL, or a sentence
 * that says why there will be none; all else goes on then. */
const char *native_start(uint32_t interval_bytes);
void native_stop(void);
bool native_running(void);
/* Samples that were not taken since their thread was taking one, for the life of the process. */
uint64_t native_passed(void);
/* Draws gaps with another mean from now on. */
void native_set_interval(uint32_t interval_bytes);

#endif
