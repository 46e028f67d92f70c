/* Print the seconds of each call of kdedge_predict: ./timer CALLS TEXT */

#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kdedge_model.h"

int main(int argc, char **argv)
{
    int calls = argc == 3 ? atoi(argv[1]) : 0;
    float *logits = malloc((size_t)kdedge_outputs * sizeof *logits);
    for (int i = 0; i < calls; i++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        kdedge_predict(argv[2], logits);
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%.9f\n", (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec));
    }
    free(logits);
    return 0;
}
