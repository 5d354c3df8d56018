/* Lengths of time and how they are written. */
#ifndef AGE_H
#define AGE_H

#include "text.h"

typedef larder_image_types_datetime_t instant;

/* A length of time, never negative. */
typedef struct {
    uint64_t seconds;
    uint32_t nanoseconds;
} age;

typedef enum { AGE_READ, AGE_MALFORMED, AGE_TOO_LONG } age_result;

/* Reads `30d`, `12h`, `90m` or `1w2d`: each unit at most once, the longer ones first. */
age_result age_parse(slice written, age *result);

/* Adds the two largest units that are not zero, such as `12d4h`; less than a second is `0s`. */
void age_write(text *to, age length);

/* How long ago an instant was; false where it lies in the future. */
bool age_of(instant at, instant now, age *result);

/* Negative, zero or positive. */
int instant_compare(instant a, instant b);

#endif
