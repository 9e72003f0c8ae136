/* Locks: `lock` protects every static of this file and of intern.c, table_filter's writers, the mapping's
 * contents (but for the header's atomic counters) and the caches of frames.c. It is taken
 * around fork(), so that a child never inherits it half-way. No other lock is taken and no
 * allocator is called while it is held.
 */
#define _GNU_SOURCE
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "idmap.h"
#include "sampling.h"
#include "table_inner.h"

#define RESERVE_BYTES (64u << 10) /* the file system is asked for space in these steps */
#define RESERVE_ATTEMPTS 16
#define RETRY_SPACE_NS 1000000000ull

static const struct {
    uint32_t item_bytes, capacity;
} LAYOUT[SECTION_COUNT] = {
    [SECTION_STRINGS] = {1, 4u << 20},
    [SECTION_FUNCTIONS] = {sizeof(table_function), 32u << 10},
    [SECTION_FRAMES] = {sizeof(table_frame), 128u << 10},
    [SECTION_STACK_FRAMES] = {sizeof(uint32_t), 1u << 20},
    [SECTION_STACKS] = {sizeof(table_stack), 64u << 10},
    [SECTION_ENTRIES] = {sizeof(table_entry), 128u << 10},
    [SECTION_MAPPINGS] = {sizeof(table_mapping), 1u << 10},
    [SECTION_LABELS] = {sizeof(table_label), 4u << 10},
};

address_filter table_filter;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
uint8_t *table_base;        /* the mapping; set once */
static size_t mapped_bytes; /* a multiple of the page size */
static int file = -1;       /* owned; -1 while the table is in private memory */
static struct stat identity; /* of the file: a host that closes all descriptors frees its number */
static bool active;
/* A page that the kernel empties in every child. So it tells a child made by a bare clone(), which
 * ran no fork handler and still shares the file's mapping, without a system call for each sample.
 * NULL where the kernel cannot (before 4.14). */
static uint8_t *not_a_child;
static _Atomic uint64_t start_ns; /* CLOCK_MONOTONIC; read without the lock */
static uint64_t next_reserve_ns; /* no new attempt at a full disk before this */
static uint32_t free_entry;      /* number plus 1 of the first free entry, or 0 */
static idmap addresses;

static uint64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
/* Cheaper, and up to a tick of the kernel (1 to 10 ms) behind: births need no more. */
static uint64_t coarse_uptime_ns(void) {
    uint64_t now = clock_ns(CLOCK_MONOTONIC_COARSE);
    return now > start_ns ? now - start_ns : 0;
}
static uint64_t unix_ns(void) { return clock_ns(CLOCK_REALTIME); }

/* How many times this thread is inside the lock. A signal handler in C that forks or allocates,
 * or a fork handler of another library, may interrupt it there. It then finds an inactive table,
 * where it would wait for itself for ever. Raised before the lock is had and lowered after it is
 * gone, so that what runs in between is told, too. */
static _Thread_local __attribute__((tls_model("initial-exec"))) volatile sig_atomic_t depth;

void table_lock(void) {
    depth = depth + 1;
    if (depth == 1) pthread_mutex_lock(&lock);
}
void table_unlock(void) {
    if (depth == 1) pthread_mutex_unlock(&lock);
    depth = depth - 1;
}
bool table_held_here(void) { return depth > 0; }
bool table_active_locked(void) {
    return active && depth == 1 &&
           (not_a_child ? *not_a_child : HEADER->pid == (uint64_t)getpid());
}
table_header *table_header_now(void) { return (table_header *)table_base; }
uint64_t table_uptime_ns(void) { return monotonic_ns() - start_ns; }

/* ---- the mapping ---- */

static uint64_t page_align(uint64_t bytes) {
    return (bytes + TABLE_HEADER_BYTES - 1) & ~(uint64_t)(TABLE_HEADER_BYTES - 1);
}

