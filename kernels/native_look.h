/* What signals look at, for one TYPE and one instruction set; included by native_rule.h, whose macros
   it uses: how far numbers have moved, windows of hidden states pooled, predictions scored. One row is a
   stream, or a prediction. */

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

/* y / its root mean square over D numbers. */
INLINE void NAME(to_unit)(R *y, int64_t D, R epsilon)
{
    R scale = 1 / (R)sqrt(NAME(sum_of_products)(y, y, D) / D + epsilon);
    for (int64_t d = 0; d < D; d += VECTOR) AT(y + d, 0) = GET(y + d, 0) * scale;
}

/* Mean and maximum over `length` events of x [length, D], each brought to root mean square 1; zeros
   where there are none. */
static void NAME(pool)(const R *x, int64_t length, int64_t D, R epsilon, R *mean, R *top)
{
    memset(mean, 0, D * sizeof(R));
    memset(top, 0, D * sizeof(R));
    if (length > 0)
        memcpy(top, x, D * sizeof(R));
    for (int64_t t = 0; t < length; t++, x += D)
        for (int64_t d = 0; d < D; d += VECTOR) {
            VEC now = GET(x + d, 0), most = GET(top + d, 0);
            AT(mean + d, 0) = GET(mean + d, 0) + now;
            AT(top + d, 0) = NAME(choose)(now > most, now, most);
        }
    for (int64_t d = 0; d < D; d += VECTOR) AT(mean + d, 0) = GET(mean + d, 0) / (R)(length > 0 ? length : 1);
    NAME(to_unit)(mean, D, epsilon);
    NAME(to_unit)(top, D, epsilon);
}

/* -log softmax of the target's class, and the entropy of the softmax, of one row of `size` logits. */
static void NAME(score)(const struct look *c, int64_t row)
{
    const int64_t D = c->size;
    const R *x = (const R *)c->x + row * D;
    const int64_t target = c->targets[row];
    R most = x[0];
    for (int64_t d = 1; d < D; d++) most = x[d] > most ? x[d] : most;
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

static void NAME(look)(const struct look *c, int64_t row)
{
    if (c->targets) {
        NAME(score)(c, row);
        return;
    }
    const int64_t D = c->size, given = c->lengths ? c->lengths[row] : c->steps;
    const int64_t length = given < 0 ? 0 : given > c->steps ? c->steps : given;
    const R *x = (const R *)c->x + row * c->steps * D;
    if (c->norms) {
        const R *before = (const R *)c->before + row * c->steps * D;
        R *norms = c->norms;
        NAME(moves)(x, before, length * D, norms + row, norms + c->count + row);
    }
    if (c->pooled) {
        R *pooled = (R *)c->pooled + row * 2 * D;
        NAME(pool)(x, length, D, (R)c->epsilon, pooled, pooled + D);
    }
}

#undef MOVES
