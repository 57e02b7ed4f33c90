#ifndef BGBACKUP_CARCHIVE_SHIM_H
#define BGBACKUP_CARCHIVE_SHIM_H
#include <archive.h>
#include <archive_entry.h>

/* The macros that Swift cannot import, as typed functions. */
static inline int bgb_archive_ok(void) { return ARCHIVE_OK; }
static inline int bgb_archive_eof(void) { return ARCHIVE_EOF; }
static inline const char *bgb_archive_version(void) { return archive_version_string(); }
#endif
