/* BERT's WordPiece: UTF-8 text to token ids, the same ids as the Python package `tokenizers`.

   It needs the tables of unicode_tables.h and vocabulary.h before it. C11 and C++17. Nothing is
   static except constants, so any number of threads may call it at once. */

#ifndef KD_WORDPIECE_H
#define KD_WORDPIECE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    KD_OUT_OF_MEMORY = -1,
    KD_MOST_EXPANSION = 4, /* Characters that one character can become, spaces included. */
    KD_WORD_BYTES = 4 * KD_MAX_WORD_CHARACTERS
};

/* A text on its way to ids. */
typedef struct {
    uint32_t *codes;      /* The characters of the text. */
    uint32_t *normalized; /* The characters of one segment after normalization. */
    int32_t *ids;
    size_t count; /* Number of ids. */
    unsigned char word[KD_WORD_BYTES];
    size_t word_bytes;
    size_t word_characters;
} kd_text;

/* Decode at most `limit` characters. As Python's errors="replace": the longest prefix of a
   character that ends too early, or a byte that begins none, becomes one U+FFFD. */
static size_t kd_decode(const char *utf8, size_t bytes, size_t limit, uint32_t *codes)
{
    const unsigned char *text = (const unsigned char *)utf8;
    size_t count = 0, i = 0;
    while (i < bytes && count < limit) {
        unsigned char lead = text[i++];
        unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        int more = 0;
        if (lead >= 0xC2 && lead <= 0xDF)
            more = 1;
        else if (lead >= 0xE0 && lead <= 0xEF)
            more = 2;
        else if (lead >= 0xF0 && lead <= 0xF4)
            more = 3;
        int valid = lead < 0x80 || more > 0;
        uint32_t code = more > 0 ? lead & (0x3Fu >> more) : lead;
        for (; valid && more > 0; more--) {
            valid = i < bytes && text[i] >= low && text[i] <= high;
            if (valid)
                code = code << 6 | (text[i++] & 0x3Fu);
            low = 0x80;
            high = 0xBF;
        }
        codes[count++] = valid ? code : 0xFFFD;
    }
    return count;
}

/* Return the flags of a character, and its combining class above them. */
static uint32_t kd_properties(uint32_t code)
{
    if (code < 128)
        return kd_ascii[code];
    size_t low = 0, high = KD_PROPERTIES;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (kd_property_first[middle] <= code)
            low = middle;
        else
            high = middle;
    }
    return kd_property_value[low];
}

static uint32_t kd_class(uint32_t code) { return kd_properties(code) >> KD_CLASS_SHIFT; }

/* Return the row of a code point in an ascending table, or `count`. */
static size_t kd_row(const uint32_t *from, size_t count, uint32_t code)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (from[middle] < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && from[low] == code ? low : count;
}

/* Return whether a text has nothing but separators. */
static inline int kd_is_blank(const char *utf8, size_t bytes)
{
    uint32_t code = 0;
    for (size_t i = 0; i < bytes; i += code < 0x80 ? 1 : code < 0x800 ? 2 : 3) {
        kd_decode(utf8 + i, bytes - i, 1, &code);
        if (!(kd_properties(code) & KD_SEPARATOR)) /* No separator has four bytes. */
            return 0;
    }
    return 1;
}

/* Append the canonical decomposition of a character. */
static size_t kd_decompose(uint32_t code, uint32_t *out)
{
    if (code < 0xC0) {
        out[0] = code;
        return 1;
    }
    if (code >= 0xAC00 && code < 0xD7A4) { /* Hangul: three letters, or two. */
        uint32_t syllable = code - 0xAC00, last = syllable % 28;
        out[0] = 0x1100 + syllable / 588;
        out[1] = 0x1161 + syllable % 588 / 28;
        out[2] = 0x11A7 + last;
        return last ? 3 : 2;
    }
    size_t row = kd_row(kd_decomposition_from, KD_DECOMPOSITIONS, code);
    if (row == KD_DECOMPOSITIONS) {
        out[0] = code;
        return 1;
    }
    size_t start = kd_decomposition_start[row], end = kd_decomposition_start[row + 1];
    memcpy(out, kd_decomposition_to + start, (end - start) * sizeof *out);
    return end - start;
}

