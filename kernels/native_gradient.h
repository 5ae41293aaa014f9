/* The gradient of native_rule.h for one TYPE and one instruction set; included by it.

   Notation as in gradient.py: dS is the gradient of the state after a chunk, Y that of v. Walks the
   chunks backwards; states within a segment are computed again from E, and transposed. */

struct NAME(back) {
    struct NAME(chunk) c;
    R *d_state, *d_turned;   /* dS after the chunk: panels over V, and over K */
    R *states;               /* S before each chunk of a segment, transposed: panels over K */
    R *errors, *error_turned;/* E: [16, wv], and [V, 16] */
    R *rows;                 /* -Y in rows 0..15, do * scale in rows 16..31: [32, wv] */
    R *d_both, *d_late;      /* gradients of `both` [32, wk] and of k' [16, wk] */
    R inside[2 * CHUNK * CHUNK]; /* gradients of k k'^T and q k'^T */
    R d_from[CHUNK], d_end[CHUNK], d_beta[CHUNK]; /* d_from, d_end: of the logarithms */
    R d_pair[CHUNK * CHUNK];
};

/* Turn every 16 x 16 block around: panels over V [V / 16][K][16] into panels over K [K / 16][V][16]. */
static void NAME(turn_state)(R *to, const R *from, int64_t K, int64_t V)
{
    for (int64_t v = 0; v < V; v += LANES)
        for (int64_t p = 0; p < K; p += LANES)
            NAME(turn)(to + p * V + v * LANES, from + v * K + p * LANES, LANES, LANES);
}

static void NAME(load_errors)(struct NAME(back) *b, const struct call *call, int64_t row)
{
    const R *from = (const R *)call->errors + row * kept_errors(call) + b->c.first * b->c.V;
    NAME(gather)(b->errors, b->c.wv, from, b->c.V, b->c.V, CHUNK, CHUNK);
}

/* The state before every chunk of a segment, transposed; the first is given. */
static void NAME(segment)(struct NAME(back) *b, const struct call *call, int64_t row, int64_t first,
                          int64_t length)
{
    struct NAME(chunk) *c = &b->c;
    int64_t size = c->K * c->V;
    if (first == 0) {
        const R *start = (const R *)call->start + row * call->key * call->value;
        NAME(pack)(b->d_turned, start, call->key, call->value, c->K); /* d_turned is free here */
        NAME(turn_state)(b->states, b->d_turned, c->K, c->V);
    } else {
        const R *kept = (const R *)call->states + row * kept_states(call);
        NAME(turn_state)(b->states, kept + (first / (CHUNK * SEGMENT) - 1) * size, c->K, c->V);
    }
    R *state = b->states;
    for (int64_t at = first; at + CHUNK < length && at + CHUNK < first + SEGMENT * CHUNK; at += CHUNK) {
        NAME(place)(c, at, length);
        NAME(decays)(c, call, row);
        NAME(events)(c, call, row);
        NAME(load_errors)(b, call, row);
        for (int64_t p = 0; p < c->K; p += LANES)
            for (int64_t v = 0; v < c->V; v += ROWS) {
                const R *old = state + p * c->V + v * LANES;
                VEC acc[ROWS][PARTS];
                EACH(i, j) acc[i][j] = GET(old + i * LANES, j) * c->last;
                NAME(tile)(acc, b->errors + v, 1, c->wv, c->late + p, c->wk, c->lines);
                EACH(i, j) AT((R *)old + size + i * LANES, j) = acc[i][j];
            }
        state += size;
    }
}

/* Y for one panel: dE = P^T do + (k' * to_end) dS, then (I + A)^-T; leaves -Y above do in `rows`. */
INLINE void NAME(d_values)(struct NAME(back) *b, int64_t v)
{
    struct NAME(chunk) *c = &b->c;
    R *rows = b->rows + v;
    const R *d_o = rows + CHUNK * c->wv;
    for (int64_t t = 0; t < c->lines; t += ROWS) {
        VEC acc[ROWS][PARTS] = {0};
        NAME(tile)(acc, c->late + t * c->wk, c->wk, 1, b->d_state + v * c->K, LANES, c->K);
        NAME(tile)(acc, c->reads + t * CHUNK + t, 1, CHUNK, d_o + t * c->wv, c->wv, c->lines - t);
        EACH(i, j) AT(rows + (t + i) * c->wv, j) = -acc[i][j];
    }
    NAME(solve_turned)(c, rows, c->wv);
}

