/* Ed25519 verification, one thread per signature. Spec: spec/signatures.md#verdict
 *
 * [S]B + [h](-A): 64 windows of 4 bits of h from the highest, each one addition of a multiple of -A
 * out of a table of nine that the thread makes, then four doublings; at every second window one
 * addition of a multiple of B out of a fixed table of 129, by 8 bits of S. Digits are signed, so a
 * table holds half of the multiples; digit 0 is a row of its own, the neutral point. Nothing is
 * secret: rows are read at the places that digits say.
 *
 * A thread's table stands in device memory, rows of consecutive bytes: threads of a warp read rows
 * of different digits, and of memory that is interleaved by thread each word would cost a sector of
 * its own. The table of B stands in shared memory. A thread whose signature is refused early returns.
 *
 * The formulas are those of kernels/curve25519.py; `ed25519_field.cuh` says what *whole* and
 * *reduced* mean. A completed point (E, F, G, H) has X = E F, Y = G H, Z = F G, T = E H.
 */

enum {
    WINDOWS = 64,
    KEY_ENTRIES = 9,
    ENTRY_WORDS = 4 * WORDS,
    /* Behind the entries of a thread's table: h and S as windows, which registers have no room for. */
    H_WORDS = KEY_ENTRIES * ENTRY_WORDS,
    S_WORDS = H_WORDS + WORDS,
    KEY_TABLE_WORDS = S_WORDS + WORDS,
    AFFINE_WORDS = 3 * WORDS,
};

struct Completed {
    Element e, f, g, h;
};

struct Point {
    Element x, y, z;
};

DEVICE Element load(const u32 *place) {
    Element answer;
#ifdef __CUDACC__
    uint4 low = ((const uint4 *)place)[0], high = ((const uint4 *)place)[1];
    answer.word[0] = low.x, answer.word[1] = low.y, answer.word[2] = low.z, answer.word[3] = low.w;
    answer.word[4] = high.x, answer.word[5] = high.y, answer.word[6] = high.z;
    answer.word[7] = high.w;
#else
    for (int k = 0; k < WORDS; k++) answer.word[k] = place[k];
#endif
    return answer;
}

DEVICE void store(u32 *place, const Element &a) {
#ifdef __CUDACC__
    ((uint4 *)place)[0] = make_uint4(a.word[0], a.word[1], a.word[2], a.word[3]);
    ((uint4 *)place)[1] = make_uint4(a.word[4], a.word[5], a.word[6], a.word[7]);
#else
    for (int k = 0; k < WORDS; k++) place[k] = a.word[k];
#endif
}

DEVICE Element small(u32 number) {
    Element answer = {{number, 0, 0, 0, 0, 0, 0, 0}};
    return answer;
}

DEVICE Element constant(const u32 *words) {
    Element answer;
    UNROLL for (int k = 0; k < WORDS; k++) answer.word[k] = words[k];
    return answer;
}

DEVICE Element negated_where(bool negative, const Element &a) {
    Element answer = subtract(constant(TWICE_P), a);
    UNROLL for (int k = 0; k < WORDS; k++) answer.word[k] = negative ? answer.word[k] : a.word[k];
    return answer;
}

DEVICE Point projective(const Completed &p) {
    Point answer = {multiply(p.e, p.f), multiply(p.g, p.h), multiply(p.f, p.g)};
    return answer;
}

/* Answers 2 P, all four signs turned, which their products do not show. x, y, z: reduced. */
DEVICE Completed doubled(const Point &p) {
    Element both = square(add_reduced(p.x, p.y));
    Element xx = square(p.x), yy = square(p.y), zz = square(p.z);
    Completed answer;
    answer.h = add_reduced(xx, yy);
    answer.g = subtract(xx, yy);
    answer.e = subtract(answer.h, both);
    answer.f = add(answer.g, add_reduced(zz, zz));
    return answer;
}

/* Answers P + Q; z_twice: 2 Z Z', whole; row: Y + X, Y - X, 2 d T of Q; all else reduced.
 * `negative` adds -Q: its sums change places and its T changes sign. */
DEVICE Completed added(const Point &p, const Element &t, const Element &z_twice, const u32 *row,
                       bool negative) {
    const u32 *sum = negative ? row + WORDS : row, *difference = negative ? row : row + WORDS;
    Element a = multiply(subtract(p.y, p.x), load(difference));
    Element b = multiply(add_reduced(p.y, p.x), load(sum));
    Element c = multiply(t, negated_where(negative, load(row + 2 * WORDS)));
    Completed answer;
    answer.e = subtract(b, a);
    answer.f = subtract(z_twice, c);
    answer.g = add(z_twice, c);
    answer.h = add_reduced(b, a);
    return answer;
}

