/* A small fully connected network over rows, for one TYPE and one instruction set; included by
   native_rule.h, whose macros it uses. Rows run through all layers a few at a time, so that weights are
   read as often less; every sum goes over the inputs in order, so that what a row gives does not depend
   on the rows beside it. */

#define PAIR 2 /* vectors of outputs that are summed together */

/* tanh x, to a few units of the last place of 1. */
INLINE VEC NAME(tangent)(VEC x) { return 1 - 2 / (1 + NAME(exponential)(2 * x)); }

/* Rows row .. row + N through all layers; the room of a row is `widest` wide. */
#define THROUGH(N)                                                                                 \
    static void NAME(dense##N)(const struct dense *c, int64_t row)                                 \
    {                                                                                              \
        const R *in = (const R *)c->x + row * c->sizes[0];                                         \
        int64_t apart = c->sizes[0];                                                               \
        for (int64_t layer = 0; layer < c->layers; layer++) {                                      \
            const int64_t I = c->sizes[layer], O = padded(c->sizes[layer + 1], LANES);             \
            const R *w = c->weights[layer], *b = c->biases[layer];                                 \
            R *out = (R *)c->room + layer % 2 * TOGETHER * c->widest;                              \
            for (int64_t at = 0; at < O; at += PAIR * VECTOR) {                                    \
                VEC sum[N][PAIR];                                                                  \
                UNROLL for (int n = 0; n < N; n++)                                                 \
                    UNROLL for (int k = 0; k < PAIR; k++) sum[n][k] = GET(b + at, k);              \
                for (int64_t i = 0; i < I; i++)                                                    \
                    UNROLL for (int n = 0; n < N; n++)                                             \
                        UNROLL for (int k = 0; k < PAIR; k++)                                      \
                            sum[n][k] += in[n * apart + i] * GET(w + i * O + at, k);               \
                UNROLL for (int n = 0; n < N; n++)                                                 \
                    UNROLL for (int k = 0; k < PAIR; k++)                                          \
                        AT(out + n * c->widest + at, k) = NAME(between)(c, layer, sum[n][k]);      \
            }                                                                                      \
            in = out;                                                                              \
            apart = c->widest;                                                                     \
        }                                                                                          \
        const int64_t last = c->sizes[c->layers];                                                  \
        for (int n = 0; n < N; n++)                                                                \
            memcpy((R *)c->y + (row + n) * last, in + n * apart, last * sizeof(R));                \
    }

/* What goes from a layer to the next. */
INLINE VEC NAME(between)(const struct dense *c, int64_t layer, VEC x)
{
    return layer + 1 == c->layers ? x : c->relu ? NAME(positive)(x) : NAME(tangent)(x);
}

THROUGH(1)
THROUGH(4) /* TOGETHER */

static void NAME(dense)(const struct dense *c)
{
    int64_t row = 0;
    for (; row + TOGETHER <= c->count; row += TOGETHER) NAME(dense4)(c, row);
    for (; row < c->count; row++) NAME(dense1)(c, row);
}

#undef THROUGH
#undef PAIR
