/* The arithmetic of native.c for one TYPE (WHOLE: integers as wide) and one instruction set; included
   once for each.

   A panel is a matrix of LANES columns, rows LANES apart; a state is laid out as V / LANES panels
   of K rows, or transposed as K / LANES panels of V rows. Matrices of a chunk (16 rows) have rows
   `wide` apart. All is padded with zeros to whole panels. */

typedef TYPE NAME(vec) __attribute__((vector_size(VECTOR * sizeof(TYPE))));
typedef TYPE NAME(loose) __attribute__((vector_size(VECTOR * sizeof(TYPE)), aligned(sizeof(TYPE)), may_alias));
#define R TYPE
#define VEC NAME(vec)
#define ROWS 4                 /* rows of a product's tile */
#define PARTS (LANES / VECTOR) /* vectors in a row of a panel */
#define UNROLL _Pragma("GCC unroll 16")
#define EACH(i, j) UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < PARTS; j++)
#define AT(x, j) (*(NAME(loose) *)((x) + (j) * VECTOR))
#define GET(x, j) (*(const NAME(loose) *)((x) + (j) * VECTOR))

/* Sum of the lanes of a vector. */
INLINE R NAME(across)(VEC x)
{
    R all = 0;
    UNROLL for (int l = 0; l < VECTOR; l++) all += x[l];
    return all;
}

#define MOVES 4 /* vectors that are summed apart, so that sums need not wait for each other */

/* Sums of squares of x - before and of x, over `count` numbers. */
static void NAME(moves)(const R *x, const R *before, int64_t count, R *moved, R *size)
{
    VEC away[MOVES] = {{0}}, whole[MOVES] = {{0}};
    const int64_t step = MOVES * VECTOR;
    int64_t at = 0;
    for (; at + step <= count; at += step)
        UNROLL for (int i = 0; i < MOVES; i++) {
            VEC now = GET(x + at, i), d = now - GET(before + at, i);
            away[i] += d * d;
            whole[i] += now * now;
        }
    R left = 0, rest = 0;
    for (; at < count; at++) {
        left += (x[at] - before[at]) * (x[at] - before[at]);
        rest += x[at] * x[at];
    }
    *moved = left + NAME(across)((away[0] + away[1]) + (away[2] + away[3]));
    *size = rest + NAME(across)((whole[0] + whole[1]) + (whole[2] + whole[3]));
}

/* acc[i] += sum over p < n of a[i * row + p * step] * b[p * wide ...] */
INLINE void NAME(tile)(VEC acc[ROWS][PARTS], const R *a, int64_t row, int64_t step, const R *b,
                       int64_t wide, int64_t n)
{
    for (int64_t p = 0; p < n; p++, a += step, b += wide) {
        VEC line[PARTS];
        UNROLL for (int j = 0; j < PARTS; j++) line[j] = GET(b, j);
        EACH(i, j) acc[i][j] += a[i * row] * line[j];
    }
}

/* Make x zero where it is too small to matter: subnormal numbers are slow. */
INLINE R NAME(kept)(R x) { return x < (R)1e-30 ? 0 : x; }

/* The decays of a chunk, and its events, laid out. */
struct NAME(chunk) {
    int64_t first, events, lines; /* lines: events, rounded up to whole tiles */
    int64_t K, V, wk, wv;         /* padded sizes, and how far rows are apart */
    R from[2 * CHUNK];            /* decay over [0, t], for keys and again for queries */
    R to_end[CHUNK], beta[CHUNK]; /* decay over (s, C) */
    R last;                       /* decay over the chunk */
    R pair[CHUNK * CHUNK];        /* decay over (s, t], 0 where s > t */
    R inside[2 * CHUNK * CHUNK];  /* k k'^T and q k'^T, undecayed */
    R system[CHUNK * CHUNK], reads[CHUNK * CHUNK]; /* A and P */
    R *both;                      /* k in rows 0..15, q in rows 16..31: [32, wk] */
    R *scaled, *late;             /* k' and k' * to_end: [16, wk] */
    R *turned;                    /* k'^T: [K, 16] */
};

static void NAME(decays)(struct NAME(chunk) *c, const struct call *call, int64_t row)
{
    const R *g = (const R *)call->g + begin(call, call->g_at, row) + c->first * call->g_at[1];
    const R *beta = (const R *)call->beta + begin(call, call->beta_at, row) + c->first * call->beta_at[1];
    R product = 1;
    memset(c->pair, 0, sizeof c->pair);
    for (int64_t t = 0; t < CHUNK; t++) {
        int real = t < c->events;
        R gate = real ? (R)exp((double)g[t * call->g_at[1]]) : 1;
        c->beta[t] = real ? beta[t * call->beta_at[1]] : 0;
        product = NAME(kept)(product * gate);
        c->from[t] = c->from[CHUNK + t] = product;
        for (int64_t s = 0; t && s < CHUNK; s++)
            c->pair[t * CHUNK + s] = NAME(kept)(c->pair[(t - 1) * CHUNK + s] * gate);
        c->pair[t * CHUNK + t] = 1;
    }
    c->last = product;
    memcpy(c->to_end, c->pair + (CHUNK - 1) * CHUNK, sizeof c->to_end);
}

