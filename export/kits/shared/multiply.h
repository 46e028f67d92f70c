/* Products of uint8 inputs and int8 weights, in the vectors of the CPU that it is compiled for.

   Weights have 7 bits: so the sum of two products fits into 16 bits, which AVX2 and NEON need. */

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

enum {
    KD_BLOCK = 8, /* Outputs whose weights stand next to each other. */
    KD_STEP = 4,  /* Inputs of one output that stand next to each other. */
    KD_ROWS = 4   /* Rows of inputs that are multiplied together. */
};

/* Add to eight sums the products of four inputs with the weights of eight outputs. */
#if defined(__AVX2__)
typedef __m256i kd_sums;

static inline kd_sums kd_zero_sums(void) { return _mm256_setzero_si256(); }

static inline kd_sums kd_add_products(kd_sums sums, const uint8_t *x, const signed char *weights)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    __m256i inputs = _mm256_set1_epi32(four);
    __m256i w = _mm256_loadu_si256((const __m256i *)weights);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(sums, inputs, w);
#else
    __m256i products = _mm256_maddubs_epi16(inputs, w);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
#endif
}

static inline void kd_store_sums(kd_sums sums, int32_t *out)
{
    _mm256_storeu_si256((__m256i *)out, sums);
}
#elif defined(__SSE2__)
typedef struct {
    __m128i pairs[4]; /* Each holds two halves of the sums of two outputs. */
} kd_sums;

static inline kd_sums kd_zero_sums(void)
{
    __m128i zero = _mm_setzero_si128();
    kd_sums sums = {{zero, zero, zero, zero}};
    return sums;
}

static inline kd_sums kd_add_products(kd_sums sums, const uint8_t *x, const signed char *weights)
{
    const __m128i zero = _mm_setzero_si128();
    int32_t four;
    memcpy(&four, x, sizeof four);
    __m128i inputs = _mm_unpacklo_epi8(_mm_set1_epi32(four), zero);
    for (int i = 0; i < 2; i++) {
        __m128i w = _mm_loadu_si128((const __m128i *)weights + i);
        __m128i sign = _mm_cmpgt_epi8(zero, w);
        __m128i low = _mm_madd_epi16(inputs, _mm_unpacklo_epi8(w, sign));
        __m128i high = _mm_madd_epi16(inputs, _mm_unpackhi_epi8(w, sign));
        sums.pairs[2 * i] = _mm_add_epi32(sums.pairs[2 * i], low);
        sums.pairs[2 * i + 1] = _mm_add_epi32(sums.pairs[2 * i + 1], high);
    }
    return sums;
}

static inline void kd_store_sums(kd_sums sums, int32_t *out)
{
    int32_t halves[2 * KD_BLOCK];
    memcpy(halves, &sums, sizeof halves);
    for (int i = 0; i < KD_BLOCK; i++)
        out[i] = halves[2 * i] + halves[2 * i + 1];
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
typedef struct {
    int32x4_t low, high;
} kd_sums;

static inline kd_sums kd_zero_sums(void)
{
    kd_sums sums = {vdupq_n_s32(0), vdupq_n_s32(0)};
    return sums;
}

static inline kd_sums kd_add_products(kd_sums sums, const uint8_t *x, const signed char *weights)
{
    uint32_t four;
    memcpy(&four, x, sizeof four);
    int16x8_t inputs = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(four * 0x100000001ull)));
    int8x16_t first = vld1q_s8((const int8_t *)weights);
    int8x16_t second = vld1q_s8((const int8_t *)weights + 16);
    int16x8_t p0 = vmulq_s16(inputs, vmovl_s8(vget_low_s8(first)));
    int16x8_t p1 = vmulq_s16(inputs, vmovl_s8(vget_high_s8(first)));
    int16x8_t p2 = vmulq_s16(inputs, vmovl_s8(vget_low_s8(second)));
    int16x8_t p3 = vmulq_s16(inputs, vmovl_s8(vget_high_s8(second)));
    sums.low = vpadalq_s16(sums.low, vpaddq_s16(p0, p1));
    sums.high = vpadalq_s16(sums.high, vpaddq_s16(p2, p3));
    return sums;
}

