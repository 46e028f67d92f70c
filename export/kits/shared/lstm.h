/* A BiLSTM in the integer arithmetic of its int8 ONNX file.

   Weights are int8 of 7 bits, inputs and states uint8: so the sum of two products fits into 16
   bits, which AVX2 needs. The constants are those of lstm_data.py. */

#include <math.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

enum {
    KD_BLOCK = 8, /* Outputs whose weights stand next to each other. */
    KD_STEP = 4,  /* Inputs of one output that stand next to each other. */
    KD_GATES = 4 * KD_STATE_ROOM,
    KD_HEAD_INPUTS = KD_PAIR ? 8 * KD_STATES : 2 * KD_STATES
};

/* Multiply uint8 inputs with int8 weights: sums[n] = x · w[n]. Weights stand in blocks of 8
   outputs; within a block, 4 inputs of output 0, the same 4 of output 1, and so on. `inputs` is a
   multiple of 4 and `outputs` of 8. */
static void kd_multiply(const uint8_t *x, size_t inputs, const signed char *weights,
                        size_t outputs, int32_t *sums)
{
    for (size_t n = 0; n < outputs; n += KD_BLOCK) {
#if defined(__AVX2__)
        const __m256i ones = _mm256_set1_epi16(1);
        __m256i sum = _mm256_setzero_si256();
        for (size_t k = 0; k < inputs; k += KD_STEP, weights += KD_BLOCK * KD_STEP) {
            int32_t four;
            memcpy(&four, x + k, sizeof four);
            __m256i w = _mm256_loadu_si256((const __m256i *)weights);
            __m256i products = _mm256_maddubs_epi16(_mm256_set1_epi32(four), w);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
        }
        _mm256_storeu_si256((__m256i *)(sums + n), sum);
#elif defined(__ARM_NEON) && defined(__aarch64__)
        /* NEON multiplies signed bytes: inputs are widened to 16 bits instead. */
        int32x4_t low = vdupq_n_s32(0), high = vdupq_n_s32(0);
        for (size_t k = 0; k < inputs; k += KD_STEP, weights += KD_BLOCK * KD_STEP) {
            uint32_t four;
            memcpy(&four, x + k, sizeof four);
            int16x8_t in = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(four * 0x100000001ull)));
            int8x16_t w0 = vld1q_s8((const int8_t *)weights);
            int8x16_t w1 = vld1q_s8((const int8_t *)weights + 16);
            int16x8_t p0 = vmulq_s16(in, vmovl_s8(vget_low_s8(w0)));
            int16x8_t p1 = vmulq_s16(in, vmovl_s8(vget_high_s8(w0)));
            int16x8_t p2 = vmulq_s16(in, vmovl_s8(vget_low_s8(w1)));
            int16x8_t p3 = vmulq_s16(in, vmovl_s8(vget_high_s8(w1)));
            low = vpadalq_s16(low, vpaddq_s16(p0, p1));
            high = vpadalq_s16(high, vpaddq_s16(p2, p3));
        }
        vst1q_s32(sums + n, low);
        vst1q_s32(sums + n + 4, high);
#else
        int32_t block[KD_BLOCK] = {0};
        for (size_t k = 0; k < inputs; k += KD_STEP)
            for (size_t j = 0; j < KD_BLOCK; j++, weights += KD_STEP)
                block[j] += x[k] * weights[0] + x[k + 1] * weights[1] + x[k + 2] * weights[2] +
                            x[k + 3] * weights[3];
        memcpy(sums + n, block, sizeof block);
#endif
    }
}

/* e^x with an error of some 1e-7 of it, without branches, so that compilers vectorize loops. */
static inline float kd_exp(float x)
{
    const float shift = 12582912.0f; /* Adding 1.5 · 2^23 rounds to a whole number. */
    x = x < -87.0f ? -87.0f : x > 87.0f ? 87.0f : x;
    float shifted = x * 1.44269504f + shift;
    float whole = shifted - shift;
    float r = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 +
              r * (1.0f / 120 + r * (1.0f / 720))))));
    union { float f; uint32_t u; } bits;
    bits.f = shifted;
    bits.u = (bits.u - 0x4B400000u + 127u) << 23; /* 2^whole */
    return p * bits.f;
}

static inline float kd_sigmoid(float x) { return 1.0f / (1.0f + kd_exp(-x)); }

static inline float kd_tanh(float x) { return 2.0f * kd_sigmoid(2.0f * x) - 1.0f; }

/* Round to uint8 as ONNX's QuantizeLinear: half to even, clamped to 0 and 255. */
static void kd_round(const float *x, size_t count, float scale, int zero, uint8_t *out)
{
    const float shift = 12582912.0f;
    float low = (float)-zero, high = (float)(255 - zero);
    for (size_t i = 0; i < count; i++) {
        float value = x[i] / scale;
        value = value < low ? low : value > high ? high : value;
        float shifted = value + shift;
        out[i] = (uint8_t)((int)(shifted - shift) + zero);
    }
}

