/* Integers modulo p = 2^255 - 19 in eight words of 32 bits, one number per thread.
 *
 * Eight words of 32 bits need 64 products; five limbs of 51 bits would need 25 products of 64 bits,
 * which the device makes of four each, and ten limbs of 25.5 bits need 100. What whole words cost is
 * carries, and those are nearly free here: `mad.lo.cc` with `madc.hi.cc` on a register pair is one
 * instruction that multiplies, adds 64 bits and passes a carry on. For that, products must stand at
 * pairs. So those whose place is even gather in one row of words and those whose place is odd in
 * another, which counts 2^32 times as much; both rows meet once, after the fold.
 *
 * Bounds. *whole*: any eight words, below 2^256. *reduced*: below 2^255 + 2^11; what `multiply` and
 * `square` answer. *canonical*: below p. Every function that takes a whole number takes any.
 *
 * The fold. A product counts even + 2^32 odd + 2^256 hi, and 2^256 = 38. Of a multiplication, even
 * and 2^32 odd are each below 2^256 (odd has seven words then); of a square, the two are one row of
 * eight words, and its carries left up to 3 times 2^256. So even + 2^32 odd + 38 hi < 42 * 2^256: at
 * most 41 times 2^256 stand above eight words; with the bit 2^255, at most 83 times 2^255 = 19, and
 * 2^255 + 19 * 83 is reduced.
 *
 * Compiled for the host (without __CUDACC__), the same functions run on words of 64 bits instead of
 * carry flags; `tests/kernels/gpu` runs both.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#define SPECIAL __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#else
#define DEVICE static inline
#define UNROLL
#define ROLLED
#endif

enum { WORDS = 8 };

struct Element {
    u32 word[WORDS];
};

/* Carry chains: inline PTX on the device. Every operand that is written is marked as written early,
 * for the inputs of later instructions are still to be read. */

#ifdef __CUDACC__

/* acc[2 k], acc[2 k + 1] += a[k] * b[k] for k < N; answers the carry. */
template <int N> DEVICE u32 multiply_add(u32 *acc, const u32 *a, const u32 *b);

template <> SPECIAL u32 multiply_add<1>(u32 *acc, const u32 *a, const u32 *b) {
    u32 carry;
    asm("mad.lo.cc.u32 %0, %3, %4, %0;\n\t"
        "madc.hi.cc.u32 %1, %3, %4, %1;\n\t"
        "addc.u32 %2, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "=&r"(carry)
        : "r"(a[0]), "r"(b[0]));
    return carry;
}

template <> SPECIAL u32 multiply_add<2>(u32 *acc, const u32 *a, const u32 *b) {
    u32 carry;
    asm("mad.lo.cc.u32 %0, %5, %7, %0;\n\t"
        "madc.hi.cc.u32 %1, %5, %7, %1;\n\t"
        "madc.lo.cc.u32 %2, %6, %8, %2;\n\t"
        "madc.hi.cc.u32 %3, %6, %8, %3;\n\t"
        "addc.u32 %4, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "=&r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(b[0]), "r"(b[1]));
    return carry;
}