/* Copy a chunk's rows of D numbers to rows `wide` apart, zeros up to `lines` rows. */
INLINE void NAME(gather)(R *to, int64_t wide, const R *from, int64_t apart, int64_t D,
                         int64_t events, int64_t lines)
{
    for (int64_t t = 0; t < events; t++)
        memcpy(to + t * wide, from + t * apart, D * sizeof(R));
    for (int64_t t = events; t < lines; t++)
        memset(to + t * wide, 0, D * sizeof(R));
}

/* to[d][t] = from[t][d] for 16 rows t and n columns d: squares of 4 by 4, each turned in registers. */
typedef TYPE NAME(four) __attribute__((vector_size(4 * sizeof(TYPE))));
typedef TYPE NAME(loose_four) __attribute__((vector_size(4 * sizeof(TYPE)), aligned(sizeof(TYPE)), may_alias));
typedef WHOLE NAME(places) __attribute__((vector_size(4 * sizeof(TYPE))));
INLINE void NAME(turn)(R *to, const R *from, int64_t wide, int64_t n)
{
    const NAME(places) evens = {0, 4, 2, 6}, odds = {1, 5, 3, 7}, low = {0, 1, 4, 5}, high = {2, 3, 6, 7};
    for (int64_t d = 0; d < n; d += 4)
        UNROLL for (int t = 0; t < CHUNK; t += 4) {
            NAME(four) row[4], pair[4];
            UNROLL for (int i = 0; i < 4; i++)
                row[i] = *(const NAME(loose_four) *)(from + (t + i) * wide + d);
            pair[0] = __builtin_shuffle(row[0], row[1], evens);
            pair[1] = __builtin_shuffle(row[0], row[1], odds);
            pair[2] = __builtin_shuffle(row[2], row[3], evens);
            pair[3] = __builtin_shuffle(row[2], row[3], odds);
            R *into = to + d * CHUNK + t;
            *(NAME(loose_four) *)into = __builtin_shuffle(pair[0], pair[2], low);
            *(NAME(loose_four) *)(into + CHUNK) = __builtin_shuffle(pair[1], pair[3], low);
            *(NAME(loose_four) *)(into + 2 * CHUNK) = __builtin_shuffle(pair[0], pair[2], high);
            *(NAME(loose_four) *)(into + 3 * CHUNK) = __builtin_shuffle(pair[1], pair[3], high);
        }
}

static void NAME(events)(struct NAME(chunk) *c, const struct call *call, int64_t row)
{
    const R *k = (const R *)call->k + begin(call, call->k_at, row) + c->first * call->k_at[1];
    for (int64_t t = 0; t < CHUNK; t++) {
        R *to = c->both + t * c->wk, *scaled = c->scaled + t * c->wk, *late = c->late + t * c->wk;
        if (t >= c->events) {
            memset(to, 0, c->K * sizeof(R));
            memset(scaled, 0, c->K * sizeof(R));
            memset(late, 0, c->K * sizeof(R));
            continue;
        }
        const R *from = k + t * call->k_at[1];
        R beta = c->beta[t], end = c->to_end[t];
        for (int64_t d = 0; d < call->key; d++) {
            to[d] = from[d];
            scaled[d] = beta * from[d];
            late[d] = end * scaled[d];
        }
    }
}

/* The products within a chunk: k k'^T and q k'^T, and from them A and P. */
static void NAME(within)(struct NAME(chunk) *c, const struct call *call, int64_t row)
{
    const R *q = (const R *)call->q + begin(call, call->q_at, row) + c->first * call->q_at[1];
    NAME(gather)(c->both + CHUNK * c->wk, c->wk, q, call->q_at[1], call->key, c->events, CHUNK);
    NAME(turn)(c->turned, c->scaled, c->wk, c->K);
    for (int64_t half = 0; half < 2; half++)
        for (int64_t t = 0; t < c->lines; t += ROWS) {
            VEC acc[ROWS][PARTS] = {0};
            int64_t at = (half * CHUNK + t) * CHUNK;
            NAME(tile)(acc, c->both + (half * CHUNK + t) * c->wk, c->wk, 1, c->turned, CHUNK, c->K);
            EACH(i, j) AT(c->inside + at + i * CHUNK, j) = acc[i][j];
        }
    for (int64_t t = 0; t < c->lines; t++)
        for (int64_t s = 0; s < CHUNK; s++) {
            R pair = c->pair[t * CHUNK + s];
            c->system[t * CHUNK + s] = s < t ? c->inside[t * CHUNK + s] * pair : 0;
            c->reads[t * CHUNK + s] = c->inside[(CHUNK + t) * CHUNK + s] * pair;
        }
}

