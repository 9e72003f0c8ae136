#define _GNU_SOURCE
#include "unwind.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <unwind.h>

#define MAX_STEPS (UNWIND_MAX_DEPTH + 16u) /* with our own frames at the leaf */

static _Unwind_Reason_Code (*backtrace_with)(_Unwind_Trace_Fn, void *);
static uintptr_t (*instruction_of)(struct _Unwind_Context *);
static maps_range own_code[2], interpreter_code;

typedef struct {
    uintptr_t *addresses;
    uint32_t depth, steps;
} walk;

static bool is_in(uintptr_t address, maps_range code) {
    return address - code.start < code.end - code.start;
}

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *argument) {
    walk *under_way = argument;
    /* An instruction within the call rather than the one it returns to. */
    uintptr_t address = (uintptr_t)instruction_of(context) - 1;
    if (++under_way->steps > MAX_STEPS) return _URC_END_OF_STACK;
    if (is_in(address, own_code[0]) || is_in(address, own_code[1])) return _URC_NO_REASON;
    bool ends = is_in(address, interpreter_code);
    if (ends && under_way->depth) return _URC_END_OF_STACK;
    under_way->addresses[under_way->depth++] = address;
    return ends || under_way->depth == UNWIND_MAX_DEPTH ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* Whether the library finds others by the loader's lock-free call, which its names then hold. One
 * that was built for an older glibc takes the loader's lock, and a fork in the host may leave that
 * lock in the child as another thread just held it. */
static bool is_lock_free(void *library) {
    struct link_map *map;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map)) return false;
    const char *names = NULL;
    size_t bytes = 0;
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_STRTAB) names = (const char *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_STRSZ) bytes = entry->d_un.d_val;
    }
    /* Where the loader leaves the table as it is in the file, it holds an offset. */
    if (names && (uintptr_t)names < map->l_addr) names += map->l_addr;
    static const char wanted[] = "_dl_find_object";
    return names && memmem(names, bytes, wanted, sizeof wanted);
}

const char *unwind_start(const maps_range own[2], maps_range interpreter) {
    void *library = dlopen("libgcc_s.so.1", RTLD_NOW);
    if (!library) return "libgcc_s.so.1, whose unwinder it needs, is not installed";
    if (!is_lock_free(library))
        return "the unwinder in this libgcc_s.so.1 takes the dynamic loader's lock; "
               "it needs one of GCC 12 or newer, built for glibc 2.35 or newer";
    void *walker = dlsym(library, "_Unwind_Backtrace"), *reader = dlsym(library, "_Unwind_GetIP");
    if (!walker || !reader) return "libgcc_s.so.1 has no unwinder";
    memcpy(&instruction_of, &reader, sizeof reader);
    memcpy(&backtrace_with, &walker, sizeof walker);
    memcpy(own_code, own, sizeof own_code);
    interpreter_code = interpreter;
    uintptr_t ignored[UNWIND_MAX_DEPTH];
    unwind_walk(ignored); /* the first walk may allocate */
    return NULL;
}

uint32_t unwind_walk(uintptr_t addresses[UNWIND_MAX_DEPTH]) {
    walk all = {.addresses = addresses};
    backtrace_with(step, &all);
    return all.depth;
}