/* dS before the chunk for one panel: last * dS + (from * both)^T rows. */
INLINE void NAME(d_before)(struct NAME(back) *b, int64_t v)
{
    struct NAME(chunk) *c = &b->c;
    R decayed[2 * CHUNK * LANES] __attribute__((aligned(64)));
    for (int64_t t = 0; t < 2 * CHUNK; t++)
        for (int64_t n = 0; n < LANES; n++)
            decayed[t * LANES + n] = b->rows[t * c->wv + v + n] * c->from[t];
    for (int64_t p = 0; p < c->K; p += ROWS) {
        VEC acc[ROWS][PARTS];
        R *state = b->d_state + v * c->K + p * LANES;
        EACH(i, j) acc[i][j] = GET(state + i * LANES, j) * c->last;
        NAME(tile)(acc, c->both + p, 1, c->wk, decayed, LANES, c->lines);
        NAME(tile)(acc, c->both + CHUNK * c->wk + p, 1, c->wk, decayed + CHUNK * LANES, LANES, c->lines);
        EACH(i, j) AT(state + i * LANES, j) = acc[i][j];
    }
}

/* Gradients of k k'^T and q k'^T, and of the decays over pairs. */
static void NAME(d_within)(struct NAME(back) *b)
{
    struct NAME(chunk) *c = &b->c;
    NAME(turn)(b->error_turned, b->errors, c->wv, c->V);
    for (int64_t half = 0; half < 2; half++)
        for (int64_t t = 0; t < c->lines; t += ROWS) {
            VEC acc[ROWS][PARTS] = {0};
            R *to = b->inside + (half * CHUNK + t) * CHUNK;
            NAME(tile)(acc, b->rows + (half * CHUNK + t) * c->wv, c->wv, 1, b->error_turned, CHUNK, c->V);
            EACH(i, j) AT(to + i * CHUNK, j) = acc[i][j];
            for (int64_t i = 0; i < ROWS; i++)
                for (int64_t s = 0; s < CHUNK; s++)
                    to[i * CHUNK + s] *= !half && s == t + i ? 0 : c->pair[(t + i) * CHUNK + s];
        }
    for (int64_t n = 0; n < CHUNK * c->lines; n++)
        b->d_pair[n] = b->inside[n] * c->inside[n]
                       + b->inside[CHUNK * CHUNK + n] * c->inside[CHUNK * CHUNK + n];
}

/* The sum of a * b over n numbers, n a multiple of LANES. */
INLINE R NAME(dot)(const R *a, const R *b, int64_t n)
{
    VEC sum[PARTS] = {0};
    for (int64_t d = 0; d < n; d += LANES)
        UNROLL for (int j = 0; j < PARTS; j++) sum[j] += GET(a + d, j) * GET(b + d, j);
    R all = 0;
    UNROLL for (int j = 0; j < PARTS; j++)
        UNROLL for (int l = 0; l < VECTOR; l++) all += sum[j][l];
    return all;
}