/* Decodes -A: x and y, reduced. Answers whether the words are a point; y < p and the point not of
 * small order, so that x is not 0, are checked before. Spec: spec/signatures.md#verdict, 3. */
DEVICE bool decode_negated(const u32 *words, Element &x, Element &y) {
    y = constant(words);
    y.word[7] &= 0x7fffffffu;
    const Element one = small(1);
    Element yy = square(y);
    Element u = subtract(yy, one), v = add(multiply(yy, constant(CURVE_D)), one);
    Element vv = square(v);
    Element root = multiply(u, multiply(vv, v));
    x = multiply(root, root_power(multiply(root, square(vv))));
    Element found = canonical(multiply(v, square(x)));
    u = canonical(u);
    bool is_root = is_equal(found, u);
    bool is_other = is_equal(canonical(subtract(small(0), found)), u);
    Element other = multiply(x, constant(SQRT_MINUS_ONE));
    UNROLL for (int k = 0; k < WORDS; k++) x.word[k] = is_root ? x.word[k] : other.word[k];
    x = canonical(x);
    x = canonical(negated_where((x.word[0] & 1) == words[7] >> 31, x));
    return is_root || is_other;
}

DEVICE void store_entry(u32 *row, const Point &p, const Element &t) {
    store(row, add_reduced(p.y, p.x));
    store(row + WORDS, subtract(p.y, p.x));
    store(row + 2 * WORDS, multiply(t, constant(CURVE_2D)));
    store(row + 3 * WORDS, add_reduced(p.z, p.z));
}

/* Writes the multiples 0 to 8 of (x, y). */
DEVICE void make_table(u32 *table, const Element &x, const Element &y) {
    const Element one = small(1), zero = small(0);
    const Point neutral = {zero, one, one};
    store_entry(table, neutral, zero);
    Point point = {x, y, one};
    Element t = multiply(x, y);
    ROLLED for (int k = 1;; k++) {
        store_entry(table + k * ENTRY_WORDS, point, t);
        if (k + 1 == KEY_ENTRIES) break;
        Element z_twice = add_reduced(point.z, point.z);
        Completed next = added(point, t, z_twice, table + ENTRY_WORDS, false);
        point = projective(next);
        t = multiply(next.e, next.h);
    }
}

/* Answers the size of a window's digit. held: the digit plus `half`. */
DEVICE u32 digit_size(u32 held, u32 half, bool &negative) {
    negative = held < half;
    return negative ? half - held : held - half;
}

/* Answers [s]B + [h]P. table: of P, with the windows of s and h. */
DEVICE Point multiply_both(const u32 *table, const u32 *base) {
    Point point = {small(0), small(1), small(1)};
    Element t = small(0);
    bool negative;
    ROLLED for (int window = WINDOWS - 1;; window--) {
        bool is_last = window == WINDOWS - 1;
        u32 held = table[H_WORDS + window / 8] >> window % 8 * 4 & 15;
        u32 size = digit_size(held, is_last ? 0 : 8, negative);
        const u32 *row = table + size * ENTRY_WORDS;
        Element z_twice = multiply(point.z, load(row + 3 * WORDS));
        Completed next = added(point, t, z_twice, row, negative);
        point = projective(next);
        if (window % 2 == 0) {
            t = multiply(next.e, next.h);
            held = table[S_WORDS + window / 8] >> window % 8 * 4 & 255;
            size = digit_size(held, window == WINDOWS - 2 ? 0 : 128, negative);
            z_twice = add_reduced(point.z, point.z);
            next = added(point, t, z_twice, base + size * AFFINE_WORDS, negative);
            point = projective(next);
        }
        if (window == 0) break;
        ROLLED for (int i = 0; i < 4; i++) {
            next = doubled(point);
            point = projective(next);
        }
        t = multiply(next.e, next.h);
    }
    return point;
}

/* Says whether S < L, y of A < p, and neither A nor R is the encoding of a point of small order.
 * Spec: spec/signatures.md#verdict, 1, 2 and the beginning of 3. */
DEVICE bool is_admitted(const u32 *key, const u32 *signature) {
    const Element a = constant(key), r = constant(signature), s = constant(signature + WORDS);
    Element y = a;
    y.word[7] &= 0x7fffffffu;
    return is_below(s.word, ORDER) && is_below(y.word, PRIME) && !is_small_order(a.word) &&
           !is_small_order(r.word);
}