/* x := (I + A)^-1 x for one panel of x. */
INLINE void NAME(solve)(const struct NAME(chunk) *c, R *x, int64_t wide)
{
    for (int64_t t = 0; t < c->lines; t += ROWS) {
        VEC acc[ROWS][PARTS] = {0};
        NAME(tile)(acc, c->system + t * CHUNK, CHUNK, 1, x, wide, t);
        EACH(i, j) acc[i][j] = GET(x + (t + i) * wide, j) - acc[i][j];
        UNROLL for (int i = 1; i < ROWS; i++)
            UNROLL for (int m = 0; m < i; m++)
                UNROLL for (int j = 0; j < PARTS; j++)
                    acc[i][j] -= c->system[(t + i) * CHUNK + t + m] * acc[m][j];
        EACH(i, j) AT(x + (t + i) * wide, j) = acc[i][j];
    }
}

/* x := (I + A)^-T x for one panel of x. */
INLINE void NAME(solve_turned)(const struct NAME(chunk) *c, R *x, int64_t wide)
{
    for (int64_t t = c->lines - ROWS; t >= 0; t -= ROWS) {
        VEC acc[ROWS][PARTS] = {0};
        int64_t next = t + ROWS;
        NAME(tile)(acc, c->system + next * CHUNK + t, 1, CHUNK, x + next * wide, wide, c->lines - next);
        EACH(i, j) acc[i][j] = GET(x + (t + i) * wide, j) - acc[i][j];
        UNROLL for (int i = ROWS - 2; i >= 0; i--)
            UNROLL for (int m = i + 1; m < ROWS; m++)
                UNROLL for (int j = 0; j < PARTS; j++)
                    acc[i][j] -= c->system[(t + m) * CHUNK + t + i] * acc[m][j];
        EACH(i, j) AT(x + (t + i) * wide, j) = acc[i][j];
    }
}

/* S := last * S + (k' * to_end)^T E for one panel of S, K rows. */
INLINE void NAME(write)(const struct NAME(chunk) *c, R *state, const R *errors, int64_t wide)
{
    for (int64_t p = 0; p < c->K; p += ROWS) {
        VEC acc[ROWS][PARTS];
        EACH(i, j) acc[i][j] = GET(state + (p + i) * LANES, j) * c->last;
        NAME(tile)(acc, c->late + p, 1, c->wk, errors, wide, c->lines);
        EACH(i, j) AT(state + (p + i) * LANES, j) = acc[i][j];
    }
}

/* Between a state [K, V] as callers have it and its panels. */
static void NAME(pack)(R *panels, const R *state, int64_t K, int64_t V, int64_t padded_K)
{
    for (int64_t p = 0; p < K; p++)
        for (int64_t v = 0; v < V; v += LANES)
            memcpy(panels + v * padded_K + p * LANES, state + p * V + v,
                   (V - v < LANES ? V - v : LANES) * sizeof(R));
}
static void NAME(unpack)(R *state, const R *panels, int64_t K, int64_t V, int64_t padded_K)
{
    for (int64_t p = 0; p < K; p++)
        for (int64_t v = 0; v < V; v += LANES)
            memcpy(state + p * V + v, panels + v * padded_K + p * LANES,
                   (V - v < LANES ? V - v : LANES) * sizeof(R));
}

/* ||S - S_ref||^2 and ||S||^2 of one sequence, from its final state. */
static void NAME(norms)(const struct call *call, int64_t row, const R *state)
{
    int64_t size = call->key * call->value, rows = call->batch * call->heads;
    const R *reference = (const R *)call->reference + row * size;
    R *change = call->change;
    NAME(moves)(state, reference, size, change + row, change + rows + row);
}

/* Take `count` zeroed numbers out of a block that grows from *at; whole cache lines. */
INLINE R *NAME(take)(R **at, int64_t count)
{
    R *mine = *at;
    *at += padded(count, 64);
    return mine;
}

static R *NAME(begin_chunks)(struct NAME(chunk) *c, const struct call *call, int64_t more, R **at)
{
    c->K = padded(call->key, LANES), c->V = padded(call->value, LANES);
    c->wk = c->K + LANES, c->wv = c->V + LANES; /* a power of two apart would crowd the cache */
    int64_t count = more + 4 * CHUNK * c->wk + CHUNK * c->K + 64 * 16;
    size_t bytes = padded(count * sizeof(R), 64);
    R *block = aligned_alloc(64, bytes);
    if (!block)
        return NULL;
    memset(block, 0, bytes);
    *at = block;
    c->both = NAME(take)(at, 2 * CHUNK * c->wk);
    c->scaled = NAME(take)(at, CHUNK * c->wk);
    c->late = NAME(take)(at, CHUNK * c->wk);
    c->turned = NAME(take)(at, CHUNK * c->K);
    return block;
}

