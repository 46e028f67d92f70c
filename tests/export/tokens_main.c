/* Test driver: tokenizes records from stdin and prints the ids of each on a line.

   A record is two little-endian 32-bit lengths (the second one is 0xffffffff without a pair) and
   the bytes of both texts. Compile it with -include of the code under test. */

#include <stdio.h>

static int read_length(uint32_t *value)
{
    unsigned char bytes[4];
    if (fread(bytes, 1, 4, stdin) != 4)
        return 0;
    *value = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return 1;
}

int main(void)
{
    static int32_t ids[KD_MAX_LENGTH], types[KD_MAX_LENGTH];
    uint32_t lengths[2];
    while (read_length(&lengths[0]) && read_length(&lengths[1])) {
        int is_pair = lengths[1] != 0xFFFFFFFFu;
        size_t pair_bytes = is_pair ? lengths[1] : 0;
        /* Exact sizes, so that the address sanitizer sees every read behind the text. */
        char *text = (char *)malloc(lengths[0] + !lengths[0]);
        char *pair = (char *)malloc(pair_bytes + !pair_bytes);
        if (fread(text, 1, lengths[0], stdin) != lengths[0])
            return 1;
        if (fread(pair, 1, pair_bytes, stdin) != pair_bytes)
            return 1;
        int count = kd_tokenize(text, lengths[0], is_pair ? pair : NULL, pair_bytes, ids, types);
        for (int i = 0; i < count; i++)
            printf("%d:%d ", (int)ids[i], (int)types[i]);
        printf("\n");
        free(text);
        free(pair);
    }
    return 0;
}
