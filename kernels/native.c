/* The gated delta rule on a CPU, in C: chunks of 16 events, everything of a chunk in the cache; and
   what blocks do row by row, attention over short windows, and small networks.

   Loaded by native.py, called by it, by the other native_*.py and by dense.py. One thread works on
   one sequence (a stream and a head) at a time, or on one block of rows. The arithmetic is in the
   headers beside this file, compiled here for float and double, and for x86-64 both as it comes and
   with AVX2; this file holds what they share and chooses among them.
   Notation and source as in chunked.py (arXiv 2412.06464, section 3.3). */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define CHUNK 16   /* events worked on together */
#define LANES 16   /* columns of V, or of K, in one panel */
#define SEGMENT 4  /* chunks between two states that the forward keeps for the gradient */
#define INLINE static inline __attribute__((always_inline))

/* One call. Tensors are [B, T, H, D] with the strides (elements) of B, T, H; D is contiguous.
   What may be absent is NULL. native.py holds the same fields in the same order. */
struct call {
    int64_t batch, steps, heads, key, value, threads;
    const void *q, *k, *v, *g, *beta, *start, *reference;
    int64_t q_at[3], k_at[3], v_at[3], g_at[3], beta_at[3];
    const int64_t *lengths;
    void *o, *final, *change; /* contiguous: [B, T, H, V], [B, H, K, V], [2, B, H] */
    void *errors, *states;    /* kept for the gradient */
    const void *d_o, *d_final;
    int64_t d_o_at[3];
    void *d_q, *d_k, *d_v, *d_g, *d_beta, *d_start; /* contiguous */
};

#define ROWS_AT_ONCE 64 /* rows that are one piece of work, whatever the threads */
enum { NORM, NORM_BACK, SQUARE, SQUARE_BACK, SPLIT, SPLIT_BACK, TOTAL }; /* ways of native_rows.h */

/* One call of what is done row by row: `count` contiguous rows of `size` numbers (of a split: of
   `heads` * (2 size + value)). What a way does not use is NULL. native_rows.py holds the same fields
   in the same order. */
struct rows {
    int64_t count, size, heads, value, threads;
    double epsilon;
    const void *x, *gate, *gain, *d_y, *d_q, *d_k;
    void *y, *q, *k, *scale, *d_x, *d_gate, *d_gain;
    void *sums; /* of the gain's gradient, one row for each block */
};

#define WINDOW 64 /* most queries, and most keys, of native_attention.h */
#define HEAD 64   /* most numbers of a head there */

/* One call of attention: q [B, T, H, D], k and v [B, S, H, D] with the strides of B, T, H, D
   contiguous and a multiple of LANES; `mask` bool [B, T, S] or NULL; `weights` [B, H, T, S padded]
   (NULL: not kept); o, d_o [B, T, H, D] contiguous; the gradients with the strides of B, T, those of
   k and v alike. native_attention.py holds the same fields in the same order. */
struct attention {
    int64_t batch, queries, keys, heads, size, threads;
    const void *q, *k, *v;
    int64_t q_at[3], k_at[3], v_at[3];
    const unsigned char *mask;
    void *weights, *o;
    const void *d_o;
    void *d_q, *d_k, *d_v;
    int64_t d_q_at[2], d_k_at[2];
};

/* One look at x [count, steps, size], of whose rows `lengths` (NULL: all) steps count, contiguous, as is
   `before`; size a multiple of LANES / 2. What is not wanted is NULL: `pooled` [count, 2 size], `norms`
   [2, count], and `moved` [count], the relative change that these are of. With `add` [count, steps, size]
   what is looked at is x plus that, which goes to `sum`. With `targets` [count] the rows are logits, and
   the norms losses and entropies. `squares`: `parts` sums of squares [2, count]; `change` [count] is that
   of all together. `finite` says whether all that came of it is. native_structs.py holds the same fields
   in the same order. */
struct look {
    int64_t count, steps, size, threads;
    double epsilon, floor;
    const int64_t *lengths, *targets;
    const void *x, *before, *add;
    void *pooled, *norms, *moved, *sum;
    int64_t parts;
    const void *const *squares;
    void *change;
    int64_t finite;
};

/* One run of a small network over `count` rows x [sizes[0]]: layer l takes sizes[l] numbers and gives
   sizes[l + 1], of weights [inputs, outputs padded to LANES] and biases as wide; between layers tanh, or
   ReLU. No layer has more padded outputs than `widest`. Where there is a `which`, rows are put together
   (see `join`), and y is double. native_structs.py holds the same fields in the same order. */
struct dense {
    int64_t count, layers, widest, relu;
    const int64_t *sizes;
    const void *const *weights, *const *biases;
    const void *x;
    void *y, *room;
    int64_t width;
    double least, most;
    const double *one, *other;
    const int64_t *which;
};
#define TOGETHER 4 /* rows that native_dense.h works on together */

INLINE int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

