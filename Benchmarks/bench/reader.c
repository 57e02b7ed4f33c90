/* Reads 4 KiB pages of a hot set at random through a mapping, as a database does, and measures each batch.

   reader BYTES FILE...

   The hot set is the first BYTES of the files, one after the other. It is brought into memory, then read in
   batches of 64 pages with a millisecond of sleep between them. Each line is answered with percentiles of the
   batches' seconds since the line before, and the major faults meanwhile. The mapping is MADV_RANDOM, as
   Qdrant's are. */
#include "companion.h"

enum { BATCH = 64 };
static const int64_t REST = 1000000;

static uint64_t *hot;
static size_t hot_pages;
static volatile uint64_t sink;

/* The files in one stretch of addresses, so that a page is found without a search. */
static void map_hot_set(size_t size, char **paths) {
    size_t used = 0;
    uint8_t *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) die("mmap");
    for (; *paths && used < size; paths++) {
        int file = open(*paths, O_RDONLY | O_CLOEXEC);
        struct stat status;
        if (file < 0 || fstat(file, &status) != 0) die(*paths);
        size_t part = status.st_size / PAGE * PAGE;
        if (part > size - used) part = size - used;
        if (part == 0) continue;
        if (mmap(base + used, part, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) die(*paths);
        close(file);
        used += part;
    }
    hot = (uint64_t *)base;
    hot_pages = used / PAGE;
}

static void read_page(size_t page) {
    uint64_t sum = 0;
    const uint64_t *words = hot + page * (PAGE / sizeof *hot);
    for (size_t i = 0; i < PAGE / sizeof *hot; i++) sum += words[i];
    sink += sum;
}

static uint32_t *samples;   /* nanoseconds */
static size_t sample_count, sample_space;

static void note(int64_t time) {
    if (sample_count == sample_space) {
        sample_space = sample_space ? sample_space * 2 : 1 << 17;
        samples = realloc(samples, sample_space * sizeof *samples);
        if (!samples) die("realloc");
    }
    samples[sample_count++] = time < UINT32_MAX ? time : UINT32_MAX;
}

static int compare(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return a < b ? -1 : a > b;
}

/* The smallest sample that at least this share of them does not exceed. */
static double percentile(double share) {
    size_t rank = share * sample_count;
    return samples[rank < sample_count ? rank : sample_count - 1] / 1e9;
}

static void report(void) {
    static int64_t faults;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(samples, sample_count, sizeof *samples, compare);
    printf("{\"batches\": %zu, \"p50\": %.9f, \"p90\": %.9f, \"p99\": %.9f, \"p99.9\": %.9f, \"max\": %.9f, "
           "\"major_faults\": %" PRId64 "}\n", sample_count, percentile(.5), percentile(.9), percentile(.99),
           percentile(.999), percentile(1), usage.ru_majflt - faults);
    fflush(stdout);
    faults = usage.ru_majflt;
    sample_count = 0;
}

int main(int count, char **arguments) {
    if (count < 3) return 64;
    map_hot_set(strtoull(arguments[1], NULL, 10), arguments + 2);
    for (size_t page = 0; page < hot_pages; page++) read_page(page);
    if (madvise(hot, hot_pages * PAGE, MADV_RANDOM) != 0) die("madvise");
    printf("{\"hot\": %zu}\n", hot_pages * PAGE);
    fflush(stdout);
    for (;;) {
        int64_t start = now();
        for (int i = 0; i < BATCH; i++) read_page(random_below(hot_pages));
        int64_t end = now();
        note(end - start);
        if (is_asked()) report();
        sleep_until(now() + REST);
    }
}
