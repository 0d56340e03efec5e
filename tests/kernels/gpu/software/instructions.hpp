// What the instructions of PTX mean, for the C++ that `ptx.py` writes. Registers are unsigned
// integers of their width, predicates are bool, an address of any state space is the host's.
#include <cstring>

typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;
typedef unsigned long long u64; typedef signed char s8; typedef short s16; typedef int s32;
typedef long long s64; typedef u8 b8; typedef u16 b16; typedef u32 b32; typedef u64 b64;

// Codes that a launch answers, 0 where all is well.
enum Stop {
    TRAPPED = 1,        // the kernel stopped itself (`trap`)
    OUT_OF_FIBERS = 2,  // no memory for the threads of a block
    BARRIER_MISSED = 3, // some threads of a block wait where others never come
    MISALIGNED = 4,     // an address is no multiple of what is read or written there
    BAD_LAUNCH = 5,     // more than one dimension, or too many threads
};
struct Stopped { int code; };
[[noreturn, gnu::noinline, gnu::cold]] static void stop(int code) { throw Stopped{code}; }

// What nobody wrote yet has this in each byte: a device leaves anything there.
static const u64 UNWRITTEN = 0xA5A5A5A5A5A5A5A5ULL;
static inline void leave_unwritten(void *place, u64 size) { memset(place, 0xA5, size); }

// The place of N values of T in memory.
template <class T, int N = 1> static inline T *at(u64 address) {
    if (__builtin_expect(address & (sizeof(T) * N - 1), 0)) stop(MISALIGNED);
    return (T *)address;
}

template <class T> static inline T shift_left(T a, u32 n) { return n < 8 * sizeof(T) ? a << n : 0; }
template <class T> static inline T shift_right(T a, u32 n) {
    const u32 bits = 8 * sizeof(T);
    if (n < bits) return a >> n;
    return a < 0 ? (T)-1 : 0;
}
static inline u32 funnel_left(u32 low, u32 high, u32 n) {
    return ((u64)high << 32 | low) << n >> 32; // n: at most 32
}
static inline u32 funnel_right(u32 low, u32 high, u32 n) { return ((u64)high << 32 | low) >> n; }

static inline u32 high_product(u32 a, u32 b) { return (u64)a * b >> 32; }
static inline s32 high_product(s32 a, s32 b) { return (s64)a * b >> 32; }
static inline u16 high_product(u16 a, u16 b) { return (u32)a * b >> 16; }
static inline s16 high_product(s16 a, s16 b) { return (s32)a * b >> 16; }
static inline u64 high_product(u64 a, u64 b) { return (unsigned __int128)a * b >> 64; }
static inline s64 high_product(s64 a, s64 b) { return (__int128)a * b >> 64; }

// A division by zero has no defined answer on a device, and does not stop it.
template <class T> static inline T quotient(T a, T b) {
    if (b == 0) return (T)UNWRITTEN;
    return (T)-1 < 0 && b == (T)-1 ? (T)(0 - (u64)a) : a / b;
}
template <class T> static inline T remainder(T a, T b) {
    if (b == 0) return (T)UNWRITTEN;
    return (T)-1 < 0 && b == (T)-1 ? 0 : a % b;
}

template <class T> static inline u32 leading_zeros(T a) {
    u32 count = 0;
    for (T bit = (T)1 << (8 * sizeof(T) - 1); bit && !(a & bit); bit >>= 1) count++;
    return count;
}
template <class T> static inline T reversed(T a) {
    T answer = 0;
    for (u32 i = 0; i < 8 * sizeof(T); i++) answer = answer << 1 | (a >> i & 1);
    return answer;
}
static inline u32 permute(u32 a, u32 b, u32 order) {
    u64 both = (u64)b << 32 | a;
    u32 answer = 0;
    for (int i = 0; i < 4; i++) {
        u32 pick = order >> 4 * i & 15, byte = (u32)(both >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        answer |= byte << 8 * i;
    }
    return answer;
}
template <class T> static inline T insert(T a, T b, u32 place, u32 length) {
    const u32 bits = 8 * sizeof(T);
    place &= 255, length &= 255;
    if (length == 0 || place >= bits) return b;
    T mask = (length >= bits ? ~(T)0 : ((T)1 << length) - 1) << place;
    return (a << place & mask) | (b & ~mask);
}
template <class T> static inline T extract(T a, u32 place, u32 length) {
    const u32 bits = 8 * sizeof(T);
    const bool is_signed = (T)-1 < 0;
    place &= 255, length &= 255;
    u32 last = place + length - 1 < bits - 1 ? place + length - 1 : bits - 1;
    u64 all = is_signed && length && (u64)a >> last & 1 ? ~0ULL : 0;
    for (u32 i = 0; i < length && place + i < bits; i++) {
        all = (all & ~(1ULL << i)) | ((u64)a >> (place + i) & 1) << i;
    }
    return (T)all;
}

// Atomic operations: one thread runs at a time, so each is a read and a write.
#define ATOMIC(name, after)                                              \
    template <class T> static inline T atomic_##name(u64 address, T b) { \
        T *place = at<T>(address), old = *place;                         \
        *place = after;                                                  \
        return old;                                                      \
    }
ATOMIC(add, (T)((u64)old + (u64)b))
ATOMIC(and, old & b)
ATOMIC(or, old | b)
ATOMIC(xor, old ^ b)
ATOMIC(exch, b)
ATOMIC(min, b < old ? b : old)
ATOMIC(max, old < b ? b : old)
ATOMIC(inc, old >= b ? 0 : old + 1)
ATOMIC(dec, old == 0 || old > b ? b : old - 1)
template <class T> static inline T atomic_cas(u64 address, T wanted, T b) {
    T *place = at<T>(address), old = *place;
    if (old == wanted) *place = b;
    return old;
}