INLINE int64_t length_of(const struct call *call, int64_t row)
{
    int64_t n = call->lengths ? call->lengths[row / call->heads] : call->steps;
    return n < 0 ? 0 : n > call->steps ? call->steps : n;
}

/* Where sequence `row` begins in a tensor with these strides. */
INLINE int64_t begin(const struct call *call, const int64_t at[3], int64_t row)
{
    return row / call->heads * at[0] + row % call->heads * at[2];
}

/* Elements of `errors` and of `states` that one sequence keeps. */
static int64_t kept_errors(const struct call *call)
{
    return padded(call->steps, CHUNK) * padded(call->value, LANES);
}
static int64_t kept_states(const struct call *call)
{
    int64_t segments = padded(call->steps, CHUNK * SEGMENT) / (CHUNK * SEGMENT);
    return (segments - 1) * padded(call->key, LANES) * padded(call->value, LANES);
}

void adaptive_sleep_kept(const struct call *call, int64_t out[2])
{
    out[0] = kept_errors(call);
    out[1] = kept_states(call);
}

/* So that native.py can see whether it was built for the same struct. */
int64_t adaptive_sleep_call_bytes(void) { return sizeof(struct call); }
int64_t adaptive_sleep_rows_bytes(void) { return sizeof(struct rows); }
int64_t adaptive_sleep_attention_bytes(void) { return sizeof(struct attention); }
int64_t adaptive_sleep_look_bytes(void) { return sizeof(struct look); }
int64_t adaptive_sleep_dense_bytes(void) { return sizeof(struct dense); }

#define JOIN(a, b, c) a##_##b##_##c
#define NAMED(a, b, c) JOIN(a, b, c)
#define NAME(x) NAMED(x, TYPE, ISA)

#define ISA plain
#define TYPE float
#define WHOLE int32_t
#define VECTOR 4
#include "native_rule.h"
#define TYPE double
#define WHOLE int64_t
#define VECTOR 2
#include "native_rule.h"
#undef ISA

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAVE_AVX2 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define ISA avx2
#define TYPE float
#define WHOLE int32_t
#define VECTOR 8
#include "native_rule.h"
#define TYPE double
#define WHOLE int64_t
#define VECTOR 4
#include "native_rule.h"
#undef ISA
#pragma GCC pop_options
#endif

typedef int (*work)(const struct call *, int64_t row, int keep);

/* What this processor can run: 1 with AVX2, 0 without. */
int adaptive_sleep_level(void)
{
#ifdef HAVE_AVX2
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* Run forward (way 0; way 1 also keeps what the gradient needs) or backward (way 2) over all
   sequences; returns 0, or 1 where memory ran out. */
int adaptive_sleep_rule(const struct call *call, int wide, int way, int level)
{
    work run;
#ifdef HAVE_AVX2
    if (level)
        run = way == 2 ? (wide ? backward_double_avx2 : backward_float_avx2)
                       : (wide ? forward_double_avx2 : forward_float_avx2);
    else
#endif
        run = way == 2 ? (wide ? backward_double_plain : backward_float_plain)
                       : (wide ? forward_double_plain : forward_float_plain);
    int64_t rows = call->batch * call->heads;
    int failed = 0;
    (void)level;
#pragma omp parallel for schedule(dynamic) num_threads(call->threads) reduction(| : failed) \
    if (call->threads > 1)
    for (int64_t row = 0; row < rows; row++)
        failed |= run(call, row, way == 1);
    return failed;
}

typedef void (*row_work)(const struct rows *, int way, int64_t block, int64_t first, int64_t last);

/* Work on all rows, a block at a time; returns 0, or 1 where memory ran out. */
int adaptive_sleep_rows(struct rows *c, int wide, int way, int level)
{
    row_work run = wide ? rows_double_plain : rows_float_plain;
#ifdef HAVE_AVX2
    if (level)
        run = wide ? rows_double_avx2 : rows_float_avx2;
#endif
    int64_t blocks = padded(c->count, ROWS_AT_ONCE) / ROWS_AT_ONCE;
    (void)level;
    if (way == NORM_BACK && !(c->sums = malloc((blocks * c->size + 1) * sizeof(double))))
        return 1;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t first = block * ROWS_AT_ONCE, last = first + ROWS_AT_ONCE;
        run(c, way, block, first, last < c->count ? last : c->count);
    }
    if (way == NORM_BACK) {
        run(c, TOTAL, blocks, 0, 0);
        free(c->sums);
    }
    return 0;
}

typedef void (*attention_work)(const struct attention *, int64_t row);

/* Attention of every stream and head, forward or `back`. */
void adaptive_sleep_attention(const struct attention *c, int wide, int back, int level)
{
    attention_work run = back ? (wide ? attend_back_double_plain : attend_back_float_plain)
                              : (wide ? attend_double_plain : attend_float_plain);
#ifdef HAVE_AVX2
    if (level)
        run = back ? (wide ? attend_back_double_avx2 : attend_back_float_avx2)
                   : (wide ? attend_double_avx2 : attend_float_avx2);
#endif
    (void)level;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (int64_t row = 0; row < c->batch * c->heads; row++)
        run(c, row);
}