static inline void kd_store_sums(kd_sums sums, int32_t *out)
{
    vst1q_s32(out, sums.low);
    vst1q_s32(out + 4, sums.high);
}
#else
typedef struct {
    int32_t sum[KD_BLOCK];
} kd_sums;

static inline kd_sums kd_zero_sums(void)
{
    kd_sums sums = {{0}};
    return sums;
}

static inline kd_sums kd_add_products(kd_sums sums, const uint8_t *x, const signed char *weights)
{
    for (int j = 0; j < KD_BLOCK; j++, weights += KD_STEP)
        sums.sum[j] += x[0] * weights[0] + x[1] * weights[1] + x[2] * weights[2] + x[3] * weights[3];
    return sums;
}

static inline void kd_store_sums(kd_sums sums, int32_t *out) { memcpy(out, &sums, sizeof sums); }
#endif

/* Multiply a row of uint8 inputs with int8 weights: sums[n] = x · w[n]. Weights stand in blocks of
   8 outputs; within a block, 4 inputs of output 0, the same 4 of output 1, and so on. `inputs` is
   a multiple of 4 and `outputs` of 8. */
static void kd_multiply(const uint8_t *x, size_t inputs, const signed char *weights,
                        size_t outputs, int32_t *sums)
{
    size_t n = 0, stride = inputs * KD_BLOCK;
    for (; n + 4 * KD_BLOCK <= outputs; n += 4 * KD_BLOCK, weights += 3 * stride) {
        /* Four sums at once: a processor does not wait for the last addition to one of them. */
        kd_sums a = kd_zero_sums(), b = a, c = a, d = a;
        for (size_t k = 0; k < inputs; k += KD_STEP, weights += KD_BLOCK * KD_STEP) {
            a = kd_add_products(a, x + k, weights);
            b = kd_add_products(b, x + k, weights + stride);
            c = kd_add_products(c, x + k, weights + 2 * stride);
            d = kd_add_products(d, x + k, weights + 3 * stride);
        }
        kd_store_sums(a, sums + n);
        kd_store_sums(b, sums + n + KD_BLOCK);
        kd_store_sums(c, sums + n + 2 * KD_BLOCK);
        kd_store_sums(d, sums + n + 3 * KD_BLOCK);
    }
    for (; n < outputs; n += KD_BLOCK) {
        kd_sums block = kd_zero_sums();
        for (size_t k = 0; k < inputs; k += KD_STEP, weights += KD_BLOCK * KD_STEP)
            block = kd_add_products(block, x + k, weights);
        kd_store_sums(block, sums + n);
    }
}

/* Do the same for four rows, which reads the weights once. sums: four rows of `outputs`. */
static void kd_multiply_four(const uint8_t *const x[KD_ROWS], size_t inputs,
                             const signed char *weights, size_t outputs, int32_t *sums)
{
    for (size_t n = 0; n < outputs; n += KD_BLOCK) {
        kd_sums a = kd_zero_sums(), b = a, c = a, d = a;
        for (size_t k = 0; k < inputs; k += KD_STEP, weights += KD_BLOCK * KD_STEP) {
            a = kd_add_products(a, x[0] + k, weights);
            b = kd_add_products(b, x[1] + k, weights);
            c = kd_add_products(c, x[2] + k, weights);
            d = kd_add_products(d, x[3] + k, weights);
        }
        kd_store_sums(a, sums + n);
        kd_store_sums(b, sums + outputs + n);
        kd_store_sums(c, sums + 2 * outputs + n);
        kd_store_sums(d, sums + 3 * outputs + n);
    }
}
