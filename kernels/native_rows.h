/* Row by row what a block does between its products, for one TYPE and one instruction set; included
   by native_rule.h, whose macros it uses.

   Rows are contiguous, their sizes multiples of VECTOR. Sums over a row run in a fixed order, and gradients of what all rows share are
   summed block by block (ROWS_AT_ONCE rows, see native.c), so that threads do not change a bit. */

/* As many whole numbers, as comparisons of vectors give them: all bits set where true. */
typedef WHOLE NAME(whole) __attribute__((vector_size(VECTOR * sizeof(TYPE))));

/* a where the mask is set, else b. */
INLINE VEC NAME(choose)(NAME(whole) mask, VEC a, VEC b)
{
    return (VEC)((mask & (NAME(whole))a) | (~mask & (NAME(whole))b));
}

#define LOAD(x) GET((x) + column, 0)
#define STORE(x, value) (AT((x) + column, 0) = (value))
#define COLUMNS for (int64_t column = 0; column < D; column += VECTOR)

/* e^x for x within what does not overflow (others are cut to that); NaN stays NaN. A Taylor series
   around the nearest multiple of ln 2, to the last bits of TYPE. */
INLINE VEC NAME(exponential)(VEC x)
{
    const int narrow = sizeof(R) == 4;
    const R low = narrow ? -87 : -700, high = narrow ? 88 : 700;
    const R magic = narrow ? (R)12582912.0 : (R)6755399441055744.0; /* 1.5 * 2^23, 1.5 * 2^52 */
    x = NAME(choose)(x < low, (VEC){0} + low, x);
    x = NAME(choose)(x > high, (VEC){0} + high, x);
    VEC n = (x * (R)1.4426950408889634 + magic) - magic;
    VEC rest = x - n * (R)0.693145751953125; /* few bits, so that the product is exact */
    rest -= n * (R)1.42860682030941723212e-6;
    VEC sum;
    if (narrow) { /* in pairs, so that products need not wait for each other */
        VEC square = rest * rest, low_half = (1 + rest) + square * ((R)(1 / 2.) + rest * (R)(1 / 6.));
        VEC high_half = ((R)(1 / 24.) + rest * (R)(1 / 120.)) + square * ((R)(1 / 720.) + rest * (R)(1 / 5040.));
        sum = low_half + square * square * high_half;
    } else {
        sum = (VEC){0} + 1;
        UNROLL for (int k = 13; k > 0; k--) sum = 1 + sum * rest * (1 / (R)k);
    }
    NAME(whole) bits = __builtin_convertvector(n, NAME(whole));
    bits = (bits + (narrow ? 127 : 1023)) << (narrow ? 23 : 52);
    VEC scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

INLINE VEC NAME(sigmoid)(VEC x) { return 1 / (1 + NAME(exponential)(-x)); }

/* x / (1 + e^-x), and its derivative. */
INLINE VEC NAME(silu)(VEC x) { return x * NAME(sigmoid)(x); }
INLINE VEC NAME(d_silu)(VEC x)
{
    VEC s = NAME(sigmoid)(x);
    return s * (1 + x * (1 - s));
}

INLINE R NAME(sum_of_products)(const R *a, const R *b, int64_t D)
{
    VEC sum = {0};
    COLUMNS sum += LOAD(a) * LOAD(b);
    return NAME(across)(sum);
}

/* y = x * gain / rms(x) [* silu(gate)] for rows first .. last; gate may be NULL. */
static void NAME(norm)(const struct rows *c, int64_t first, int64_t last)
{
    const int64_t D = c->size;
    const R *gain = c->gain;
    for (int64_t row = first; row < last; row++) {
        const R *x = (const R *)c->x + row * D;
        const R *gate = c->gate ? (const R *)c->gate + row * D : NULL;
        R *y = (R *)c->y + row * D;
        R scale = 1 / (R)sqrt(NAME(sum_of_products)(x, x, D) / D + (R)c->epsilon);
        ((R *)c->scale)[row] = scale;
        if (gate)
            COLUMNS STORE(y, LOAD(x) * scale * LOAD(gain) * NAME(silu)(LOAD(gate)));
        else
            COLUMNS STORE(y, LOAD(x) * scale * LOAD(gain));
    }
}

/* The gradients of x [and gate], and of the gain summed over these rows into `sum` [D]. */
static void NAME(norm_back)(const struct rows *c, int64_t first, int64_t last, R *sum)
{
    const int64_t D = c->size;
    const R *gain = c->gain;
    memset(sum, 0, D * sizeof(R));
    for (int64_t row = first; row < last; row++) {
        const R *x = (const R *)c->x + row * D, *d_y = (const R *)c->d_y + row * D;
        R *d_x = (R *)c->d_x + row * D, scale = ((const R *)c->scale)[row];
        VEC along = {0};
        if (c->gate) {
            const R *gate = (const R *)c->gate + row * D;
            R *d_gate = (R *)c->d_gate + row * D;
            COLUMNS {
                VEC z = LOAD(gate), s = NAME(sigmoid)(z), d = LOAD(d_y), normal = LOAD(x) * scale;
                VEC d_normal = d * z * s;
                STORE(d_gate, d * normal * LOAD(gain) * s * (1 + z * (1 - s)));
                STORE(sum, LOAD(sum) + d_normal * normal);
                STORE(d_x, d_normal * LOAD(gain));
                along += d_normal * LOAD(gain) * normal;
            }
        } else {
            COLUMNS {
                VEC d = LOAD(d_y), normal = LOAD(x) * scale;
                STORE(sum, LOAD(sum) + d * normal);
                STORE(d_x, d * LOAD(gain));
                along += d * LOAD(gain) * normal;
            }
        }
        R mean = NAME(across)(along) / D;
        COLUMNS STORE(d_x, (LOAD(d_x) - LOAD(x) * (scale * mean)) * scale);
    }
}

/* max(x, 0); NaN stays NaN. */
INLINE VEC NAME(positive)(VEC x) { return NAME(choose)(x < 0, (VEC){0}, x); }

/* y = max(x, 0)^2. */
static void NAME(square)(const struct rows *c, int64_t first, int64_t last)
{
    const int64_t D = (last - first) * c->size;
    const R *x = (const R *)c->x + first * c->size;
    R *y = (R *)c->y + first * c->size;
    COLUMNS {
        VEC kept = NAME(positive)(LOAD(x));
        STORE(y, kept * kept);
    }
}
static void NAME(square_back)(const struct rows *c, int64_t first, int64_t last)
{
    const int64_t D = (last - first) * c->size;
    const R *x = (const R *)c->x + first * c->size, *d_y = (const R *)c->d_y + first * c->size;
    R *d_x = (R *)c->d_x + first * c->size;
    COLUMNS {
        VEC kept = NAME(positive)(LOAD(x));
        STORE(d_x, 2 * kept * LOAD(d_y));
    }
}

/* silu of a row of `heads` * (2 K + V) numbers: q and k of each head brought to length 1, v as it
   is. */
static void NAME(split)(const struct rows *c, int64_t first, int64_t last)
{
    const int64_t keys = 2 * c->heads, V = c->heads * c->value;
    for (int64_t row = first; row < last; row++) {
        const R *x = (const R *)c->x + row * (keys * c->size + V);
        for (int64_t head = 0; head < keys; head++, x += c->size) {
            const int64_t D = c->size, half = head / c->heads;
            R *y = (R *)(half ? c->k : c->q) + (row * c->heads + head % c->heads) * D;
            VEC sum = {0};
            COLUMNS {
                VEC value = NAME(silu)(LOAD(x));
                sum += value * value;
                STORE(y, value);
            }
            R size = (R)sqrt(NAME(across)(sum));
            R scale = 1 / (size < (R)c->epsilon ? (R)c->epsilon : size);
            ((R *)c->scale)[row * keys + head] = size < (R)c->epsilon ? -scale : scale;
            COLUMNS STORE(y, LOAD(y) * scale);
        }
        const int64_t D = V;
        R *y = (R *)c->y + row * V;
        COLUMNS STORE(y, NAME(silu)(LOAD(x)));
    }
}
static void NAME(split_back)(const struct rows *c, int64_t first, int64_t last)
{
    const int64_t keys = 2 * c->heads, V = c->heads * c->value;
    for (int64_t row = first; row < last; row++) {
        const R *x = (const R *)c->x + row * (keys * c->size + V);
        R *d_x = (R *)c->d_x + row * (keys * c->size + V);
        for (int64_t head = 0; head < keys; head++, x += c->size, d_x += c->size) {
            const int64_t D = c->size, half = head / c->heads;
            int64_t at = (row * c->heads + head % c->heads) * D;
            const R *y = (const R *)(half ? c->k : c->q) + at;
            const R *d_y = (const R *)(half ? c->d_k : c->d_q) + at;
            /* Negative: too short to be brought to length 1, so divided by a constant. */
            R scale = ((const R *)c->scale)[row * keys + head];
            R along = scale > 0 ? NAME(sum_of_products)(y, d_y, D) : 0;
            scale = scale > 0 ? scale : -scale;
            COLUMNS STORE(d_x, (LOAD(d_y) - LOAD(y) * along) * scale * NAME(d_silu)(LOAD(x)));
        }
        const int64_t D = V;
        const R *d_y = (const R *)c->d_y + row * V;
        COLUMNS STORE(d_x, LOAD(d_y) * NAME(d_silu)(LOAD(x)));
    }
}

/* Add the sums of the blocks up, in order. */
static void NAME(total)(const struct rows *c, int64_t blocks)
{
    R *to = c->d_gain;
    memset(to, 0, c->size * sizeof(R));
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t d = 0; d < c->size; d++)
            to[d] += ((const R *)c->sums)[block * c->size + d];
}

/* One of the ways above over rows first .. last of block `block`; or the total of `block` blocks. */
static void NAME(rows)(const struct rows *c, int way, int64_t block, int64_t first, int64_t last)
{
    switch (way) {
    case NORM: NAME(norm)(c, first, last); break;
    case NORM_BACK: NAME(norm_back)(c, first, last, (R *)c->sums + block * c->size); break;
    case SQUARE: NAME(square)(c, first, last); break;
    case SQUARE_BACK: NAME(square_back)(c, first, last); break;
    case SPLIT: NAME(split)(c, first, last); break;
    case SPLIT_BACK: NAME(split_back)(c, first, last); break;
    case TOTAL: NAME(total)(c, block); break;
    }
}

#undef LOAD
#undef STORE
#undef COLUMNS