INLINE void NAME(place)(struct NAME(chunk) *c, int64_t first, int64_t length)
{
    c->first = first;
    c->events = length - first < CHUNK ? length - first : CHUNK;
    c->lines = padded(c->events, ROWS);
}

/* One panel (columns v ... v + 15) of one chunk, forward: E, what is read, the state after. */
INLINE void NAME(forward_panel)(const struct NAME(chunk) *c, R *state, R *errors, R *out, R scale)
{
    for (int64_t t = 0; t < c->lines; t += ROWS) {
        VEC acc[ROWS][PARTS] = {0};
        NAME(tile)(acc, c->both + t * c->wk, c->wk, 1, state, LANES, c->K);
        EACH(i, j) AT(errors + (t + i) * c->wv, j) -= acc[i][j] * c->from[t + i];
    }
    NAME(solve)(c, errors, c->wv);
    for (int64_t t = 0; t < c->lines; t += ROWS) {
        VEC acc[ROWS][PARTS] = {0};
        NAME(tile)(acc, c->both + (CHUNK + t) * c->wk, c->wk, 1, state, LANES, c->K);
        EACH(i, j) acc[i][j] *= c->from[t + i];
        NAME(tile)(acc, c->reads + t * CHUNK, CHUNK, 1, errors, c->wv, t + ROWS);
        EACH(i, j) AT(out + (t + i) * LANES, j) = acc[i][j] * scale;
    }
    NAME(write)(c, state, errors, c->wv);
}

static int NAME(forward)(const struct call *call, int64_t row, int keep)
{
    struct NAME(chunk) c;
    int64_t K = padded(call->key, LANES), V = padded(call->value, LANES);
    R *at, *block = NAME(begin_chunks)(&c, call, K * V + CHUNK * (V + LANES) + CHUNK * LANES, &at);
    if (!block)
        return 1;
    R *state = NAME(take)(&at, K * V), *errors = NAME(take)(&at, CHUNK * c.wv);
    R *out = NAME(take)(&at, CHUNK * LANES);
    R scale = (R)(1 / sqrt((double)call->key));
    int64_t size = call->key * call->value, length = length_of(call, row);
    int64_t apart = call->heads * call->value;
    R *o = (R *)call->o + row / call->heads * call->steps * apart + row % call->heads * call->value;
    NAME(pack)(state, (const R *)call->start + row * size, call->key, call->value, K);
    for (int64_t first = 0; first < length; first += CHUNK) {
        NAME(place)(&c, first, length);
        if (keep && first && first % (CHUNK * SEGMENT) == 0)
            memcpy((R *)call->states + row * kept_states(call) + (first / (CHUNK * SEGMENT) - 1) * K * V,
                   state, K * V * sizeof(R));
        NAME(decays)(&c, call, row);
        NAME(events)(&c, call, row);
        NAME(within)(&c, call, row);
        const R *v = (const R *)call->v + begin(call, call->v_at, row) + first * call->v_at[1];
        NAME(gather)(errors, c.wv, v, call->v_at[1], call->value, c.events, CHUNK);
        for (int64_t d = 0; d < V; d += LANES) {
            NAME(forward_panel)(&c, state + d * K, errors + d, out, scale);
            int64_t columns = call->value - d < LANES ? call->value - d : LANES;
            for (int64_t t = 0; t < c.events; t++)
                memcpy(o + (first + t) * apart + d, out + t * LANES, columns * sizeof(R));
        }
        if (keep)
            for (int64_t t = 0; t < CHUNK; t++)
                memcpy((R *)call->errors + row * kept_errors(call) + (first + t) * V,
                       errors + t * c.wv, V * sizeof(R));
    }
    for (int64_t t = length; t < call->steps; t++)
        memset(o + t * apart, 0, call->value * sizeof(R));
    R *final = (R *)call->final + row * size;
    NAME(unpack)(final, state, call->key, call->value, K);
    if (call->change)
        NAME(norms)(call, row, final);
    free(block);
    return 0;
}

#include "native_gradient.h"
#include "native_rows.h"
#include "native_attention.h"
#include "native_look.h"
#include "native_dense.h"

#undef R
#undef VEC
#undef ROWS
#undef PARTS
#undef UNROLL
#undef EACH
#undef AT
#undef GET
#undef MOVES
#undef TYPE
#undef WHOLE
#undef VECTOR
