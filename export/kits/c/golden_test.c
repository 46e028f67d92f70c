/* Replay the golden texts of the bundle: exit code 0 if this build computes what it should. */

#include "kdedge_model.c"
#include "golden_data.h"
#include "golden.h"

static int same_tokens(const kd_golden_text *golden)
{
    int32_t ids[KD_MAX_LENGTH], types[KD_MAX_LENGTH];
    int count = kd_tokenize(golden->text, golden->bytes, golden->pair, golden->pair_bytes, ids, types);
    return count == golden->tokens && memcmp(ids, golden->ids, (size_t)count * sizeof *ids) == 0;
}

int main(void)
{
    static float logits[KD_GOLDEN * KD_OUTPUTS];
    static int same[KD_GOLDEN];
    for (int i = 0; i < KD_GOLDEN; i++) {
        const kd_golden_text *golden = &kd_golden[i];
        same[i] = same_tokens(golden);
        if (kdedge_predict_bytes(golden->text, golden->bytes, golden->pair, golden->pair_bytes,
                                 logits + i * KD_OUTPUTS) != 0) {
            fprintf(stderr, "error: out of memory\n");
            return 1;
        }
    }
    return kd_golden_report(logits, same) ? 0 : 1;
}
