/* A BiLSTM in the integer arithmetic of its int8 ONNX file.

   Weights are int8, inputs and states uint8. The constants are those of lstm_data.py. */

#include <math.h>

enum {
    KD_GATES = 4 * KD_STATE_ROOM,
    KD_HEAD_INPUTS = KD_PAIR ? 8 * KD_STATES : 2 * KD_STATES
};

/* Without this gcc does not vectorize loops with comparisons of floats. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("no-trapping-math")
#endif

/* e^x with an error of some 1e-7 of it, without branches, so that compilers vectorize loops. */
static inline float kd_exp(float x)
{
    const float shift = 12582912.0f; /* Adding 1.5 · 2^23 rounds to a whole number. */
    x = x > -87.0f ? x : -87.0f;
    x = x < 87.0f ? x : 87.0f;
    float shifted = x * 1.44269504f + shift;
    float whole = shifted - shift;
    float r = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 +
              r * (1.0f / 120 + r * (1.0f / 720))))));
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000u + 127u) << 23; /* 2^whole */
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
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
static void kd_gates_to_state(const float *restrict gates, float *restrict cell,
                              float *restrict state)
{
    const float *in = gates, *out = gates + KD_STATE_ROOM;
    const float *forget = gates + 2 * KD_STATE_ROOM, *candidate = gates + 3 * KD_STATE_ROOM;
    for (size_t i = 0; i < KD_STATE_ROOM; i++) {
        float kept = kd_sigmoid(forget[i]) * cell[i];
        cell[i] = kept + kd_sigmoid(in[i]) * kd_tanh(candidate[i]);
        state[i] = kd_sigmoid(out[i]) * kd_tanh(cell[i]);
    }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

/* Multiply the embeddings of the tokens from t on, in reading order; behind the last one, its
   row is repeated. */
static void kd_multiply_tokens(const int32_t *ids, int count, int direction, int t, int32_t *sums)
{
    const signed char *weights = kd_lstm_w + (size_t)direction * KD_GATES * KD_ROW_ROOM;
    const uint8_t *rows[KD_ROWS];
    for (int i = 0; i < KD_ROWS; i++) {
        int place = t + i < count ? t + i : count - 1;
        int32_t id = ids[direction ? count - 1 - place : place];
        rows[i] = kd_rows + (size_t)id * KD_ROW_ROOM;
    }
    kd_multiply_four(rows, KD_ROW_ROOM, weights, KD_GATES, sums);
}

/* Add what the states after t tokens contribute to the gates. */
static void kd_add_states(const float *state, int t, int direction, float *gates)
{
    const signed char *weights = kd_lstm_r + (size_t)direction * KD_GATES * KD_STATE_ROOM;
    size_t first = (size_t)direction * KD_GATES; /* of this direction's scales */
    int row = t < KD_STATE_SCALES ? t : KD_STATE_SCALES - 1;
    float scale = kd_state_scale[row];
    int zero = kd_state_zero[row];
    uint8_t rounded[KD_STATE_ROOM];
    int32_t sums[KD_GATES];
    kd_round(state, KD_STATE_ROOM, scale, zero, rounded);
    kd_multiply(rounded, KD_STATE_ROOM, weights, KD_GATES, sums);
    for (size_t i = 0; i < KD_GATES; i++) {
        int32_t sum = sums[i] - zero * kd_lstm_r_sums[first + i];
        gates[i] += (float)sum * (scale * kd_lstm_r_scales[first + i]);
    }
}

/* Read tokens in one direction and write the last state (KD_STATES values). */
static void kd_read(const int32_t *ids, int count, int direction, float *last_state)
{
    float cell[KD_STATE_ROOM] = {0}, state[KD_STATE_ROOM] = {0}, gates[KD_GATES];
    int32_t sums[KD_ROWS * KD_GATES];
    size_t first = (size_t)direction * KD_GATES; /* of this direction's scales and biases */
    for (int t = 0; t < count; t++) {
        if (t % KD_ROWS == 0)
            kd_multiply_tokens(ids, count, direction, t, sums);
        const int32_t *own = sums + t % KD_ROWS * KD_GATES;
        for (size_t i = 0; i < KD_GATES; i++) {
            int32_t sum = own[i] - KD_ROW_ZERO * kd_lstm_w_sums[first + i];
            gates[i] = (float)sum * (KD_ROW_SCALE * kd_lstm_w_scales[first + i]);
        }
        if (t > 0)
            kd_add_states(state, t, direction, gates);
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
