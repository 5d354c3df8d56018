/* Texts: slices of bytes, as the bindings have them, and texts that grow.
 *
 * Where memory runs out, the policy traps: the host names the limit, and nothing is changed.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image_policy.h"

typedef image_policy_string_t slice;

/* A text that grows. All zero is the empty one. */
typedef struct {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
} text;

/* Returns memory for `count` things of `size` bytes, all zero. Never null. */
void *allocate(size_t count, size_t size);

/* Returns memory for `count` things, of which the first are those of `memory`, which is gone. Never null. */
void *reallocate(void *memory, size_t count, size_t size);

void text_add(text *to, const char *literal);
void text_add_slice(text *to, slice part);
void text_add_byte(text *to, uint8_t byte);
void text_add_number(text *to, uint64_t number);

/* What a text holds, for as long as nothing is added to it. */
slice text_slice(const text *of);

slice slice_of(const char *literal);
bool slice_is(slice a, const char *literal);
/* Byte by byte, as UTF-8 is ordered by code points. Negative, zero or positive. */
int slice_compare(slice a, slice b);

#endif
