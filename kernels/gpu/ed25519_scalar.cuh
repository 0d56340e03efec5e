/* What surrounds the curve: SHA-512, numbers modulo L, and the checks on encoded numbers.
 *
 * The constants (ROUND_CONSTANTS, INITIAL_WORDS, FOLD, ORDER, SMALL_ORDER_YS and so on) stand in
 * text that `ed25519_source` puts before this one.
 */

/* SHA-512 of R, A and the message, which is `length` bytes; `wide`: 8-byte loads are aligned. */
struct Hashed {
    const u32 *r;
    const u32 *key;
    const u8 *message;
    u32 length;
    bool wide;
};

enum { HEAD_BYTES = 64, BLOCK_BYTES = 128, BLOCK_WORDS = 16, ROUNDS = 80 };

DEVICE u32 swap_bytes(u32 x) {
#ifdef __CUDACC__
    return __byte_perm(x, 0, 0x0123);
#else
    return __builtin_bswap32(x);
#endif
}

DEVICE u64 big_endian(u32 first, u32 second) {
    return (u64)swap_bytes(first) << 32 | swap_bytes(second);
}

/* Answers eight bytes of the message from `place` on, big-endian, as SHA-512 pads them. */
DEVICE u64 message_word(const Hashed &source, u32 place) {
    if (source.wide && place + 8 <= source.length) {
        u64 word = *(const u64 *)(source.message + place);
        return big_endian((u32)word, (u32)(word >> 32));
    }
    u64 word = 0;
    ROLLED for (u32 i = 0; i < 8; i++) {
        u32 at = place + i;
        u64 byte = at < source.length ? source.message[at] : at == source.length ? 0x80 : 0;
        word = word << 8 | byte;
    }
    return word;
}

DEVICE u64 rotate(u64 x, int count) { return x >> count | x << (64 - count); }

