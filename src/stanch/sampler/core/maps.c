/* Locks: everything here is protected by the table's lock. The loader's own lock, which
 * dl_iterate_phdr takes, comes before it: the table's is taken inside the callback, and nothing
 * calls the loader while holding it. */
#define _GNU_SOURCE
#include "maps.h"

#include <dlfcn.h>
#include <elf.h>
#include <limits.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

#include "idmap.h"
#include "table.h"

#define MAX_SEGMENTS 1024u
#define TEXT_BYTES (128u << 10)
#define MAX_BUILD_ID 32u /* bytes; 20 is usual */
#define PAGE 4096u

typedef struct {
    uintptr_t start, end;
    uint64_t file_start;
    uint32_t path_at; /* into `text` */
    uint32_t number;  /* of the mapping in the table, or IDMAP_NONE until a frame needs it */
    uint16_t path_bytes, build_id_bytes;
    char build_id[2 * MAX_BUILD_ID];
} segment;

static segment segments[MAX_SEGMENTS]; /* in order of their addresses */
static uint32_t used;
static char text[TEXT_BYTES];
static uint32_t text_used;

/* As in dlfcn.h of a glibc that has it, so that a core built with an older one can use it. */
struct found_object {
    unsigned long long flags;
    void *map_start, *map_end;
    struct link_map *link_map;
    uint64_t more[9];
};
static int (*find_object)(void *, struct found_object *);

static char program[PATH_MAX];
static size_t program_bytes;

/* ---- one library ---- */

static bool is_loaded(const struct dl_phdr_info *library, const ElfW(Phdr) * part) {
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) *load = &library->dlpi_phdr[i];
        if (load->p_type == PT_LOAD && (load->p_flags & PF_R) && part->p_vaddr >= load->p_vaddr &&
            part->p_memsz <= load->p_memsz &&
            part->p_vaddr - load->p_vaddr <= load->p_memsz - part->p_memsz)
            return true;
    }
    return false;
}

static uint16_t write_hex(char *to, const uint8_t *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        *to++ = digits[bytes[i] >> 4];
        *to++ = digits[bytes[i] & 15];
    }
    return (uint16_t)(2 * count);
}

static uint16_t build_id_in(const uint8_t *note, size_t bytes, char *to) {
    while (bytes >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) head;
        memcpy(&head, note, sizeof head);
        size_t name = ((size_t)head.n_namesz + 3) & ~(size_t)3;
        size_t content = ((size_t)head.n_descsz + 3) & ~(size_t)3;
        if (name > bytes - sizeof head || content > bytes - sizeof head - name) return 0;
        const uint8_t *name_at = note + sizeof head;
        if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && !memcmp(name_at, "GNU", 4))
            return head.n_descsz <= MAX_BUILD_ID ? write_hex(to, name_at + name, head.n_descsz) : 0;
        note += sizeof head + name + content;
        bytes -= sizeof head + name + content;
    }
    return 0;
}

static uint16_t build_id_of(const struct dl_phdr_info *library, char *to) {
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &library->dlpi_phdr[i];
        if (part->p_type != PT_NOTE || !is_loaded(library, part)) continue;
        uint16_t bytes =
            build_id_in((const uint8_t *)(library->dlpi_addr + part->p_vaddr), part->p_memsz, to);
        if (bytes) return bytes;
    }
    return 0;
}

static uint32_t keep_text(const char *path, size_t bytes) {
    if (bytes > TEXT_BYTES - text_used) return UINT32_MAX;
    memcpy(text + text_used, path, bytes);
    text_used += (uint32_t)bytes;
    return text_used - (uint32_t)bytes;
}

static void add_segment(segment new) {
    uint32_t at = used++;
    for (; at > 0 && segments[at - 1].start > new.start; at--) segments[at] = segments[at - 1];
    segments[at] = new;
}

static void add_library(const struct dl_phdr_info *library) {
    const char *path = library->dlpi_name;
    size_t path_bytes = path ? strlen(path) : 0;
    if (!path_bytes) {
        path = program;
        path_bytes = program_bytes;
    }
    if (path_bytes >= PATH_MAX) return;
    segment new = {.number = IDMAP_NONE, .path_bytes = (uint16_t)path_bytes};
    new.build_id_bytes = build_id_of(library, new.build_id);
    new.path_at = keep_text(path, path_bytes);
    if (new.path_at == UINT32_MAX) return;
    for (int i = 0; i < library->dlpi_phnum && used < MAX_SEGMENTS; i++) {
        const ElfW(Phdr) *part = &library->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        uintptr_t into_page = part->p_vaddr & (PAGE - 1);
        new.start = library->dlpi_addr + part->p_vaddr - into_page;
        new.end = library->dlpi_addr + part->p_vaddr + part->p_memsz;
        new.file_start = part->p_offset - into_page;
        add_segment(new);
    }
}

/* ---- all libraries ---- */

static int visit(struct dl_phdr_info *library, size_t bytes, void *begun) {
    (void)bytes;
    bool *is_begun = begun;
    if (!*is_begun) {
        table_lock();
        *is_begun = true;
        used = text_used = 0;
    }
    add_library(library);
    return 0;
}

void maps_refresh(void) {
    if (!program_bytes) {
        ssize_t bytes = readlink("/proc/self/exe", program, sizeof program - 1);
        program_bytes = bytes > 0 ? (size_t)bytes : 0;
    }
    bool begun = false;
    dl_iterate_phdr(visit, &begun);
    if (begun) table_unlock();
}

static segment *find(uintptr_t address) {
    uint32_t low = 0, high = used;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (segments[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < used && segments[low].start <= address ? &segments[low] : NULL;
}

bool maps_start(void) {
    void *found = dlsym(RTLD_DEFAULT, "_dl_find_object");
    memcpy(&find_object, &found, sizeof found);
    return found != NULL;
}

bool maps_are_known_locked(const uintptr_t *addresses, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        struct found_object object;
        if (find_object((void *)addresses[i], &object)) continue; /* made at run time */
        const segment *around = find(addresses[i]);
        if (!around) return false;
        const char *path = object.link_map->l_name;
        size_t bytes = path ? strlen(path) : 0;
        if (bytes && (bytes != around->path_bytes || memcmp(path, text + around->path_at, bytes)))
            return false;
    }
    return true;
}

bool maps_find_locked(uintptr_t address, maps_range *found) {
    const segment *around = find(address);
    if (around) *found = (maps_range){around->start, around->end};
    return around != NULL;
}

uint32_t maps_frame_locked(uintptr_t address) {
    segment *around = find(address);
    if (!around || address - around->start > UINT32_MAX) return IDMAP_NONE;
    if (around->number == IDMAP_NONE)
        around->number =
            table_mapping_locked(around->start, around->end, around->file_start,
                                 text + around->path_at, around->path_bytes, around->build_id,
                                 around->build_id_bytes);
    if (around->number == IDMAP_NONE) return IDMAP_NONE;
    return table_frame_locked(FRAME_NATIVE | around->number, (int32_t)(address - around->start));
}

void maps_forget_locked(void) {
    for (uint32_t i = 0; i < used; i++) segments[i].number = IDMAP_NONE;
}
