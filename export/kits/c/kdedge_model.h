/* Classify texts with kdedge_model.c. All functions may be called by several threads at once. */

#ifndef KDEDGE_MODEL_H
#define KDEDGE_MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KDEDGE_OK = 0,
    KDEDGE_OUT_OF_MEMORY = 1,
    KDEDGE_WRONG_TEXTS = 2 /* One text for a classifier of pairs, or two for another. */
};

/* Number of logits, and the name of each. */
extern const int kdedge_outputs;
extern const char *const kdedge_labels[];

/* Compute the logits of a text that ends with a zero byte. `logits` has room for kdedge_outputs
   values. Invalid UTF-8 is read as U+FFFD. Returns KDEDGE_OK or one of the errors above. */
int kdedge_predict(const char *utf8, float *logits);

/* Do the same for a classifier of pairs. */
int kdedge_predict_pair(const char *first, const char *second, float *logits);

/* Do the same for texts of known length, which may contain zero bytes; `second` is NULL for a
   classifier of single texts. */
int kdedge_predict_bytes(const char *first, size_t first_bytes, const char *second,
                         size_t second_bytes, float *logits);

/* Return the calibrated probability of one label, as the Python runtime computes it. For a regression
   it is the number itself. */
double kdedge_probability(const float *logits, int label);

#ifdef __cplusplus
}
#endif

#endif