/* Put marks into canonical order and remove those that strip_accents removes. */
static size_t kd_strip_accents(uint32_t *codes, size_t count)
{
    size_t kept = 0;
    /* Marks with a class do not hold others in place: without them there is little to sort. */
    for (size_t i = 0; i < count; i++) {
        uint32_t properties = kd_properties(codes[i]);
        if (!(properties & KD_MARK) || properties >> KD_CLASS_SHIFT == 0)
            codes[kept++] = codes[i];
    }
    for (size_t i = 1; i < kept; i++) {
        uint32_t code = codes[i], number = kd_class(code);
        size_t place = i;
        for (; number && place > 0 && kd_class(codes[place - 1]) > number; place--)
            codes[place] = codes[place - 1];
        codes[place] = code;
    }
    count = kept;
    kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!(kd_properties(codes[i]) & KD_MARK))
            codes[kept++] = codes[i];
    return kept;
}

/* Do what BertNormalizer does, except lower case. */
static size_t kd_normalize(const uint32_t *codes, size_t count, uint32_t *out)
{
    size_t n = 0;
    int marks = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t code = codes[i], properties = kd_properties(code);
        if (KD_CLEAN_TEXT && properties & KD_REMOVED)
            continue;
        if (KD_CLEAN_TEXT && properties & KD_BLANK)
            code = ' ';
        int spaced = KD_CHINESE && properties & KD_IDEOGRAPH;
        if (spaced)
            out[n++] = ' ';
        if (KD_STRIP_ACCENTS)
            n += kd_decompose(code, out + n);
        else
            out[n++] = code;
        if (spaced)
            out[n++] = ' ';
        marks |= code >= 128;
    }
    return KD_STRIP_ACCENTS && marks ? kd_strip_accents(out, n) : n;
}

/* Return the id of a piece, or -1. */
static int32_t kd_find(uint32_t hash, int continues, const unsigned char *bytes, size_t count)
{
    size_t prefix = continues ? KD_PREFIX_BYTES : 0;
    for (uint32_t slot = hash & KD_SLOT_MASK; kd_slots[slot]; slot = (slot + 1) & KD_SLOT_MASK) {
        uint32_t id = kd_slots[slot] - 1, start = kd_piece_start[id];
        const char *piece = kd_pieces + start;
        if (kd_piece_start[id + 1] - start == prefix + count &&
            memcmp(piece, kd_prefix, prefix) == 0 && memcmp(piece + prefix, bytes, count) == 0)
            return (int32_t)id;
    }
    return -1;
}

/* Append the ids of the longest pieces that make up the word (Schuster and Nakajima 2012). */
static void kd_split_word(kd_text *text)
{
    uint32_t hashes[KD_WORD_BYTES];
    const unsigned char *word = text->word;
    size_t bytes = text->word_bytes, first = text->count, start = 0;
    if (text->word_characters == 0)
        return;
    int known = text->word_characters <= KD_MAX_WORD_CHARACTERS;
    while (known && start < bytes) {
        uint32_t hash = start ? KD_PREFIX_HASH : KD_EMPTY_HASH;
        for (size_t i = start; i < bytes; i++) {
            hash = (hash ^ word[i]) * KD_HASH_FACTOR;
            hashes[i] = hash;
        }
        int32_t id = -1;
        size_t end = bytes;
        for (; end > start; end--) {
            if (end < bytes && (word[end] & 0xC0) == 0x80)
                continue; /* inside a character */
            id = kd_find(hashes[end - 1], start > 0, word + start, end - start);
            if (id >= 0)
                break;
        }
        known = id >= 0;
        text->ids[text->count++] = id;
        start = end;
    }
    if (!known) {
        text->count = first;
        text->ids[text->count++] = KD_UNKNOWN;
    }
    text->word_bytes = text->word_characters = 0;
}

