#include "text.h"

#include <stdlib.h>
#include <string.h>

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) abort();
    return memory;
}

void *reallocate(void *memory, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) abort();
    void *grown = realloc(memory, bytes > 0 ? bytes : 1);
    if (grown == NULL) abort();
    return grown;
}

static void text_add_bytes(text *to, const void *bytes, size_t length) {
    if (length == 0) return;
    if (length > to->capacity - to->length) {
        size_t wanted = to->length + length;
        size_t capacity = to->capacity * 2 > wanted ? to->capacity * 2 : wanted + 64;
        uint8_t *grown = realloc(to->bytes, capacity);
        if (wanted < length || capacity < wanted || grown == NULL) abort();
        to->bytes = grown;
        to->capacity = capacity;
    }
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
}

void text_add(text *to, const char *literal) { text_add_bytes(to, literal, strlen(literal)); }

void text_add_slice(text *to, slice part) { text_add_bytes(to, part.ptr, part.len); }

void text_add_byte(text *to, uint8_t byte) { text_add_bytes(to, &byte, 1); }

void text_add_number(text *to, uint64_t number) {
    uint8_t digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    text_add_bytes(to, digits + at, sizeof digits - at);
}

slice text_slice(const text *of) { return (slice){of->bytes, of->length}; }

slice slice_of(const char *literal) { return (slice){(uint8_t *)literal, strlen(literal)}; }

bool slice_is(slice a, const char *literal) { return slice_compare(a, slice_of(literal)) == 0; }

int slice_compare(slice a, slice b) {
    size_t shorter = a.len < b.len ? a.len : b.len;
    int difference = shorter > 0 ? memcmp(a.ptr, b.ptr, shorter) : 0;
    if (difference != 0) return difference;
    return a.len < b.len ? -1 : a.len > b.len;
}
