/* Softmax attention over a window of at most WINDOW keys, for one TYPE and one instruction set;
   included by native_rule.h, whose macros and products it uses.

   One stream and head at a time, all of it in the cache: W = softmax(scale q k^T), o = W v. The
   gradient reads W again, which the forward keeps. */

/* Rows of D numbers `apart` in memory, `wide` keys of them, as panels [D][16]. */
INLINE void NAME(panels)(R *to, const R *from, int64_t apart, int64_t D, int64_t rows, int64_t wide)
{
    R some[CHUNK * HEAD];
    for (int64_t s = 0; s < wide; s += CHUNK) {
        NAME(gather)(some, D, from + s * apart, apart, D, rows - s < CHUNK ? rows - s : CHUNK, CHUNK);
        NAME(turn)(to + s * D, some, D, D);
    }
}

/* out[t][s] = scale * a_t . b_s: a [lines, D], b in panels, out [lines, wide]. */
INLINE void NAME(pairs)(R *out, const R *a, const R *b, int64_t D, int64_t lines, int64_t wide, R scale)
{
    for (int64_t t = 0; t < lines; t += ROWS)
        for (int64_t s = 0; s < wide; s += LANES) {
            VEC acc[ROWS][PARTS] = {0};
            NAME(tile)(acc, a + t * D, D, 1, b + s * D, LANES, D);
            EACH(i, j) AT(out + (t + i) * wide + s, j) = acc[i][j] * scale;
        }
}

/* Rows of sum over p < n of a[row][p] b[p], b [n, D], to rows `apart`; a's numbers lie at
   row * across + p * step. */
INLINE void NAME(mixed)(R *to, int64_t apart, int64_t count, const R *a, int64_t across, int64_t step,
                        const R *b, int64_t D, int64_t n)
{
    for (int64_t t = 0; t < count; t += ROWS)
        for (int64_t d = 0; d < D; d += LANES) {
            VEC acc[ROWS][PARTS] = {0};
            NAME(tile)(acc, a + t * across, across, step, b + d, D, n);
            UNROLL for (int i = 0; i < ROWS; i++)
                if (t + i < count)
                    UNROLL for (int j = 0; j < PARTS; j++) AT(to + (t + i) * apart + d, j) = acc[i][j];
        }
}

/* One row of scores to weights: 0 beyond `keys` and where the mask (or NULL) is not set. */
INLINE void NAME(softmax)(R *x, int64_t keys, int64_t wide, const unsigned char *mask)
{
    const int64_t used = padded(keys, VECTOR);
    for (int64_t s = 0; mask && s < keys; s++)
        x[s] = mask[s] ? x[s] : -INFINITY;
    for (int64_t s = keys; s < used; s++)
        x[s] = -INFINITY;
    VEC top = GET(x, 0), sum = {0};
    for (int64_t s = VECTOR; s < used; s += VECTOR)
        top = NAME(choose)(GET(x + s, 0) > top, GET(x + s, 0), top);
    R most = top[0];
    UNROLL for (int l = 1; l < VECTOR; l++) most = top[l] > most ? top[l] : most;
    for (int64_t s = 0; s < used; s += VECTOR) {
        VEC below = GET(x + s, 0) - most;
        VEC weight = NAME(choose)(below < -87, (VEC){0}, NAME(exponential)(below));
        AT(x + s, 0) = weight;
        sum += weight;
    }
    R scale = 1 / NAME(across)(sum);
    for (int64_t s = 0; s < used; s += VECTOR)
        AT(x + s, 0) *= scale;
    memset(x + used, 0, (wide - used) * sizeof(R));
}

static void NAME(attend)(const struct attention *c, int64_t row)
{
    const int64_t T = c->queries, S = c->keys, D = c->size, b = row / c->heads, h = row % c->heads;
    const int64_t lines = padded(T, ROWS), wide = padded(S, LANES);
    R q[WINDOW * HEAD], keys[WINDOW * HEAD], values[WINDOW * HEAD], weights[WINDOW * WINDOW];
    NAME(gather)(q, D, (const R *)c->q + b * c->q_at[0] + h * c->q_at[2], c->q_at[1], D, T, lines);
    NAME(panels)(keys, (const R *)c->k + b * c->k_at[0] + h * c->k_at[2], c->k_at[1], D, S, wide);
    NAME(gather)(values, D, (const R *)c->v + b * c->v_at[0] + h * c->v_at[2], c->v_at[1], D, S, S);
    NAME(pairs)(weights, q, keys, D, lines, wide, (R)(1 / sqrt((double)D)));
    for (int64_t t = 0; t < T; t++)
        NAME(softmax)(weights + t * wide, S, wide, c->mask ? c->mask + (b * T + t) * S : NULL);
    if (c->weights)
        memcpy((R *)c->weights + row * T * wide, weights, T * wide * sizeof(R));
    R *o = (R *)c->o + (b * T * c->heads + h) * D;
    NAME(mixed)(o, c->heads * D, T, weights, wide, 1, values, D, S);
}

static void NAME(attend_back)(const struct attention *c, int64_t row)
{
    const int64_t T = c->queries, S = c->keys, D = c->size, b = row / c->heads, h = row % c->heads;
    const int64_t lines = padded(T, ROWS), wide = padded(S, LANES);
    R q[WINDOW * HEAD], keys[WINDOW * HEAD], values[WINDOW * HEAD], d_o[WINDOW * HEAD];
    R weights[WINDOW * WINDOW], d_scores[WINDOW * WINDOW], scale = (R)(1 / sqrt((double)D));
    NAME(gather)(q, D, (const R *)c->q + b * c->q_at[0] + h * c->q_at[2], c->q_at[1], D, T, T);
    NAME(gather)(keys, D, (const R *)c->k + b * c->k_at[0] + h * c->k_at[2], c->k_at[1], D, S, S);
    NAME(panels)(values, (const R *)c->v + b * c->v_at[0] + h * c->v_at[2], c->v_at[1], D, S, wide);
    NAME(gather)(d_o, D, (const R *)c->d_o + (b * T * c->heads + h) * D, c->heads * D, D, T, lines);
    memcpy(weights, (const R *)c->weights + row * T * wide, T * wide * sizeof(R));
    NAME(pairs)(d_scores, d_o, values, D, lines, wide, 1);
    for (int64_t t = 0; t < T; t++) {
        R *d = d_scores + t * wide, *w = weights + t * wide;
        R along = NAME(sum_of_products)(w, d, wide);
        for (int64_t s = 0; s < wide; s += VECTOR)
            AT(d + s, 0) = GET(w + s, 0) * (GET(d + s, 0) - along) * scale;
    }
    R *d_q = (R *)c->d_q + b * c->d_q_at[0] + h * D;
    R *d_k = (R *)c->d_k + b * c->d_k_at[0] + h * D, *d_v = (R *)c->d_v + b * c->d_k_at[0] + h * D;
    NAME(mixed)(d_q, c->d_q_at[1], T, d_scores, wide, 1, keys, D, S);
    NAME(mixed)(d_k, c->d_k_at[1], S, d_scores, 1, wide, q, D, T);
    NAME(mixed)(d_v, c->d_k_at[1], S, weights, 1, wide, d_o, D, T);
}
