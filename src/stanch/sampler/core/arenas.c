/* Locks: the table's guards `known` and `total_bytes`, so a forked child inherits them whole. The
 * original allocator is never called under it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arenas.h"

#include <stdbool.h>

#include "idmap.h"
#include "table.h"

#define MOST_ARENAS (1u << 20)
#define GRAIN_BYTES 4096u /* sizes are kept in these units */

static PyObjectArenaAllocator original;
static bool installed;
static idmap known; /* address -> size in grains */
static uint64_t total_bytes;

/* The original's context is passed through, as in hooks.c. */
static void *counting_alloc(void *ctx, size_t size) {
    void *arena = original.alloc(ctx, size);
    if (!arena) return NULL;
    uint32_t grains = (uint32_t)(size / GRAIN_BYTES);
    table_lock();
    if (idmap_put(&known, (uintptr_t)arena, grains)) total_bytes += (uint64_t)grains * GRAIN_BYTES;
    table_unlock();
    return arena;
}

static void counting_free(void *ctx, void *arena, size_t size) {
    table_lock();
    uint32_t grains = idmap_remove(&known, (uintptr_t)arena);
    if (grains != IDMAP_NONE) total_bytes -= (uint64_t)grains * GRAIN_BYTES;
    table_unlock();
    original.free(ctx, arena, size);
}

void arenas_start(void) {
    table_lock();
    if (!installed) idmap_init(&known, MOST_ARENAS);
    idmap_clear(&known);
    total_bytes = 0;
    table_unlock();
    if (installed) return;
    PyObject_GetArenaAllocator(&original);
    PyObjectArenaAllocator ours = {original.ctx, counting_alloc, counting_free};
    PyObject_SetArenaAllocator(&ours);
    installed = true;
}

void arenas_stop(void) {
    if (!installed) return;
    PyObjectArenaAllocator top;
    PyObject_GetArenaAllocator(&top);
    if (top.alloc != counting_alloc) return; /* somebody's hook calls ours: it stays and counts */
    PyObject_SetArenaAllocator(&original);
    installed = false;
    table_lock();
    idmap_free(&known);
    total_bytes = 0;
    table_unlock();
}

uint64_t arenas_bytes(void) {
    table_lock();
    uint64_t bytes = total_bytes;
    table_unlock();
    return bytes;
}