DEVICE void compress(u64 *state, u64 *block) {
    u64 a = state[0], b = state[1], c = state[2], d = state[3];
    u64 e = state[4], f = state[5], g = state[6], h = state[7];
    ROLLED for (int start = 0; start < ROUNDS; start += BLOCK_WORDS) {
        UNROLL for (int i = 0; i < BLOCK_WORDS; i++) {
            if (start > 0) {
                u64 x = block[(i + 1) & 15], y = block[(i + 14) & 15];
                u64 small = rotate(x, 1) ^ rotate(x, 8) ^ x >> 7;
                u64 large = rotate(y, 19) ^ rotate(y, 61) ^ y >> 6;
                block[i] += small + block[(i + 9) & 15] + large;
            }
            u64 choice = g ^ (e & (f ^ g)), majority = (a & b) | (c & (a | b));
            u64 first = h + (rotate(e, 14) ^ rotate(e, 18) ^ rotate(e, 41)) + choice +
                        ROUND_CONSTANTS[start + i] + block[i];
            u64 second = (rotate(a, 28) ^ rotate(a, 34) ^ rotate(a, 39)) + majority;
            h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
        }
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* Writes the digest as 16 words of one little-endian number. */
DEVICE void digest(const Hashed &source, u32 *out) {
    u64 state[8], block[BLOCK_WORDS];
    UNROLL for (int i = 0; i < 8; i++) state[i] = INITIAL_WORDS[i];
    u64 bytes = (u64)HEAD_BYTES + source.length;
    u32 blocks = (u32)((bytes + 17 + BLOCK_BYTES - 1) / BLOCK_BYTES);
    ROLLED for (u32 k = 0; k < blocks; k++) {
        u32 place = k * BLOCK_BYTES - HEAD_BYTES;
        UNROLL for (int i = 0; i < 8; i++) {
            if (k == 0) {
                const u32 *from = i < 4 ? source.r : source.key;
                block[i] = big_endian(from[2 * i & 7], from[(2 * i & 7) + 1]);
            } else {
                block[i] = message_word(source, place + 8 * i);
            }
        }
        UNROLL for (int i = 8; i < BLOCK_WORDS; i++) block[i] = message_word(source, place + 8 * i);
        if (k + 1 == blocks) block[15] = bytes * 8;
        compress(state, block);
    }
    UNROLL for (int i = 0; i < 8; i++) {
        out[2 * i] = swap_bytes((u32)(state[i] >> 32));
        out[2 * i + 1] = swap_bytes((u32)state[i]);
    }
}

/* Modulo L: 24 limbs of 21 bits, signed, as kernels/scalar25519.py has them and bounds them. */
enum { LIMB_BITS = 21, LIMBS = 12, FOLD_LIMBS = 6 };

/* Passes on what exceeds 21 bits of a limb: to the nearest (rounding 2^20) or the floor (0). */
DEVICE void carry_limb(i64 *limb, int i, i64 rounding) {
    i64 over = (limb[i] + rounding) >> LIMB_BITS;
    limb[i + 1] += over;
    limb[i] -= over * (1 << LIMB_BITS);
}

/* Replaces the limb at `place` >= 12 by its multiples below. */
DEVICE void fold_limb(i64 *limb, int place) {
    UNROLL for (int i = 0; i < FOLD_LIMBS; i++) limb[place - LIMBS + i] += limb[place] * FOLD[i];
    limb[place] = 0;
}

/* Writes the number below L that 16 words are modulo L, 8 words. */
DEVICE void reduce_order(const u32 *wide, u32 *out) {
    const i64 half = 1 << (LIMB_BITS - 1);
    i64 limb[2 * LIMBS];
    UNROLL for (int i = 0; i < 2 * LIMBS; i++) {
        int word = LIMB_BITS * i / 32, shift = LIMB_BITS * i % 32;
        u64 pair = wide[word] | (word + 1 < 16 ? (u64)wide[word + 1] << 32 : 0);
        limb[i] = (i64)(pair >> shift & (i + 1 < 2 * LIMBS ? (1u << LIMB_BITS) - 1 : 0xffffffffu));
    }
    UNROLL for (int place = 23; place > 17; place--) fold_limb(limb, place);
    UNROLL for (int i = 6; i < 17; i += 2) carry_limb(limb, i, half);
    UNROLL for (int i = 7; i < 16; i += 2) carry_limb(limb, i, half);
    UNROLL for (int place = 17; place > 11; place--) fold_limb(limb, place);
    UNROLL for (int i = 0; i < 11; i += 2) carry_limb(limb, i, half);
    UNROLL for (int i = 1; i < 12; i += 2) carry_limb(limb, i, half);
    fold_limb(limb, LIMBS);
    UNROLL for (int i = 0; i < 12; i++) carry_limb(limb, i, 0);
    fold_limb(limb, LIMBS);
    UNROLL for (int i = 0; i < 11; i++) carry_limb(limb, i, 0);
    UNROLL for (int k = 0; k < WORDS; k++) out[k] = 0;
    UNROLL for (int i = 0; i < LIMBS; i++) {
        int word = LIMB_BITS * i / 32, shift = LIMB_BITS * i % 32;
        u64 part = (u64)limb[i] << shift;
        out[word] |= (u32)part;
        if (word + 1 < WORDS) out[word + 1] |= (u32)(part >> 32);
    }
}

/* Says whether eight words count less than a constant. */
DEVICE bool is_below(const u32 *words, const u32 *bound) {
    u32 copy[WORDS], limit[WORDS];
    UNROLL for (int k = 0; k < WORDS; k++) copy[k] = words[k], limit[k] = bound[k];
    return subtract_words(copy, limit) != 0;
}

/* Says whether the low 255 bits are the y of a point of small order.
 * Spec: spec/signatures.md#verdict, 2. */
DEVICE bool is_small_order(const u32 *words) {
    bool found = false;
    UNROLL for (int i = 0; i < SMALL_ORDERS; i++) {
        u32 difference = 0;
        UNROLL for (int k = 0; k < WORDS; k++) {
            u32 word = k + 1 < WORDS ? words[k] : words[k] & 0x7fffffffu;
            difference |= word ^ SMALL_ORDER_YS[i][k];
        }
        found |= difference == 0;
    }
    return found;
}