/* Relative changes from `parts` sums of squares [2, count]: the root of what moved, added up, over that of
   what there is and the floor. */
#define RELATIVE(TYPE)                                                                             \
    static void relative_##TYPE(const struct look *c, const void *const *squares, int64_t parts,   \
                                TYPE *out)                                                         \
    {                                                                                              \
        for (int64_t row = 0; row < c->count; row++) {                                             \
            TYPE moved = 0, size = 0;                                                              \
            for (int64_t part = 0; part < parts; part++) {                                         \
                moved += ((const TYPE *)squares[part])[row];                                       \
                size += ((const TYPE *)squares[part])[c->count + row];                             \
            }                                                                                      \
            out[row] = (TYPE)sqrt(moved) / ((TYPE)sqrt(size) + (TYPE)c->floor);                    \
        }                                                                                          \
    }
RELATIVE(float)
RELATIVE(double)

#define FINITE(TYPE)                                                                               \
    static int finite_##TYPE(const TYPE *x, int64_t size)                                          \
    {                                                                                              \
        int off = 0;                                                                               \
        if (x)                                                                                     \
            for (int64_t i = 0; i < size; i++) off |= !(x[i] - x[i] == 0);                         \
        return !off;                                                                               \
    }                                                                                              \
    static int all_finite_##TYPE(const struct look *c)                                             \
    {                                                                                              \
        return finite_##TYPE(c->pooled, 2 * c->size * c->count) &                                  \
               finite_##TYPE(c->norms, 2 * c->count) & finite_##TYPE(c->change, c->count);         \
    }
FINITE(float)
FINITE(double)

typedef void (*look_work)(const struct look *, int64_t row);

/* Look at every row. */
void adaptive_sleep_look(struct look *c, int wide, int level)
{
    look_work run = wide ? look_double_plain : look_float_plain;
#ifdef HAVE_AVX2
    if (level)
        run = wide ? look_double_avx2 : look_float_avx2;
#endif
    (void)level;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (int64_t row = 0; row < c->count; row++)
        run(c, row);
    const void *const norms = c->norms;
    if (c->moved)
        wide ? relative_double(c, &norms, 1, c->moved) : relative_float(c, &norms, 1, c->moved);
    if (c->change)
        wide ? relative_double(c, c->squares, c->parts, c->change)
             : relative_float(c, c->squares, c->parts, c->change);
    c->finite = wide ? all_finite_double(c) : all_finite_float(c);
}

INLINE float log_of(double x, double least) { return (float)log(x < least ? least : x); }

/* Put rows together: the `width` numbers of x; log of `one` and of `other` (NULL: 0 instead of the log),
   no less than log `least`; and 1 for the one of 1, 2, ... that `which` has, 0 for the others. */
static void join(const struct dense *c, float *rows)
{
    const int64_t inputs = c->sizes[0], width = c->width;
    for (int64_t row = 0; row < c->count; row++, rows += inputs) {
        memcpy(rows, (const float *)c->x + row * width, width * sizeof(float));
        rows[width] = log_of(c->one[row], c->least);
        rows[width + 1] = c->other ? log_of(c->other[row], c->least) : 0;
        for (int64_t i = width + 2; i < inputs; i++) rows[i] = c->which[row] == i - width - 1;
    }
}

/* e^x of float x within -most..most, as double. */
static void powers(const float *x, double *y, int64_t size, double most)
{
    for (int64_t i = 0; i < size; i++) y[i] = exp(x[i] < -most ? -most : x[i] > most ? most : x[i]);
}

int adaptive_sleep_dense(const struct dense *given, int wide, int level);

/* `adaptive_sleep_dense` for rows that are put together. */
static int run_joined(const struct dense *given, int level)
{
    struct dense call = *given;
    const int64_t inputs = call.sizes[0], outputs = call.sizes[call.layers];
    float *x = malloc(call.count * (inputs + outputs) * sizeof(float) + 1);
    if (!x)
        return 1;
    join(given, x);
    call.which = NULL;
    call.x = x;
    call.y = x + call.count * inputs;
    int failed = adaptive_sleep_dense(&call, 0, level);
    if (!failed)
        powers(call.y, given->y, call.count * outputs, call.most);
    free(x);
    return failed;
}

/* Run a network over every row, on this thread; returns 0, or 1 where memory ran out. */
int adaptive_sleep_dense(const struct dense *given, int wide, int level)
{
    if (given->which)
        return run_joined(given, level);
    struct dense call = *given, *c = &call;
    if (!(call.room = malloc(2 * TOGETHER * call.widest * sizeof(double))))
        return 1;
    (void)level;
#ifdef HAVE_AVX2
    if (level)
        wide ? dense_double_avx2(c) : dense_float_avx2(c);
    else
#endif
        wide ? dense_double_plain(c) : dense_float_plain(c);
    free(call.room);
    return 0;
}