/* Gradients of keys and queries, and of the decays to and from the chunk's ends. */
static void NAME(d_keys)(struct NAME(back) *b, const R *before)
{
    struct NAME(chunk) *c = &b->c;
    for (int64_t t = 0; t < 2 * CHUNK; t += ROWS) {
        if (t % CHUNK >= c->lines)
            continue;
        for (int64_t p = 0; p < c->K; p += LANES) {
            VEC acc[ROWS][PARTS] = {0};
            NAME(tile)(acc, b->rows + t * c->wv, c->wv, 1, before + p * c->V, LANES, c->V);
            EACH(i, j) AT(b->d_both + (t + i) * c->wk + p, j) = acc[i][j] * c->from[t + i];
        }
    }
    for (int64_t t = 0; t < c->lines; t += ROWS)
        for (int64_t p = 0; p < c->K; p += LANES) {
            VEC acc[ROWS][PARTS] = {0};
            NAME(tile)(acc, b->errors + t * c->wv, c->wv, 1, b->d_turned + p * c->V, LANES, c->V);
            EACH(i, j) AT(b->d_late + (t + i) * c->wk + p, j) = acc[i][j] * c->to_end[t + i];
        }
    for (int64_t t = 0; t < c->lines; t++) {
        int64_t k = t * c->wk, q = (CHUNK + t) * c->wk;
        b->d_from[t] = NAME(dot)(b->d_both + k, c->both + k, c->K) + NAME(dot)(b->d_both + q, c->both + q, c->K);
        b->d_end[t] = NAME(dot)(b->d_late + k, c->scaled + k, c->K);
    }
    double last = 0; /* the sum of dS * S runs over the whole state */
    for (int64_t n = 0; n < c->K * c->V; n += 1024) {
        int64_t part = c->K * c->V - n < 1024 ? c->K * c->V - n : 1024;
        last += NAME(dot)(b->d_turned + n, before + n, part);
    }
    b->d_from[c->events - 1] += (R)last * c->last;
}

/* What reaches k, q and k' through the products within the chunk; then beta, and k through k'. */
static void NAME(d_products)(struct NAME(back) *b)
{
    struct NAME(chunk) *c = &b->c;
    for (int64_t p = 0; p < c->K; p += LANES) {
        for (int64_t t = 0; t < 2 * CHUNK; t += ROWS) {
            if (t % CHUNK >= c->lines)
                continue;
            VEC acc[ROWS][PARTS];
            R *to = b->d_both + t * c->wk + p;
            EACH(i, j) acc[i][j] = GET(to + i * c->wk, j);
            NAME(tile)(acc, b->inside + t * CHUNK, CHUNK, 1, c->scaled + p, c->wk, t % CHUNK + ROWS);
            EACH(i, j) AT(to + i * c->wk, j) = acc[i][j];
        }
        for (int64_t s = 0; s < c->lines; s += ROWS) {
            VEC acc[ROWS][PARTS];
            R *to = b->d_late + s * c->wk + p;
            const R *keys = c->both + s * c->wk + p, *above = b->inside + s * CHUNK + s;
            EACH(i, j) acc[i][j] = GET(to + i * c->wk, j);
            NAME(tile)(acc, above, 1, CHUNK, keys, c->wk, c->lines - s);
            NAME(tile)(acc, above + CHUNK * CHUNK, 1, CHUNK, keys + CHUNK * c->wk, c->wk, c->lines - s);
            EACH(i, j) AT(to + i * c->wk, j) = acc[i][j];
        }
    }
    for (int64_t t = 0; t < c->events; t++) {
        R *d_key = b->d_both + t * c->wk, *d_late = b->d_late + t * c->wk, beta = c->beta[t];
        b->d_beta[t] = NAME(dot)(d_late, c->both + t * c->wk, c->K);
        for (int64_t d = 0; d < c->K; d++)
            d_key[d] += beta * d_late[d];
    }
}

/* Write the chunk's gradients. That of a gate sums over every segment that holds it. */
static void NAME(put)(struct NAME(back) *b, const struct call *call, int64_t row)
{
    struct NAME(chunk) *c = &b->c;
    int64_t H = call->heads, at = (row / H * call->steps + c->first) * H + row % H;
    R *d_g = (R *)call->d_g + at, *d_beta = (R *)call->d_beta + at;
    R *d_k = (R *)call->d_k + at * call->key, *d_q = (R *)call->d_q + at * call->key;
    R *d_v = (R *)call->d_v + at * call->value;
    R until[CHUNK] = {0}; /* until[s]: the sum of d_pair[t][s] over t >= r */
    R from = 0, ends[CHUNK] = {0};
    for (int64_t s = 1; s < c->events; s++)
        ends[s] = ends[s - 1] + b->d_end[s - 1];
    for (int64_t r = c->events - 1; r >= 0; r--) {
        R pairs = 0;
        from += b->d_from[r];
        for (int64_t s = 0; s < r; s++)
            pairs += until[s] += b->d_pair[r * CHUNK + s];
        d_g[r * H] = pairs + from + ends[r];
        d_beta[r * H] = b->d_beta[r];
        memcpy(d_k + r * H * call->key, b->d_both + r * c->wk, call->key * sizeof(R));
        memcpy(d_q + r * H * call->key, b->d_both + (CHUNK + r) * c->wk, call->key * sizeof(R));
        for (int64_t v = 0; v < call->value; v++)
            d_v[r * H * call->value + v] = -b->rows[r * c->wv + v];
    }
}

