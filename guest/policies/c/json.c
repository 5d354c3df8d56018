#include "json.h"

#include <string.h>

/* Deeper than any config: a document must not be able to use up the stack. */
#define MAX_DEPTH 32

json_reader json_open(slice document) {
    return (json_reader){.at = document.ptr, .end = document.ptr + document.len};
}

static void skip_space(json_reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
}

static bool take(json_reader *r, uint8_t byte) {
    if (r->at == r->end || *r->at != byte) return false;
    r->at++;
    return true;
}

static bool take_word(json_reader *r, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length) != 0) return false;
    r->at += length;
    return true;
}

static bool take_digits(json_reader *r) {
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
    return r->at > start;
}

static bool read_number(json_reader *r, json_kind *kind) {
    *kind = JSON_INTEGER;
    take(r, '-');
    if (!take(r, '0') && !take_digits(r)) return false;
    if (take(r, '.')) {
        *kind = JSON_FLOAT;
        if (!take_digits(r)) return false;
    }
    if (take(r, 'e') || take(r, 'E')) {
        *kind = JSON_FLOAT;
        if (!take(r, '+')) take(r, '-');
        if (!take_digits(r)) return false;
    }
    return true;
}

/* The four digits of `\uXXXX`. */
static bool read_hex(json_reader *r, uint32_t *unit) {
    *unit = 0;
    for (int digits = 0; digits < 4; digits++) {
        if (r->at == r->end) return false;
        uint8_t c = *r->at++;
        uint32_t digit = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (uint32_t)((c | 0x20) - 'a' + 10);
        if (digit > 15 || (c < '0') || (c > '9' && (c | 0x20) < 'a')) return false;
        *unit = *unit << 4 | digit;
    }
    return true;
}

static void add_utf8(text *to, uint32_t c) {
    if (c < 0x80) {
        text_add_byte(to, (uint8_t)c);
        return;
    }
    if (c < 0x800) {
        text_add_byte(to, (uint8_t)(0xC0 | c >> 6));
    } else {
        if (c < 0x10000) {
            text_add_byte(to, (uint8_t)(0xE0 | c >> 12));
        } else {
            text_add_byte(to, (uint8_t)(0xF0 | c >> 18));
            text_add_byte(to, (uint8_t)(0x80 | (c >> 12 & 0x3F)));
        }
        text_add_byte(to, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
    }
    text_add_byte(to, (uint8_t)(0x80 | (c & 0x3F)));
}

/* What follows a backslash. */
static bool read_escape(json_reader *r, text *to) {
    static const char names[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end) return false;
    uint8_t name = *r->at++;
    const char *known = name == 0 ? NULL : strchr(names, name);
    if (known != NULL) {
        text_add_byte(to, (uint8_t)bytes[known - names]);
        return true;
    }
    uint32_t c, low;
    if (name != 'u' || !read_hex(r, &c) || (c >= 0xDC00 && c <= 0xDFFF)) return false;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (!take_word(r, "\\u") || !read_hex(r, &low) || low < 0xDC00 || low > 0xDFFF) return false;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    add_utf8(to, c);
    return true;
}

static bool read_string(json_reader *r, slice *string) {
    if (!take(r, '"')) return false;
    const uint8_t *start = r->at;
    text decoded = {0};
    bool escaped = false;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at < 0x20) return false;
        if (*r->at == '\\') {
            if (!escaped) text_add_slice(&decoded, (slice){(uint8_t *)start, (size_t)(r->at - start)});
            escaped = true;
            r->at++;
            if (!read_escape(r, &decoded)) return false;
        } else {
            if (escaped) text_add_byte(&decoded, *r->at);
            r->at++;
        }
    }
    *string = escaped ? text_slice(&decoded) : (slice){(uint8_t *)start, (size_t)(r->at - start)};
    return take(r, '"');
}

static bool read_value(json_reader *r, json_value *value, int depth);

static bool skip_container(json_reader *r, bool object, int depth) {
    json_value ignored;
    slice key;
    uint8_t close = object ? '}' : ']';
    r->at++;
    skip_space(r);
    if (take(r, close)) return true;
    do {
        skip_space(r);
        if (object) {
            if (!read_string(r, &key)) return false;
            skip_space(r);
            if (!take(r, ':')) return false;
        }
        if (!read_value(r, &ignored, depth + 1)) return false;
    } while (take(r, ','));
    return take(r, close);
}

/* Reads a value, and the space on both sides of it. */
static bool read_value(json_reader *r, json_value *value, int depth) {
    skip_space(r);
    if (r->at == r->end || depth > MAX_DEPTH) return false;
    const uint8_t *start = r->at;
    bool good;
    value->string = (slice){0};
    switch (*start) {
    case 'n': value->kind = JSON_NULL, good = take_word(r, "null"); break;
    case 't': value->kind = JSON_BOOLEAN, good = take_word(r, "true"); break;
    case 'f': value->kind = JSON_BOOLEAN, good = take_word(r, "false"); break;
    case '"': value->kind = JSON_STRING, good = read_string(r, &value->string); break;
    case '[': value->kind = JSON_ARRAY, good = skip_container(r, false, depth); break;
    case '{': value->kind = JSON_OBJECT, good = skip_container(r, true, depth); break;
    default: good = read_number(r, &value->kind);
    }
    value->literal = (slice){(uint8_t *)start, (size_t)(r->at - start)};
    skip_space(r);
    return good;
}

static bool read_member(json_reader *r, slice *key, json_value *value) {
    skip_space(r);
    if (!read_string(r, key)) return false;
    skip_space(r);
    return take(r, ':') && read_value(r, value, 0);
}

bool json_next(json_reader *r, slice *key, json_value *value) {
    if (r->broken) return false;
    bool first = !r->begun;
    r->begun = true;
    if (first) {
        skip_space(r);
        r->broken = !take(r, '{');
        skip_space(r);
    }
    if (!r->broken && take(r, '}')) {
        skip_space(r);
        r->broken = r->at != r->end;
        return false;
    }
    r->broken = r->broken || !(first || take(r, ',')) || !read_member(r, key, value);
    return !r->broken;
}

bool json_integer(const json_value *value, int64_t *number) {
    if (value->kind != JSON_INTEGER) return false;
    bool negative = value->literal.ptr[0] == '-';
    int64_t sum = 0;
    for (size_t at = negative; at < value->literal.len; at++) {
        int64_t digit = value->literal.ptr[at] - '0';
        /* Counted downwards, where there is one number more. */
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_sub_overflow(sum, digit, &sum)) return false;
    }
    *number = sum;
    return negative || !__builtin_sub_overflow((int64_t)0, sum, number);
}
