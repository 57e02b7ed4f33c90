#ifndef BGBACKUP_CZSTD_SHIM_H
#define BGBACKUP_CZSTD_SHIM_H
#include <zstd.h>

/* ZSTD_c_literalCompressionMode is ZSTD_c_experimentalParam5 in every release
   since 1.3.7 (zstd.h, "experimental parameters"); ZSTD_ps_enable is 1. It
   forces Huffman coding of literals at negative levels, which is all that byte
   planes of floats have to give (docs/architecture.md, "Compression"). A
   library that refuses it answers with an error, and the caller uses level 1. */
static inline size_t bgb_zstd_set_level(ZSTD_CCtx *ctx, int level) {
    return ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level);
}
static inline size_t bgb_zstd_force_literals(ZSTD_CCtx *ctx, int on) {
    return ZSTD_CCtx_setParameter(ctx, (ZSTD_cParameter)1002, on ? 1 : 0);
}
static inline size_t bgb_zstd_reset(ZSTD_CCtx *ctx) {
    return ZSTD_CCtx_reset(ctx, ZSTD_reset_session_and_parameters);
}
/* 2^windowLog bounds what a hostile frame can make the decoder allocate. */
static inline size_t bgb_zstd_limit_window(ZSTD_DCtx *ctx, int window_log) {
    return ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, window_log);
}
#endif
