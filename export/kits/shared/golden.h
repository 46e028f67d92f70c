/* Compare logits with the golden ones of golden_data.h, by the rules of `kdedge verify`. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int kd_compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int kd_same_label(const float *logits, const float *expected)
{
    if (KD_KIND == KD_REGRESSION)
        return 1;
    if (KD_KIND == KD_CLASSIFICATION)
        return kd_best(logits) == kd_best(expected);
    for (int i = 0; i < KD_OUTPUTS; i++)
        if ((kd_probability(logits, i) > KD_THRESHOLD) !=
            (kd_probability(expected, i) > KD_THRESHOLD))
            return 0;
    return 1;
}

/* Print a summary. `logits` holds KD_OUTPUTS values for each golden text, and `same_tokens` one
   truth value. Returns whether this machine passes. */
static int kd_golden_report(const float *logits, const int *same_tokens)
{
    static float differences[KD_GOLDEN];
    int tokens = 0, labels = 0;
    for (int i = 0; i < KD_GOLDEN; i++) {
        differences[i] = 0;
        for (int j = 0; j < KD_OUTPUTS; j++) {
            float difference = fabsf(logits[i * KD_OUTPUTS + j] - kd_golden[i].logits[j]);
            if (!(difference <= differences[i])) /* also if it is not a number */
                differences[i] = difference == difference ? difference : INFINITY;
        }
        tokens += same_tokens[i] != 0;
        labels += kd_same_label(logits + i * KD_OUTPUTS, kd_golden[i].logits);
    }
    qsort(differences, KD_GOLDEN, sizeof *differences, kd_compare_floats);
    float largest = differences[KD_GOLDEN - 1], quartile = differences[(KD_GOLDEN - 1) / 4];
    printf("%d golden texts: %d with equal tokens, %d with equal labels\n", KD_GOLDEN, tokens,
           labels);
    printf("largest logit difference %.3g (limit %g), lower quartile %.3g (limit 0.001)\n",
           (double)largest, (double)KD_TOLERANCE, (double)quartile);
    int passed = tokens == KD_GOLDEN && KD_GOLDEN - labels <= KD_GOLDEN / 4 &&
                 largest <= KD_TOLERANCE && quartile <= 0.001f;
    printf("%s\n", passed ? "passed" : "FAILED");
    return passed;
}