static void *map_private(void *where) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (where ? MAP_FIXED : 0);
    void *memory = mmap(where, mapped_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void lay_out(table_header *header) {
    uint64_t offset = TABLE_HEADER_BYTES;
    for (int i = 0; i < SECTION_COUNT; i++) {
        header->sections[i] = (table_section_header){
            .offset = offset, .item_bytes = LAYOUT[i].item_bytes, .capacity = LAYOUT[i].capacity};
        offset += page_align((uint64_t)LAYOUT[i].item_bytes * LAYOUT[i].capacity);
    }
    mapped_bytes = offset;
}

static size_t section_bytes(const table_section_header *section, uint32_t items) {
    return (size_t)section->item_bytes * items;
}

static bool file_is_ours(void) {
    struct stat now;
    return file >= 0 && fstat(file, &now) == 0 && now.st_dev == identity.st_dev &&
           now.st_ino == identity.st_ino;
}

static void close_file(void) {
    if (file_is_ours()) close(file);
    file = -1;
}

/* To grow a file beyond RLIMIT_FSIZE is answered by SIGXFSZ, which ends a host that has not
 * ignored it. So the limit is asked first. */
static bool beyond_file_limit(uint64_t end) {
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && end > limit.rlim_cur;
}

/* posix_fallocate, so that a store into the mapping can never meet a full disk (SIGBUS). A host
 * with a fast timer may interrupt it each time. */
static int promise_space(int fd, uint64_t offset, uint64_t bytes) {
    int error = beyond_file_limit(offset + bytes) ? EFBIG : EINTR;
    for (int attempt = 0; error == EINTR && attempt < RESERVE_ATTEMPTS; attempt++)
        error = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    return error;
}

bool table_make_room(enum table_section which, uint32_t more) {
    table_section_header *section = &HEADER->sections[which];
    uint64_t wanted = (uint64_t)section->used + more;
    if (wanted > section->capacity) {
        HEADER->dropped[DROP_TABLE_FULL]++;
        return false;
    }
    if (wanted <= section->reserved) return true;
    uint64_t have = page_align(section_bytes(section, section->reserved));
    uint64_t region = page_align(section_bytes(section, section->capacity));
    uint64_t need = section_bytes(section, (uint32_t)wanted);
    uint64_t step = need - have < RESERVE_BYTES ? RESERVE_BYTES : page_align(need - have);
    if (need <= have) step = RESERVE_BYTES;
    if (have + step > region) step = region - have;
    if (file >= 0) {
        uint64_t now = monotonic_ns();
        if (now < next_reserve_ns || !file_is_ours() ||
            promise_space(file, section->offset + have, step)) {
            if (now >= next_reserve_ns) next_reserve_ns = now + RETRY_SPACE_NS;
            HEADER->dropped[DROP_NO_SPACE]++;
            return false;
        }
    }
    uint64_t items = (have + step) / section->item_bytes;
    section->reserved = items < section->capacity ? (uint32_t)items : section->capacity;
    return true;
}

void table_publish(enum table_section which, uint32_t count) {
    table_section_header *section = &HEADER->sections[which];
    atomic_store_explicit(&section->used, section->used + count, memory_order_release);
}

/* ---- fork ---- */

static void forget_samples_of_parent(void) {
    table_header *header = HEADER;
    header->pid = (uint64_t)getpid();
    header->start_unix_ns = unix_ns();
    start_ns = monotonic_ns();
    header->uptime_ns = header->requests = header->samples = header->overhead_ns = 0;
    header->labels_refused = 0;
    header->alloc_objects = 0;
    for (int i = 0; i < DROP_COUNT; i++) header->dropped[i] = 0;
    header->intervals_used = 0;
    table_set_interval_locked(header->interval_bytes);
    table_stack *stack = ITEMS(SECTION_STACKS, table_stack);
    for (uint32_t i = 0; i < header->sections[SECTION_STACKS].used; i++)
        stack[i].alloc_objects = stack[i].alloc_bytes = 0;
    table_entry *entry = ITEMS(SECTION_ENTRIES, table_entry);
    for (uint32_t i = 0; i < header->sections[SECTION_ENTRIES].used; i++)
        entry[i].birth_ns = entry[i].birth_requests = 0; /* born before this process */
}

/* The magic comes last: killed half-way, this leaves what is no table yet. */
static void copy_used(uint8_t *to, const uint8_t *from) {
    const table_header *header = (const table_header *)from;
    const size_t magic = sizeof header->magic;
    memcpy(to + magic, from + magic, TABLE_HEADER_BYTES - magic);
    for (int i = 0; i < SECTION_COUNT; i++) {
        const table_section_header *section = &header->sections[i];
        memcpy(to + section->offset, from + section->offset, section_bytes(section, section->used));
    }
    atomic_thread_fence(memory_order_release);
    memcpy(to, from, magic);
}

/* A child would share its parent's file mapping, and the parent writes on while the child
 * starts. So the copy that the child goes on with is made before the fork, under the lock.
 * Private memory needs none: the kernel copies it. */
static uint8_t *copy_for_child;

static void before_fork(void) {
    table_lock();
    if (!active || file < 0 || depth > 1) return;
    copy_for_child = map_private(NULL);
    if (copy_for_child) copy_used(copy_for_child, table_base);
}

static void after_fork_in_parent(void) {
    if (copy_for_child) munmap(copy_for_child, mapped_bytes);
    copy_for_child = NULL;
    table_unlock();
}

/* Blocks that the child inherits stay in its table, as born at its start. A child that could
 * not get a copy, or interrupted its own thread at work on the table, goes on without one. */
static void after_fork_in_child(void) {
    bool was_active = active;
    active = was_active && depth == 1;
    if (active && file >= 0) {
        const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
        active = copy_for_child && mremap(copy_for_child, mapped_bytes, mapped_bytes, flags,
                                          table_base) != MAP_FAILED;
    }
    copy_for_child = NULL;
    close_file();
    if (not_a_child) *not_a_child = 1;
    if (active)
        forget_samples_of_parent();
    else if (was_active)
        map_private(table_base); /* so that nothing reaches the parent's file */
    table_unlock();
}

/* ---- life ---- */

static void forget_everything(void) {
    intern_forget_locked();
    idmap_free(&addresses);
    filter_clear(&table_filter);
    free_entry = 0;
    next_reserve_ns = 0;
    close_file();
}

static uint8_t *map_not_a_child(void) {
    void *page = mmap(NULL, TABLE_HEADER_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NULL;
    if (madvise(page, TABLE_HEADER_BYTES, MADV_WIPEONFORK)) {
        munmap(page, TABLE_HEADER_BYTES);
        return NULL;
    }
    *(uint8_t *)page = 1;
    return page;
}

static int make_mapping(void) {
    static table_header layout;
    lay_out(&layout);
    table_base = map_private(NULL);
    if (!table_base) return ENOMEM;
    not_a_child = map_not_a_child();
    intern_bound(&layout);
    idmap_init(&addresses, LAYOUT[SECTION_ENTRIES].capacity);
    return pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int table_start(const table_options *options) {
    table_lock();
    int error = active ? EALREADY : table_base ? 0 : make_mapping();
    if (!error && !map_private(table_base)) error = ENOMEM;
    if (!error) {
        forget_everything();
        table_header *header = HEADER;
        memcpy(header->magic, TABLE_MAGIC, sizeof header->magic);
        header->version = TABLE_VERSION;
        header->header_bytes = TABLE_HEADER_BYTES;
        lay_out(header);
        header->pid = (uint64_t)getpid();
        header->start_unix_ns = unix_ns();
        start_ns = monotonic_ns();
        header->state = TABLE_RUNNING;
        table_set_interval_locked(options->interval_bytes);
        header->limit_bytes = options->limit_bytes;
        header->python_version = options->python_version;
        strncpy(header->service, options->service, sizeof header->service - 1);
        intern_begin_locked();
        active = true;
    }
    table_unlock();
    return error;
}

static int write_table(int fd) {
    table_header *header = HEADER;
    if (beyond_file_limit(mapped_bytes)) return EFBIG;
    if (ftruncate(fd, (off_t)mapped_bytes)) return errno;
    int error = promise_space(fd, 0, TABLE_HEADER_BYTES);
    for (int i = 0; i < SECTION_COUNT && !error; i++) {
        table_section_header *section = &header->sections[i];
        uint64_t bytes = page_align(section_bytes(section, section->reserved));
        if (bytes) error = promise_space(fd, section->offset, bytes);
    }
    if (error) return error;
    uint8_t *target = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (target == MAP_FAILED) return errno;
    copy_used(target, table_base);
    munmap(target, mapped_bytes);
    return 0;
}

int table_move_to_file(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0 && errno == EEXIST && unlink(path) == 0)
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0) return errno;
    table_lock();
    int error = active ? write_table(fd) : EINVAL;
    if (!error && mmap(table_base, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                       fd, 0) == MAP_FAILED)
        error = errno;
    if (!error) {
        close_file();
        file = fd;
        fstat(file, &identity);
    }
    table_unlock();
    if (error) {
        close(fd);
        unlink(path);
    }
    return error;
}

void table_stop(void) {
    table_lock();
    if (active) {
        active = false;
        HEADER->uptime_ns = monotonic_ns() - start_ns;
        HEADER->state = TABLE_STOPPED;
        map_private(table_base); /* gives the memory back; on failure the old pages just stay */
        forget_everything();
    }
    table_unlock();
}

void table_end_now(void) {
    if (table_base && HEADER->pid == (uint64_t)getpid()) HEADER->state = TABLE_STOPPED;
}

/* ---- entries ---- */

static void count_live(const table_entry *entry, double sign) {
    double weight = sign * sampling_weight(entry->size_bytes, entry->interval_bytes);
    HEADER->live_samples = sign > 0 ? HEADER->live_samples + 1 : HEADER->live_samples - 1;
    HEADER->live_objects += weight;
    HEADER->live_bytes += weight * (double)entry->size_bytes;
    if (entry->domain == DOMAIN_NATIVE)
        HEADER->live_native_bytes += weight * (double)entry->size_bytes;
}

static uint32_t take_free_entry(void) {
    table_entry *entries = ITEMS(SECTION_ENTRIES, table_entry);
    if (free_entry) {
        uint32_t number = free_entry - 1;
        free_entry = (uint32_t)entries[number].size_bytes;
        return number;
    }
    if (!table_make_room(SECTION_ENTRIES, 1)) return IDMAP_NONE;
    uint32_t number = HEADER->sections[SECTION_ENTRIES].used;
    entries[number].address = 0;
    table_publish(SECTION_ENTRIES, 1);
    return number;
}

static void give_back_entry(uint32_t number) {
    table_entry *entry = &ITEMS(SECTION_ENTRIES, table_entry)[number];
    atomic_store_explicit(&entry->address, 0, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    entry->size_bytes = free_entry;
    free_entry = number + 1;
}

void table_expect_locked(const void *address) {
    table_entry *entries = ITEMS(SECTION_ENTRIES, table_entry);
    __builtin_prefetch(&entries[free_entry ? free_entry - 1 : 0], 1);
    idmap_prefetch(&addresses, (uintptr_t)address);
    filter_prefetch(&table_filter, address);
}

void table_restore_locked(const void *address, const table_entry *removed) {
    /* A block that was freed where no hook saw it can leave its entry behind. */
    table_remove_locked(address, NULL);
    uint32_t number = take_free_entry();
    if (number == IDMAP_NONE) return;
    if (!idmap_put(&addresses, (uintptr_t)address, number)) {
        HEADER->dropped[DROP_TABLE_FULL]++;
        give_back_entry(number);
        return;
    }
    table_entry *entry = &ITEMS(SECTION_ENTRIES, table_entry)[number];
    entry->size_bytes = removed->size_bytes;
    entry->birth_ns = removed->birth_ns;
    entry->birth_requests = removed->birth_requests;
    entry->stack = removed->stack;
    entry->interval_bytes = removed->interval_bytes;
    entry->domain = removed->domain;
    entry->label = removed->label;
    atomic_store_explicit(&entry->address, (uintptr_t)address, memory_order_release);
    count_live(entry, 1);
    filter_add(&table_filter, address);
}

void table_insert_locked(const void *address, uint64_t size_bytes, uint32_t stack,
                         uint32_t interval_bytes, uint32_t domain, uint32_t label) {
    table_header *header = HEADER;
    table_entry entry = {.size_bytes = size_bytes,
                         .birth_ns = coarse_uptime_ns(),
                         .birth_requests = header->requests,
                         .stack = stack,
                         .interval_bytes = interval_bytes,
                         .domain = domain,
                         .label = label};
    table_stack *record = &ITEMS(SECTION_STACKS, table_stack)[stack];
    double weight = sampling_weight(size_bytes, interval_bytes);
    record->alloc_objects += weight;
    header->alloc_objects += weight;
    record->alloc_bytes += weight * (double)size_bytes;
    header->samples++;
    if (header->uptime_ns < entry.birth_ns) header->uptime_ns = entry.birth_ns;
    table_restore_locked(address, &entry);
}

bool table_remove_locked(const void *address, table_entry *removed) {
    uint32_t number = idmap_remove(&addresses, (uintptr_t)address);
    if (number == IDMAP_NONE) return false;
    table_entry *entry = &ITEMS(SECTION_ENTRIES, table_entry)[number];
    count_live(entry, -1);
    if (removed) *removed = *entry;
    give_back_entry(number);
    filter_remove(&table_filter, address);
    return true;
}

void table_add_overhead_locked(uint64_t ns) { HEADER->overhead_ns += ns; }

void table_set_interval_locked(uint32_t interval_bytes) {
    table_header *header = HEADER;
    uint32_t number = header->intervals_used;
    if (number == TABLE_INTERVALS) number--;
    header->intervals[number] = (table_interval){monotonic_ns() - start_ns, interval_bytes, 0};
    atomic_store_explicit(&header->intervals_used, number + 1, memory_order_release);
    header->interval_bytes = interval_bytes;
}

uint64_t table_live_locked(const uint8_t *stacks, uint32_t stacks_used, table_entry *entries,
                           uint32_t capacity, uint32_t step) {
    if (!table_active_locked()) return 0;
    const table_entry *entry = ITEMS(SECTION_ENTRIES, table_entry);
    uint32_t used = HEADER->sections[SECTION_ENTRIES].used;
    uint64_t matching = 0, taken = 0;
    for (uint32_t i = 0; i < used; i++) {
        if (!entry[i].address || entry[i].stack >= stacks_used || !stacks[entry[i].stack]) continue;
        if (matching++ % step) continue;
        if (entries && taken == capacity) break;
        if (entries) memcpy(&entries[taken], &entry[i], sizeof *entries);
        taken++;
    }
    return taken;
}

size_t table_snapshot(void *buffer, size_t capacity) {
    table_lock();
    size_t need = TABLE_HEADER_BYTES;
    if (!active) need = 0;
    for (int i = 0; i < SECTION_COUNT && active; i++)
        need += page_align(section_bytes(&HEADER->sections[i], HEADER->sections[i].used));
    if (need && need <= capacity) {
        table_header *copy = buffer;
        HEADER->uptime_ns = monotonic_ns() - start_ns;
        memset(buffer, 0, need);
        memcpy(copy, table_base, TABLE_HEADER_BYTES);
        uint64_t offset = TABLE_HEADER_BYTES;
        for (int i = 0; i < SECTION_COUNT; i++) {
            table_section_header *section = &copy->sections[i];
            size_t bytes = section_bytes(section, section->used);
            memcpy((uint8_t *)buffer + offset, table_base + section->offset, bytes);
            section->offset = offset;
            section->capacity = section->reserved = section->used;
            offset += page_align(bytes);
        }
    }
    table_unlock();
    return need;
}
