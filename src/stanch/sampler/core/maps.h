/* Which library's code stands at an address, as frames and mappings of the live table.
 *
 * Knows the executable segments of the process as the dynamic loader lists them. Knows no Python.
 */
#ifndef STANCH_MAPS_H
#define STANCH_MAPS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uintptr_t start, end;
} maps_range;

/* False where the loader cannot be asked without its lock (glibc before 2.35). Idempotent. */
bool maps_start(void);
/* Whether the libraries of these addresses are the ones known here. Asks the loader without its lock:
 * fork() leaves that lock in the child as another thread of the parent may just have held it. */
bool maps_are_known_locked(const uintptr_t *addresses, uint32_t count);
/* Takes in what is loaded now. Takes the loader's lock and within it the table's, so it is called
 * only when a library is new, and never while holding the table's: another thread may hold the
 * loader's and wait for the table's. */
void maps_refresh(void);
/* The segment around an address; false when there is none. */
bool maps_find_locked(uintptr_t address, maps_range *found);
/* The number of a native frame in the table, or IDMAP_NONE. */
uint32_t maps_frame_locked(uintptr_t address);
/* Forgets the numbers of mappings; for a new table. */
void maps_forget_locked(void);

#endif