static void kd_add_to_word(kd_text *text, uint32_t code)
{
    unsigned char *out = text->word + text->word_bytes;
    if (text->word_characters++ >= KD_MAX_WORD_CHARACTERS)
        return; /* The word is unknown already. */
    if (code < 0x80) {
        out[0] = (unsigned char)code;
        text->word_bytes += 1;
        return;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    unsigned lead = more == 1 ? 0xC0u : more == 2 ? 0xE0u : 0xF0u;
    out[0] = (unsigned char)(lead | code >> 6 * more);
    for (int i = 1; i <= more; i++)
        out[i] = (unsigned char)(0x80 | (code >> 6 * (more - i) & 0x3F));
    text->word_bytes += (size_t)more + 1;
}

/* Separators end words; punctuation marks are words of their own. */
static void kd_add_character(kd_text *text, uint32_t code)
{
    uint32_t properties = kd_properties(code);
    if (properties & KD_SEPARATOR) {
        kd_split_word(text);
    } else if (properties & KD_PUNCTUATION) {
        kd_split_word(text);
        kd_add_to_word(text, code);
        kd_split_word(text);
    } else {
        kd_add_to_word(text, code);
    }
}

static void kd_add_lowercase(kd_text *text, uint32_t code)
{
    if (code < 128) {
        kd_add_character(text, code >= 'A' && code <= 'Z' ? code + 32 : code);
        return;
    }
    size_t row = kd_row(kd_lowercase_from, KD_LOWERCASES, code);
    if (row == KD_LOWERCASES) {
        kd_add_character(text, code);
        return;
    }
    for (size_t i = kd_lowercase_start[row]; i < kd_lowercase_start[row + 1]; i++)
        kd_add_character(text, kd_lowercase_to[i]);
}

/* Append the ids of a part of the text without special tokens. */
static void kd_add_segment(kd_text *text, size_t start, size_t end)
{
    size_t count = kd_normalize(text->codes + start, end - start, text->normalized);
    for (size_t i = 0; i < count; i++) {
        if (KD_LOWERCASE)
            kd_add_lowercase(text, text->normalized[i]);
        else
            kd_add_character(text, text->normalized[i]);
    }
    kd_split_word(text);
}

/* Return the special token that begins here, the longest if there are several, or -1. */
static int kd_special_at(const uint32_t *codes, size_t count)
{
    for (int i = 0; i < KD_SPECIALS; i++) {
        size_t start = kd_special_start[i], length = kd_special_start[i + 1] - start;
        if (length <= count && memcmp(codes, kd_special_codes + start, length * 4) == 0)
            return i;
    }
    return -1;
}

static void kd_add_text(kd_text *text, size_t count)
{
    size_t start = 0;
    for (size_t i = 0; i < count;) {
        int special = kd_special_at(text->codes + i, count - i);
        if (special < 0) {
            i++;
            continue;
        }
        kd_add_segment(text, start, i);
        text->ids[text->count++] = kd_special_id[special];
        i += kd_special_start[special + 1] - kd_special_start[special];
        start = i;
    }
    kd_add_segment(text, start, count);
}

/* Find all ids of one text. Call kd_release afterwards. Returns 0 or KD_OUT_OF_MEMORY. */
static int kd_encode(kd_text *text, const char *utf8, size_t bytes)
{
    size_t most = bytes < KD_MAX_CHARACTERS ? bytes : KD_MAX_CHARACTERS;
    size_t room = (1 + 2 * KD_MOST_EXPANSION) * most + 2;
    memset(text, 0, offsetof(kd_text, word));
    text->word_bytes = text->word_characters = 0;
    text->codes = (uint32_t *)malloc(room * sizeof(uint32_t));
    if (!text->codes)
        return KD_OUT_OF_MEMORY;
    text->normalized = text->codes + most;
    text->ids = (int32_t *)(text->normalized + KD_MOST_EXPANSION * most);
    kd_add_text(text, kd_decode(utf8, bytes, KD_MAX_CHARACTERS, text->codes));
    return 0;
}

static void kd_release(kd_text *text) { free(text->codes); }

/* Cut two texts to `most` ids together, the longer one first, as `tokenizers` does. */
static void kd_truncate(size_t *first, size_t *second, size_t most)
{
    if (*first + *second <= most)
        return;
    size_t *shorter = *first > *second ? second : first;
    size_t *longer = *first > *second ? first : second;
    if (*shorter <= most / 2) {
        *longer = most - *shorter;
    } else {
        *shorter = most / 2;
        *longer = most - *shorter;
    }
}

/* Tokenize one text, or two if `pair` is not NULL.

   ids and types have room for KD_MAX_LENGTH values; types are 0 in the first text and 1 in the
   second. Returns the number of tokens, or KD_OUT_OF_MEMORY. */
static int kd_tokenize(const char *text, size_t bytes, const char *pair, size_t pair_bytes,
                       int32_t *ids, int32_t *types)
{
    kd_text first, second;
    size_t second_count = 0, count = 0;
    if (kd_encode(&first, text, bytes) != 0)
        return KD_OUT_OF_MEMORY;
    if (pair && kd_encode(&second, pair, pair_bytes) != 0) {
        kd_release(&first);
        return KD_OUT_OF_MEMORY;
    }
    if (pair)
        second_count = second.count;
    kd_truncate(&first.count, &second_count, KD_MAX_LENGTH - (pair ? 3 : 2));
    ids[count++] = KD_BEGIN;
    memcpy(ids + count, first.ids, first.count * sizeof *ids);
    count += first.count;
    size_t first_end = count + 1;
    if (pair) {
        ids[count++] = KD_BETWEEN;
        memcpy(ids + count, second.ids, second_count * sizeof *ids);
        count += second_count;
        kd_release(&second);
    }
    ids[count++] = KD_END;
    for (size_t i = 0; i < count; i++)
        types[i] = i >= first_end;
    kd_release(&first);
    return (int)count;
}

#endif
