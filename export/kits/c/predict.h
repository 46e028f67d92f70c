/* The functions of kdedge_model.h. */

const int kdedge_outputs = KD_OUTPUTS;
const char *const kdedge_labels[KD_OUTPUTS] = {KD_LABELS};

double kdedge_probability(const float *logits, int label)
{
    return kd_probability(logits, label);
}

int kdedge_predict_bytes(const char *first, size_t first_bytes, const char *second,
                         size_t second_bytes, float *logits)
{
    int32_t ids[KD_MAX_LENGTH], types[KD_MAX_LENGTH];
    if (!first || (second != NULL) != KD_PAIR)
        return 2; /* KDEDGE_WRONG_TEXTS */
    int count = kd_tokenize(first, first_bytes, second, second_bytes, ids, types);
    if (count == KD_OUT_OF_MEMORY)
        return 1; /* KDEDGE_OUT_OF_MEMORY */
    kd_logits(ids, types, count, logits);
    return 0; /* KDEDGE_OK */
}

int kdedge_predict_pair(const char *first, const char *second, float *logits)
{
    size_t first_bytes = first ? strlen(first) : 0, second_bytes = second ? strlen(second) : 0;
    return kdedge_predict_bytes(first, first_bytes, second, second_bytes, logits);
}

int kdedge_predict(const char *utf8, float *logits)
{
    return kdedge_predict_pair(utf8, NULL, logits);
}

#ifdef KDEDGE_MAIN

/* Read a line without its end. Returns its bytes, or -1 at the end of the input. */
static long kd_read_line(char **line, size_t *room)
{
    size_t bytes = 0;
    int c;
    while ((c = getchar()) != EOF && c != '\n') {
        if (bytes + 1 >= *room) {
            char *larger = (char *)realloc(*line, *room = 2 * *room + 256);
            if (!larger) {
                fprintf(stderr, "error: out of memory\n");
                exit(1);
            }
            *line = larger;
        }
        (*line)[bytes++] = (char)c;
    }
    if (c == EOF && bytes == 0)
        return -1;
    return (long)(bytes && (*line)[bytes - 1] == '\r' ? bytes - 1 : bytes);
}

/* Classify each line of the standard input; a tab separates the texts of a pair, and a blank line is
   two empty texts. */
int main(void)
{
    char *line = NULL;
    size_t room = 0;
    long bytes;
    for (long number = 1; (bytes = kd_read_line(&line, &room)) >= 0; number++) {
        float logits[KD_OUTPUTS];
        const char *text = bytes ? line : "", *second = NULL;
        size_t first_bytes = (size_t)bytes, second_bytes = 0;
        if (KD_PAIR) {
            const char *tab = (const char *)memchr(text, '\t', first_bytes);
            second = tab ? tab + 1 : text + first_bytes;
            second_bytes = first_bytes - (size_t)(second - text);
            if (tab) {
                first_bytes = (size_t)(tab - text);
            } else if (!kd_is_blank(text, first_bytes)) {
                fprintf(stderr, "error: line %ld has no tab between its two texts\n", number);
                free(line);
                return 1;
            }
        }
        if (kdedge_predict_bytes(text, first_bytes, second, second_bytes, logits) != 0) {
            fprintf(stderr, "error: out of memory at line %ld\n", number);
            free(line);
            return 1;
        }
        kd_print_answer(stdout, logits);
    }
    free(line);
    return 0;
}

#endif
