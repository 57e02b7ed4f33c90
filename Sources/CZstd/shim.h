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
static inline size_t bgb_zstd_set_fast(ZSTD_CCtx *ctx, int hash_log, int min_match, int acceleration) {
    size_t code = ZSTD_CCtx_setParameter(ctx, ZSTD_c_strategy, ZSTD_fast);
    if (!ZSTD_isError(code)) code = ZSTD_CCtx_setParameter(ctx, ZSTD_c_hashLog, hash_log);
    if (!ZSTD_isError(code)) code = ZSTD_CCtx_setParameter(ctx, ZSTD_c_minMatch, min_match);
    if (!ZSTD_isError(code)) code = ZSTD_CCtx_setParameter(ctx, ZSTD_c_targetLength, acceleration);
    return code;
}
static inline size_t bgb_zstd_force_literals(ZSTD_CCtx *ctx, int on) {
    return ZSTD_CCtx_setParameter(ctx, (ZSTD_cParameter)1002, on ? 1 : 0);
}
static inline size_t bgb_zstd_reset(ZSTD_CCtx *ctx) {
    return ZSTD_CCtx_reset(ctx, ZSTD_reset_session_and_parameters);
}
/* One call of the streaming compressor: the bytes written to out, or an error
   code. `end` closes the frame; otherwise the block is closed, so that the next
   one has Huffman tables of its own. */
static inline size_t bgb_zstd_append(ZSTD_CCtx *ctx, void *out, size_t room, const void *in, size_t count, int end) {
    ZSTD_outBuffer output = {out, room, 0};
    ZSTD_inBuffer input = {in, count, 0};
    size_t left = ZSTD_compressStream2(ctx, &output, &input, end ? ZSTD_e_end : ZSTD_e_flush);
    if (ZSTD_isError(left)) return left;
    return left == 0 && input.pos == count ? output.pos : (size_t)-70 /* ZSTD_error_dstSize_tooSmall */;
}
static inline size_t bgb_zstd_pledge(ZSTD_CCtx *ctx, unsigned long long count) {
    return ZSTD_CCtx_setPledgedSrcSize(ctx, count);
}
/* 2^windowLog bounds what a hostile frame can make the decoder allocate. */
static inline size_t bgb_zstd_limit_window(ZSTD_DCtx *ctx, int window_log) {
    return ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, window_log);
}
#endif