template <> SPECIAL u32 multiply_add<3>(u32 *acc, const u32 *a, const u32 *b) {
    u32 carry;
    asm("mad.lo.cc.u32 %0, %7, %10, %0;\n\t"
        "madc.hi.cc.u32 %1, %7, %10, %1;\n\t"
        "madc.lo.cc.u32 %2, %8, %11, %2;\n\t"
        "madc.hi.cc.u32 %3, %8, %11, %3;\n\t"
        "madc.lo.cc.u32 %4, %9, %12, %4;\n\t"
        "madc.hi.cc.u32 %5, %9, %12, %5;\n\t"
        "addc.u32 %6, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "+&r"(acc[4]),
          "+&r"(acc[5]), "=&r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(b[0]), "r"(b[1]), "r"(b[2]));
    return carry;
}

template <> SPECIAL u32 multiply_add<4>(u32 *acc, const u32 *a, const u32 *b) {
    u32 carry;
    asm("mad.lo.cc.u32 %0, %9, %13, %0;\n\t"
        "madc.hi.cc.u32 %1, %9, %13, %1;\n\t"
        "madc.lo.cc.u32 %2, %10, %14, %2;\n\t"
        "madc.hi.cc.u32 %3, %10, %14, %3;\n\t"
        "madc.lo.cc.u32 %4, %11, %15, %4;\n\t"
        "madc.hi.cc.u32 %5, %11, %15, %5;\n\t"
        "madc.lo.cc.u32 %6, %12, %16, %6;\n\t"
        "madc.hi.cc.u32 %7, %12, %16, %7;\n\t"
        "addc.u32 %8, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "+&r"(acc[4]),
          "+&r"(acc[5]), "+&r"(acc[6]), "+&r"(acc[7]), "=&r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]));
    return carry;
}

/* Answers a * b. */
DEVICE u64 multiply_wide(u32 a, u32 b) {
    u64 product;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
    return product;
}

/* acc += a, N words; answers the carry. */
template <int N> DEVICE u32 add_words(u32 *acc, const u32 *a);

template <> SPECIAL u32 add_words<7>(u32 *acc, const u32 *a) {
    u32 carry;
    asm("add.cc.u32 %0, %0, %8;\n\t"
        "addc.cc.u32 %1, %1, %9;\n\t"
        "addc.cc.u32 %2, %2, %10;\n\t"
        "addc.cc.u32 %3, %3, %11;\n\t"
        "addc.cc.u32 %4, %4, %12;\n\t"
        "addc.cc.u32 %5, %5, %13;\n\t"
        "addc.cc.u32 %6, %6, %14;\n\t"
        "addc.u32 %7, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "+&r"(acc[4]),
          "+&r"(acc[5]), "+&r"(acc[6]), "=&r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]));
    return carry;
}

template <> SPECIAL u32 add_words<8>(u32 *acc, const u32 *a) {
    u32 carry;
    asm("add.cc.u32 %0, %0, %9;\n\t"
        "addc.cc.u32 %1, %1, %10;\n\t"
        "addc.cc.u32 %2, %2, %11;\n\t"
        "addc.cc.u32 %3, %3, %12;\n\t"
        "addc.cc.u32 %4, %4, %13;\n\t"
        "addc.cc.u32 %5, %5, %14;\n\t"
        "addc.cc.u32 %6, %6, %15;\n\t"
        "addc.cc.u32 %7, %7, %16;\n\t"
        "addc.u32 %8, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "+&r"(acc[4]),
          "+&r"(acc[5]), "+&r"(acc[6]), "+&r"(acc[7]), "=&r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
    return carry;
}

/* acc -= a, eight words; answers 2^32 - 1 where it fell below zero, else 0. */
DEVICE u32 subtract_words(u32 *acc, const u32 *a) {
    u32 borrow;
    asm("sub.cc.u32 %0, %0, %9;\n\t"
        "subc.cc.u32 %1, %1, %10;\n\t"
        "subc.cc.u32 %2, %2, %11;\n\t"
        "subc.cc.u32 %3, %3, %12;\n\t"
        "subc.cc.u32 %4, %4, %13;\n\t"
        "subc.cc.u32 %5, %5, %14;\n\t"
        "subc.cc.u32 %6, %6, %15;\n\t"
        "subc.cc.u32 %7, %7, %16;\n\t"
        "subc.u32 %8, 0, 0;"
        : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "+&r"(acc[4]),
          "+&r"(acc[5]), "+&r"(acc[6]), "+&r"(acc[7]), "=&r"(borrow)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
    return borrow;
}

#else

template <int N> DEVICE u32 multiply_add(u32 *acc, const u32 *a, const u32 *b) {
    u64 carry = 0;
    for (int k = 0; k < N; k++) {
        u64 product = (u64)a[k] * b[k];
        u64 low = (u64)acc[2 * k] + (u32)product + carry;
        u64 high = (u64)acc[2 * k + 1] + (product >> 32) + (low >> 32);
        acc[2 * k] = (u32)low;
        acc[2 * k + 1] = (u32)high;
        carry = high >> 32;
    }
    return (u32)carry;
}

DEVICE u64 multiply_wide(u32 a, u32 b) { return (u64)a * b; }

template <int N> DEVICE u32 add_words(u32 *acc, const u32 *a) {
    u64 carry = 0;
    for (int k = 0; k < N; k++) {
        carry += (u64)acc[k] + a[k];
        acc[k] = (u32)carry;
        carry >>= 32;
    }
    return (u32)carry;
}

DEVICE u32 subtract_words(u32 *acc, const u32 *a) {
    u64 borrow = 0;
    for (int k = 0; k < WORDS; k++) {
        u64 difference = (u64)acc[k] - a[k] - borrow;
        acc[k] = (u32)difference;
        borrow = difference >> 63;
    }
    return (u32)(0 - borrow);
}

#endif

/* acc[2 k], acc[2 k + 1] = a[k] * b for k < N. */
template <int N> DEVICE void multiply_pairs(u32 *acc, const u32 *a, u32 b) {
    UNROLL for (int k = 0; k < N; k++) {
        u64 product = multiply_wide(a[k], b);
        acc[2 * k] = (u32)product;
        acc[2 * k + 1] = (u32)(product >> 32);
    }
}

/* acc[2 k], acc[2 k + 1] += a[k] * b for k < N; answers the carry. */
template <int N> DEVICE u32 multiply_add_row(u32 *acc, const u32 *a, u32 b) {
    u32 same[N];
    UNROLL for (int k = 0; k < N; k++) same[k] = b;
    return multiply_add<N>(acc, a, same);
}

/* acc += small, eight words; answers the carry. */
DEVICE u32 add_small(u32 *acc, u32 small) {
    const u32 words[WORDS] = {small, 0, 0, 0, 0, 0, 0, 0};
    return add_words<WORDS>(acc, words);
}

/* Ends the fold: answers lo + 2^32 odd + 2^256 above, reduced; odd[7] counts 2^256, too. */
DEVICE Element finish(u32 *lo, const u32 *odd, u32 above) {
    u32 carry = add_words<7>(lo + 1, odd);
    u32 top = odd[7] + above + carry;
    u32 over = top << 1 | lo[7] >> 31;
    lo[7] &= 0x7fffffffu;
    add_small(lo, 19 * over);
    Element answer;
    UNROLL for (int k = 0; k < WORDS; k++) answer.word[k] = lo[k];
    return answer;
}

/* Answers a * b, reduced. a, b: whole. */
DEVICE Element multiply(const Element &a, const Element &b) {
    u32 even[16], odd[16];
    const u32 lows[4] = {a.word[0], a.word[2], a.word[4], a.word[6]};
    const u32 highs[4] = {a.word[1], a.word[3], a.word[5], a.word[7]};
    multiply_pairs<4>(even, lows, b.word[0]);
    multiply_pairs<4>(odd, highs, b.word[0]);
    even[8] = even[9] = 0;
    UNROLL for (int j = 1; j < WORDS; j += 2) {
        multiply_add_row<4>(even + j + 1, highs, b.word[j]);
        odd[j + 7] = multiply_add_row<4>(odd + j - 1, lows, b.word[j]);
        odd[j + 8] = 0;
        if (j + 1 < WORDS) {
            even[j + 9] = multiply_add_row<4>(even + j + 1, lows, b.word[j + 1]);
            even[j + 10] = 0;
            multiply_add_row<4>(odd + j + 1, highs, b.word[j + 1]);
        }
    }
    /* The even row above 2^256 meets the odd one now: the fold wants each word once. */
    u32 *hi = even + 8;
    add_words<8>(hi, odd + 7);
    const u32 fold[4] = {hi[0], hi[2], hi[4], hi[6]}, fold_odd[4] = {hi[1], hi[3], hi[5], hi[7]};
    u32 above = multiply_add_row<4>(even, fold, 38);
    odd[7] = 0;
    multiply_add_row<4>(odd, fold_odd, 38);
    return finish(even, odd, above);
}

/* Answers a * a, reduced. a: whole. Products of two different words are made once and doubled. */
DEVICE Element square(const Element &a) {
    const u32 *w = a.word;
    u32 even[16], odd[16];
    {
        const u32 at_odd[4] = {w[1], w[3], w[5], w[7]}, at_even[3] = {w[2], w[4], w[6]};
        multiply_pairs<4>(odd, at_odd, w[0]);
        multiply_pairs<3>(even + 2, at_even, w[0]);
        odd[8] = multiply_add_row<3>(odd + 2, at_even, w[1]);
        even[8] = even[9] = odd[9] = 0;
        multiply_add_row<3>(even + 4, at_odd + 1, w[1]);
        multiply_add_row<3>(odd + 4, at_odd + 1, w[2]);
        even[10] = multiply_add_row<2>(even + 6, at_even + 1, w[2]);
        odd[10] = multiply_add_row<2>(odd + 6, at_even + 1, w[3]);
        even[11] = odd[11] = 0;
        multiply_add_row<2>(even + 8, at_odd + 2, w[3]);
        multiply_add_row<2>(odd + 8, at_odd + 2, w[4]);
        even[12] = multiply_add_row<1>(even + 10, at_even + 2, w[4]);
        odd[12] = multiply_add_row<1>(odd + 10, at_even + 2, w[5]);
        even[13] = odd[13] = 0;
        multiply_add_row<1>(even + 12, at_odd + 3, w[5]);
        multiply_add_row<1>(odd + 12, at_odd + 3, w[6]);
    }
    even[1] = 0;
    even[14] = even[15] = odd[14] = 0;
    u32 above = 2 * add_words<7>(even + 1, odd);
    add_words<7>(even + 8, odd + 7);
    u32 twice[16];
    twice[0] = 0;
    UNROLL for (int k = 1; k < 16; k++) twice[k] = even[k] << 1 | (k > 1 ? even[k - 1] >> 31 : 0);
    above += multiply_add<4>(twice, w, w);
    u32 *hi = twice + 8;
    multiply_add<4>(hi, w + 4, w + 4);
    const u32 fold[4] = {hi[0], hi[2], hi[4], hi[6]}, fold_odd[4] = {hi[1], hi[3], hi[5], hi[7]};
    above += multiply_add_row<4>(twice, fold, 38);
    multiply_pairs<4>(odd, fold_odd, 38);
    return finish(twice, odd, above);
}

/* Answers a + b, whole. a, b: reduced; a carry leaves less than 2^12, so it is 38 more in word 0. */
DEVICE Element add_reduced(const Element &a, const Element &b) {
    Element answer = a;
    u32 carry = add_words<WORDS>(answer.word, b.word);
    answer.word[0] += carry * 38;
    return answer;
}

/* Answers a + b, whole. a, b: whole; after a second carry less than 38 is left. */
DEVICE Element add(const Element &a, const Element &b) {
    Element answer = a;
    u32 carry = add_words<WORDS>(answer.word, b.word);
    carry = add_small(answer.word, carry * 38);
    answer.word[0] += carry * 38;
    return answer;
}

/* Answers a - b, whole. a: whole, b: reduced; what fell below zero is then above 2^255 - 2^11, so
 * that 38 can be taken from it. */
DEVICE Element subtract(const Element &a, const Element &b) {
    Element answer = a;
    u32 borrow = subtract_words(answer.word, b.word);
    const u32 fold[WORDS] = {borrow & 38, 0, 0, 0, 0, 0, 0, 0};
    subtract_words(answer.word, fold);
    return answer;
}

/* Answers the number below p that a stands for. a: whole. */
DEVICE Element canonical(const Element &a) {
    Element answer = a;
    u32 over = answer.word[7] >> 31;
    answer.word[7] &= 0x7fffffffu;
    add_small(answer.word, 19 * over);
    /* Now below 2^255 + 19: it reaches p exactly where 19 more reach 2^255. */
    Element more = answer;
    add_small(more.word, 19);
    over = more.word[7] >> 31;
    add_small(answer.word, 19 * over);
    answer.word[7] &= 0x7fffffffu;
    return answer;
}

DEVICE bool is_equal(const Element &a, const Element &b) {
    u32 difference = 0;
    UNROLL for (int k = 0; k < WORDS; k++) difference |= a.word[k] ^ b.word[k];
    return difference == 0;
}

/* Answers a squared `times` times, reduced; times > 0. */
DEVICE Element square_times(const Element &a, int times) {
    Element answer = a;
    ROLLED for (int i = 0; i < times; i++) answer = square(answer);
    return answer;
}

/* Answers a^(2^250 - 1) and, in `eleventh`, a^11. Comments say the exponent. */
DEVICE Element power_250(const Element &a, Element &eleventh) {
    Element second = square(a);
    Element power = multiply(a, square_times(second, 2));            /* 9 */
    eleventh = multiply(second, power);                              /* 11 */
    power = multiply(power, square(eleventh));                       /* 2^5 - 1 */
    power = multiply(power, square_times(power, 5));                 /* 2^10 - 1 */
    Element twenty = multiply(power, square_times(power, 10));       /* 2^20 - 1 */
    Element forty = multiply(twenty, square_times(twenty, 20));      /* 2^40 - 1 */
    power = multiply(power, square_times(forty, 10));                /* 2^50 - 1 */
    Element hundred = multiply(power, square_times(power, 50));      /* 2^100 - 1 */
    Element both = multiply(hundred, square_times(hundred, 100));    /* 2^200 - 1 */
    return multiply(power, square_times(both, 50));                  /* 2^250 - 1 */
}

/* Answers 1 / a = a^(p - 2), reduced; 0 for 0. */
DEVICE Element invert(const Element &a) {
    Element eleventh;
    Element power = power_250(a, eleventh);
    return multiply(eleventh, square_times(power, 5));
}

/* Answers a^((p - 5) / 8), reduced. */
DEVICE Element root_power(const Element &a) {
    Element eleventh;
    Element power = power_250(a, eleventh);
    return multiply(a, square_times(power, 2));
}
