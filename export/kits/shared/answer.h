/* Print the prediction of one text: label and probability, separated by a tab. */

#include <math.h>
#include <stdio.h>

/* Return the label with the largest logit. */
static inline int kd_best(const float *logits)
{
    int best = 0;
    for (int i = 1; i < KD_OUTPUTS; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Return the probability of a label: softmax of the logits divided by the temperature, or sigmoid if
   several labels can be true. The logit of a regression is the number itself. */
static inline double kd_probability(const float *logits, int label)
{
    double sum = 0;
    if (KD_KIND == KD_REGRESSION)
        return logits[label];
    if (KD_KIND == KD_MULTILABEL)
        return 1 / (1 + exp(-(double)logits[label]));
    for (int i = 0; i < KD_OUTPUTS; i++)
        sum += exp(((double)logits[i] - (double)logits[label]) / KD_TEMPERATURE);
    return 1 / sum;
}

/* Write one line: label and probability; all labels above the threshold; or the number. */
static inline void kd_print_answer(FILE *out, const float *logits)
{
    int best = kd_best(logits), printed = 0;
    if (KD_KIND == KD_REGRESSION) {
        fprintf(out, "%.6f\n", (double)logits[0]);
        return;
    }
    for (int i = 0; i < KD_OUTPUTS; i++) {
        double probability = kd_probability(logits, i);
        if (KD_KIND == KD_MULTILABEL ? probability <= KD_THRESHOLD : i != best)
            continue;
        fprintf(out, "%s%s\t%.4f", printed++ ? "\t" : "", kd_labels[i], probability);
    }
    fprintf(out, "\n");
}