/* One step of one direction: gates[4 · H] hold what the token adds to i, o, f and g. */
static void kd_gates_to_state(const float *gates, float *cell, float *state)
{
    const float *in = gates, *out = gates + KD_STATE_ROOM;
    const float *forget = gates + 2 * KD_STATE_ROOM, *candidate = gates + 3 * KD_STATE_ROOM;
    for (size_t i = 0; i < KD_STATE_ROOM; i++) {
        float kept = kd_sigmoid(forget[i]) * cell[i];
        cell[i] = kept + kd_sigmoid(in[i]) * kd_tanh(candidate[i]);
        state[i] = kd_sigmoid(out[i]) * kd_tanh(cell[i]);
    }
}

/* Read tokens in one direction and write the last state (KD_STATES values). */
static void kd_read(const int32_t *ids, int count, int direction, float *last_state)
{
    float cell[KD_STATE_ROOM] = {0}, state[KD_STATE_ROOM] = {0}, gates[KD_GATES];
    uint8_t rounded[KD_STATE_ROOM];
    int32_t sums[KD_GATES];
    const signed char *w = kd_lstm_w + (size_t)direction * KD_GATES * KD_ROW_ROOM;
    const signed char *r = kd_lstm_r + (size_t)direction * KD_GATES * KD_STATE_ROOM;
    size_t first = (size_t)direction * KD_GATES; /* of this direction's scales and biases */
    for (int t = 0; t < count; t++) {
        int32_t id = ids[direction ? count - 1 - t : t];
        kd_multiply(kd_rows + (size_t)id * KD_ROW_ROOM, KD_ROW_ROOM, w, KD_GATES, sums);
        for (size_t i = 0; i < KD_GATES; i++) {
            int32_t sum = sums[i] - KD_ROW_ZERO * kd_lstm_w_sums[first + i];
            gates[i] = (float)sum * (KD_ROW_SCALE * kd_lstm_w_scales[first + i]);
        }
        if (t > 0) {
            int row = t < KD_STATE_SCALES ? t : KD_STATE_SCALES - 1;
            float scale = kd_state_scale[row];
            int zero = kd_state_zero[row];
            kd_round(state, KD_STATE_ROOM, scale, zero, rounded);
            kd_multiply(rounded, KD_STATE_ROOM, r, KD_GATES, sums);
            for (size_t i = 0; i < KD_GATES; i++) {
                int32_t sum = sums[i] - zero * kd_lstm_r_sums[first + i];
                gates[i] += (float)sum * (scale * kd_lstm_r_scales[first + i]);
            }
        }
        for (size_t i = 0; i < KD_GATES; i++)
            gates[i] += kd_lstm_bias[first + i];
        kd_gates_to_state(gates, cell, state);
    }
    memcpy(last_state, state, KD_STATES * sizeof *state);
}

static void kd_read_both(const int32_t *ids, int count, float *states)
{
    kd_read(ids, count, 0, states);
    kd_read(ids, count, 1, states + KD_STATES);
}

/* Apply a linear layer to rounded inputs. */
static void kd_apply(const kd_linear *layer, const float *x, float *y)
{
    uint8_t rounded[KD_MOST_INPUTS] = {0};
    int32_t sums[KD_MOST_OUTPUTS];
    kd_round(x, layer->inputs, layer->scale, layer->zero, rounded);
    kd_multiply(rounded, layer->input_room, layer->weights, layer->output_room, sums);
    for (size_t i = 0; i < layer->outputs; i++) {
        int32_t sum = sums[i] - layer->zero * layer->weight_sums[i];
        y[i] = (float)sum * (layer->scale * layer->scales[i]) + layer->bias[i];
    }
}

/* Compute the logits of tokens; types are 1 for the tokens of the second text. */
static void kd_logits(const int32_t *ids, const int32_t *types, int count, float *logits)
{
    float features[KD_HEAD_INPUTS], hidden[KD_MOST_OUTPUTS];
#if KD_PAIR
    float *u = features, *v = u + 2 * KD_STATES, *difference = v + 2 * KD_STATES;
    float *product = difference + 2 * KD_STATES;
    int first = 0;
    while (first < count && types[first] == 0)
        first++;
    kd_read_both(ids, first, u);
    kd_read_both(ids + first, count - first, v);
    for (size_t i = 0; i < 2 * KD_STATES; i++) {
        difference[i] = fabsf(u[i] - v[i]);
        product[i] = u[i] * v[i];
    }
#else
    (void)types;
    kd_read_both(ids, count, features);
#endif
    kd_apply(&kd_dense, features, hidden);
    for (size_t i = 0; i < kd_dense.outputs; i++)
        hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
    kd_apply(&kd_classifier, hidden, logits);
}
