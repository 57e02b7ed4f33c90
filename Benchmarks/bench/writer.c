/* Writes to a volume as a database does, at a steady rate, 4 KiB at a time, and measures what holds it up.

   writer COLLECTION BYTES_PER_SECOND SEED

   Half of the stores hit payload pages at random, four of ten are appended to the write-ahead log, one of
   ten to new files. Pages and log are open and mapped MAP_SHARED; new files are written with write(2).
   It answers each line with {"longest_gap", "stalled", "stores", "seconds"} since the line before: a gap is
   the time between the ends of two stores in a row, "stalled" the sum of the gaps above 10 ms. After a
   stall it catches up, with one second of stores at the most. */
#include "companion.h"

enum { LOG_SIZE = 32 << 20, LOGS_KEPT = 4, NEW_SIZE = 256 << 10, NEW_KEPT = 256 };
static const int64_t BACKLOG = 1000000000, STALL = 10000000;

static const char *collection;
static struct { uint8_t *data; size_t pages; } *payload;
static size_t payload_count, payload_pages;

static char *path_of(const char *format, unsigned number) {
    static char path[4096];
    int used = snprintf(path, sizeof path, "%s/", collection);
    snprintf(path + used, sizeof path - used, format, number);
    return path;
}

static int open_file(const char *path, int flags) {
    int file = open(path, flags | O_CLOEXEC, 0644);
    if (file < 0) die(path);
    return file;
}

static uint8_t *map(const char *path, int file, size_t size) {
    uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) die(path);
    return data;
}

/* Every payload page file, up to the end of its data; the descriptors stay open. */
static void map_payload(void) {
    glob_t found;
    if (glob(path_of("0/segments/*/payload_storage/page_*.dat", 0), 0, NULL, &found) != 0) die("glob");
    payload = calloc(found.gl_pathc, sizeof *payload);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *path = found.gl_pathv[i];
        int file = open_file(path, O_RDWR);
        off_t end = lseek(file, 0, SEEK_HOLE);
        if (end < PAGE) continue;
        payload[payload_count].pages = end / PAGE;
        payload[payload_count++].data = map(path, file, end);
        payload_pages += end / PAGE;
    }
    if (payload_pages == 0) die("no payload pages");
}

static void fill(void *page) {
    uint64_t *words = page;
    for (size_t i = 0; i < PAGE / sizeof *words; i++) words[i] = random_number();
}

static void store_scattered(void) {
    size_t page = random_below(payload_pages), file = 0;
    while (page >= payload[file].pages) page -= payload[file++].pages;
    fill(payload[file].data + page * PAGE);
}

static void append_to_log(void) {
    static uint8_t *data;
    static int file = -1;
    static size_t used = LOG_SIZE;
    static unsigned next = 1000;
    if (used == LOG_SIZE) {
        if (data) munmap(data, LOG_SIZE);
        if (file >= 0) close(file);
        file = open_file(path_of("0/wal/open-%u", next), O_RDWR | O_CREAT | O_EXCL);
        if (ftruncate(file, LOG_SIZE) != 0) die("ftruncate");
        data = map("log", file, LOG_SIZE);
        if (next >= 1000 + LOGS_KEPT) unlink(path_of("0/wal/open-%u", next - LOGS_KEPT));
        next++;
        used = 0;
    }
    fill(data + used);
    used += PAGE;
}

static void write_new_file(void) {
    static uint64_t page[PAGE / sizeof(uint64_t)];
    static int file = -1;
    static size_t used = NEW_SIZE;
    static unsigned next;
    if (used == NEW_SIZE) {
        if (file >= 0) close(file);
        file = open_file(path_of("0/new/file-%u", next), O_WRONLY | O_CREAT | O_EXCL);
        if (next >= NEW_KEPT) unlink(path_of("0/new/file-%u", next - NEW_KEPT));
        next++;
        used = 0;
    }
    fill(page);
    if (write(file, page, PAGE) != PAGE) die("write");
    used += PAGE;
}

static void store(void) {
    uint64_t kind = random_below(10);
    if (kind < 5) store_scattered();
    else if (kind < 9) append_to_log();
    else write_new_file();
}

static struct { int64_t start, longest, stalled; uint64_t stores; } figures;

static void report(int64_t time) {
    printf("{\"longest_gap\": %.6f, \"stalled\": %.6f, \"stores\": %" PRIu64 ", \"seconds\": %.6f}\n",
           figures.longest / 1e9, figures.stalled / 1e9, figures.stores, (time - figures.start) / 1e9);
    fflush(stdout);
    memset(&figures, 0, sizeof figures);
    figures.start = time;
}

int main(int count, char **arguments) {
    if (count != 4) return 64;
    collection = arguments[1];
    int64_t interval = PAGE * 1e9 / atof(arguments[2]);
    state = strtoull(arguments[3], NULL, 10) * 2 + 1;
    map_payload();
    mkdir(path_of("0/new", 0), 0755);
    puts("{\"ready\": true}");
    fflush(stdout);
    int64_t last = now(), due = last;
    figures.start = last;
    for (;;) {
        store();
        int64_t time = now(), gap = time - last;
        last = time;
        figures.stores++;
        if (gap > figures.longest) figures.longest = gap;
        if (gap > STALL) figures.stalled += gap;
        if (is_asked()) report(time);
        due += interval;
        if (due < time - BACKLOG) due = time - BACKLOG;
        if (due > time) sleep_until(due);
    }
}
