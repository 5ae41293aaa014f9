/* What signals look at, for one TYPE and one instruction set; included by native_rule.h, whose macros
   it uses: how far numbers have moved, windows of hidden states pooled, predictions scored. One row is a
   stream, or a prediction. */

/* y / its root mean square over D numbers. */
INLINE void NAME(to_unit)(R *y, int64_t D, R epsilon)
{
    R scale = 1 / (R)sqrt(NAME(sum_of_products)(y, y, D) / D + epsilon);
    for (int64_t d = 0; d < D; d += VECTOR) AT(y + d, 0) = GET(y + d, 0) * scale;
}

/* Sums and maxima over `length` > 0 events of COLUMNS vectors of columns of x [length, D]. */
#define POOL(COLUMNS)                                                                              \
    for (; d + COLUMNS * VECTOR <= D; d += COLUMNS * VECTOR) {                                     \
        VEC sum[COLUMNS] = {{0}}, most[COLUMNS];                                                   \
        UNROLL for (int i = 0; i < COLUMNS; i++) most[i] = GET(x + d, i);                          \
        for (int64_t t = 0; t < length; t++)                                                       \
            UNROLL for (int i = 0; i < COLUMNS; i++) {                                             \
                VEC now = GET(x + t * D + d, i);                                                   \
                sum[i] += now;                                                                     \
                most[i] = NAME(choose)(now > most[i], now, most[i]);                               \
            }                                                                                      \
        UNROLL for (int i = 0; i < COLUMNS; i++) {                                                 \
            AT(mean + d, i) = sum[i] / (R)length;                                                  \
            AT(top + d, i) = most[i];                                                              \
        }                                                                                          \
    }

/* Mean and maximum over `length` events of x [length, D], each brought to root mean square 1; zeros
   where there are none. */
static void NAME(pool)(const R *x, int64_t length, int64_t D, R epsilon, R *mean, R *top)
{
    int64_t d = 0;
    if (length == 0) {
        memset(mean, 0, D * sizeof(R));
        memset(top, 0, D * sizeof(R));
        return;
    }
    POOL(4)
    POOL(1)
    NAME(to_unit)(mean, D, epsilon);
    NAME(to_unit)(top, D, epsilon);
}
#undef POOL

/* -log softmax of the target's class, and the entropy of the softmax, of one row of `size` logits. */
static void NAME(score)(const struct look *c, int64_t row)
{
    const int64_t D = c->size;
    const R *x = (const R *)c->x + row * D;
    const int64_t target = c->targets[row];
    VEC top = GET(x, 0);
    for (int64_t d = VECTOR; d < D; d += VECTOR) top = NAME(choose)(GET(x + d, 0) > top, GET(x + d, 0), top);
    R most = top[0];
    UNROLL for (int l = 1; l < VECTOR; l++) most = top[l] > most ? top[l] : most;
    VEC all = {0}, along = {0};
    for (int64_t d = 0; d < D; d += VECTOR) {
        VEC away = GET(x + d, 0) - most, p = NAME(exponential)(away);
        all += p;
        along += p * away;
    }
    R sum = NAME(across)(all), log_sum = (R)log(sum);
    R *norms = c->norms;
    norms[row] = target < 0 || target >= D ? (R)NAN : log_sum - (x[target] - most);
    norms[c->count + row] = log_sum - NAME(across)(along) / sum;
}

/* Look at row `row`. */
static void NAME(look)(const struct look *c, int64_t row)
{
    if (c->targets) {
        NAME(score)(c, row);
        return;
    }
    const int64_t D = c->size, from = row * c->steps * D;
    const int64_t given = c->lengths ? c->lengths[row] : c->steps;
    const int64_t length = given < 0 ? 0 : given > c->steps ? c->steps : given;
    const R *x = (const R *)c->x + from;
    if (c->add) {
        const R *add = (const R *)c->add + from;
        R *sum = (R *)c->sum + from;
        for (int64_t d = 0; d < c->steps * D; d += VECTOR) AT(sum + d, 0) = GET(x + d, 0) + GET(add + d, 0);
        x = sum;
    }
    if (c->norms) {
        const R *before = (const R *)c->before + from;
        R *norms = c->norms;
        NAME(moves)(x, before, length * D, norms + row, norms + c->count + row);
    }
    if (c->pooled) {
        R *pooled = (R *)c->pooled + row * 2 * D;
        NAME(pool)(x, length, D, (R)c->epsilon, pooled, pooled + D);
    }
}