/* Writes h and S as windows behind the entries of a table. */
DEVICE void store_windows(u32 *table, const u32 *key, const u32 *signature, const u8 *message,
                          u32 length, bool wide) {
    u32 hash[2 * WORDS];
    Element h, s = constant(signature + WORDS);
    const Hashed source = {signature, key, message, length, wide};
    digest(source, hash);
    reduce_order(hash, h.word);
    add_words<WORDS>(h.word, OFFSET_4);
    add_words<WORDS>(s.word, OFFSET_8);
    store(table + H_WORDS, h);
    store(table + S_WORDS, s);
}

/* Answers the verdict on one signature.
 * table: KEY_TABLE_WORDS words of this thread alone; base: the table of B; both at 16 bytes. */
DEVICE bool is_valid(const u32 *key, const u32 *signature, const u8 *message, u32 length, bool wide,
                     u32 *table, const u32 *base) {
    if (!is_admitted(key, signature)) return false;
    store_windows(table, key, signature, message, length, wide);
    {
        Element x, y;
        if (!decode_negated(key, x, y)) return false;
        make_table(table, x, y);
    }
    Point point = multiply_both(table, base);
    Element inverse = invert(point.z);
    Element x = canonical(multiply(point.x, inverse));
    Element encoded = canonical(multiply(point.y, inverse));
    encoded.word[7] |= x.word[0] << 31;
    return is_equal(encoded, constant(signature));
}

#ifdef __CUDACC__

/* Writes 1 to `verdicts` for each valid signature of `count` rows, else 0. messages: rows of
 * `length` bytes; wide: they and `length` are multiples of 8; tables: KEY_TABLE_WORDS per thread of
 * the launch. */
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS_PER_SM)
    verify(const u32 *__restrict__ keys, const u32 *__restrict__ signatures,
           const u8 *__restrict__ messages, u32 length, u32 wide, u32 count, u32 *tables,
           u8 *__restrict__ verdicts) {
    __shared__ uint4 base[BASE_ENTRIES * AFFINE_WORDS / 4];
    for (u32 i = threadIdx.x; i < BASE_ENTRIES * AFFINE_WORDS / 4; i += blockDim.x) {
        base[i] = ((const uint4 *)BASE_TABLE)[i];
    }
    __syncthreads();
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= count) return;
    verdicts[row] = is_valid(keys + (u64)row * WORDS, signatures + (u64)row * 2 * WORDS,
                             messages + (u64)row * length, length, wide != 0,
                             tables + (u64)row * KEY_TABLE_WORDS, (const u32 *)base);
}

#else

extern "C" void verify(const u32 *keys, const u32 *signatures, const u8 *messages, u32 length,
                       u32 wide, u32 count, u8 *verdicts) {
    u32 table[KEY_TABLE_WORDS];
    for (u32 row = 0; row < count; row++) {
        verdicts[row] = is_valid(keys + (u64)row * WORDS, signatures + (u64)row * 2 * WORDS,
                                 messages + (u64)row * length, length, wide != 0, table,
                                 BASE_TABLE[0]);
    }
}

#endif

#ifdef PROBES

enum { MULTIPLY, SQUARE, ADD_REDUCED, ADD, SUBTRACT, CANONICAL, INVERT, REDUCE_ORDER, IS_ADMITTED };

/* Writes what one function answers of row a (16 words) and row b (8 words), for tests. */
DEVICE void probe_row(u32 which, const u32 *a, const u32 *b, u32 *out) {
    Element x = constant(a), y = constant(b), answer = x;
    if (which == MULTIPLY) answer = multiply(x, y);
    if (which == SQUARE) answer = square(x);
    if (which == ADD_REDUCED) answer = add_reduced(x, y);
    if (which == ADD) answer = add(x, y);
    if (which == SUBTRACT) answer = subtract(x, y);
    if (which == CANONICAL) answer = canonical(x);
    if (which == INVERT) answer = invert(x);
    if (which == REDUCE_ORDER) reduce_order(a, answer.word);
    if (which == IS_ADMITTED) answer = small(is_admitted(b, a));
    for (int k = 0; k < WORDS; k++) out[k] = answer.word[k];
}

#ifdef __CUDACC__
extern "C" __global__ void probe(u32 which, u32 count, const u32 *a, const u32 *b, u32 *out) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < count) probe_row(which, a + row * 16, b + row * 8, out + row * 8);
}
#else
extern "C" void probe(u32 which, u32 count, const u32 *a, const u32 *b, u32 *out) {
    for (u32 row = 0; row < count; row++) probe_row(which, a + row * 16, b + row * 8, out + row * 8);
}
#endif

#endif