static void NAME(clear)(const struct call *call, int64_t row, int64_t length)
{
    int64_t H = call->heads, first = row / H * call->steps * H + row % H;
    for (int64_t t = length; t < call->steps; t++) {
        int64_t at = first + t * H;
        ((R *)call->d_g)[at] = ((R *)call->d_beta)[at] = 0;
        memset((R *)call->d_k + at * call->key, 0, call->key * sizeof(R));
        memset((R *)call->d_q + at * call->key, 0, call->key * sizeof(R));
        memset((R *)call->d_v + at * call->value, 0, call->value * sizeof(R));
    }
}

static void NAME(backward_chunk)(struct NAME(back) *b, const struct call *call, int64_t row,
                                 const R *before)
{
    struct NAME(chunk) *c = &b->c;
    R scale = (R)(1 / sqrt((double)call->key));
    const R *d_o = (const R *)call->d_o + begin(call, call->d_o_at, row) + c->first * call->d_o_at[1];
    R *rows = b->rows + CHUNK * c->wv;
    NAME(decays)(c, call, row);
    NAME(events)(c, call, row);
    NAME(within)(c, call, row);
    NAME(load_errors)(b, call, row);
    NAME(gather)(rows, c->wv, d_o, call->d_o_at[1], call->value, c->events, CHUNK);
    for (int64_t t = 0; t < c->events; t++)
        for (int64_t v = 0; v < call->value; v++)
            rows[t * c->wv + v] *= scale;
    NAME(turn_state)(b->d_turned, b->d_state, c->K, c->V);
    for (int64_t v = 0; v < c->V; v += LANES) {
        NAME(d_values)(b, v);
        NAME(d_before)(b, v);
    }
    NAME(d_within)(b);
    NAME(d_keys)(b, before);
    NAME(d_products)(b);
    NAME(put)(b, call, row);
}

static int NAME(backward)(const struct call *call, int64_t row, int keep)
{
    (void)keep;
    struct NAME(back) b;
    int64_t K = padded(call->key, LANES), V = padded(call->value, LANES), size = K * V;
    int64_t numbers = (2 + SEGMENT) * size + 3 * CHUNK * (V + LANES) + CHUNK * V + 3 * CHUNK * (K + LANES);
    R *at, *block = NAME(begin_chunks)(&b.c, call, numbers, &at);
    if (!block)
        return 1;
    b.d_state = NAME(take)(&at, size), b.d_turned = NAME(take)(&at, size);
    b.states = NAME(take)(&at, SEGMENT * size);
    b.errors = NAME(take)(&at, CHUNK * b.c.wv), b.error_turned = NAME(take)(&at, CHUNK * V);
    b.rows = NAME(take)(&at, 2 * CHUNK * b.c.wv);
    b.d_both = NAME(take)(&at, 2 * CHUNK * b.c.wk), b.d_late = NAME(take)(&at, CHUNK * b.c.wk);
    int64_t length = length_of(call, row), whole = call->key * call->value;
    NAME(pack)(b.d_state, (const R *)call->d_final + row * whole, call->key, call->value, K);
    int64_t last = padded(length, CHUNK * SEGMENT) - CHUNK * SEGMENT;
    for (int64_t first = last; first >= 0; first -= CHUNK * SEGMENT) {
        NAME(segment)(&b, call, row, first, length);
        for (int64_t n = SEGMENT - 1; n >= 0; n--) {
            if (first + n * CHUNK >= length)
                continue;
            NAME(place)(&b.c, first + n * CHUNK, length);
            NAME(backward_chunk)(&b, call, row, b.states + n * size);
        }
    }
    NAME(clear)(call, row, length);
    NAME(unpack)((R *)call->d_start + row * whole, b.d_state, call->key, call->value, K);
    free(block);
    return 0;
}
