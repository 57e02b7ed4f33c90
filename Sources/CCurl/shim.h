#ifndef BGBACKUP_CCURL_SHIM_H
#define BGBACKUP_CCURL_SHIM_H
#include <curl/curl.h>

/* curl_easy_setopt is variadic, which Swift does not import: one typed setter
   per kind of argument. */
typedef size_t (*bgb_curl_data)(char *, size_t, size_t, void *);
typedef int (*bgb_curl_seek)(void *, curl_off_t, int);
typedef int (*bgb_curl_before)(void *, char *, char *, int, int);
typedef int (*bgb_curl_progress)(void *, curl_off_t, curl_off_t, curl_off_t, curl_off_t);
static inline CURLcode bgb_curl_set_long(CURL *h, CURLoption o, long v) { return curl_easy_setopt(h, o, v); }
static inline CURLcode bgb_curl_set_size(CURL *h, CURLoption o, curl_off_t v) { return curl_easy_setopt(h, o, v); }
static inline CURLcode bgb_curl_set_string(CURL *h, CURLoption o, const char *v) { return curl_easy_setopt(h, o, v); }
static inline CURLcode bgb_curl_set_pointer(CURL *h, CURLoption o, void *v) { return curl_easy_setopt(h, o, v); }
static inline CURLcode bgb_curl_set_data(CURL *h, CURLoption o, bgb_curl_data v) { return curl_easy_setopt(h, o, v); }
static inline CURLcode bgb_curl_set_seek(CURL *h, bgb_curl_seek v) { return curl_easy_setopt(h, CURLOPT_SEEKFUNCTION, v); }
static inline CURLcode bgb_curl_set_before(CURL *h, bgb_curl_before v) { return curl_easy_setopt(h, CURLOPT_PREREQFUNCTION, v); }
static inline CURLcode bgb_curl_set_progress(CURL *h, bgb_curl_progress v) { return curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, v); }
static inline CURLcode bgb_curl_get_long(CURL *h, CURLINFO i, long *v) { return curl_easy_getinfo(h, i, v); }
static inline CURLcode bgb_curl_get_pointer(CURL *h, CURLINFO i, void **v) { return curl_easy_getinfo(h, i, v); }
static inline CURLMcode bgb_curl_multi_long(CURLM *m, CURLMoption o, long v) { return curl_multi_setopt(m, o, v); }
static inline int bgb_curl_is_done(const CURLMsg *m) { return m->msg == CURLMSG_DONE; }
static inline CURLcode bgb_curl_result(const CURLMsg *m) { return m->data.result; }
#endif
